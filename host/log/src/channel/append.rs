//! Writing: a group of puts with one vectored write and one sync, and a new segment when one is full.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use super::state::{LiveSegment, Spot};
use super::{Channel, Queued};
use crate::error::Poisoned;
use crate::format::frame::{HEAD_BYTES, Head, Seat};
use crate::format::header::{End, Header, Lossy};
use crate::options::Sync;
use crate::put::Frame;
use crate::report::Waiting;
use crate::segment::{self, END};
use crate::source::{Source, UnderWay};
use crate::storage::{File, is_full, write_full};
use crate::track::{PendingPut, Tracks};

/// One group is at most this much, so that a sync of many puts stays a matter of milliseconds.
const GROUP_BYTES: u64 = 32 << 20;

/// The writer's own: the file it writes, and what a new segment's header has to say.
pub struct Core {
    pub file: Arc<dyn File>,
    pub number: u64,
    pub header_bytes: u64,
    pub base_frame: u64,
    /// How far the file goes; nothing is written behind that.
    pub room: u64,
    pub end: End,
    pub synced: End,
    pub tracks: Tracks,
    /// Those that were written here since the start.
    pub sources: Vec<Arc<Source>>,
    /// Taken from the queue, not yet written: what waits for space.
    pub group: VecDeque<Queued>,
    /// Written, and to be told of after the sync.
    pub written: Vec<Arc<UnderWay>>,
    pub unsynced_since: Option<Instant>,
    /// Events written since the last sync.
    pub unsynced_events: u64,
}

impl Core {
    /// On a segment that was just made.
    pub fn new(file: Arc<dyn File>, header: Header) -> Self {
        let end = End { offset: header.length, frame: header.base_frame, sequence: header.base_sequence };
        Self {
            file,
            number: header.number,
            header_bytes: header.length,
            base_frame: header.base_frame,
            room: header.length,
            end,
            synced: end,
            tracks: header.tracks,
            sources: Vec::new(),
            group: VecDeque::new(),
            written: Vec::new(),
            unsynced_since: None,
            unsynced_events: 0,
        }
    }
}

/// What came of a turn of the writer.
#[derive(Debug)]
pub enum Turn {
    Idle,
    Wrote,
    /// Nothing can be written until there is space. It is tried again from the same state.
    NoSpace,
    Poisoned(Poisoned),
}

enum Trouble {
    Full(io::Error),
    Poison(String, io::Error),
}

impl Queued {
    /// The frame's length on disk.
    pub fn length(&self) -> u64 {
        (HEAD_BYTES + self.meta.len() as u64 + u64::from(self.payload_len)).next_multiple_of(8)
    }
}

impl Channel {
    /// Writes all that waits, up to a limit, syncs it if that is the mode, and completes it. `sync` asks for a sync in any case.
    pub fn turn(&self, sync: bool) -> Turn {
        if let Some(poisoned) = self.poisoned() {
            self.fail_all(&poisoned);
            return Turn::Poisoned(poisoned);
        }
        let core = &mut *self.core.lock();
        self.fill_group(core);
        let any = !core.group.is_empty();
        let begun = Instant::now();
        let outcome = self
            .write_group(core)
            .and_then(|()| if sync || self.options.sync == Sync::Always { self.sync(core) } else { Ok(()) });
        // What was written before the disk was full is as durable as its mode asks for.
        let outcome = match outcome {
            Err(Trouble::Full(error)) if self.options.sync == Sync::Always => {
                self.sync(core).and(Err(Trouble::Full(error)))
            }
            outcome => outcome,
        };
        match outcome {
            Ok(()) => {
                let took = begun.elapsed();
                self.told(core, any.then_some(took));
                if core.synced.frame == core.end.frame && core.unsynced_events > 0 {
                    self.call_sync_hook(took, std::mem::take(&mut core.unsynced_events));
                }
                if any { Turn::Wrote } else { Turn::Idle }
            }
            Err(Trouble::Full(error)) => {
                self.told(core, None);
                self.wait_for_space(&error);
                Turn::NoSpace
            }
            Err(Trouble::Poison(action, error)) => {
                let poisoned = self.poison(action, error);
                self.fail_core(core, &poisoned);
                Turn::Poisoned(poisoned)
            }
        }
    }

