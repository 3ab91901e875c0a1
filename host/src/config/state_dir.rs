//! Where a pipeline keeps its state when it does not say, and that no two pipelines keep it in one folder.

use std::path::{Component, Path, PathBuf};

use super::check::Surroundings;
use super::diagnostic::{Diagnostic, Span};
use super::file::PipelineTable;

/// As written, against the pipeline file's folder; else `wasmflow/NAME` in the user's state folder.
pub fn resolve(
    table: &PipelineTable,
    table_span: &Span,
    name: &str,
    around: Surroundings<'_>,
) -> Result<PathBuf, Diagnostic> {
    match &table.state_dir {
        Some(written) if written.value.is_empty() => {
            Err(Diagnostic::error("bad-path", written.span.clone(), "`state_dir` is empty"))
        }
        Some(written) => Ok(normalised(&around.base_dir.join(&written.value))),
        None => user_state_dir(around).map(|folder| normalised(&folder.join("wasmflow").join(name))).ok_or_else(|| {
            let message = "there is no folder for the state: neither `HOME` nor `XDG_STATE_HOME` is set";
            Diagnostic::error("missing-key", table_span.clone(), message).hint("add `state_dir = \"…\"`")
        }),
    }
}

/// Relative values of `XDG_STATE_HOME` are to be ignored, says its specification.
fn user_state_dir(around: Surroundings<'_>) -> Option<PathBuf> {
    let folder = |name: &str| (around.environment)(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))
}

/// Without `.` and `..`, and with the symbolic links of what exists resolved, so that two spellings compare as one folder.
fn normalised(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    let existing = plain.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match existing {
        Some((ancestor, real)) => match plain.strip_prefix(ancestor) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_a_folder_are_one() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let plain = normalised(&dir.path().join("state/a"));
        assert_eq!(normalised(&dir.path().join("./state/x/../a")), plain);
        assert_eq!(normalised(&dir.path().join("link/state/a/")), plain);
    }
}
