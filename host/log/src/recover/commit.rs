//! Writing down what was decided: a new segment for each channel, and the cursors of readers that have none.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{ChannelScan, cursors, io_error};
use crate::error::OpenError;
use crate::format::cursor::Slot;
use crate::format::header::{End, Header};
use crate::options::{ChannelOptions, OnCorruption, Start};
use crate::put::ChannelId;
use crate::quarantine;
use crate::report::Note;
use crate::segment;
use crate::storage::{File, Storage};

/// A channel that is ready to go on.
pub struct Committed {
    pub header: Header,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    pub readers: Vec<CommittedReader>,
}

pub struct CommittedReader {
    pub name: Arc<str>,
    pub slot: Slot,
    pub unclaimed: bool,
}

/// Makes the segment from which the channel goes on, and then does the housekeeping that it allows.
///
/// # Errors
/// When something cannot be written; a next attempt begins from the same state.
pub fn commit(storage: &dyn Storage, scan: &mut ChannelScan, options: &ChannelOptions) -> Result<Committed, OpenError> {
    for leftover in &scan.leftovers {
        storage.remove(leftover).map_err(io_error(leftover))?;
    }
    let id = scan.id.unwrap_or_else(|| ChannelId(storage.unique_id()));
    let header = header(storage, scan, options, id);
    if scan.on_corruption == OnCorruption::Skip {
        set_aside(storage, scan)?;
    }
    let (file, path, length) = segment::create(storage, &scan.path, &header).map_err(io_error(&scan.path))?;
    let header = Header { length, ..header };
    let readers = readers(storage, scan, options, id)?;
    cut_old(storage, scan)?;
    Ok(Committed { header, file, path, readers })
}

fn header(storage: &dyn Storage, scan: &ChannelScan, options: &ChannelOptions, id: ChannelId) -> Header {
    // Only those whose files are there: a reader named here whose file is missing has lost it.
    let kept = scan.cursors.iter().filter(|cursor| cursor.slot.is_some() && !cursor.is_removed());
    let readers = kept.map(|cursor| cursor.reader.clone()).collect();
    Header {
        length: 0,
        lossy: options.sync.into(),
        id,
        number: scan.last_number + 1,
        base_frame: scan.next_frame,
        base_sequence: scan.next_sequence,
        previous: if scan.segments.is_empty() { End::default() } else { scan.end() },
        created_ms: storage.now_ms(),
        readers,
        voids: scan.voids.clone(),
        tracks: scan.tracks.clone(),
        recycled: false,
    }
}

/// Every reader gets a good slot that says where it goes on. New ones start where the options say.
fn readers(
    storage: &dyn Storage,
    scan: &ChannelScan,
    options: &ChannelOptions,
    id: ChannelId,
) -> Result<Vec<CommittedReader>, OpenError> {
    let mut ready = Vec::new();
    for cursor in &scan.cursors {
        let start = options.readers.iter().find(|(name, _)| *name == cursor.reader).map(|(_, start)| *start);
        if cursor.is_removed() && start.is_none() {
            storage.remove(&cursor.path).map_err(io_error(&cursor.path))?;
            storage.sync_folder(&scan.path).map_err(io_error(&scan.path))?;
            continue;
        }
        let fresh = cursor.is_removed() || cursor.slot.is_none();
        let sequence = match start {
            Some(start) if cursor.is_removed() => start_sequence(scan, start),
            _ => cursor.sequence,
        };
        let old = cursor.slot.unwrap_or(new_slot(scan, id, sequence));
        // Of a cursor whose file was lost nobody here knows the epoch: 0 leaves the word to whoever remembers a greater one.
        let slot = Slot { sequence, removed: false, epoch: old.epoch + u64::from(cursor.is_removed()), ..old };
        if fresh {
            write_new(storage, scan, &cursor.reader, &slot)?;
        }
        ready.push(CommittedReader { name: cursor.reader.clone(), slot, unclaimed: start.is_none() });
    }
    for (name, start) in &options.readers {
        if ready.iter().all(|reader| reader.name != *name) {
            let slot = new_slot(scan, id, start_sequence(scan, *start));
            write_new(storage, scan, name, &slot)?;
            ready.push(CommittedReader { name: name.clone(), slot, unclaimed: false });
        }
    }
    Ok(ready)
}

fn start_sequence(scan: &ChannelScan, start: Start) -> u64 {
    match start {
        Start::Oldest => scan.oldest_sequence(),
        Start::Tail => scan.next_sequence,
    }
}

fn new_slot(scan: &ChannelScan, id: ChannelId, sequence: u64) -> Slot {
    Slot {
        id,
        generation: 0,
        sequence,
        epoch: 0,
        durable_frames: scan.next_frame,
        durable_sequence: scan.next_sequence,
        removed: false,
    }
}

fn write_new(storage: &dyn Storage, scan: &ChannelScan, reader: &str, slot: &Slot) -> Result<(), OpenError> {
    cursors::create(storage, &scan.path, reader, slot).map(drop).map_err(io_error(&scan.path))
}

/// Keeps a copy of what is damaged, and moves files away that are no part of the log.
fn set_aside(storage: &dyn Storage, scan: &mut ChannelScan) -> Result<(), OpenError> {
    for damage in std::mem::take(&mut scan.damage) {
        let ours = scan.segments.iter().any(|segment| segment.path == damage.path);
        let done = if ours || damage.path == scan.path {
            quarantine::copy(storage, &scan.path, &damage)
        } else {
            quarantine::move_away(storage, &scan.path, &damage.path)
        };
        done.map_err(io_error(&damage.path))?;
        scan.notes.push(Note::Skipped(damage));
    }
    Ok(())
}

/// Gives the room behind the end of the old segment back. Nothing depends on it.
fn cut_old(storage: &dyn Storage, scan: &mut ChannelScan) -> Result<(), OpenError> {
    let Some(old) = scan.segments.last_mut() else { return Ok(()) };
    if old.file_bytes > old.end.offset {
        let cut = || -> io::Result<()> {
            let file = storage.open_write(&old.path)?;
            file.set_len(old.end.offset)?;
            file.sync_all()
        };
        cut().map_err(io_error(&old.path))?;
        old.file_bytes = old.end.offset;
    }
    Ok(())
}
