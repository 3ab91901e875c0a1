//! What the TOML parser says: all syntax errors of a file, and for a key that is there twice both places.

use toml::de::Error;

use super::diagnostic::{Diagnostic, Span};

/// Every syntax error with its place. Nesting that is too deep is said once, not for each bracket.
pub fn diagnostics(text: &str, errors: &[Error]) -> Vec<Diagnostic> {
    let is_nesting = |error: &&Error| error.message().contains("recurs");
    match errors.iter().find(is_nesting) {
        Some(error) => vec![too_deep(error.span())],
        None => errors.iter().map(|error| diagnostic(text, error)).collect(),
    }
}

/// Limit: the parser takes 80 levels of brackets; a pipeline needs five, and its plugins hardly more.
pub fn too_deep(span: Option<Span>) -> Diagnostic {
    let problem = Diagnostic::error("too-deep", span.unwrap_or(0..0), "tables and lists are nested too deep here");
    problem.hint("80 levels are taken")
}

fn diagnostic(text: &str, error: &Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    match text.get(span.clone()) {
        Some(key) if error.message() == "duplicate key" => {
            let problem = Diagnostic::error("name-used-twice", span.clone(), format!("`{key}` is there twice"));
            match first_place(text, &span) {
                Some(first) => problem.related(first, "here first"),
                None => problem,
            }
        }
        _ => Diagnostic::error("syntax", span, error.message()),
    }
}

/// Where a key that is there twice stands first. The parser does not say, so the text is searched: an inline table's own line,
/// or the lines above up to the table's header, or, for a header, all headers above.
fn first_place(text: &str, again: &Span) -> Option<Span> {
    let key = &text[again.clone()];
    let line_start = text[..again.start].rfind('\n').map_or(0, |newline| newline + 1);
    let before = &text[line_start..again.start];
    if before.trim_start().starts_with('[') {
        let header = |line: &str| line.trim_start().split(']').next().map(str::to_owned);
        let wanted = header(&text[line_start..]);
        let (start, line) = lines_above(text, line_start).find(|(_, line)| header(line) == wanted)?;
        let at = start + line.rfind(key)?;
        return Some(at..at + key.len());
    }
    if let Some(at) = before.rmatch_indices(key).map(|(at, _)| at).find(|at| is_inline_key(before, *at, key)) {
        return Some(line_start + at..line_start + at + key.len());
    }
    let in_table = lines_above(text, line_start).take_while(|(_, line)| !line.trim_start().starts_with('['));
    let (start, line) =
        in_table.into_iter().find(|(_, line)| line.split('=').next().is_some_and(|k| k.trim() == key))?;
    let at = start + line.find(key)?;
    Some(at..at + key.len())
}

fn is_inline_key(line: &str, at: usize, key: &str) -> bool {
    line[..at].trim_end().ends_with(['{', ',']) && line[at + key.len()..].trim_start().starts_with('=')
}

/// The lines above an offset, the nearest first, each with where it starts.
fn lines_above(text: &str, offset: usize) -> impl Iterator<Item = (usize, &str)> {
    let above = text[..offset].split_inclusive('\n');
    let starts = above.scan(0, |next, line| {
        let start = *next;
        *next += line.len();
        Some((start, line))
    });
    starts.collect::<Vec<_>>().into_iter().rev()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(usize, Option<usize>)> {
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);
        let first = |d: &Diagnostic| d.related.first().map(|related| related.span.start);
        diagnostics(text, &errors).iter().map(|d| (d.span.clone().unwrap().start, first(d))).collect()
    }

    #[test]
    fn a_key_that_is_there_twice_is_shown_at_both_places() {
        assert_eq!(places("a = 1\nb = 2\na = 3\n"), [(12, Some(0))]);
        assert_eq!(places("[x]\na=1\n[y]\n[x]\n"), [(13, Some(1))]);
        assert_eq!(places("x = { a = 1, a=2 }\n"), [(13, Some(6))]);
        assert_eq!(places("[x]\na = 1\n[y]\na = 1\na = 2"), [(20, Some(14))]);
    }

    #[test]
    fn all_errors_are_reported() {
        assert_eq!(places("a = \nb = nul\nc = 'x\n").len(), 3);
    }

    #[test]
    fn nesting_is_reported_once() {
        for text in [format!("a = {}", "[".repeat(10_000)), format!("{}a = 1", "a.".repeat(10_000))] {
            assert_eq!(places(&text).len(), 1);
        }
    }
}
