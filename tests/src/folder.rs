//! Fresh folders for servers and agents, removed when the test process ends.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh folder, removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a folder whose name begins with `name`.
    ///
    /// # Panics
    /// When it cannot be made: no test can go on without.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = root().join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&path).expect("a fresh name below the test process's own folder");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in this folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the file `name` in this folder and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, contents).expect("the test's own folder is writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is removed with the root at the end of the process.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// This process's own folder; those of test processes that are gone are removed on the way, since a killed process
/// cannot remove its own.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let all = std::env::temp_dir().join("wasmflow-tests");
        std::fs::create_dir_all(&all).expect("the temporary folder is writable");
        remove_abandoned(&all);
        let own = all.join(std::process::id().to_string());
        // The process that had this id before is gone.
        let _ = std::fs::remove_dir_all(&own);
        std::fs::create_dir(&own).expect("the folder was just removed");
        // SAFETY: the function has the C ABI and does not unwind.
        unsafe { libc::atexit(clean_up) };
        own
    })
}

/// Servers shared by many tests live in statics, which are never dropped; they and their files go here.
extern "C" fn clean_up() {
    crate::process::kill_children();
    let _ = std::fs::remove_dir_all(root());
}

fn remove_abandoned(all: &Path) {
    for folder in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let alive = Path::new("/proc").join(&name).exists();
        if !alive {
            let _ = std::fs::remove_dir_all(folder.path());
        }
    }
}
