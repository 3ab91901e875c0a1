//! Reading: a place in the log that moves forward, and a cursor that follows it.

use std::sync::Arc;

use crate::channel::Channel;
use crate::channel::state::{LiveSegment, ReaderState, Spot, State};
use crate::error::{Damage, ReadError};
use crate::options::{OnCorruption, ReadLimits};
use crate::put::Frame;
use crate::quarantine;
use crate::report::Note;
use crate::segment::{At, CHUNK_BYTES, Expected, SegmentReader, Want};

/// Reads one channel from a reader's cursor on. Reading does not settle.
pub struct Reader {
    channel: Arc<Channel>,
    cursor: Cursor,
    spot: Spot,
    /// Everything below was given out, or is settled.
    next: u64,
    segment: Option<SegmentReader>,
    source: Arc<str>,
    /// Read, but too much for the last call; with the place behind it.
    kept: Option<(Frame, Spot)>,
}

/// How far a reader has settled. Clones are the same cursor.
#[derive(Clone)]
pub struct Cursor {
    channel: Arc<Channel>,
    name: Arc<str>,
    at: usize,
    epoch: u64,
}

/// What there is to read next.
enum Next {
    /// In memory: the frame and the place behind it.
    Cached(Frame, Spot),
    /// On disk, in this segment before this offset.
    Stored(LiveSegment, u64),
    /// It does not count: go here.
    Move(Spot),
    None,
}

impl Reader {
    pub(crate) fn open(channel: &Arc<Channel>, name: &str) -> Result<Self, ReadError> {
        let mut state = channel.state.lock();
        let found = state.readers.iter().position(|reader| !reader.removed && &*reader.name == name);
        let (of, reader) = (channel.options.name.clone(), Arc::from(name));
        let Some(at) = found else { return Err(ReadError::NoSuchReader { channel: of, reader }) };
        let entry = &mut state.readers[at];
        if entry.open {
            return Err(ReadError::InUse { channel: of, reader });
        }
        entry.open = true;
        entry.taken.clear();
        let cursor = Cursor { channel: channel.clone(), name: reader, at, epoch: entry.slot.epoch };
        let (spot, next) = (entry.settled_spot, entry.settled);
        Ok(Self { channel: channel.clone(), cursor, spot, next, segment: None, source: "".into(), kept: None })
    }

    /// The frames that come next, as many as fit `limits` and are durable in all channels of their puts; none when there are
    /// no more for now. It reads files: from the page cache as a rule, but it may block.
    ///
    /// The first frame may begin before [`next_sequence`](Self::next_sequence) stood, if that was in the middle of it: its
    /// first events are settled already, and it is for the caller to leave them out.
    ///
    /// # Errors
    /// When the next frame is damaged and the policy is to stop, when files cannot be read, or when the log is poisoned. What
    /// was read before it is given first.
    pub fn read(&mut self, limits: ReadLimits) -> Result<Vec<Frame>, ReadError> {
        let mut frames = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        loop {
            let before = (self.spot, self.next);
            let next = match self.kept.take() {
                Some((frame, after)) => {
                    (self.spot, self.next) = (after, self.next.max(frame.next_sequence()));
                    Ok(Some(frame))
                }
                None => self.next_frame(),
            };
            let frame = match next {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(frames),
                Err(_) if !frames.is_empty() => return Ok(frames),
                Err(error) => return Err(error),
            };
            events += u64::from(frame.events);
            bytes += frame.columns.iter().map(|column| column.len() as u64).sum::<u64>();
            if !frames.is_empty() && (events > limits.events || bytes > limits.bytes) {
                self.kept = Some((frame, self.spot));
                (self.spot, self.next) = before;
                return Ok(frames);
            }
            self.note_taken();
            frames.push(frame);
            if events >= limits.events || bytes >= limits.bytes {
                return Ok(frames);
            }
        }
    }

    fn note_taken(&self) {
        let mut state = self.channel.state.lock();
        let readable = state.readable.at;
        let reader = &mut state.readers[self.cursor.at];
        reader.taken.push_back(self.spot);
        reader.read = reader.read.max(self.next);
        // Invariant: nothing is given out that is not durable.
        assert!(reader.read <= readable.sequence && self.spot.at.frame <= readable.frame);
    }

