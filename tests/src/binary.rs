//! The `wasmflow` binary under test, and the repository it is built from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the repository")
}

/// The release binary, built first when its sources are newer: only for `cargo test -p wasmflow-tests`, since `make test`
/// has built it and says so with `WASMFLOW_BINARY`.
///
/// # Panics
/// When it cannot be built.
pub fn wasmflow() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("WASMFLOW_BINARY") {
            return repository().join(given);
        }
        let binary = profile_folder().join("wasmflow");
        if modified(&binary) < newest_source() {
            build();
        }
        binary
    })
}

/// Where cargo puts binaries: the test's own executable lies there, or one folder deeper.
fn profile_folder() -> PathBuf {
    let executable = std::env::current_exe().expect("Linux tells a process its executable");
    let folder = executable.parent().expect("an executable lies in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps lies in the profile's folder").to_owned()
    } else {
        folder.to_owned()
    }
}

/// Cargo's target folder.
pub fn target_folder() -> PathBuf {
    profile_folder().parent().expect("a profile's folder lies in the target folder").to_owned()
}

// The whole workspace, as `make test` does: the features of shared dependencies are then the same, and nothing is built twice.
fn build() {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let target = target_folder();
    command
        .args(["build", "--release", "--workspace", "--bins"])
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", target);
    let built = command.status().expect("cargo can be started");
    assert!(built.success(), "`cargo build --release --workspace --bins` failed");
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// When anything that the binary is built from was changed last.
fn newest_source() -> Option<SystemTime> {
    let mut newest = modified(&repository().join("Cargo.lock"));
    let mut folders: Vec<PathBuf> = ["host", "plugins", "sdk", "wit"].map(|name| repository().join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "tests" && name != "target" {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| ["rs", "toml", "wit"].iter().any(|one| extension == *one))
            {
                newest = newest.max(modified(&path));
            }
        }
    }
    newest
}
