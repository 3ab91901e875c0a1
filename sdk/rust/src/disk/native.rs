//! The disk through `std`, for tests on the build machine.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::{CHUNK_BYTES, Entry, Identity, Kind, Stat, as_written};

/// All folders of the machine; the sandbox's `Disk` sees only what is granted.
#[derive(Debug, Default)]
pub struct Disk;

impl Disk {
    pub fn new() -> Self {
        Disk
    }

    /// Whether the path lies in a granted folder.
    pub fn covers(&self, _path: &str) -> bool {
        true
    }

    /// What is in a folder, in no order; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// Of the disk, as everything here: `NotFound`, `PermissionDenied`, `StorageFull` and the like.
    pub fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(as_written(folder))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            entries.push(Entry { name, kind: kind(entry.file_type()?) });
        }
        Ok(entries)
    }

    /// Follows links.
    ///
    /// # Errors
    /// Of the disk.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        Ok(stat(&fs::metadata(as_written(path))?))
    }

    /// Follows links.
    ///
    /// # Errors
    /// Of the disk.
    pub fn identity(&self, path: &str) -> io::Result<Identity> {
        Ok(identity(&fs::metadata(path)?))
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open(&self, path: &str) -> io::Result<Handle> {
        Ok(Handle(File::open(path)?))
    }

    /// Opens a file that is there for reading and writing.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open_to_write(&self, path: &str) -> io::Result<Handle> {
        Ok(Handle(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// Makes a new file.
    ///
    /// # Errors
    /// Of the disk; `AlreadyExists` where the name is taken.
    pub fn create(&self, path: &str) -> io::Result<Handle> {
        Ok(Handle(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    /// Makes a folder and those above it, where they are not there.
    ///
    /// # Errors
    /// Of the disk.
    pub fn make_folder(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(as_written(path))
    }

    /// Gives a file another name, taking the place of what has it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Of the disk.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Makes the names in a folder survive a power cut.
    ///
    /// # Errors
    /// Of the disk.
    pub fn sync_folder(&self, path: &str) -> io::Result<()> {
        File::open(as_written(path))?.sync_all()
    }
}

/// A file held open: it stays readable when it is renamed or deleted.
#[derive(Debug)]
pub struct Handle(File);

impl Handle {
    /// Up to `length` bytes from `offset`, never more than [`CHUNK_BYTES`]; fewer at the end of the file, none beyond it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length.min(CHUNK_BYTES)];
        let count = self.0.read_at(&mut bytes, offset)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Writes all of it at `offset`.
    ///
    /// # Errors
    /// Of the disk; a part may be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    /// Makes the content survive a power cut.
    ///
    /// # Errors
    /// Of the disk. What was written since the sync before may or may not be there: do not trust a second try.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// # Errors
    /// Of the disk.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(stat(&self.0.metadata()?))
    }

    /// # Errors
    /// Of the disk.
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