    /// The next frame that has something beyond what was given out, or brings a position.
    fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            let frame = match self.what_is_next()? {
                Next::None => return Ok(None),
                Next::Move(spot) => {
                    self.spot = spot;
                    continue;
                }
                Next::Cached(frame, after) => {
                    self.spot = after;
                    Some(frame)
                }
                Next::Stored(segment, bound) => self.stored(&segment, bound)?,
            };
            if let Some(frame) = frame {
                if frame.next_sequence() <= self.next && frame.events > 0 {
                    // Settled already, or given out before a rewind to behind it.
                    self.note_taken();
                    continue;
                }
                self.next = self.next.max(frame.next_sequence());
                return Ok(Some(frame));
            }
        }
    }

    fn what_is_next(&self) -> Result<Next, ReadError> {
        let state = self.channel.state.lock();
        let channel = || self.channel.options.name.clone();
        if state.readers[self.cursor.at].removed {
            return Err(ReadError::NoSuchReader { channel: channel(), reader: self.cursor.name.clone() });
        }
        if self.spot.at.frame >= state.readable.at.frame {
            return match &state.poisoned {
                Some(poisoned) => Err(poisoned.clone().into()),
                None => Ok(Next::None),
            };
        }
        if let Some(cached) = state.cache.get(self.spot.at.frame) {
            return Ok(match state.voids.contains_key(&self.spot.at.frame) {
                true => Next::Move(cached.after),
                false => Next::Cached(cached.frame.clone(), cached.after),
            });
        }
        let Some(segment) = state.segment(self.spot.segment) else {
            // Removed: all of it was settled. Or passed over as damage.
            let next = state.segment_after(self.spot.segment).expect("one is being written");
            return Ok(Next::Move(next.start()));
        };
        let end = segment.end.unwrap_or(state.readable.at);
        let bound = if segment.number == state.readable.segment { state.readable.at.offset } else { end.offset };
        if self.spot.at.offset >= bound {
            let next = state.segment_after(segment.number).expect("there is more to read");
            return Ok(Next::Move(next.start()));
        }
        Ok(Next::Stored(segment.clone(), bound))
    }

    /// The frame at the reader's place; nothing where it does not count, or was passed over.
    fn stored(&mut self, segment: &LiveSegment, bound: u64) -> Result<Option<Frame>, ReadError> {
        let spot = self.spot;
        let expected = Expected { frame: spot.at.frame, sequence: spot.at.sequence };
        if let Err(error) = self.open_segment(segment) {
            return if self.leaves_removed(segment) { Ok(None) } else { Err(error) };
        }
        let reader = self.open_segment(segment)?;
        let mut found = reader.at(spot.at.offset, bound, expected, Want::Payload);
        if !matches!(found, Ok(At::Frame(_))) {
            // Memory may be wrong where the disk is right.
            reader.forget();
            found = reader.at(spot.at.offset, bound, expected, Want::Payload);
        }
        if !matches!(found, Ok(At::Frame(_))) && self.leaves_removed(segment) {
            return Ok(None);
        }
        let why = match found {
            Err(source) => return Err(self.io(segment, source)),
            Ok(At::Nothing) => "nothing stands where a frame was acknowledged",
            Ok(At::Bad(why)) => why,
            Ok(At::Frame(raw)) => {
                let void = self.channel.state.lock().voids.contains_key(&raw.head.frame);
                let frame = if void { None } else { raw.decode(&mut self.source) };
                if void || frame.is_some() {
                    self.spot.at.offset += raw.length();
                    self.spot.at.frame = raw.head.frame + 1;
                    self.spot.at.sequence = raw.head.next_sequence();
                    return Ok(frame);
                }
                "its events cannot be unpacked"
            }
        };
        self.pass_damage(segment, bound, why).map(|()| None)
    }

    /// Goes to the next segment if this one was removed since it was looked up: all of it was settled, and its file may hold
    /// another one by now.
    fn leaves_removed(&mut self, segment: &LiveSegment) -> bool {
        let state = self.channel.state.lock();
        if state.segment(segment.number).is_some() {
            return false;
        }
        self.spot = state.segment_after(segment.number).expect("one is being written").start();
        true
    }

    fn io(&self, segment: &LiveSegment, source: std::io::Error) -> ReadError {
        let channel = self.channel.options.name.clone();
        ReadError::Io { channel, path: segment.path.clone(), source: Arc::new(source) }
    }

    fn open_segment(&mut self, segment: &LiveSegment) -> Result<&mut SegmentReader, ReadError> {
        if self.segment.as_ref().is_none_or(|open| open.number() != segment.number) {
            let file = self.channel.storage.open_read(&segment.path).map_err(|error| self.io(segment, error))?;
            let mut reader = SegmentReader::new(file, self.channel.id, segment.number, CHUNK_BYTES);
            reader.believing = self.channel.believes();
            self.segment = Some(reader);
        }
        Ok(self.segment.as_mut().expect("it was just opened"))
    }

    /// Finds where the log goes on behind damage, and goes there if the policy allows it.
    fn pass_damage(&mut self, segment: &LiveSegment, bound: u64, why: &str) -> Result<(), ReadError> {
        let spot = self.spot;
        let expected = Expected { frame: spot.at.frame, sequence: spot.at.sequence };
        let found = self.open_segment(segment)?.resync(spot.at.offset + 8, bound, expected);
        let found = found.map_err(|error| self.io(segment, error))?;
        let end = {
            let state = self.channel.state.lock();
            segment.end.unwrap_or(state.readable.at)
        };
        let after = match found {
            Some((offset, head)) => Spot {
                at: crate::format::header::End { offset, frame: head.frame, sequence: head.first_sequence },
                ..spot
            },
            None => Spot { at: crate::format::header::End { offset: bound, ..end }, ..spot },
        };
        let damage = Damage {
            channel: self.channel.options.name.clone(),
            path: segment.path.clone(),
            from: spot.at.offset,
            to: after.at.offset,
            sequence: spot.at.sequence,
            lost_events: Some(after.at.sequence.saturating_sub(spot.at.sequence)),
            detail: why.into(),
        };
        if self.channel.options.on_corruption == OnCorruption::Fail {
            return Err(damage.into());
        }
        // A copy that cannot be made must not stop what the operator wants to go on.
        _ = quarantine::copy(&*self.channel.storage, &self.channel.path, &damage);
        let mut state = self.channel.state.lock();
        state.skipped_events += damage.lost_events.unwrap_or(0);
        state.skipped_places += 1;
        state.notes.push(Note::Skipped(damage));
        drop(state);
        self.spot = after;
        Ok(())
    }

    pub fn name(&self) -> &Arc<str> {
        &self.cursor.name
    }

    /// The sequence that is read next.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Goes to any sequence from the cursor to the end: back after a rollback, or forward to where a progress record stands.
    /// Held to these bounds; says where it stands.
    pub fn rewind(&mut self, sequence: u64) -> u64 {
        let mut state = self.channel.state.lock();
        let readable = state.readable.at.sequence;
        let reader = &mut state.readers[self.cursor.at];
        self.next = sequence.min(readable).max(reader.settled);
        reader.read = reader.read.max(self.next);
        self.kept = None;
        // Frames between are walked over again, and taken again.
        reader.taken.clear();
        self.spot = reader.settled_spot;
        self.next
    }

    /// As [`Cursor::settle`].
    pub fn settle(&self, sequence: u64) {
        self.cursor.settle(sequence);
    }

    /// The reader's cursor, for whoever settles.
    pub fn cursor(&self) -> Cursor {
        self.cursor.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.channel.state.lock().readers[self.cursor.at].open = false;
    }
}

