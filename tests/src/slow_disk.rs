//! A disk that does not answer for as long as a test wants, below an agent that knows nothing of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::folder::Folder;
use crate::skip::skip;

/// Waits in front of each sync while the file of this name is there.
const SHIM: &str = r#"
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    const char *held = getenv("TEST_DISK_HELD");
    while (held && access(held, F_OK) == 0) usleep(10000);
}
int fdatasync(int fd) { wait_for_the_disk(); return (int)syscall(SYS_fdatasync, fd); }
int fsync(int fd) { wait_for_the_disk(); return (int)syscall(SYS_fsync, fd); }
"#;

/// Variables for an agent whose syncs can be held up.
#[derive(Debug)]
pub struct SlowDisk {
    library: PathBuf,
    held: PathBuf,
}

impl SlowDisk {
    /// Compiled into the folder. Nothing, said aloud, where there is no C compiler; the build needs one too.
    ///
    /// # Panics
    /// When the folder cannot be written, or the compiler refuses what it is given.
    pub fn below(folder: &Folder) -> Option<Self> {
        let source = folder.write("slow_disk.c", SHIM);
        let library = folder.join("slow_disk.so");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output();
        let Ok(compiled) = compiled else {
            skip("there is no C compiler");
            return None;
        };
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Some(Self { library, held: folder.join("held") })
    }

    pub fn variables(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", path(&self.library)), ("TEST_DISK_HELD", path(&self.held))]
    }

    /// From now on no sync ends.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn hold(&self) {
        std::fs::write(&self.held, "").expect("the folder is the test's own");
    }

    /// Lets the disk answer again.
    ///
    /// # Panics
    /// When it was not held.
    pub fn let_go(&self) {
        std::fs::remove_file(&self.held).expect("it was held");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the folder is UTF-8")
}
