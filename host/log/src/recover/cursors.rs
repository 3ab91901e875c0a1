//! The cursor files of a channel.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ChannelScan, Look, io_error};
use crate::error::OpenError;
use crate::format::FORMAT;
use crate::format::cursor::{BadSlot, FILE_BYTES, SLOT_BYTES, SLOT_STRIDE, Slot};
use crate::names;
use crate::report::Note;
use crate::storage::{File, Storage, read_full};

/// A reader that is known here.
#[derive(Debug, Clone)]
pub struct FoundCursor {
    pub reader: Arc<str>,
    pub path: PathBuf,
    /// The newest good slot. Nothing: the file is missing, or both slots are bad.
    pub slot: Option<Slot>,
    /// Where the reader goes on.
    pub sequence: u64,
}

impl FoundCursor {
    pub fn is_removed(&self) -> bool {
        self.slot.is_some_and(|slot| slot.removed)
    }
}

/// Reads the cursors of `files`, and notes those of `known` readers that have no file.
///
/// # Errors
/// When a file cannot be read, is another channel's, or of a newer format.
pub fn read(
    storage: &dyn Storage,
    scan: &mut ChannelScan,
    files: Vec<Arc<str>>,
    known: Option<&[Arc<str>]>,
) -> Result<(), OpenError> {
    for reader in &files {
        let path = scan.path.join(names::cursor(reader));
        let slot = newest(storage, &path, reader)?;
        match (slot, scan.id) {
            (Some(slot), Some(id)) if slot.id != id => {
                return Err(scan.foreign(&path, "it was written for another channel"));
            }
            (_, None) if scan.last_number == 0 => {
                return Err(scan.foreign(&path, "there is a cursor, but there are no segments: they were removed"));
            }
            _ => {}
        }
        scan.cursors.push(FoundCursor { reader: reader.clone(), path, slot, sequence: 0 });
    }
    for reader in known.unwrap_or_default() {
        if !files.contains(reader) {
            let path = scan.path.join(names::cursor(reader));
            scan.cursors.push(FoundCursor { reader: reader.clone(), path, slot: None, sequence: 0 });
        }
    }
    Ok(())
}

fn newest(storage: &dyn Storage, path: &Path, reader: &str) -> Result<Option<Slot>, OpenError> {
    let file = storage.open_read(path).map_err(io_error(path))?;
    let mut newest: Option<Slot> = None;
    for offset in [0, SLOT_STRIDE] {
        match read_slot(&*file, offset, reader).map_err(io_error(path))? {
            Ok(slot) if newest.is_none_or(|newest| slot.generation > newest.generation) => newest = Some(slot),
            Ok(_) | Err(BadSlot::Bad) => {}
            Err(BadSlot::Newer(found)) => {
                return Err(OpenError::NewerFormat { path: path.into(), found, known: FORMAT });
            }
        }
    }
    Ok(newest)
}

fn read_slot(file: &dyn File, offset: u64, reader: &str) -> io::Result<Result<Slot, BadSlot>> {
    let mut bytes = [0; SLOT_BYTES];
    let read = read_full(file, &mut bytes, offset)?;
    Ok(Slot::parse(&bytes[..read], reader))
}

/// Settles where each reader goes on, once it is known what there is.
///
/// # Errors
/// When a cursor stands behind the end: what it settled is not there.
pub fn check(scan: &mut ChannelScan, look: Look) -> Result<(), OpenError> {
    let (oldest, floor, next) = (scan.oldest_sequence(), scan.floor(), scan.next_sequence);
    let name = scan.name.clone();
    for cursor in &mut scan.cursors {
        let reader = || (name.clone(), cursor.reader.clone());
        cursor.sequence = match cursor.slot {
            None => {
                let (channel, reader) = reader();
                scan.notes.push(Note::CursorLost { channel, reader });
                oldest
            }
            Some(slot) if slot.removed => slot.sequence,
            Some(slot) if slot.sequence < floor => {
                let (channel, reader) = reader();
                let lost_events = floor - slot.sequence;
                scan.notes.push(Note::CursorTooOld { channel, reader, lost_events });
                oldest
            }
            Some(slot) => slot.sequence,
        };
    }
    if look == Look::PastCursors { Ok(()) } else { none_ahead(scan, next) }
}

/// Refuses cursors behind `end`.
///
/// # Errors
/// When there is one.
pub fn none_ahead(scan: &ChannelScan, end: u64) -> Result<(), OpenError> {
    let ahead = |cursor: &&FoundCursor| cursor.slot.is_some_and(|slot| !slot.removed && slot.sequence > end);
    match scan.cursors.iter().find(ahead) {
        Some(FoundCursor { reader, slot: Some(slot), .. }) => Err(OpenError::CursorAhead {
            channel: scan.name.clone(),
            reader: reader.clone(),
            cursor: slot.sequence,
            end,
        }),
        _ => Ok(()),
    }
}

/// Makes the file of a cursor, with its first slot.
///
/// # Errors
/// When it cannot be made. It is there whole or not at all.
pub fn create(storage: &dyn Storage, folder: &Path, reader: &str, slot: &Slot) -> io::Result<Arc<dyn File>> {
    let aside = names::temporary(folder);
    let file = storage.create(&aside)?;
    file.set_len(FILE_BYTES)?;
    let bytes = slot.write(reader);
    crate::storage::write_full(&*file, &mut [io::IoSlice::new(&bytes)], slot.offset())?;
    file.sync_all()?;
    storage.rename(&aside, &folder.join(names::cursor(reader)))?;
    storage.sync_folder(folder)?;
    Ok(file)
}
