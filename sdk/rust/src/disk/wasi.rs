//! The disk through wasi:filesystem: the folders that the pipeline grants, under the paths as it writes them.

use std::io;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, MetadataHashValue, OpenFlags, PathFlags,
};

use super::{CHUNK_BYTES, Entry, Identity, Kind, Stat, components};

/// The granted folders.
#[derive(Debug)]
pub struct Disk {
    grants: Vec<(Vec<String>, Descriptor)>,
}

impl Default for Disk {
    fn default() -> Self {
        Disk::new()
    }
}

impl Disk {
    pub fn new() -> Self {
        let mut grants: Vec<_> =
            get_directories().into_iter().map(|(folder, path)| (components(&path), folder)).collect();
        // The longest first, so that a grant inside another one wins.
        grants.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Disk { grants }
    }

    /// Whether the path lies in a granted folder.
    pub fn covers(&self, path: &str) -> bool {
        self.resolve(path).is_ok()
    }

    /// What is in a folder, in no order; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// Of the disk, as everything here: `NotFound`, `PermissionDenied`, `StorageFull` and the like.
    pub fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let stream = self.open_folder(folder)?.read_directory().map_err(error)?;
        let mut entries = Vec::new();
        loop {
            match stream.read_directory_entry() {
                Ok(Some(entry)) => entries.push(Entry { name: entry.name, kind: kind(entry.type_) }),
                Ok(None) => return Ok(entries),
                // Gone since it was listed; or a name that is not UTF-8.
                Err(ErrorCode::NoEntry | ErrorCode::IllegalByteSequence) => {}
                Err(code) => return Err(error(code)),
            }
        }
    }

    /// Follows links.
    ///
    /// # Errors
    /// Of the disk.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        let (granted, path) = self.resolve(path)?;
        if path.is_empty() {
            return granted.stat().map(stat).map_err(error);
        }
        granted.stat_at(PathFlags::SYMLINK_FOLLOW, &path).map(stat).map_err(error)
    }

    /// Follows links.
    ///
    /// # Errors
    /// Of the disk.
    pub fn identity(&self, path: &str) -> io::Result<Identity> {
        let (granted, path) = self.resolve(path)?;
        granted.metadata_hash_at(PathFlags::SYMLINK_FOLLOW, &path).map(identity).map_err(error)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open(&self, path: &str) -> io::Result<Handle> {
        self.open_with(path, OpenFlags::empty(), DescriptorFlags::READ).map(Handle)
    }

    /// Opens a file that is there for reading and writing.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open_to_write(&self, path: &str) -> io::Result<Handle> {
        self.open_with(path, OpenFlags::empty(), DescriptorFlags::READ | DescriptorFlags::WRITE).map(Handle)
    }

    /// Makes a new file.
    ///
    /// # Errors
    /// Of the disk; `AlreadyExists` where the name is taken.
    pub fn create(&self, path: &str) -> io::Result<Handle> {
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        self.open_with(path, flags, DescriptorFlags::READ | DescriptorFlags::WRITE).map(Handle)
    }

    /// Makes a folder and those above it, where they are not there.
    ///
    /// # Errors
    /// Of the disk.
    pub fn make_folder(&self, path: &str) -> io::Result<()> {
        let (granted, path) = self.resolve(path)?;
        let mut at = String::new();
        for name in components(&path) {
            at = super::child(&at, &name);
            match granted.create_directory_at(&at) {
                Ok(()) | Err(ErrorCode::Exist) => {}
                // The host may forbid making what is there already.
                Err(code) => match granted.stat_at(PathFlags::SYMLINK_FOLLOW, &at) {
                    Ok(stat) if stat.type_ == DescriptorType::Directory => {}
                    _ => return Err(error(code)),
                },
            }
        }
        Ok(())
    }

    /// Gives a file another name, taking the place of what has it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((old, from), (new, to)) = (self.resolve(from)?, self.resolve(to)?);
        old.rename_at(&from, new, &to).map_err(error)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Of the disk.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let (granted, path) = self.resolve(path)?;
        granted.unlink_file_at(&path).map_err(error)
    }

    /// Makes the names in a folder survive a power cut.
    ///
    /// # Errors
    /// Of the disk.
    pub fn sync_folder(&self, path: &str) -> io::Result<()> {
        self.open_folder(path)?.sync().map_err(error)
    }

    fn open_folder(&self, path: &str) -> io::Result<Descriptor> {
        self.open_with(path, OpenFlags::DIRECTORY, DescriptorFlags::READ)
    }

    fn open_with(&self, path: &str, open: OpenFlags, access: DescriptorFlags) -> io::Result<Descriptor> {
        let (granted, path) = self.resolve(path)?;
        granted.open_at(PathFlags::SYMLINK_FOLLOW, super::as_written(&path), open, access).map_err(error)
    }

    fn resolve(&self, path: &str) -> io::Result<(&Descriptor, String)> {
        let wanted = components(path);
        self.grants
            .iter()
            .find(|(granted, _)| wanted.starts_with(granted))
            .map(|(granted, folder)| (folder, wanted[granted.len()..].join("/")))
            .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "it is in no granted folder"))
    }
}

