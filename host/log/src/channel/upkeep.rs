//! Upkeep, off the path of events: cursors to disk, and segments removed that nobody needs.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::state::{LiveSegment, State};
use super::{Channel, MOST_SPARES, Spare};
use crate::error::Poisoned;
use crate::format::cursor::Slot;
use crate::options::Sync;
use crate::storage::{is_full, write_full};

/// Which cursors are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Those that lag too far, or for too long.
    Lagging,
    /// All that have moved.
    Moved,
}

/// How often a cursor that stands still tells how much is durable. Rot in what it vouches for is not taken for a torn tail.
const WATERMARK_MS: u64 = 1000;

/// A cursor that says no more than how much is durable, if none says it yet.
fn watermark(state: &State) -> Option<(usize, Arc<str>, Slot)> {
    if state.live_readers().any(|reader| reader.slot.durable_frames >= state.synced.frame) {
        return None;
    }
    let (at, reader) = state.readers.iter().enumerate().find(|(_, reader)| !reader.removed)?;
    let slot = Slot {
        generation: reader.slot.generation + 1,
        durable_frames: state.synced.frame,
        durable_sequence: state.synced.sequence,
        ..reader.slot
    };
    Some((at, reader.name.clone(), slot))
}

impl Channel {
    /// Writes the cursors that are due and removes what all of them have passed.
    ///
    /// # Errors
    /// When a file cannot be written or removed: the channel is poisoned. A full disk only makes cursors lag.
    pub fn upkeep(&self, due: Due) -> Result<(), Poisoned> {
        let _upkeep = self.upkeep.lock();
        if let Some(poisoned) = self.poisoned() {
            return Err(poisoned);
        }
        self.check_that_it_is_there()?;
        let slots = {
            let state = self.state.lock();
            state.check(self.options.sync == Sync::Always);
            self.due(&state, due)
        };
        for (at, reader, slot) in slots {
            match self.write_slot(&reader, &slot) {
                Ok(()) => self.note_slot(at, slot),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(self.poison(format!("write the cursor of reader `{reader}`"), error)),
            }
        }
        self.remove_passed()
    }

    /// A file that was removed can still be written, and nobody would ever find what is.
    fn check_that_it_is_there(&self) -> Result<(), Poisoned> {
        let (number, path) = {
            let state = self.state.lock();
            let active = state.segments.back().expect("one is being written");
            (active.number, active.path.clone())
        };
        match self.storage.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.poison(format!("find segment {number}, which somebody removed"), error))
            }
            _ => Ok(()),
        }
    }

    fn due(&self, state: &State, due: Due) -> Vec<(usize, Arc<str>, Slot)> {
        let now = self.storage.now_ms();
        let mut slots = Vec::new();
        for (at, reader) in state.readers.iter().enumerate().filter(|(_, reader)| !reader.removed) {
            let sequence = self.cursor_limit(state, reader.settled);
            let lag = sequence.saturating_sub(reader.slot.sequence);
            // The clock may have been set: an age in either direction counts.
            let age = reader.dirty_since.map_or(0, |since| now.abs_diff(since));
            let old = u128::from(age) >= self.options.cursor_lag.as_millis();
            if lag > 0 && (due == Due::Moved || old || lag >= self.options.cursor_lag_events) {
                let slot = Slot {
                    generation: reader.slot.generation + 1,
                    sequence,
                    durable_frames: state.synced.frame,
                    durable_sequence: state.synced.sequence,
                    ..reader.slot
                };
                slots.push((at, reader.name.clone(), slot));
            }
        }
        if slots.is_empty() && (due == Due::Moved || now.abs_diff(state.watermark_ms) >= WATERMARK_MS) {
            slots.extend(watermark(state));
        }
        slots
    }

    /// Crash: a cursor on disk must not be beyond the events on disk. With `sync = "os"` nobody knows how far those go; there
    /// sequences jump after a power cut, so that a cursor ahead stands in the gap.
    fn cursor_limit(&self, state: &State, settled: u64) -> u64 {
        match self.options.sync {
            Sync::Os => settled,
            Sync::Always | Sync::Interval(_) => settled.min(state.synced.sequence),
        }
    }

    pub fn write_slot(&self, reader: &str, slot: &Slot) -> io::Result<()> {
        let path = self.path.join(crate::names::cursor(reader));
        let file = self.storage.open_write(&path)?;
        write_full(&*file, &mut [IoSlice::new(&slot.write(reader))], slot.offset())?;
        file.sync_data()
    }

    fn note_slot(&self, at: usize, slot: Slot) {
        let now = self.storage.now_ms();
        let mut state = self.state.lock();
        state.watermark_ms = now;
        let reader = &mut state.readers[at];
        // It may have been raised while the slot was written.
        let epoch = reader.slot.epoch.max(slot.epoch);
        reader.slot = Slot { epoch, ..slot };
        reader.dirty_since = (reader.settled > slot.sequence).then_some(now);
    }

    /// Crash: the folder is synced after each, so that segments go in order and what is left is always a chain.
    fn remove_passed(&self) -> Result<(), Poisoned> {
        while let Some(segment) = self.removable() {
            let spare = self.remove(&segment);
            let spare = spare.and_then(|spare| self.storage.sync_folder(&self.path).map(|()| spare));
            let spare = spare.map_err(|error| self.poison(format!("remove segment {}", segment.number), error))?;
            {
                let mut state = self.state.lock();
                state.segments.pop_front();
                let oldest = state.segments.front().map_or(0, |oldest| oldest.base_frame);
                state.voids = state.voids.split_off(&oldest);
            }
            // Not before, so that no reader is sent to a file that is written anew.
            self.spares.lock().extend(spare);
        }
        Ok(())
    }

    /// Takes a segment out of the log: its file becomes a spare one where there is room for it among those.
    fn remove(&self, segment: &LiveSegment) -> io::Result<Option<Spare>> {
        let keeps =
            self.spares.lock().len() < MOST_SPARES && Spare::fits(segment.file_bytes, self.options.segment_bytes);
        let spare = Spare { path: self.path.join(crate::names::spare(segment.number)), bytes: segment.file_bytes };
        let done = match keeps {
            true => self.storage.rename(&segment.path, &spare.path),
            false => self.storage.remove(&segment.path),
        };
        match done {
            Ok(()) => Ok(keeps.then_some(spare)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The oldest segment, if every cursor on disk has passed it and nothing asks to retain it.
    fn removable(&self) -> Option<LiveSegment> {
        let state = self.state.lock();
        let next = state.segments.get(1)?;
        let oldest = &state.segments[0];
        let end = oldest.end?;
        let passed = |segment: &LiveSegment| {
            segment.end.is_some_and(|end| {
                end.frame <= state.readable.at.frame
                    && state.live_readers().all(|reader| reader.slot.sequence >= end.sequence)
            })
        };
        if !passed(oldest) {
            return None;
        }
        let retain = self.options.retain;
        let too_old =
            retain.age.map(|age| u128::from(self.storage.now_ms().saturating_sub(next.created_ms)) > age.as_millis());
        let too_much = retain.bytes.map(|bytes| {
            state.segments.iter().take_while(|segment| passed(segment)).map(|segment| segment.file_bytes).sum::<u64>()
                > bytes
        });
        // Invariant: only what every reader has settled on disk is ever removed.
        assert!(state.live_readers().all(|reader| reader.settled >= end.sequence));
        match (too_old, too_much) {
            (None, None) => Some(oldest.clone()),
            (old, much) => (old == Some(true) || much == Some(true)).then(|| oldest.clone()),
        }
    }
}