    fn fill_group(&self, core: &mut Core) {
        if !core.group.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        while bytes < GROUP_BYTES {
            let Some(queued) = queue.puts.pop_front() else { break };
            bytes += queued.length();
            core.group.push_back(queued);
        }
    }

    fn wait_for_space(&self, error: &io::Error) {
        let now = self.storage.now_ms();
        let mut state = self.state.lock();
        state.waiting.get_or_insert_with(|| Waiting { since_ms: now, reason: error.to_string() });
    }

    fn write_group(&self, core: &mut Core) -> Result<(), Trouble> {
        while let Some(first) = core.group.front() {
            let need = first.length() + 8;
            if core.end.offset + need > core.room {
                self.make_room(core, need)?;
            }
            let mut fits = core.room - core.end.offset - 8;
            let run = core.group.iter().take_while(|queued| {
                let fit = queued.length() <= fits;
                fits = fits.saturating_sub(queued.length());
                fit
            });
            let run = run.count();
            self.write_run(core, run)?;
        }
        Ok(())
    }

    /// Goes on in a segment that has `need` bytes left: in this one while it has no frames, else in the next.
    fn make_room(&self, core: &mut Core, need: u64) -> Result<(), Trouble> {
        let size = |header: u64| self.options.segment_bytes.max(header + need);
        let used = core.end.frame > core.base_frame;
        if used {
            // Not before there is space for all of it, so that a full disk leaves no trail of headers.
            let spare = self.spares.lock().last().map_or(0, |spare| spare.bytes);
            self.check_space(size(core.header_bytes).saturating_sub(spare))?;
            self.roll(core, self.options.sync.into())?;
        }
        let size = size(core.header_bytes);
        if core.room >= size {
            return Ok(());
        }
        self.check_space(size - core.room)?;
        let room = if self.options.preallocate { core.file.allocate(size) } else { core.file.set_len(size) };
        room.map_err(|error| trouble(format!("make room in segment {}", core.number), error))?;
        core.room = size;
        let mut state = self.state.lock();
        state.segments.back_mut().expect("one is being written").file_bytes = size;
        Ok(())
    }

    fn check_space(&self, size: u64) -> Result<(), Trouble> {
        let free = self.storage.free_bytes(&self.path);
        let free = free.map_err(|error| Trouble::Poison("ask for the free space".into(), error))?;
        let least = self.options.min_free_bytes + size;
        if free < least {
            let text = format!("{free} bytes are free, and {least} must be to begin a segment");
            return Err(Trouble::Full(io::Error::new(io::ErrorKind::StorageFull, text)));
        }
        Ok(())
    }

    /// Ends this segment and begins the next.
    ///
    /// Crash: this segment is synced before the next one's name is there, so only a last segment can have a torn tail.
    fn roll(&self, core: &mut Core, lossy: Lossy) -> Result<(), Trouble> {
        self.sync(core)?;
        for source in &core.sources {
            if let Some(track) = core.tracks.get_mut(&source.name) {
                track.complete_up_to(source.complete());
            }
        }
        let spare = self.spares.lock().pop();
        let header = Header { recycled: spare.is_some(), ..self.next_header(core, lossy) };
        let made = match &spare {
            Some(spare) => segment::recycle(&*self.storage, &self.path, &header, &spare.path),
            None => segment::create(&*self.storage, &self.path, &header),
        };
        let (file, path, length) = made.map_err(|error| {
            let aside = spare.as_ref().map_or_else(|| crate::names::temporary(&self.path), |spare| spare.path.clone());
            _ = self.storage.remove(&aside);
            trouble(format!("begin segment {}", header.number), error)
        })?;
        // Housekeeping: where it ends is written in the next header.
        _ = core.file.set_len(core.end.offset);
        core.file = file;
        core.number = header.number;
        core.header_bytes = length;
        core.base_frame = header.base_frame;
        core.room = spare.map_or(length, |spare| spare.bytes.max(length));
        let ended = core.end;
        core.end.offset = length;
        let mut state = self.state.lock();
        let old = state.segments.back_mut().expect("one is being written");
        old.end = Some(ended);
        old.file_bytes = ended.offset;
        let bytes_before = old.bytes_before + ended.offset - old.header_bytes;
        let begun = LiveSegment::begun(&Header { length, ..header }, path, bytes_before);
        state.segments.push_back(LiveSegment { file_bytes: core.room, ..begun });
        state.written = Spot { segment: core.number, at: core.end };
        Ok(())
    }

