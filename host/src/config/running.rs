//! What a swap checks of a stage that runs: its configuration and its grants, without a pipeline file around them.

use std::path::Path;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::Surroundings;
use super::diagnostic::Diagnostic;
use super::file::AllowTable;
use super::pipeline::{Grants, StageConfig};
use super::plugin_config::ConfigTable;
use super::read::{At, Environment, Reader, Value};
use super::report::FileReport;
use super::stage::StageTable;
use super::text::FileText;
use super::{grants, schema_check, syntax};
use crate::plugin::{Need, PluginKind};

/// Reads a stage's `config` table that stands in a text of its own, with variables and secrets as in a pipeline file.
///
/// # Errors
/// All that is wrong with it. `path` is what the report calls the text.
pub fn stage_config(
    path: &Path,
    text: &str,
    base_dir: &Path,
    environment: &Environment,
) -> Result<StageConfig, Box<FileReport>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut diagnostics = syntax::diagnostics(text, &errors);
    let root = Spanned::new(0..0, DeValue::Table(tree.into_inner()));
    let mut config = None;
    if errors.is_empty() {
        let mut reader = Reader::new(text, base_dir, environment);
        config = ConfigTable::read(&root, &mut reader);
        diagnostics.extend(reader.diagnostics);
    }
    let is_valid = !diagnostics.iter().any(Diagnostic::is_error);
    match config.filter(|config| is_valid && !config.is_partial()) {
        Some(config) => Ok(config.stage_config()),
        None => Err(Box::new(FileReport::new(FileText::new(path, text), diagnostics))),
    }
}

/// Reads a stage's `allow` table that stands in a text of its own.
///
/// # Errors
/// All that is wrong with it. `path` is what the report calls the text.
pub fn stage_grants(
    path: &Path,
    text: &str,
    base_dir: &Path,
    environment: &Environment,
) -> Result<Grants, Box<FileReport>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut diagnostics = syntax::diagnostics(text, &errors);
    let root = Spanned::new(0..0, DeValue::Table(tree.into_inner()));
    let mut reader = Reader::new(text, base_dir, environment);
    let allow = AllowTable::read(&root, &mut reader);
    diagnostics.extend(reader.diagnostics);
    match allow.filter(|_| !diagnostics.iter().any(Diagnostic::is_error)) {
        Some(allow) => {
            Ok(grants::trusted(Some(&At { value: allow, span: 0..0 }), Surroundings { base_dir, environment }))
        }
        None => Err(Box::new(FileReport::new(FileText::new(path, text), diagnostics))),
    }
}

/// What of a configuration does not fit its plugin's schema, each in a sentence.
pub fn misfits(kind: PluginKind, name: &str, config: &StageConfig, schema: &Json) -> Vec<String> {
    let name = At { value: name.to_owned(), span: 0..0 };
    let config = ConfigTable::of(config);
    let problems = schema_check::check(&StageTable::running(kind, &name), &config, schema);
    let sentence = |problem: Diagnostic| match problem.hint {
        Some(hint) => format!("{} ({hint})", problem.message),
        None => problem.message,
    };
    problems.into_iter().map(sentence).collect()
}

/// What a plugin needs beyond the grants: named, and as the line to write. Nothing when it needs no more than it has.
pub fn lacking_grants(needs: &[Need], granted: &Grants) -> Option<(String, String)> {
    grants::beyond(needs, granted).map(|(names, wanted)| (names, grants::toml_line(&wanted)))
}

impl ConfigTable {
    /// A configuration that has been read before: its values have no place any more.
    fn of(config: &StageConfig) -> Self {
        let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
        Self::without_places(json(config.json()), json(config.redacted()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<StageConfig, Box<FileReport>> {
        let environment = |name: &str| (name == "WORD").then(|| "canary".into());
        stage_config(Path::new("new.toml"), text, Path::new("/base"), &environment)
    }

    #[test]
    fn a_table_of_its_own_is_read_as_in_a_pipeline_file() {
        let config = read("url = \"x\"\npassword = { env = \"WORD\" }\n").unwrap();
        assert_eq!(config.json(), r#"{"password":"canary","url":"x"}"#);
        assert!(!config.redacted().contains("canary"));
        let report = read("url = \n").unwrap_err();
        assert!(report.text(super::super::Severity::Note, super::super::Colour::Plain).contains("new.toml:1"));
        assert!(read("password = { env = \"ABSENT\" }").is_err());
    }

    #[test]
    fn grants_of_their_own_are_read_as_in_a_pipeline_file() {
        let read = |text: &str| stage_grants(Path::new("--allow"), text, Path::new("/base"), &|_| None);
        let grants = read("dirs = [{ path = \"logs\" }]\nrandom = true\n").unwrap();
        assert_eq!((grants.dirs[0].path.as_path(), grants.random), (Path::new("/base/logs"), true));
        assert_eq!(read("").unwrap(), Grants::default());
        let report = read("dir = []\n").unwrap_err();
        assert!(report.text(super::super::Severity::Note, super::super::Colour::Plain).contains("`dirs`"));
    }

    #[test]
    fn misfits_are_sentences_without_a_place() {
        let schema = json!({ "type": "object", "properties": { "prefix": { "type": "string" } },
                             "additionalProperties": false });
        let found = misfits(PluginKind::Interceptor, "mark", &StageConfig::plain(r#"{"prefx":"<"}"#), &schema);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("unknown key `prefx`") && found[0].contains("did you mean `prefix`?"), "{found:?}");
        assert_eq!(
            misfits(PluginKind::Interceptor, "mark", &StageConfig::plain(r#"{"prefix":"<"}"#), &schema),
            [""; 0]
        );
    }

    #[test]
    fn what_is_lacking_is_named_with_the_line_that_grants_it() {
        let need = Need { grant: "env".into(), value: "HOME".into() };
        let (names, line) = lacking_grants(std::slice::from_ref(&need), &Grants::default()).unwrap();
        assert_eq!((names.as_str(), line.as_str()), (r#"`env = ["HOME"]`"#, r#"allow = { env = ["HOME"] }"#));
        assert_eq!(lacking_grants(&[need], &Grants { env: vec!["HOME".into()], ..Grants::default() }), None);
    }
}
