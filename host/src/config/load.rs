//! Loads pipeline files: text, tree, tables, checks, plugins; and what files say about each other.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, Surroundings};
use super::diagnostic::{Diagnostic, Span};
use super::file::PipelineFile;
use super::pipeline::Pipeline;
use super::plugins::{self, LoadedPlugins};
use super::read::{Environment, MAX_DEPTH, Node, Reader, Value, entry};
use super::report::FileReport;
use super::stage::stage_tables;
use super::syntax;
use super::text::FileText;
use crate::plugin::{Engine, PluginOrigin};

/// One file: everything there is to say about it, and its pipeline if none of that is an error.
pub struct LoadedFile {
    pub report: FileReport,
    pub pipeline: Option<Pipeline>,
    /// Kept by the caller until the pipeline has been started.
    pub plugins: LoadedPlugins,
    /// Files that this one names: plugins and secrets. Of a plugin with the digest of what was read.
    pub named_files: Vec<(PathBuf, Option<String>)>,
    /// Where the file says, or by its name implies, where the state is kept.
    state_span: Span,
}

impl LoadedFile {
    fn rejected(file: FileText, diagnostics: Vec<Diagnostic>) -> LoadedFile {
        LoadedFile {
            report: FileReport::new(file, diagnostics),
            pipeline: None,
            plugins: Vec::new(),
            named_files: Vec::new(),
            state_span: 0..0,
        }
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.report.diagnostics.push(diagnostic);
        self.pipeline = None;
    }
}

/// Loads files that shall run in one agent. Every problem of every file is reported; nothing is started or written.
pub async fn load(paths: &[PathBuf], environment: &Environment, engine: &Engine) -> Vec<LoadedFile> {
    let mut loaded = Vec::with_capacity(paths.len());
    for path in paths {
        loaded.push(load_one(path, environment, engine).await);
    }
    check_together(&mut loaded);
    loaded
}

async fn load_one(path: &Path, environment: &Environment, engine: &Engine) -> LoadedFile {
    let (text, problem) = FileText::read(path);
    if let Some(problem) = problem {
        return LoadedFile::rejected(text, vec![problem]);
    }
    let base_dir = match std::path::absolute(path) {
        Ok(absolute) => absolute.parent().map_or(PathBuf::from("/"), Path::to_owned),
        Err(error) => {
            let problem = Diagnostic::file_error("unreadable", format!("cannot find the file's folder: {error}"));
            return LoadedFile::rejected(text, vec![problem]);
        }
    };
    let around = Surroundings { base_dir: &base_dir, environment };
    let Read { file, mut diagnostics, secret_files } = read_all(&text.text, around);
    let Some(file) = file else { return LoadedFile::rejected(text, diagnostics) };
    let pipeline = check::check(&file, around, &mut diagnostics);
    let plugins = match diagnostics.iter().any(|d| d.code == check::NEWER_FORMAT) {
        true => Vec::new(),
        false => plugins::check(&file, &text.text, around, engine, &mut diagnostics).await,
    };
    let is_valid = !diagnostics.iter().any(Diagnostic::is_error);
    let mut named_files: Vec<_> = secret_files.into_iter().map(|path| (path, None)).collect();
    named_files.extend(plugin_files(&file, around, &plugins));
    LoadedFile {
        plugins,
        named_files,
        state_span: state_span(&file),
        report: FileReport::new(text, diagnostics),
        pipeline: pipeline.filter(|_| is_valid),
    }
}

/// Loads one file without asking its plugins: enough to find its state, its channels and its sources.
///
/// # Errors
/// What is wrong with the file.
pub fn locate(path: &Path, environment: &Environment) -> Result<Pipeline, FileReport> {
    match FileText::read(path) {
        (text, None) => parse(text, environment),
        (text, Some(problem)) => Err(FileReport::new(text, vec![problem])),
    }
}

/// As [`locate`], of a text that is at hand; `path` is where it stands.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_text(path: &Path, text: &str, environment: &Environment) -> Result<Pipeline, FileReport> {
    parse(FileText::new(path, text), environment)
}

fn parse(text: FileText, environment: &Environment) -> Result<Pipeline, FileReport> {
    let absolute = std::path::absolute(&text.path).unwrap_or_else(|_| text.path.clone());
    let base_dir = absolute.parent().map_or(PathBuf::from("/"), Path::to_owned);
    let around = Surroundings { base_dir: &base_dir, environment };
    let (file, mut diagnostics) = read(&text.text, around);
    let pipeline = file.and_then(|file| check::check(&file, around, &mut diagnostics));
    match pipeline.filter(|_| !diagnostics.iter().any(Diagnostic::is_error)) {
        Some(pipeline) => Ok(pipeline),
        None => Err(FileReport::new(text, diagnostics)),
    }
}

