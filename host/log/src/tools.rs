//! What an operator does with the folder of a pipeline that is stopped. Each locks the folder; nothing deletes events.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Damage, OpenError};
use crate::format::cursor::Slot;
use crate::format::frame::Head;
use crate::open::scan_all;
use crate::put::{ChannelId, Frame};
use crate::recover::cursors::{self, FoundCursor};
use crate::recover::decide::decide;
use crate::recover::{ChannelScan, Look, SegmentInfo};
use crate::report::{Note, RecoveredReader, RecoveredSource};
use crate::root::Root;
use crate::segment::{At, CHUNK_BYTES, Expected, HOP_BYTES, RawFrame, SegmentReader, Want};
use crate::storage::{File, Storage};

/// A stopped folder as it is. What recovery would do at the next start is among the notes, and not done.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub pipeline: String,
    pub format: u32,
    pub sources: Vec<RecoveredSource>,
    pub channels: Vec<InspectedChannel>,
    pub notes: Vec<Note>,
}

#[derive(Debug, Clone)]
pub struct InspectedChannel {
    pub name: Arc<str>,
    pub path: PathBuf,
    pub id: ChannelId,
    pub segments: usize,
    pub bytes: u64,
    pub oldest_sequence: u64,
    pub next_sequence: u64,
    pub oldest_time_ms: Option<u64>,
    pub newest_time_ms: Option<u64>,
    pub readers: Vec<RecoveredReader>,
    /// Found without reading everything: in headers, the chain, and the last segment.
    pub damage: Vec<Damage>,
}

/// The outcome of reading everything.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    pub frames: u64,
    pub events: u64,
    pub bytes: u64,
    pub damage: Vec<Damage>,
}

/// Where to move a reader, or to begin an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Sequence(u64),
    /// The first frame put at this time or later, in milliseconds since 1970.
    Time(u64),
    Oldest,
    Tail,
}

/// What `seek` did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    pub from: u64,
    pub to: u64,
    pub oldest: u64,
    pub next: u64,
    /// The reader's epoch afterwards.
    pub epoch: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("there is no channel `{channel}` in `{}`", root.display())]
    NoSuchChannel { channel: String, root: PathBuf },
    #[error("channel `{channel}` has no reader `{reader}`")]
    NoSuchReader { channel: String, reader: String },
    #[error("sequence {sequence} of channel `{channel}` is not there: it holds {oldest} up to {next}")]
    OutOfRange { channel: String, sequence: u64, oldest: u64, next: u64 },
}

/// Looks at headers, cursors and the last segment of each channel.
///
/// # Errors
/// When the folder cannot be used, is in use, or is not ours.
pub fn inspect(storage: &Arc<dyn Storage>, root: &Path) -> Result<Inspection, ToolError> {
    let mut folder = Folder::look(storage, root)?;
    let sources = decide(&mut folder.scans);
    let mut notes = Vec::new();
    let mut channels = Vec::new();
    for scan in &mut folder.scans {
        notes.append(&mut scan.notes);
        channels.push(inspected(&**storage, scan));
    }
    Ok(Inspection { pipeline: folder.root.pipeline, format: folder.root.format, sources, channels, notes })
}

