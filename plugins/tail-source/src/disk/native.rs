//! The disk through `std`, for tests on the build machine.

use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::{Entry, Identity, Kind, Stat};

/// All folders of the machine; the sandbox's `Disk` sees only what is granted.
pub struct Disk;

impl Disk {
    pub fn new() -> Self {
        Disk
    }

    /// Whether the path lies in a granted folder.
    pub fn covers(&self, _path: &str) -> bool {
        true
    }

    pub fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(if folder.is_empty() { "." } else { folder })? {
            let entry = entry?;
            // A name that is not UTF-8 cannot be written in a pipeline file, nor seen in the sandbox.
            let Ok(name) = entry.file_name().into_string() else { continue };
            entries.push(Entry { name, kind: kind(entry.file_type()?) });
        }
        Ok(entries)
    }

    /// Follows links.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        Ok(stat(&fs::metadata(if path.is_empty() { "." } else { path })?))
    }

    /// Follows links.
    pub fn identity(&self, path: &str) -> io::Result<Identity> {
        Ok(identity(&fs::metadata(path)?))
    }

    pub fn open(&self, path: &str) -> io::Result<Handle> {
        Ok(Handle(File::open(path)?))
    }
}

/// A file held open: it stays readable when it is renamed or deleted.
pub struct Handle(File);

impl Handle {
    /// Up to `length` bytes from `offset`; fewer at the end of the file, none beyond it.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length.min(super::CHUNK_BYTES)];
        let count = self.0.read_at(&mut bytes, offset)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    pub fn stat(&self) -> io::Result<Stat> {
        Ok(stat(&self.0.metadata()?))
    }

    pub fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.0.metadata()?))
    }
}

fn identity(metadata: &Metadata) -> Identity {
    Identity(u128::from(metadata.dev()) << 64 | u128::from(metadata.ino()))
}

fn stat(metadata: &Metadata) -> Stat {
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Stat { kind: kind(metadata.file_type()), size: metadata.len(), modified: modified.unsigned_abs() }
}

fn kind(file_type: FileType) -> Kind {
    match () {
        () if file_type.is_file() => Kind::File,
        () if file_type.is_dir() => Kind::Folder,
        () if file_type.is_symlink() => Kind::Link,
        () => Kind::Other,
    }
}