/// Reads a text as far as it can be read without looking at its meaning. Never panics, whatever the text.
pub fn read(text: &str, around: Surroundings<'_>) -> (Option<PipelineFile>, Vec<Diagnostic>) {
    let Read { file, diagnostics, .. } = read_all(text, around);
    (file, diagnostics)
}

struct Read {
    file: Option<PipelineFile>,
    diagnostics: Vec<Diagnostic>,
    secret_files: Vec<PathBuf>,
}

fn read_all(text: &str, around: Surroundings<'_>) -> Read {
    let (tree, errors) = DeTable::parse_recoverable(text);
    // The table of the whole file has no place of its own; what is missing in it is shown at the file's beginning.
    let root = Spanned::new(0..0, DeValue::Table(tree.into_inner()));
    if !errors.is_empty() || is_too_deep(&root) {
        let mut diagnostics = syntax::diagnostics(text, &errors);
        if diagnostics.is_empty() {
            diagnostics.push(syntax::too_deep(None));
        }
        dismantle(root);
        return Read { file: None, diagnostics, secret_files: Vec::new() };
    }
    let mut reader = Reader::new(text, around.base_dir, around.environment);
    let file = PipelineFile::read(&root, &mut reader);
    Read { file, diagnostics: reader.diagnostics, secret_files: reader.secret_files }
}

/// The plugins of the file that are files, with the digests of those that could be loaded.
fn plugin_files(
    file: &PipelineFile,
    around: Surroundings<'_>,
    loaded: &LoadedPlugins,
) -> Vec<(PathBuf, Option<String>)> {
    let origins = stage_tables(file).into_iter().filter_map(|stage| stage.origin(around));
    let digest = |origin: &PluginOrigin| {
        loaded.iter().find(|plugin| plugin.origin() == origin).map(|plugin| plugin.digest().to_owned())
    };
    let file = |origin: PluginOrigin| Some((origin.path()?.to_owned(), digest(&origin)));
    origins.filter_map(file).collect()
}

/// Where a key stands: the place of the last of `keys` that is there, each in the table of the one before, and how many are.
/// Nothing: not even the first, or the text is not TOML.
pub fn place(text: &str, keys: &[&str]) -> Option<(Span, usize)> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let root = Spanned::new(0..0, DeValue::Table(tree.into_inner()));
    if !errors.is_empty() || is_too_deep(&root) {
        dismantle(root);
        return None;
    }
    let (mut found, mut node) = (None, &root);
    for (depth, key) in keys.iter().enumerate() {
        let DeValue::Table(table) = node.get_ref() else { break };
        let Some((span, value)) = entry(table, key) else { break };
        found = Some((span, depth + 1));
        node = value;
    }
    found
}

/// What a text says, for tests that need a whole pipeline; its plugins are not asked.
#[cfg(test)]
pub fn pipeline_of(text: &str, base_dir: &Path) -> Option<Pipeline> {
    let environment = |_: &str| None;
    let around = Surroundings { base_dir, environment: &environment };
    let (file, mut diagnostics) = read(text, around);
    let pipeline = check::check(&file?, around, &mut diagnostics);
    pipeline.filter(|_| !diagnostics.iter().any(Diagnostic::is_error))
}

fn is_too_deep(root: &Node<'_>) -> bool {
    let mut level: Vec<&Node<'_>> = vec![root];
    for _ in 0..MAX_DEPTH {
        level = level.into_iter().flat_map(children).collect();
        if level.is_empty() {
            return false;
        }
    }
    true
}

