//! The file being written: batch after batch, each whole or not there.

use std::io;
use std::time::Instant;

use wasmflow_sdk::disk::{Disk, Handle, child};

use crate::mark::Mark;
use crate::name;

/// A file under its `.open` name, which ends with a whole batch between any two calls.
pub struct OpenFile {
    folder: String,
    /// What it will be called.
    finished: String,
    file: Handle,
    mark: Handle,
    pub bytes: u64,
    pub events: u64,
    pub opened: Instant,
}

/// Why a batch is not in the file.
#[derive(Debug)]
pub enum AppendError {
    /// The file is as before; the next batch may go well.
    CutBack(io::Error),
    /// The file must not be written to any more. What was synced before is safe in it.
    Spoilt(io::Error),
}

impl OpenFile {
    /// Makes an empty file.
    ///
    /// # Errors
    /// Of the disk; `AlreadyExists` where the name is taken, open or finished.
    pub fn create(disk: &Disk, folder: &str, finished: String, sync: bool) -> io::Result<Self> {
        if disk.stat(&child(folder, &finished)).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (open, mark) = (child(folder, &name::open(&finished)), child(folder, &name::mark(&finished)));
        let made =
            disk.create(&open).and_then(|file| Ok((file, Self::create_mark(disk, &mark)?))).and_then(|handles| {
                // Crash: the name must be as durable as what is written under it.
                if sync { disk.sync_folder(folder).map(|()| handles) } else { Ok(handles) }
            });
        let (file, mark) = made.inspect_err(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                // Nothing is in it: recovery would remove it too.
                let _ = disk.remove(&open).and_then(|()| disk.remove(&mark));
            }
        })?;
        Ok(OpenFile { folder: folder.into(), finished, file, mark, bytes: 0, events: 0, opened: Instant::now() })
    }

    fn create_mark(disk: &Disk, path: &str) -> io::Result<Handle> {
        let mark = disk.create(path)?;
        Mark { begin: 0, end: 0 }.write(&mark)?;
        Ok(mark)
    }

    pub fn path(&self) -> String {
        child(&self.folder, &name::open(&self.finished))
    }

    /// The name under which it will be found.
    pub fn finished(&self) -> &str {
        &self.finished
    }

    /// Writes a batch behind the others. On ok it is in a file that still has its name, and with `sync` on the disk.
    ///
    /// # Errors
    /// Says what may be done with the file.
    pub fn append(&mut self, disk: &Disk, lines: &[u8], events: u64, sync: bool) -> Result<(), AppendError> {
        let end = self.bytes + lines.len() as u64;
        // Crash: the mark is written before the first byte of the batch, so a part of a batch never stands without it.
        Mark { begin: self.bytes, end }.write(&self.mark).map_err(AppendError::CutBack)?;
        if let Err(error) = self.file.write(self.bytes, lines) {
            return Err(self.cut_back(error));
        }
        if sync && let Err(error) = self.file.sync() {
            // A disk that has failed to sync may say ok the next time without having written: never ask it again.
            let (AppendError::CutBack(error) | AppendError::Spoilt(error)) = self.cut_back(error);
            return Err(AppendError::Spoilt(error));
        }
        self.check_name(disk, end).map_err(AppendError::Spoilt)?;
        self.bytes = end;
        self.events += events;
        Ok(())
    }

    fn cut_back(&self, error: io::Error) -> AppendError {
        match self.file.set_size(self.bytes) {
            Ok(()) => AppendError::CutBack(error),
            // The mark still says where to cut: recovery does it.
            Err(_) => AppendError::Spoilt(error),
        }
    }

    /// Writing goes on into a file that somebody has deleted or renamed, and its events are gone: so look.
    fn check_name(&self, disk: &Disk, size: u64) -> io::Result<()> {
        let found = disk.stat(&self.path())?.size;
        match found == size {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "it has {found} bytes where {size} were written: somebody else writes to it or cuts it"
            ))),
        }
    }
}