    /// The last word of a log that is closed: all is synced, so whoever opens it need not fear that a power cut took the end.
    /// Where there is no room for it, the next start only leaves a gap in the sequences.
    pub fn seal(&self, core: &mut Core) -> Result<(), Poisoned> {
        if self.options.sync == Sync::Always {
            return Ok(());
        }
        match self.roll(core, Lossy::Nothing) {
            Ok(()) | Err(Trouble::Full(_)) => Ok(()),
            Err(Trouble::Poison(action, error)) => Err(self.poison(action, error)),
        }
    }

    fn next_header(&self, core: &Core, lossy: Lossy) -> Header {
        let state = self.state.lock();
        Header {
            length: 0,
            lossy,
            id: self.id,
            number: core.number + 1,
            base_frame: core.end.frame,
            base_sequence: core.end.sequence,
            previous: core.end,
            created_ms: self.storage.now_ms(),
            readers: state.live_readers().map(|reader| reader.name.clone()).collect(),
            voids: state.voids.clone(),
            tracks: core.tracks.clone(),
            recycled: false,
        }
    }

    /// Writes the first `run` puts of the group, which fit, with one write.
    fn write_run(&self, core: &mut Core, run: usize) -> Result<(), Trouble> {
        let mut heads = Vec::new();
        let mut frames = Vec::with_capacity(run);
        let mut end = core.end;
        for queued in core.group.iter().take(run) {
            let head = self.head(core, queued, end);
            let start = heads.len();
            let seat = Seat { id: self.id, segment: core.number, offset: end.offset };
            head.write(seat, &queued.meta, &mut heads);
            end = End {
                offset: end.offset + queued.length(),
                frame: end.frame + 1,
                sequence: end.sequence + u64::from(queued.events),
            };
            frames.push((start..heads.len(), head, end));
        }
        let mut slices = Vec::with_capacity(run * 4);
        for (queued, (head, ..)) in core.group.iter().zip(&frames) {
            slices.push(IoSlice::new(&heads[head.clone()]));
            slices.extend(queued.stored.iter().filter(|column| !column.is_empty()).map(|column| IoSlice::new(column)));
            let padding = queued.length() - (head.len() as u64 + u64::from(queued.payload_len));
            if padding > 0 {
                slices.push(IoSlice::new(&END[..padding as usize]));
            }
        }
        // There is always room for it: see `fits`.
        slices.push(IoSlice::new(&END));
        // Crash: writing the same again at the same place is safe, since nobody was told of any of it.
        write_full(&*core.file, &mut slices, core.end.offset)
            .map_err(|error| trouble(format!("write segment {}", core.number), error))?;
        core.unsynced_since.get_or_insert_with(Instant::now);
        let bytes = end.offset - core.end.offset;
        core.end = end;
        let puts: Vec<Queued> = core.group.drain(..run).collect();
        self.note_written(core, puts, frames.into_iter().map(|(_, head, end)| (head, end)), bytes);
        Ok(())
    }

    fn head(&self, core: &Core, queued: &Queued, end: End) -> Head {
        Head {
            length: queued.length() as u32,
            payload_crc: queued.payload_crc,
            meta_len: queued.meta.len() as u32,
            payload_len: queued.payload_len,
            events: queued.events,
            frame: end.frame,
            first_sequence: end.sequence,
            durable_frames: core.synced.frame,
            put: queued.put.number,
            complete_put: queued.put.source.complete(),
            time_ms: queued.time_ms,
            compression: queued.compression,
        }
    }

