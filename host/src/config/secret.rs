//! Secrets: `{ env = "NAME" }` and `{ file = "path" }`, resolved once and never shown.

use std::borrow::Cow;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use std::sync::{PoisonError, RwLock};

use secrecy::{ExposeSecret, SecretString};
use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Span};
use super::read::{Node, Reader};

/// What the plugin's `check`, logs and errors see instead.
pub const PLACEHOLDER: &str = "<secret>";

/// Limit: a password or a key, not a data file.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Limit: shorter secrets are words of every text, and masking them would only show where they are.
const MIN_MASKED_BYTES: usize = 4;

/// The secrets of this process: a plugin is handed some, and may repeat them in a log line or an error.
static KNOWN: RwLock<Vec<SecretString>> = RwLock::new(Vec::new());

/// The text without any secret of this process: for logs and errors, whoever wrote them.
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = Cow::Borrowed(text);
    for secret in KNOWN.read().unwrap_or_else(PoisonError::into_inner).iter() {
        for form in forms(secret.expose_secret()) {
            if masked.contains(&form) {
                masked = masked.replace(&form, PLACEHOLDER).into();
            }
        }
    }
    masked
}

/// A secret as it is, and as it looks inside a string of JSON or of Rust's `Debug`.
fn forms(secret: &str) -> [String; 3] {
    let inside = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
    [secret.to_owned(), inside(serde_json::Value::from(secret).to_string()), inside(format!("{secret:?}"))]
}

/// Has `mask` hide a secret that is not in a pipeline file.
pub fn keep_secret(secret: &str) {
    remember(secret);
}

fn remember(secret: &str) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if secret.len() >= MIN_MASKED_BYTES && !known.iter().any(|known| known.expose_secret() == secret) {
        known.push(SecretString::from(secret));
    }
}

/// What a node is, as far as secrets go.
pub enum Secret {
    /// Something else.
    No,
    Resolved(SecretString),
    /// A secret that cannot be had; the reader has been told why.
    Failed,
}

/// Resolves a node that refers to a secret.
///
/// Only an inline table with this one key is a reference: `[interceptors.mark.config.headers]` with `env = "prod"` below it is
/// a plain table.
pub fn read_secret(node: &Node<'_>, reader: &mut Reader<'_>) -> Secret {
    let Some((kind, target)) = reference(node, reader.text) else { return Secret::No };
    let Some(target_text) = reader.string(target, "{ env = \"NAME\" }") else { return Secret::Failed };
    let resolved = match kind {
        "env" => from_environment(&target_text, target.span(), reader),
        _ => from_file(&target_text, target.span(), reader),
    };
    match resolved {
        Ok(secret) => {
            remember(&secret);
            Secret::Resolved(SecretString::from(secret))
        }
        Err(diagnostic) => {
            reader.push(diagnostic);
            Secret::Failed
        }
    }
}

fn reference<'n, 'a>(node: &'n Node<'a>, text: &str) -> Option<(&'static str, &'n Node<'a>)> {
    let DeValue::Table(table) = node.get_ref() else { return None };
    let is_inline = text.get(node.span().start..)?.starts_with('{');
    let (key, target) = table.iter().next().filter(|_| table.len() == 1 && is_inline)?;
    match key.get_ref().as_ref() {
        "env" => Some(("env", target)),
        "file" => Some(("file", target)),
        _ => None,
    }
}

fn from_environment(name: &str, span: Span, reader: &Reader<'_>) -> Result<String, Diagnostic> {
    let problem = |code, what: &str| {
        let message = format!("environment variable `{name}`, which holds the secret `{}`, {what}", reader.key());
        Diagnostic::error(code, span.clone(), message)
    };
    let value = (reader.environment)(name)
        .ok_or_else(|| problem("secret-missing", "is not set").hint(format!("set it: `export {name}=…`")))?;
    let value = value.into_string().map_err(|_| problem("secret-not-text", "is not UTF-8"))?;
    if value.is_empty() {
        return Err(problem("secret-empty", "is empty").hint("leave the key out where no secret is needed"));
    }
    Ok(value)
}