fn children<'n, 'a>(node: &'n Node<'a>) -> Vec<&'n Node<'a>> {
    match node.get_ref() {
        DeValue::Table(table) => table.values().collect(),
        DeValue::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}

/// Drops a tree level by level: dropping it whole recurses, and dotted keys can nest as deep as the file is long.
fn dismantle(root: Node<'_>) {
    let mut waiting = vec![root.into_inner()];
    while let Some(value) = waiting.pop() {
        match value {
            DeValue::Table(table) => waiting.extend(table.into_iter().map(|(_, node)| node.into_inner())),
            DeValue::Array(items) => waiting.extend(items.into_iter().map(Spanned::into_inner)),
            _ => {}
        }
    }
}

fn state_span(file: &PipelineFile) -> Span {
    let table = file.pipeline.as_ref().map(|at| &at.value);
    let written = table.and_then(|table| table.state_dir.as_ref().or(table.name.as_ref()));
    written.map_or(0..0, |at| at.span.clone())
}

/// Two pipelines cannot have one name (logs, metrics) or one state folder (each would undo the other's positions).
fn check_together(files: &mut [LoadedFile]) {
    let view = |file: &LoadedFile| {
        let pipeline = file.pipeline.as_ref()?;
        let place = file.report.file.line_column(file.state_span.start);
        let place = format!("{}:{}", file.report.file.path.display(), place.line);
        Some((pipeline.name.clone(), pipeline.state_dir.clone(), place))
    };
    let views: Vec<_> = files.iter().map(view).collect();
    for second in 1..files.len() {
        let Some((name, state_dir, _)) = &views[second] else { continue };
        for (first_name, first_dir, place) in views[..second].iter().flatten() {
            let (code, message, hint) = if first_name == name {
                (
                    "name-used-twice",
                    format!("pipeline `{name}` is in {place} too"),
                    "give each pipeline a `name` of its own",
                )
            } else if first_dir == state_dir {
                let message = format!("pipeline `{name}` keeps its state where `{first_name}` of {place} does");
                ("state-dir-used-twice", message, "give each pipeline a `state_dir` of its own")
            } else {
                continue;
            };
            let span = files[second].state_span.clone();
            files[second].push(Diagnostic::error(code, span, message).hint(hint));
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIPELINE: &str = r#"
[pipeline]
name = "students"
[kafka.main]
"bootstrap.servers" = "${HOST}:9092"
"sasl.password" = { env = "PASSWORD" }
[channels.events]
capacity_bytes = "1GiB"
[sources.s]
plugin = "mysql"
selector = { type = "multiplexing", header = "level", routes = { a = ["events"] }, default = ["events"] }
config = { url = "x", numbers = [1, 2.5, true, 1979-05-27], nested = { a.b = 1 } }
allow = { net = ["localhost:3306"], dirs = [{ path = "x", write = false }], random = true }
retry = { initial = "100ms", then = "dead-letter" }
[sinks.t]
plugin = "./x.wasm"
channel = "events"
"#;

    fn read_and_check(text: &str) -> (Option<Pipeline>, Vec<Diagnostic>) {
        let environment = |name: &str| matches!(name, "HOST" | "PASSWORD" | "HOME").then(|| "/value".into());
        let around = Surroundings { base_dir: Path::new("/base"), environment: &environment };
        let (file, mut diagnostics) = read(text, around);
        let pipeline = file.and_then(|file| check::check(&file, around, &mut diagnostics));
        let report = FileReport::new(FileText::new("p.toml", text), diagnostics);
        report.text(crate::config::Severity::Note, crate::config::Colour::Plain);
        report.json();
        (pipeline, report.diagnostics)
    }

    #[test]
    fn a_whole_file_becomes_a_pipeline() {
        let (pipeline, diagnostics) = read_and_check(PIPELINE);
        assert_eq!(diagnostics, []);
        let pipeline = pipeline.unwrap();
        assert_eq!(pipeline.state_dir, Path::new("/value/.local/state/wasmflow/students"));
        assert_eq!(pipeline.kafka["main"].options["bootstrap.servers"], "/value:9092");
        let source = &pipeline.sources["s"];
        assert!(source.config.json().contains(r#""nested":{"a":{"b":1}}"#), "{:?}", source.config);
        assert_eq!(source.grants.dirs[0].path, Path::new("/base/x"));
        assert_eq!(source.batch_events, 1000);
        assert_eq!(pipeline.max_event_bytes, 16 << 20);
    }

    #[test]
    fn deep_nesting_is_refused_without_overflowing_the_stack() {
        let deep = [
            format!("a = {}", "[".repeat(10_000)),
            format!("a = {}1{}", "[".repeat(10_000), "]".repeat(10_000)),
            format!("a = {}1{}", "{ a = ".repeat(10_000), "}".repeat(10_000)),
            format!("{}a = 1", "a.".repeat(10_000)),
            format!("[{}a]", "a.".repeat(400_000)),
            format!("a = {}1{}", format!("{{{}a = ", "a.".repeat(70)).repeat(70), "}".repeat(70)),
        ];
        for text in deep {
            let (_, diagnostics) = read_and_check(&text);
            assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["too-deep"], "{}", &text[..20]);
        }
    }

    #[test]
    fn a_secret_is_in_the_json_for_open_only() {
        let text = PIPELINE.replace("url = \"x\"", "url = { env = \"PASSWORD\" }");
        let pipeline = read_and_check(&text).0.unwrap();
        assert!(pipeline.sources["s"].config.json().contains("/value"));
        let shown = format!("{pipeline:?}");
        assert!(!shown.contains("\"/value\""), "{shown}");
        assert!(pipeline.sources["s"].config.redacted().contains("<secret>"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,400}") {
            read_and_check(&text);
        }

        #[test]
        fn no_change_to_a_file_makes_the_reader_panic(
            at in 0..PIPELINE.len(), length in 0..40usize, inserted in "[\\PC\n\"=\\[\\]{}.$é-]{0,12}",
        ) {
            let start = PIPELINE.floor_char_boundary(at);
            let end = PIPELINE.floor_char_boundary((at + length).min(PIPELINE.len())).max(start);
            read_and_check(&format!("{}{inserted}{}", &PIPELINE[..start], &PIPELINE[end..]));
        }
    }
}