fn inspected(storage: &dyn Storage, scan: &ChannelScan) -> InspectedChannel {
    let time = |segment: &SegmentInfo, newest: bool| {
        let mut time = None;
        Walk::of(storage, scan, segment).heads(&mut |head| {
            time = Some(head.time_ms);
            if newest { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        time
    };
    InspectedChannel {
        name: scan.name.clone(),
        path: scan.path.clone(),
        id: scan.id.unwrap_or_default(),
        segments: scan.segments.len(),
        bytes: scan.segments.iter().map(|segment| segment.file_bytes).sum(),
        oldest_sequence: scan.oldest_sequence(),
        next_sequence: scan.next_sequence,
        oldest_time_ms: scan.segments.iter().find_map(|segment| time(segment, false)),
        newest_time_ms: scan.segments.iter().rev().find_map(|segment| time(segment, true)),
        readers: readers(scan),
        damage: scan.damage.clone(),
    }
}

fn readers(scan: &ChannelScan) -> Vec<RecoveredReader> {
    let cursors = scan.cursors.iter().filter(|cursor| !cursor.is_removed());
    let reader = |cursor: &FoundCursor| RecoveredReader {
        name: cursor.reader.clone(),
        cursor: cursor.sequence,
        events: scan.events_behind(cursor),
        epoch: cursor.slot.map_or(0, |slot| slot.epoch),
        unclaimed: false,
    };
    cursors.map(reader).collect()
}

/// Reads everything in one channel and lists what is damaged.
///
/// # Errors
/// As [`inspect`].
pub fn verify(storage: &Arc<dyn Storage>, root: &Path, channel: &str) -> Result<Verification, ToolError> {
    let mut folder = Folder::look(storage, root)?;
    decide(&mut folder.scans);
    let scan = folder.channel(channel)?;
    let mut found = Verification { damage: scan.damage.clone(), ..Verification::default() };
    for segment in &scan.segments {
        let mut walk = Walk::of(&**storage, scan, segment);
        _ = walk.frames(&mut |raw| {
            if !scan.voids.contains_key(&raw.head.frame) {
                found.frames += 1;
                found.events += u64::from(raw.head.events);
            }
            found.bytes += raw.length();
            ControlFlow::Continue(())
        });
        found.damage.append(&mut walk.damage);
    }
    found.damage.dedup();
    Ok(found)
}

/// Gives every frame of a channel from a place on, until `each` breaks. Damage is passed over and returned.
///
/// # Errors
/// As [`inspect`], or when the place is not there.
pub fn export(
    storage: &Arc<dyn Storage>,
    root: &Path,
    channel: &str,
    from: Place,
    each: &mut dyn FnMut(Frame) -> ControlFlow<()>,
) -> Result<Vec<Damage>, ToolError> {
    let mut folder = Folder::look(storage, root)?;
    decide(&mut folder.scans);
    let scan = folder.channel(channel)?;
    let from = find(&**storage, scan, from)?;
    let mut damage = scan.damage.clone();
    let mut source: Arc<str> = "".into();
    for segment in scan.segments.iter().filter(|segment| segment.end.sequence > from) {
        let mut walk = Walk::of(&**storage, scan, segment);
        let flow = walk.frames(&mut |raw| {
            if scan.voids.contains_key(&raw.head.frame) || raw.head.next_sequence() <= from {
                return ControlFlow::Continue(());
            }
            raw.decode(&mut source).map_or(ControlFlow::Continue(()), &mut *each)
        });
        damage.append(&mut walk.damage);
        if flow.is_break() {
            break;
        }
    }
    damage.dedup();
    Ok(damage)
}

/// Moves a reader and raises its epoch. With `dry_run` it only says what it would do.
///
/// # Errors
/// When there is no such reader or place, or the cursor cannot be written.
pub fn seek(
    storage: &Arc<dyn Storage>,
    root: &Path,
    channel: &str,
    reader: &str,
    to: Place,
    dry_run: bool,
) -> Result<Sought, ToolError> {
    // A cursor that is ahead is one of the reasons to come here.
    let mut folder = Folder::look_past_cursors(storage, root)?;
    decide(&mut folder.scans);
    let scan = folder.channel(channel)?;
    let cursor = known_reader(scan, reader)?;
    let to = find(&**storage, scan, to)?;
    let old = cursor.slot.unwrap_or_else(|| first_slot(scan));
    let slot = Slot {
        generation: old.generation + 1,
        sequence: to,
        epoch: old.epoch + 1,
        durable_frames: scan.next_frame,
        durable_sequence: scan.next_sequence,
        ..old
    };
    if !dry_run {
        write_cursor(&**storage, scan, cursor, &slot)?;
    }
    let from = cursor.slot.map_or(cursor.sequence, |slot| slot.sequence);
    Ok(Sought { from, to, oldest: scan.oldest_sequence(), next: scan.next_sequence, epoch: slot.epoch })
}

fn first_slot(scan: &ChannelScan) -> Slot {
    Slot {
        id: scan.id.unwrap_or_default(),
        generation: 0,
        sequence: 0,
        epoch: 0,
        durable_frames: 0,
        durable_sequence: 0,
        removed: false,
    }
}

/// As a new file: the old slots may be why somebody came.
fn write_cursor(storage: &dyn Storage, scan: &ChannelScan, cursor: &FoundCursor, slot: &Slot) -> Result<(), ToolError> {
    let written = cursors::create(storage, &scan.path, &cursor.reader, slot);
    written.map(drop).map_err(|source| OpenError::Io { path: cursor.path.clone(), source }.into())
}

/// Removes a reader, so that it holds no events any more. With `dry_run` it only says where it stands.
///
/// # Errors
/// When there is no such reader, or its file cannot be changed.
pub fn remove_reader(
    storage: &Arc<dyn Storage>,
    root: &Path,
    channel: &str,
    reader: &str,
    dry_run: bool,
) -> Result<RecoveredReader, ToolError> {
    let folder = Folder::look_past_cursors(storage, root)?;
    let scan = folder.channel(channel)?;
    let cursor = known_reader(scan, reader)?;
    let old = cursor.slot.unwrap_or_else(|| first_slot(scan));
    let slot = Slot { generation: old.generation + 1, removed: true, ..old };
    if !dry_run {
        write_cursor(&**storage, scan, cursor, &slot)?;
    }
    Ok(RecoveredReader {
        name: cursor.reader.clone(),
        cursor: cursor.sequence,
        events: scan.events_behind(cursor),
        epoch: old.epoch,
        unclaimed: false,
    })
}

fn known_reader<'s>(scan: &'s ChannelScan, reader: &str) -> Result<&'s FoundCursor, ToolError> {
    let mut cursors = scan.cursors.iter().filter(|cursor| !cursor.is_removed());
    let missing = || ToolError::NoSuchReader { channel: scan.name.to_string(), reader: reader.into() };
    cursors.find(|cursor| &*cursor.reader == reader).ok_or_else(missing)
}

/// The sequence a place stands for.
fn find(storage: &dyn Storage, scan: &ChannelScan, place: Place) -> Result<u64, ToolError> {
    let (oldest, next) = (scan.oldest_sequence(), scan.next_sequence);
    match place {
        Place::Oldest => Ok(oldest),
        Place::Tail => Ok(next),
        Place::Sequence(sequence) if (oldest..=next).contains(&sequence) => Ok(sequence),
        Place::Sequence(sequence) => {
            Err(ToolError::OutOfRange { channel: scan.name.to_string(), sequence, oldest, next })
        }
        Place::Time(time) => Ok(at_time(storage, scan, time)),
    }
}

/// The first frame of this time or later, by the frames' own times. Those may jump with the clock, so all are looked at, in
/// the segments that were not ended before.
fn at_time(storage: &dyn Storage, scan: &ChannelScan, time_ms: u64) -> u64 {
    for segment in &scan.segments {
        let mut found = None;
        Walk::of(storage, scan, segment).heads(&mut |head| {
            if head.time_ms >= time_ms {
                found = Some(head.first_sequence);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if let Some(found) = found {
            return found;
        }
    }
    scan.next_sequence
}

/// A stopped folder, locked and looked at.
struct Folder {
    root: Root,
    scans: Vec<ChannelScan>,
}

impl Folder {
    fn look(storage: &Arc<dyn Storage>, root: &Path) -> Result<Self, ToolError> {
        let root = Root::look(&**storage, root)?;
        let (scans, _) = scan_all(&**storage, &root.path, Vec::new(), Look::Only)?;
        Ok(Self { root, scans })
    }

    fn look_past_cursors(storage: &Arc<dyn Storage>, root: &Path) -> Result<Self, ToolError> {
        let root = Root::look(&**storage, root)?;
        let (scans, _) = scan_all(&**storage, &root.path, Vec::new(), Look::PastCursors)?;
        Ok(Self { root, scans })
    }

    fn channel(&self, name: &str) -> Result<&ChannelScan, ToolError> {
        let missing = || ToolError::NoSuchChannel { channel: name.into(), root: self.root.path.clone() };
        self.scans.iter().find(|scan| &*scan.name == name).ok_or_else(missing)
    }
}

/// Goes over the frames of one segment, and over what is damaged between them.
struct Walk<'s> {
    scan: &'s ChannelScan,
    segment: &'s SegmentInfo,
    file: io::Result<Arc<dyn File>>,
    damage: Vec<Damage>,
}

impl<'s> Walk<'s> {
    fn of(storage: &dyn Storage, scan: &'s ChannelScan, segment: &'s SegmentInfo) -> Self {
        Self { scan, segment, file: storage.open_read(&segment.path), damage: Vec::new() }
    }

    fn heads(&mut self, each: &mut dyn FnMut(Head) -> ControlFlow<()>) {
        _ = self.go(Want::Head, &mut |raw| each(raw.head));
    }

    fn frames(&mut self, each: &mut dyn FnMut(RawFrame) -> ControlFlow<()>) -> ControlFlow<()> {
        self.go(Want::Payload, each)
    }

    fn go(&mut self, want: Want, each: &mut dyn FnMut(RawFrame) -> ControlFlow<()>) -> ControlFlow<()> {
        let segment = self.segment;
        let file = match &self.file {
            Ok(file) => file.clone(),
            Err(error) => {
                let text = error.to_string();
                self.note((0, segment.file_bytes), segment.base_sequence, segment.end.sequence, &text);
                return ControlFlow::Continue(());
            }
        };
        let chunk = if want == Want::Head { HOP_BYTES } else { CHUNK_BYTES };
        let mut reader = SegmentReader::new(file, self.scan.id.unwrap_or_default(), segment.number, chunk);
        let bound = segment.end.offset;
        let (mut offset, mut frame, mut sequence) = (segment.header_bytes, segment.base_frame, segment.base_sequence);
        while offset < bound {
            let expected = Expected { frame, sequence };
            let why = match reader.at(offset, bound, expected, want) {
                Ok(At::Frame(raw)) => {
                    (offset, frame, sequence) = (offset + raw.length(), frame + 1, raw.head.next_sequence());
                    each(raw)?;
                    continue;
                }
                Ok(At::Nothing) => "nothing stands where a frame was acknowledged".to_string(),
                Ok(At::Bad(why)) => why.into(),
                Err(error) => error.to_string(),
            };
            let next = reader.resync(offset + 8, bound, expected).ok().flatten();
            let (to, lost_to) = next.map_or((bound, segment.end.sequence), |(to, head)| (to, head.first_sequence));
            self.note((offset, to), sequence, lost_to, &why);
            (offset, sequence) = (to, lost_to);
            frame = next.map_or(segment.end.frame, |(_, head)| head.frame);
        }
        ControlFlow::Continue(())
    }

    fn note(&mut self, (from, to): (u64, u64), sequence: u64, lost_to: u64, detail: &str) {
        self.damage.push(Damage {
            channel: self.scan.name.clone(),
            path: self.segment.path.clone(),
            from,
            to,
            sequence,
            lost_events: Some(lost_to.saturating_sub(sequence)),
            detail: detail.into(),
        });
    }
}
