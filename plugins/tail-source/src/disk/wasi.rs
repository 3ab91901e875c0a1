//! The disk through wasi:filesystem: the folders that the pipeline grants, under the paths as it writes them.

use std::io;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, MetadataHashValue, OpenFlags, PathFlags,
};

use super::{Entry, Identity, Kind, Stat};
use crate::pattern::plain_components;

/// The granted folders.
pub struct Disk {
    grants: Vec<(Vec<String>, Descriptor)>,
}

impl Disk {
    pub fn new() -> Self {
        let mut grants: Vec<_> =
            get_directories().into_iter().map(|(folder, path)| (plain_components(&path), folder)).collect();
        // The longest first, so that a grant inside another one wins.
        grants.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Disk { grants }
    }

    /// Whether the path lies in a granted folder.
    pub fn covers(&self, path: &str) -> bool {
        self.resolve(path).is_ok()
    }

    pub fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let (granted, path) = self.resolve(folder)?;
        let opened = granted.open_at(
            PathFlags::SYMLINK_FOLLOW,
            if path.is_empty() { "." } else { &path },
            OpenFlags::DIRECTORY,
            DescriptorFlags::READ,
        );
        let stream = opened.and_then(|folder| folder.read_directory()).map_err(error)?;
        let mut entries = Vec::new();
        loop {
            match stream.read_directory_entry() {
                Ok(Some(entry)) => entries.push(Entry { name: entry.name, kind: kind(entry.type_) }),
                Ok(None) => return Ok(entries),
                // Gone since it was listed, or a name that is not UTF-8 and so cannot be seen in the sandbox.
                Err(ErrorCode::NoEntry | ErrorCode::IllegalByteSequence) => {}
                Err(code) => return Err(error(code)),
            }
        }
    }

    /// Follows links.
    pub fn stat(&self, path: &str) -> io::Result<Stat> {
        let (granted, path) = self.resolve(path)?;
        if path.is_empty() {
            return granted.stat().map(stat).map_err(error);
        }
        granted.stat_at(PathFlags::SYMLINK_FOLLOW, &path).map(stat).map_err(error)
    }

    /// Follows links.
    pub fn identity(&self, path: &str) -> io::Result<Identity> {
        let (granted, path) = self.resolve(path)?;
        granted.metadata_hash_at(PathFlags::SYMLINK_FOLLOW, &path).map(identity).map_err(error)
    }

    pub fn open(&self, path: &str) -> io::Result<Handle> {
        let (granted, path) = self.resolve(path)?;
        granted
            .open_at(PathFlags::SYMLINK_FOLLOW, &path, OpenFlags::empty(), DescriptorFlags::READ)
            .map(Handle)
            .map_err(error)
    }

    fn resolve(&self, path: &str) -> io::Result<(&Descriptor, String)> {
        let wanted = plain_components(path);
        self.grants
            .iter()
            .find(|(granted, _)| wanted.starts_with(granted))
            .map(|(granted, folder)| (folder, wanted[granted.len()..].join("/")))
            .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "it is in no granted folder"))
    }
}

/// A file held open: it stays readable when it is renamed or deleted.
pub struct Handle(Descriptor);

impl Handle {
    /// Up to `length` bytes from `offset`; fewer at the end of the file, none beyond it.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.read(length as u64, offset).map(|(bytes, _)| bytes).map_err(error)
    }

    pub fn stat(&self) -> io::Result<Stat> {
        self.0.stat().map(stat).map_err(error)
    }

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
    let kind = match code {
        ErrorCode::NoEntry => io::ErrorKind::NotFound,
        ErrorCode::Access => io::ErrorKind::PermissionDenied,
        // What the sandbox answers for a link that leads out of the granted folder.
        ErrorCode::NotPermitted => {
            return io::Error::new(io::ErrorKind::PermissionDenied, "it leads out of the granted folder");
        }
        _ => io::ErrorKind::Other,
    };
    match kind {
        io::ErrorKind::Other => io::Error::other(code.message()),
        kind => io::Error::new(kind, code.message()),
    }
}