    fn note_written(&self, core: &mut Core, puts: Vec<Queued>, frames: impl Iterator<Item = (Head, End)>, bytes: u64) {
        let mut state = self.state.lock();
        for (queued, (head, end)) in puts.into_iter().zip(frames) {
            let length = queued.length();
            let Queued { put, events, time_ms, columns, channels, position, .. } = queued;
            let source = put.source.name.clone();
            if !core.sources.iter().any(|known| Arc::ptr_eq(known, &put.source)) {
                core.sources.push(put.source.clone());
            }
            let track = core.tracks.entry(source.clone()).or_default();
            track.complete_up_to(head.complete_put);
            let pending = PendingPut {
                put: put.number,
                channels,
                frame: head.frame,
                sequence: head.first_sequence,
                events,
                position,
            };
            let after = Spot { segment: core.number, at: end };
            if self.options.cache_bytes > 0 {
                let position = pending.position.clone();
                let frame = Frame {
                    first_sequence: head.first_sequence,
                    events,
                    source,
                    put: put.number,
                    time_ms,
                    position,
                    columns,
                };
                state.cache.push(head.frame, after, frame);
            }
            track.add(pending);
            core.unsynced_events += u64::from(events);
            state.queued.events -= u64::from(events);
            state.queued.bytes -= length;
            state.under_way.push_back((after, put.clone()));
            core.written.push(put);
        }
        state.written = Spot { segment: core.number, at: core.end };
        state.written_bytes += bytes;
        state.waiting = None;
    }

    /// Crash: a sync that failed is never tried again: the system may have dropped what it could not write, and would say yes.
    fn sync(&self, core: &mut Core) -> Result<(), Trouble> {
        if core.synced.frame == core.end.frame {
            return Ok(());
        }
        if !self.skips_sync() {
            core.file.sync_data().map_err(|error| Trouble::Poison(format!("sync segment {}", core.number), error))?;
        }
        core.synced = core.end;
        core.unsynced_since = None;
        let mut state = self.state.lock();
        state.synced = core.end;
        state.syncs += 1;
        Ok(())
    }

    fn skips_sync(&self) -> bool {
        #[cfg(any(test, feature = "simulator"))]
        return self.options.sabotage == crate::options::Sabotage::SkipSync;
        #[cfg(not(any(test, feature = "simulator")))]
        false
    }

    /// Completes what was written, as the mode understands it.
    fn told(&self, core: &mut Core, took: Option<std::time::Duration>) {
        {
            let mut state = self.state.lock();
            state.last_sync = took.unwrap_or(state.last_sync);
            // Invariant: nobody is told of what is not on disk.
            assert!(self.options.sync != Sync::Always || core.synced.frame == core.end.frame);
        }
        let mut sources: Vec<Arc<Source>> = Vec::new();
        for put in core.written.drain(..) {
            put.durable_here();
            if !sources.iter().any(|source| Arc::ptr_eq(source, &put.source)) {
                sources.push(put.source.clone());
            }
        }
        sources.iter().for_each(|source| source.advance());
    }

    /// After a broken invariant: nothing is written any more, and everybody who waits is told.
    pub fn give_up(&self) {
        let poisoned = self.poison("go on: an invariant is broken", io::Error::other("see the panic"));
        self.fail_all(&poisoned);
    }

    fn fail_all(&self, poisoned: &Poisoned) {
        self.fail_core(&mut self.core.lock(), poisoned);
    }

    fn fail_core(&self, core: &mut Core, poisoned: &Poisoned) {
        let queued: Vec<Queued> = core.group.drain(..).chain(self.queue.lock().puts.drain(..)).collect();
        self.state.lock().queued = Default::default();
        let puts = queued.into_iter().map(|queued| queued.put).chain(core.written.drain(..));
        for put in puts {
            put.source.fail(poisoned);
        }
        // Those that were complete here and wait for another channel, and those behind them.
        let waiting: Vec<_> = self.state.lock().under_way.drain(..).collect();
        waiting.iter().for_each(|(_, put)| put.source.fail(poisoned));
    }
}

fn trouble(action: String, error: io::Error) -> Trouble {
    if is_full(&error) { Trouble::Full(error) } else { Trouble::Poison(action, error) }
}