/// One newline at the end belongs to the editor, not to the secret.
fn from_file(path: &str, span: Span, reader: &mut Reader<'_>) -> Result<String, Diagnostic> {
    let key = reader.key().to_owned();
    let problem = |code, what: String| {
        let message = format!("the file `{path}`, which holds the secret `{key}`, {what}");
        Diagnostic::error(code, span.clone(), message)
    };
    let unreadable = |error: std::io::Error| {
        problem("secret-missing", format!("cannot be read: {error}")).hint("the path is relative to the pipeline file")
    };
    let whole = reader.base_dir.join(path);
    reader.secret_files.push(whole.clone());
    let file = std::fs::File::open(whole).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(problem("secret-too-large", "is larger than 64 KiB".into()));
    }
    let text = String::from_utf8(bytes).map_err(|_| problem("secret-not-text", "is not UTF-8".into()))?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(problem("secret-empty", "is empty".into()));
    }
    if mode & 0o004 != 0 {
        let message = format!("the file `{path}`, which holds the secret `{key}`, can be read by everybody");
        let warning = Diagnostic::warning("secret-readable", span.clone(), message);
        reader.push(warning.hint(format!("take that away: `chmod o-rwx {path}`")));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use toml::de::DeTable;

    use super::*;
    use crate::config::read::entry;

    /// Reads `key = …` in a fresh folder with these files, and says what came of it and what was reported.
    fn read(line: &str, files: &[(&str, &str, u32)]) -> (Option<String>, Vec<&'static str>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content, mode) in files {
            fs::write(dir.path().join(name), content).unwrap();
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(*mode)).unwrap();
        }
        let environment = |name: &str| match name {
            "SET" => Some("from-environment".into()),
            "EMPTY" => Some("".into()),
            _ => None,
        };
        let mut reader = Reader::new(line, dir.path(), &environment);
        let tree = DeTable::parse(line).unwrap();
        let (_, node) = entry(tree.get_ref(), "key").unwrap();
        let secret = match read_secret(node, &mut reader) {
            Secret::Resolved(secret) => Some(secret.expose_secret().to_owned()),
            Secret::Failed => None,
            Secret::No => Some("no secret".into()),
        };
        (secret, reader.diagnostics.iter().map(|d| d.code).collect())
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_a_file() {
        assert_eq!(read("key = { env = 'SET' }", &[]), (Some("from-environment".into()), vec![]));
        let file = [("s", "from-file", 0o600)];
        assert_eq!(read("key = { file = 's' }", &file), (Some("from-file".into()), vec![]));
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_no_part_of_the_secret() {
        for (content, secret) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            let file = [("s", content, 0o600)];
            assert_eq!(read("key = { file = 's' }", &file).0.as_deref(), Some(secret), "{content:?}");
        }
    }

    #[test]
    fn a_secret_that_is_missing_or_empty_is_refused() {
        assert_eq!(read("key = { env = 'UNSET' }", &[]), (None, vec!["secret-missing"]));
        assert_eq!(read("key = { env = 'EMPTY' }", &[]), (None, vec!["secret-empty"]));
        assert_eq!(read("key = { file = 's' }", &[]), (None, vec!["secret-missing"]));
        assert_eq!(read("key = { file = 's' }", &[("s", "\n", 0o600)]), (None, vec!["secret-empty"]));
    }

    #[test]
    fn a_file_that_everybody_can_read_is_warned_about() {
        let file = [("s", "from-file", 0o644)];
        assert_eq!(read("key = { file = 's' }", &file), (Some("from-file".into()), vec!["secret-readable"]));
    }

    #[test]
    fn only_an_inline_table_is_a_reference() {
        assert_eq!(read("[key]\nenv = 'SET'", &[]).0.as_deref(), Some("no secret"));
        assert_eq!(read("key = { env = 'SET', other = 1 }", &[]).0.as_deref(), Some("no secret"));
    }

    #[test]
    fn a_known_secret_is_masked_in_any_text() {
        remember("can\"ary");
        assert_eq!(mask("it is can\"ary, {\"x\":\"can\\\"ary\"}"), "it is <secret>, {\"x\":\"<secret>\"}");
        assert!(matches!(mask("nothing here"), Cow::Borrowed(_)));
    }
}
