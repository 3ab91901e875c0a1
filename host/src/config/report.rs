//! What was found in pipeline files, as text for people and as JSON for programs.

use std::io::IsTerminal as _;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use super::diagnostic::{Diagnostic, Severity, Span};
use super::text::FileText;

/// Limit: nobody reads further, and a file of another kind may have one on each line.
const MAX_SHOWN: usize = 100;

/// Whether text carries colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Coloured,
}

impl Colour {
    /// Coloured on a terminal, unless `NO_COLOR` is set.
    pub fn for_stderr() -> Colour {
        let wanted = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        if wanted { Colour::Coloured } else { Colour::Plain }
    }
}

/// All that was found in one file, in the order of the file.
#[derive(Debug, Clone)]
pub struct FileReport {
    pub file: FileText,
    pub diagnostics: Vec<Diagnostic>,
}

impl FileReport {
    pub fn new(file: FileText, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|d| d.span.as_ref().map_or(0, |span| span.start));
        FileReport { file, diagnostics }
    }

    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.is_error()).count()
    }

    /// Nothing that the operator must mend before a start.
    pub fn is_valid(&self) -> bool {
        self.errors() == 0
    }

    /// Everything of at least this severity, with its line of the file.
    pub fn text(&self, least: Severity, colour: Colour) -> String {
        let renderer = match colour {
            Colour::Plain => Renderer::plain(),
            Colour::Coloured => Renderer::styled(),
        };
        let wanted: Vec<&Diagnostic> = self.diagnostics.iter().filter(|d| d.severity <= least).collect();
        let shown = wanted.iter().take(MAX_SHOWN);
        let mut blocks: Vec<String> = shown.map(|d| renderer.render(&[self.group(d)]) + "\n").collect();
        if wanted.len() > MAX_SHOWN {
            blocks.push(format!("… and {} more in {}\n", wanted.len() - MAX_SHOWN, self.file.path.display()));
        }
        blocks.join("\n")
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let path = self.file.path.to_string_lossy();
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let mut group = Group::with_title(level.primary_title(printable(&diagnostic.message)));
        match &diagnostic.span {
            None => group = group.element(Origin::path(path)),
            Some(span) => group = group.element(self.snippet(diagnostic, span).path(path)),
        }
        match &diagnostic.hint {
            Some(hint) => group.element(Level::HELP.with_name("hint").message(printable(hint))),
            None => group,
        }
    }

    fn snippet<'a>(
        &'a self,
        diagnostic: &'a Diagnostic,
        span: &Span,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let related = diagnostic.related.iter().map(|related| {
            AnnotationKind::Context.span(self.file.clamp(&related.span)).label(printable(&related.label))
        });
        let primary = AnnotationKind::Primary.span(self.marked(span));
        Snippet::source(self.file.text.as_str()).annotation(primary).annotations(related)
    }

    /// The part of a span that is worth a mark: a table of twenty lines is marked by its first.
    fn marked(&self, span: &Span) -> Span {
        let span = self.file.clamp(span);
        let first_line = self.file.text[span.clone()].lines().next().unwrap_or("").trim_end().len();
        span.start..span.start + first_line
    }

    /// This file's part of `validate --json`.
    pub fn json(&self) -> Json {
        let problems: Vec<Json> = self.diagnostics.iter().map(|d| self.diagnostic_json(d)).collect();
        json!({
            "file": self.file.path.to_string_lossy(),
            "valid": self.is_valid(),
            "problems": problems,
        })
    }

    fn diagnostic_json(&self, diagnostic: &Diagnostic) -> Json {
        let mut object = json!({
            "severity": diagnostic.severity.word(),
            "code": diagnostic.code,
            "message": diagnostic.message,
        });
        if let Some(span) = &diagnostic.span {
            self.place_json(&mut object, span);
        }
        if let Some(hint) = &diagnostic.hint {
            object["hint"] = json!(hint);
        }
        if !diagnostic.related.is_empty() {
            object["related"] = diagnostic
                .related
                .iter()
                .map(|related| {
                    let mut place = json!({ "message": related.label });
                    self.place_json(&mut place, &related.span);
                    place
                })
                .collect();
        }
        object
    }

    fn place_json(&self, object: &mut Json, span: &Span) {
        let start = self.file.line_column(span.start);
        let end = self.file.line_column(span.end);
        object["line"] = json!(start.line);
        object["column"] = json!(start.column);
        object["end_line"] = json!(end.line);
        object["end_column"] = json!(end.column);
    }
}

/// Text from a file or a plugin without control characters, so that it cannot play with the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() && c != '\n' { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, diagnostic: Diagnostic) -> FileReport {
        FileReport::new(FileText::new("p.toml", text), vec![diagnostic])
    }

    #[test]
    fn a_problem_shows_its_line_with_a_mark_and_a_remedy() {
        let diagnostic = Diagnostic::error("unknown-key", 0..4, "unknown key `nmae`").hint("did you mean `name`?");
        let text = report("nmae = 1\r\nx = 2\r\n", diagnostic).text(Severity::Note, Colour::Plain);
        let expected = "error: unknown key `nmae`\n --> p.toml:1:1\n  |\n1 | nmae = 1\n  | ^^^^\n  |\n  = hint: did you mean `name`?\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_counts_lines_and_columns_from_one() {
        let json = report("a\nb = 1", Diagnostic::note("n", 2..3, "m")).json();
        assert_eq!(json["problems"][0]["line"], 2);
        assert_eq!(json["problems"][0]["column"], 1);
        assert_eq!(json["valid"], true);
    }

    #[test]
    fn a_span_outside_the_text_is_shown_at_its_end() {
        let text = report("a", Diagnostic::error("x", 7..90, "m")).text(Severity::Note, Colour::Plain);
        assert!(text.contains("p.toml:1:2"), "{text}");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\\u{1b}[2J\nb");
    }
}
