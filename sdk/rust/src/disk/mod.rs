//! The folders that the pipeline grants: files listed, looked at, read and written at an offset, each with its identity.
//!
//! Two builds of one small surface. In the sandbox it is wasi:filesystem itself, because `std` gives no file identity there,
//! copies every read once more and loses the reason why a write failed; natively, for tests, it is `std`. Paths are those of
//! the pipeline file: they begin as the folder is written in `allow.dirs`.

use std::fmt;

#[cfg(not(target_os = "wasi"))]
mod native;
#[cfg(target_os = "wasi")]
mod wasi;

#[cfg(not(target_os = "wasi"))]
pub use native::{Disk, Handle};
#[cfg(target_os = "wasi")]
pub use wasi::{Disk, Handle};

/// How much one read asks for at most; the host gives no more than this at once.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Which file it is, whatever its name: device and inode, as one value (in the sandbox a hash of both).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(u128);

impl Identity {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Identity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What stands in a folder under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    Other,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    pub size: u64,
    /// When the content changed last, by the file system's clock: nanoseconds since 1970.
    pub modified: u128,
}

/// The components of a path, without empty ones and `.`; a leading slash is a component of its own.
pub fn components(path: &str) -> Vec<String> {
    let root = path.starts_with('/').then(|| "/".to_owned());
    root.into_iter().chain(path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned)).collect()
}

/// The path of a name in a folder, where an empty folder is the current one.
pub fn child(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        _ if folder.ends_with('/') => format!("{folder}{name}"),
        _ => format!("{folder}/{name}"),
    }
}

/// A folder as it is written in a pipeline file, where the current one has a name too.
pub fn as_written(folder: &str) -> &str {
    if folder.is_empty() { "." } else { folder }
}
