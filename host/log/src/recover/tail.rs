//! The last segment, frame by frame: where the log ends, and whether that is a torn tail or damage.

use std::path::Path;
use std::sync::Arc;

use super::folder::damage;
use super::{ChannelScan, Look, SEQUENCE_JUMP, cursors, io_error};
use crate::error::OpenError;
use crate::format::frame::{HEAD_BYTES, Head};
use crate::format::header::{End, Header, Lossy};
use crate::put::ChannelId;
use crate::report::Note;
use crate::segment::{At, CHUNK_BYTES, Expected, RawFrame, SegmentReader, Want};
use crate::storage::Storage;
use crate::track::{PendingPut, Tracks};

/// What the last segment says.
pub struct Tail {
    pub end: End,
    pub next_frame: u64,
    pub next_sequence: u64,
    pub tracks: Tracks,
}

/// Reads the last segment to its end.
///
/// The rule for a bad frame, or for an empty place with frames behind it: frames that share a sync reach the disk in any
/// order, so a later frame proves nothing by being there. But it says how many frames were durable when it was written, as do
/// the cursors. A bad frame below that number was acknowledged: that is damage. Otherwise nobody was ever told of it: the log
/// is cut there.
pub fn scan_tail(
    storage: &dyn Storage,
    scan: &mut ChannelScan,
    header: &Header,
    path: &Path,
    look: Look,
) -> Result<Tail, OpenError> {
    let mut walk = Walk::open(storage, scan, header, path, look)?;
    let slots = || scan.cursors.iter().filter_map(|cursor| cursor.slot);
    let proven = slots().map(|slot| slot.durable_frames).max().unwrap_or(0);
    let proven_sequence = slots().map(|slot| slot.durable_sequence).max().unwrap_or(0);
    loop {
        let stopped = walk.take_good_frames(path)?;
        let later = walk.evidence_behind(path)?;
        let durable = proven.max(later.as_ref().map_or(0, |later| later.durable_frames));
        let used = match (header.recycled, &later) {
            // Whatever else stands there is of the segment that the file was before.
            (true, Some(later)) => later.behind - walk.end.offset,
            (true, None) => stopped.map_or(0, |_| HEAD_BYTES.min(walk.bound.saturating_sub(walk.end.offset))),
            (false, _) => walk.reader.used(walk.end.offset, walk.bound).map_err(io_error(path))?,
        };
        if durable <= walk.end.frame || scan.cuts_instead() {
            if used > 0 {
                scan.notes.push(Note::TailCut { channel: scan.name.clone(), bytes: used });
            }
            return Ok(walk.finish(header.lossy));
        }
        let from = walk.end;
        let why = stopped.unwrap_or("frames that were acknowledged are not there");
        match later {
            Some(Later { offset, head, .. }) => {
                let lost = head.first_sequence - from.sequence;
                scan.damage.push(damage(scan, path, (from.offset, offset), from.sequence, Some(lost), why));
                walk.end = End { offset, frame: head.frame, sequence: head.first_sequence };
            }
            None => {
                if used == 0 && header.lossy == Lossy::Nothing && look != Look::PastCursors {
                    cursors::none_ahead(scan, from.sequence)?;
                }
                let to = from.offset + used;
                let lost = proven_sequence.checked_sub(from.sequence);
                scan.damage.push(damage(scan, path, (from.offset, to), from.sequence, lost, why));
                let mut tail = walk.finish(header.lossy);
                tail.next_frame = durable;
                // Frames that were written behind the proven ones may have been read as well.
                tail.next_sequence += SEQUENCE_JUMP;
                return Ok(tail);
            }
        }
    }
}

/// What stands behind a bad frame.
struct Later {
    /// Where the first good frame is.
    offset: u64,
    head: Head,
    /// Behind the last.
    behind: u64,
    /// How many frames all of them prove to have been durable.
    durable_frames: u64,
}

