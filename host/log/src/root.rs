//! The folder that holds the channels: locked, and marked as one pipeline's.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::format::FORMAT;
use crate::names::FOLDER_FILE;
use crate::storage::{Lock, LockError, Storage, read_full, write_full};

pub struct Root {
    pub path: PathBuf,
    pub pipeline: String,
    pub format: u32,
    _lock: Box<dyn Lock>,
}

impl Root {
    /// Makes the folder if there is none, locks it, and checks or writes whose it is.
    ///
    /// # Errors
    /// When it cannot be used, is in use, is another pipeline's, or of a newer format.
    pub fn open(storage: &dyn Storage, path: &Path, pipeline: &str) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.into(), source };
        storage.create_folder(path).map_err(io)?;
        let lock = lock(storage, path)?;
        let (found, format) = match identity(storage, path)? {
            Some(identity) => identity,
            None => {
                write(storage, path, pipeline).map_err(io)?;
                (pipeline.into(), FORMAT)
            }
        };
        if found != pipeline {
            return Err(OpenError::OtherPipeline { path: path.into(), found, pipeline: pipeline.into() });
        }
        Ok(Self { path: path.into(), pipeline: found, format, _lock: lock })
    }

    /// Locks a folder that is there, whoever's it is.
    ///
    /// # Errors
    /// When it cannot be used, is in use, or is none of ours.
    pub fn look(storage: &dyn Storage, path: &Path) -> Result<Self, OpenError> {
        // The mark first: what is not ours gets no lock file either.
        let Some((pipeline, format)) = identity(storage, path)? else {
            let source = io::Error::new(io::ErrorKind::NotFound, "there are no channels of a pipeline");
            return Err(OpenError::Io { path: path.into(), source });
        };
        Ok(Self { path: path.into(), pipeline, format, _lock: lock(storage, path)? })
    }
}

fn lock(storage: &dyn Storage, path: &Path) -> Result<Box<dyn Lock>, OpenError> {
    storage.lock(path).map_err(|error| match error {
        LockError::Held(holder) => OpenError::Locked { path: path.into(), holder },
        LockError::Io(source) => OpenError::Io { path: path.into(), source },
    })
}

fn identity(storage: &dyn Storage, folder: &Path) -> Result<Option<(String, u32)>, OpenError> {
    let path = folder.join(FOLDER_FILE);
    let io = |source| OpenError::Io { path: path.clone(), source };
    let file = match storage.open_read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = vec![0; 4096];
    let read = read_full(&*file, &mut bytes, 0).map_err(io)?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let mut lines = text.lines();
    let unknown = || io(io::Error::new(io::ErrorKind::InvalidData, "it does not say whose channels these are"));
    if lines.next() != Some("wasmflow channels") {
        return Err(unknown());
    }
    let format = lines.next().and_then(|line| line.strip_prefix("format ")?.parse::<u32>().ok());
    let format = format.ok_or_else(unknown)?;
    if format > FORMAT {
        return Err(OpenError::NewerFormat { path, found: format, known: FORMAT });
    }
    let pipeline = lines.next().and_then(|line| line.strip_prefix("pipeline ")).ok_or_else(unknown)?;
    Ok(Some((pipeline.into(), format)))
}

fn write(storage: &dyn Storage, folder: &Path, pipeline: &str) -> io::Result<()> {
    let text = format!("wasmflow channels\nformat {FORMAT}\npipeline {pipeline}\n");
    let aside = folder.join(format!("{FOLDER_FILE}.tmp"));
    let file = storage.create(&aside)?;
    write_full(&*file, &mut [IoSlice::new(text.as_bytes())], 0)?;
    file.sync_all()?;
    storage.rename(&aside, &folder.join(FOLDER_FILE))?;
    storage.sync_folder(folder)?;
    // The folder's own name, which may be new as well.
    folder.parent().map_or(Ok(()), |above| storage.sync_folder(above))
}
