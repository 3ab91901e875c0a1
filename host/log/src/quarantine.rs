//! The folder `quarantine`: copies of what could not be read, for whoever wants to know what happened.

use std::io::{self, IoSlice};
use std::path::Path;

use crate::error::Damage;
use crate::names::QUARANTINE;
use crate::storage::{Storage, read_full, write_full};

/// A copy is made of at most this much: a range may be a whole segment.
const MOST_BYTES: u64 = 256 << 20;
const PIECE_BYTES: u64 = 1 << 20;

/// Copies a damaged range, as far as it can be read. Copying it again replaces the copy.
///
/// # Errors
/// When the copy cannot be written.
pub fn copy(storage: &dyn Storage, folder: &Path, damage: &Damage) -> io::Result<()> {
    let to = damage.to.min(damage.from + MOST_BYTES);
    let Some(name) = damage.path.file_name().filter(|_| damage.from < to) else { return Ok(()) };
    let Ok(source) = storage.open_read(&damage.path) else { return Ok(()) };
    let quarantine = folder.join(QUARANTINE);
    storage.create_folder(&quarantine)?;
    let copy = storage.create(&quarantine.join(format!("{}.{}", name.to_string_lossy(), damage.from)))?;
    let mut at = damage.from;
    while at < to {
        let mut piece = vec![0; (to - at).min(PIECE_BYTES) as usize];
        // What cannot be read is zeros in the copy.
        _ = read_full(&*source, &mut piece, at);
        write_full(&*copy, &mut [IoSlice::new(&piece)], at - damage.from)?;
        at += piece.len() as u64;
    }
    copy.sync_all()?;
    storage.sync_folder(&quarantine)?;
    storage.sync_folder(folder)
}

/// Moves a file that is no part of the log.
///
/// # Errors
/// When it cannot be moved.
pub fn move_away(storage: &dyn Storage, folder: &Path, path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let quarantine = folder.join(QUARANTINE);
    storage.create_folder(&quarantine)?;
    storage.rename(path, &quarantine.join(name))?;
    storage.sync_folder(&quarantine)?;
    storage.sync_folder(folder)
}