/// Where a segment ends whose successor is missing.
pub fn find_end(storage: &dyn Storage, scan: &ChannelScan, header: &Header, path: &Path) -> Result<End, OpenError> {
    let mut walk = Walk::open(storage, scan, header, path, Look::Only)?;
    walk.take_good_frames(path)?;
    Ok(walk.end)
}

struct Walk {
    reader: SegmentReader,
    bound: u64,
    end: End,
    id: ChannelId,
    tracks: Tracks,
}

impl Walk {
    fn open(
        storage: &dyn Storage,
        scan: &ChannelScan,
        header: &Header,
        path: &Path,
        look: Look,
    ) -> Result<Self, OpenError> {
        let file = match look {
            Look::Only | Look::PastCursors => storage.open_read(path),
            Look::ToGoOn => storage.open_write(path),
        };
        let file = file.map_err(io_error(path))?;
        if look == Look::ToGoOn {
            // Crash: a process that was killed leaves frames that are written and not synced. They are about to be relied on.
            file.sync_all().map_err(io_error(path))?;
            _ = file.drop_cache();
        }
        let bound = file.len().map_err(io_error(path))?;
        let mut reader = SegmentReader::new(file, header.id, header.number, CHUNK_BYTES);
        reader.believing = scan.believes();
        let end = End { offset: header.length, frame: header.base_frame, sequence: header.base_sequence };
        Ok(Self { reader, bound, end, id: header.id, tracks: header.tracks.clone() })
    }

    fn expected(&self) -> Expected {
        Expected { frame: self.end.frame, sequence: self.end.sequence }
    }

    /// Goes over good frames; says what was wrong with the one after, or nothing where nothing was written.
    fn take_good_frames(&mut self, path: &Path) -> Result<Option<&'static str>, OpenError> {
        loop {
            let at = self.reader.at(self.end.offset, self.bound, self.expected(), Want::Payload);
            match at.map_err(io_error(path))? {
                At::Frame(raw) => {
                    if !self.take(&raw) {
                        return Ok(Some("it makes no sense"));
                    }
                }
                At::Nothing => return Ok(None),
                At::Bad(why) => return Ok(Some(why)),
            }
        }
    }

    fn take(&mut self, raw: &RawFrame) -> bool {
        let Some(meta) = raw.meta() else { return false };
        let Ok(source) = std::str::from_utf8(&meta.source) else { return false };
        let head = raw.head;
        let mut channels = meta.others;
        channels.push(self.id);
        let track = match self.tracks.get_mut(source) {
            Some(track) => track,
            None => self.tracks.entry(Arc::from(source)).or_default(),
        };
        track.complete_up_to(head.complete_put);
        track.add(PendingPut {
            put: head.put,
            channels,
            frame: head.frame,
            sequence: head.first_sequence,
            events: head.events,
            position: meta.position,
        });
        self.end.offset += raw.length();
        self.end.frame += 1;
        self.end.sequence = head.next_sequence();
        true
    }

    /// The first later frame, and how many frames all later ones prove to have been durable.
    fn evidence_behind(&mut self, path: &Path) -> Result<Option<Later>, OpenError> {
        let mut first: Option<Later> = None;
        let (mut at, mut expected) = (self.end.offset + 8, self.expected());
        while let Some((offset, head)) = self.reader.resync(at, self.bound, expected).map_err(io_error(path))? {
            at = offset + u64::from(head.length);
            let later = first.get_or_insert(Later { offset, head, behind: at, durable_frames: 0 });
            later.durable_frames = later.durable_frames.max(head.durable_frames);
            later.behind = at;
            expected = Expected { frame: head.frame, sequence: head.first_sequence };
        }
        Ok(first)
    }

    fn finish(self, lossy: Lossy) -> Tail {
        // Readers may have seen events that a power cut took. A log that was closed ends with a segment that can lose nothing.
        let jump = if lossy == Lossy::Nothing { 0 } else { SEQUENCE_JUMP };
        Tail { end: self.end, next_frame: self.end.frame, next_sequence: self.end.sequence + jump, tracks: self.tracks }
    }
}
