//! A pipeline's state folder: one agent at a time, and an identity that outlives it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("cannot use the state folder `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Two agents would overwrite each other's positions.
    #[error("the state folder `{}` is in use by {holder}", path.display())]
    InUse { path: PathBuf, holder: String },
}

/// A locked state folder. The kernel gives the lock back when the process ends, however it ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    instance: Arc<str>,
    _lock: File,
}

impl StateDir {
    /// Makes the folder where it is missing, locks it and finds the agent's `instance`: the one given, else the one kept
    /// in the folder, else a random one that is kept from now on.
    ///
    /// # Errors
    /// When another agent holds it, or it cannot be written.
    pub fn open(path: &Path, instance: Option<&str>) -> Result<Self, StateDirError> {
        let io = |source| StateDirError::Io { path: path.into(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let lock = lock(path)?;
        let instance = match instance {
            Some(instance) => instance.into(),
            None => kept_instance(&path.join("instance")).map_err(io)?.into(),
        };
        Ok(Self { path: path.into(), instance, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells this agent apart from others with the same pipeline.
    pub fn instance(&self) -> &Arc<str> {
        &self.instance
    }
}

fn lock(path: &Path) -> Result<File, StateDirError> {
    let io = |source| StateDirError::Io { path: path.into(), source };
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path.join("lock")).map_err(io)?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io(error.into()));
        }
        let mut holder = String::new();
        _ = file.read_to_string(&mut holder);
        let holder = if holder.is_empty() { "another process".into() } else { holder };
        return Err(StateDirError::InUse { path: path.into(), holder });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    write!(file, "process {}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn kept_instance(path: &Path) -> std::io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(kept.trim().into()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let instance = format!("{:08x}", rand::random::<u32>());
    let aside = path.with_extension("new");
    std::fs::write(&aside, &instance)?;
    std::fs::rename(&aside, path)?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_holds_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path(), None).unwrap();
        let error = StateDir::open(dir.path(), None).unwrap_err();
        assert!(
            matches!(&error, StateDirError::InUse { holder, .. } if *holder == format!("process {}", std::process::id()))
        );
        drop(first);
        assert!(StateDir::open(dir.path(), None).is_ok());
    }

    #[test]
    fn a_random_instance_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let instance = StateDir::open(dir.path(), None).unwrap().instance().clone();
        assert_eq!(StateDir::open(dir.path(), None).unwrap().instance(), &instance);
        assert_eq!(&**StateDir::open(dir.path(), Some("host-a")).unwrap().instance(), "host-a");
    }
}
