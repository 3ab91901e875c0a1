//! The files as this source sees them: listed, looked at and read at an offset, each with its identity.
//!
//! Two builds of one small surface. In the sandbox it is wasi:filesystem itself, because `std` gives no file identity there
//! and copies every read once more (design.md section 9); natively, for tests, it is `std`.

use std::fmt;

#[cfg(not(target_os = "wasi"))]
mod native;
#[cfg(target_os = "wasi")]
mod wasi;

#[cfg(not(target_os = "wasi"))]
pub use native::{Disk, Handle};
#[cfg(target_os = "wasi")]
pub use wasi::{Disk, Handle};

/// How much one read asks for; the host gives no more than this at once.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Which file it is, whatever its name: device and inode, as one value (in the sandbox a hash of both).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub u128);

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    pub size: u64,
    /// Nanoseconds since 1970; only ever compared for being the same.
    pub modified: u128,
}
