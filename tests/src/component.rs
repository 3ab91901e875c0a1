//! The components of `tests/plugins`, compiled when the first test asks for one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binary::{repository, target_folder};

/// The component that the package in `tests/plugins/<package>` compiles to.
///
/// # Panics
/// When there is no such package, or one does not compile.
pub fn component(package: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| compile(&packages()));
    let path = folder.join(format!("{}.wasm", package.replace('-', "_")));
    assert!(path.exists(), "`tests/plugins/{package}` made no {}", path.display());
    path
}

/// A version of `stamp-interceptor` that stamps these two letters, made in the folder.
///
/// # Panics
/// When the component has no version to change, or the folder cannot be written.
pub fn stamp_version(folder: &Path, version: &str) -> PathBuf {
    let mut bytes = std::fs::read(component("stamp-interceptor")).expect("it was compiled");
    let start = b"stamp-version=";
    let at = bytes.windows(start.len()).position(|window| window == start).expect("the version is in the component");
    bytes[at + start.len()..at + start.len() + 2].copy_from_slice(version.as_bytes());
    let path = folder.join(format!("stamp-{version}.wasm"));
    std::fs::write(&path, bytes).expect("the folder is the test's own");
    path
}

/// The hostile plugin of this kind (`source`, …) as a component that does this in `describe`: `well`, `trap` or `loop`.
///
/// # Panics
/// When the component has no such place.
pub fn described(kind: &str, act: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(component(&format!("hostile-{kind}"))).expect("it was compiled");
    let start = b"described and ";
    let at = bytes.windows(start.len()).position(|window| window == start).expect("the act is in the component");
    bytes[at + start.len()..][..act.len()].copy_from_slice(act.as_bytes());
    bytes
}

/// All packages in `tests/plugins`: each folder has the name of its package.
///
/// # Panics
/// When the folder cannot be read.
pub fn packages() -> Vec<String> {
    let folders = std::fs::read_dir(plugins()).expect("the folder is part of the repository");
    let names = folders.flatten().filter(|folder| folder.path().join("Cargo.toml").exists());
    names.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect()
}

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins")
}

/// Compiles as the host's build does, beside what it has compiled, so that the SDK is there already.
fn compile(packages: &[String]) -> PathBuf {
    let target = target_folder().join("plugins");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", "plugin", "--target", "wasm32-wasip2", "--target-dir"]).arg(&target);
    cargo.args(packages.iter().flat_map(|package| ["--package", package])).current_dir(repository());
    let built = cargo.status().expect("cargo can be started");
    assert!(built.success(), "the components of `tests/plugins` do not compile");
    target.join("wasm32-wasip2/plugin")
}