impl Cursor {
    pub fn reader(&self) -> &Arc<str> {
        &self.name
    }

    /// Everything below `sequence` is settled. Going back is not possible, and asking for it does nothing. Soon on disk, off
    /// the path of events: after a crash the reader may stand a little before, never beyond.
    ///
    /// # Panics
    /// When `sequence` was never given out: a sink settled what it cannot have got.
    pub fn settle(&self, sequence: u64) {
        let now = self.channel.storage.now_ms();
        let mut state = self.channel.state.lock();
        let reader = &mut state.readers[self.at];
        assert!(sequence <= reader.read, "reader `{}` settles {sequence}, and was given {}", self.name, reader.read);
        if sequence <= reader.settled && reader.taken.front().is_none_or(|spot| spot.at.sequence > sequence) {
            return;
        }
        let stood_still = reader.dirty_since.is_none();
        reader.settle(sequence, now);
        let lags = reader.settled - reader.slot.sequence >= self.channel.options.cursor_lag_events;
        let begins = stood_still && reader.dirty_since.is_some();
        drop(state);
        if lags || begins {
            (self.channel.call_keeper)();
        }
    }

    /// Settled so far.
    pub fn settled(&self) -> u64 {
        self.channel.state.lock().readers[self.at].settled
    }

    /// Raised by every `seek`.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Lets later epochs begin behind this one: somebody remembers it, and the cursor's own file was lost. On disk with the
    /// next place of the cursor.
    pub fn raise_epoch(&self, epoch: u64) {
        let slot = &mut self.channel.state.lock().readers[self.at].slot;
        slot.epoch = slot.epoch.max(epoch);
    }
}

impl ReaderState {
    fn settle(&mut self, sequence: u64, now_ms: u64) {
        self.settled = self.settled.max(sequence);
        while let Some(spot) = self.taken.pop_front_if(|spot| spot.at.sequence <= sequence) {
            self.settled_spot = spot;
        }
        if self.settled > self.slot.sequence {
            self.dirty_since.get_or_insert(now_ms);
        }
    }
}

/// The place from which a reader has to walk to find `sequence`: in front of the first frame that is not below it.
pub(crate) fn locate(channel: &Channel, state: &State, sequence: u64) -> Spot {
    let starts_behind =
        state.segments.partition_point(|segment| segment.end.is_some_and(|end| end.sequence <= sequence));
    let Some(segment) = state.segments.get(starts_behind) else { return state.written };
    let mut spot = segment.start();
    let bound = segment.end.map_or(state.written.at.offset, |end| end.offset);
    let Ok(file) = channel.storage.open_read(&segment.path) else { return spot };
    let mut reader = SegmentReader::new(file, channel.id, segment.number, crate::segment::HOP_BYTES);
    loop {
        let expected = Expected { frame: spot.at.frame, sequence: spot.at.sequence };
        match reader.at(spot.at.offset, bound, expected, Want::Head) {
            Ok(At::Frame(raw)) if raw.head.next_sequence() <= sequence => {
                spot.at.offset += raw.length();
                spot.at.frame += 1;
                spot.at.sequence = raw.head.next_sequence();
            }
            // Whatever else it is, the reader will find it there.
            _ => return spot,
        }
    }
}