/// A file held open: it stays readable when it is renamed or deleted.
#[derive(Debug)]
pub struct Handle(Descriptor);

impl Handle {
    /// Up to `length` bytes from `offset`, never more than [`CHUNK_BYTES`]; fewer at the end of the file, none beyond it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.read(length.min(CHUNK_BYTES) as u64, offset).map(|(bytes, _)| bytes).map_err(error)
    }

    /// Writes all of it at `offset`.
    ///
    /// # Errors
    /// Of the disk; a part may be written.
    pub fn write(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.write(bytes, offset).map_err(error)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written;
            bytes = &bytes[written as usize..];
        }
        Ok(())
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// Of the disk.
    pub fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_size(size).map_err(error)
    }

    /// Makes the content survive a power cut.
    ///
    /// # Errors
    /// Of the disk. What was written since the sync before may or may not be there: do not trust a second try.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data().map_err(error)
    }

    /// # Errors
    /// Of the disk.
    pub fn stat(&self) -> io::Result<Stat> {
        self.0.stat().map(stat).map_err(error)
    }

    /// # Errors
    /// Of the disk.
    pub fn identity(&self) -> io::Result<Identity> {
        self.0.metadata_hash().map(identity).map_err(error)
    }
}

fn identity(hash: MetadataHashValue) -> Identity {
    Identity(u128::from(hash.upper) << 64 | u128::from(hash.lower))
}

fn stat(stat: DescriptorStat) -> Stat {
    let modified = stat
        .data_modification_timestamp
        .map_or(0, |time| u128::from(time.seconds) * 1_000_000_000 + u128::from(time.nanoseconds));
    Stat { kind: kind(stat.type_), size: stat.size, modified }
}

fn kind(type_: DescriptorType) -> Kind {
    match type_ {
        DescriptorType::RegularFile => Kind::File,
        DescriptorType::Directory => Kind::Folder,
        DescriptorType::SymbolicLink => Kind::Link,
        _ => Kind::Other,
    }
}

fn error(code: ErrorCode) -> io::Error {
    use io::ErrorKind;
    let kind = match code {
        ErrorCode::NoEntry => ErrorKind::NotFound,
        ErrorCode::Exist => ErrorKind::AlreadyExists,
        ErrorCode::NotDirectory => ErrorKind::NotADirectory,
        ErrorCode::IsDirectory => ErrorKind::IsADirectory,
        ErrorCode::InsufficientSpace => ErrorKind::StorageFull,
        ErrorCode::Quota => ErrorKind::QuotaExceeded,
        ErrorCode::ReadOnly => ErrorKind::ReadOnlyFilesystem,
        ErrorCode::Access => ErrorKind::PermissionDenied,
        // Writing with a grant to read, or a link that leads out of the granted folder.
        ErrorCode::NotPermitted => {
            return io::Error::new(ErrorKind::PermissionDenied, "the grant of the folder does not permit it");
        }
        _ => return io::Error::other(code.message()),
    };
    kind.into()
}
