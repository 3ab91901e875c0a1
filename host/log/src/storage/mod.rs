//! What the log needs of the world: files, folders, a lock, free space and a clock, so that the simulator can stand in for all.

mod disk;

pub use disk::Disk;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// Folders and files. Errors carry an errno where there is one: the log tells a full disk from a broken one by it.
pub trait Storage: Send + std::marker::Sync + 'static {
    /// Opens a file that is there, for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file that is there.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Makes a file; what was there under this name is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Replaces what has the new name, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it. Fine if it is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Names and kinds of what is in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;
    /// Makes names that were created, renamed or removed in the folder survive a power cut.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
    /// Takes the folder for this process, until the guard is dropped or the process is gone.
    fn lock(&self, folder: &Path) -> Result<Box<dyn Lock>, LockError>;
    fn is_network(&self, folder: &Path) -> bool;
    /// Milliseconds since 1970 by the wall clock, which may jump.
    fn now_ms(&self) -> u64;
    /// Sixteen bytes nobody else has.
    fn unique_id(&self) -> [u8; 16];
}

/// An open file.
pub trait File: Send + std::marker::Sync {
    /// Reads what there is at `offset`; 0 bytes at the end. May give less than asked for.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// May write less than given.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Takes space for the first `bytes` and makes the file that long; what was not written reads as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// The contents, and the length where it is needed to read them.
    fn sync_data(&self) -> io::Result<()>;
    fn sync_all(&self) -> io::Result<()>;
    /// Forgets what memory has of the file, so that the next read shows what the disk has. After a failed sync these differ.
    fn drop_cache(&self) -> io::Result<()>;
}

/// A folder that is held. Dropping it gives the folder free.
pub trait Lock: Send + std::marker::Sync {}

#[derive(Debug)]
pub enum LockError {
    /// The text names the holder.
    Held(String),
    Io(io::Error),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_folder: bool,
}

/// Whether an error says that space is missing: a state that passes, unlike all others.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error on read may pass (a disk whose path fails over); one that stays for this many tries does not.
const READ_TRIES: usize = 3;

/// Reads until the buffer is full or the file ends; says how much there was.
pub(crate) fn read_full(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let (mut done, mut tries) = (0, 1);
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if tries < READ_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of the slices. On an error some of it may be there.
pub(crate) fn write_full(file: &dyn File, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        // IOV_MAX is 1024 on Linux.
        let some = &slices[..slices.len().min(1024)];
        match file.write_at(some, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
