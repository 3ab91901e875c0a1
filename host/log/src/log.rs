//! One channel, as the host handles it.

use std::io;
use std::sync::Arc;

use crate::channel::upkeep::Due;
use crate::channel::{Channel, Hook, SyncHook};
use crate::error::{Poisoned, ReadError};
use crate::format::cursor::Slot;
use crate::names;
use crate::options::Start;
use crate::put::ChannelId;
use crate::reader::Reader;
use crate::recover::cursors;
use crate::report::{Held, Note, RecoveredReader, Status};

/// One channel of an open [`LogSet`](crate::LogSet). Clones are the same log.
#[derive(Clone)]
pub struct Log {
    channel: Arc<Channel>,
}

impl Log {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self { channel }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.channel.options.name
    }

    pub fn id(&self) -> ChannelId {
        self.channel.id
    }

    /// What waits for the reader that is furthest behind, and what is on its way to disk: the measure for back-pressure.
    /// Falls as readers settle. Cheap enough to ask for every put.
    pub fn held(&self) -> Held {
        self.channel.state.lock().held()
    }

    /// How many events can be read from `sequence` on. Void ones, and numbers that were left out, do not count: a reader that
    /// has taken up to `sequence` has taken all there is when this is 0.
    pub fn readable_from(&self, sequence: u64) -> u64 {
        let state = self.channel.state.lock();
        state.events_between(sequence, state.readable.at.sequence)
    }

    pub fn status(&self) -> Status {
        let state = self.channel.state.lock();
        Status {
            held: state.held(),
            file_bytes: state.segments.iter().map(|segment| segment.file_bytes).sum(),
            segments: state.segments.len(),
            oldest_sequence: state.segments.front().map_or(0, |oldest| oldest.base_sequence),
            next_sequence: state.written.at.sequence,
            readable_sequence: state.readable_end(),
            syncs: state.syncs,
            written_bytes: state.written_bytes,
            last_sync: state.last_sync,
            skipped_events: state.skipped_events,
            skipped_places: state.skipped_places,
            waiting: state.waiting.clone(),
            poisoned: state.poisoned.clone(),
        }
    }

    /// What readers passed over since this was last asked for.
    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.channel.state.lock().notes)
    }

    /// The readers there are, with their settled cursors.
    pub fn readers(&self) -> Vec<RecoveredReader> {
        self.channel.recovered_readers()
    }

    /// Opens a reader at its cursor. Each can be open once.
    ///
    /// # Errors
    /// When there is no such reader, or it is open.
    pub fn reader(&self, name: &str) -> Result<Reader, ReadError> {
        Reader::open(&self.channel, name)
    }

    /// Makes a reader while the log runs, as [`ChannelOptions::readers`](crate::ChannelOptions::readers) does at the start.
    /// One that is there is left as it is.
    ///
    /// # Errors
    /// When its cursor file cannot be written.
    pub fn add_reader(&self, name: &str, start: Start) -> Result<(), Poisoned> {
        let channel = &self.channel;
        let _upkeep = channel.upkeep.lock();
        if let Some(poisoned) = channel.poisoned() {
            return Err(poisoned);
        }
        let slot = {
            let mut state = channel.state.lock();
            if let Some(known) = state.readers.iter_mut().find(|reader| !reader.removed && &*reader.name == name) {
                known.unclaimed = false;
                return Ok(());
            }
            let oldest = state.segments.front().map_or(0, |oldest| oldest.base_sequence);
            Slot {
                id: channel.id,
                generation: 0,
                sequence: if start == Start::Tail { state.readable.at.sequence } else { oldest },
                epoch: state
                    .readers
                    .iter()
                    .filter(|reader| &*reader.name == name)
                    .map(|r| r.slot.epoch + 1)
                    .max()
                    .unwrap_or(0),
                durable_frames: state.synced.frame,
                durable_sequence: state.synced.sequence,
                removed: false,
            }
        };
        let made = if names::is_usable(name) {
            cursors::create(&*channel.storage, &channel.path, name, &slot).map(drop)
        } else {
            Err(io::ErrorKind::InvalidFilename.into())
        };
        // Not a reason to poison: nothing relies on it yet.
        made.map_err(|error| Poisoned {
            channel: self.name().clone(),
            action: format!("make the cursor of reader `{name}`").into(),
            source: Arc::new(error),
        })?;
        channel.add_known_reader(name.into(), slot, false);
        Ok(())
    }

    /// Forgets a reader and its cursor; its events are held no longer. One that is open ends with an error.
    ///
    /// # Errors
    /// When there is no such reader, or its file cannot be changed.
    pub fn remove_reader(&self, name: &str) -> Result<(), ReadError> {
        let channel = &self.channel;
        {
            let _upkeep = channel.upkeep.lock();
            let mut state = channel.state.lock();
            let Some(reader) = state.readers.iter_mut().find(|reader| !reader.removed && &*reader.name == name) else {
                return Err(ReadError::NoSuchReader { channel: self.name().clone(), reader: name.into() });
            };
            let slot = Slot { generation: reader.slot.generation + 1, removed: true, ..reader.slot };
            // Written down as removed, so that a missing file always means a lost one.
            channel.write_slot(name, &slot).map_err(|error| channel.poison_later(name, error))?;
            reader.slot = slot;
            reader.removed = true;
        }
        channel.call_hooks();
        channel.upkeep(Due::Lagging)?;
        Ok(())
    }

    /// Has `hook` told of each sync: how long it took with the writing before it, and how many events it made durable. As quick and
    /// as careful as [`Done`](crate::Done).
    pub fn on_sync(&self, hook: Box<dyn Fn(std::time::Duration, u64) + Send + std::marker::Sync>) {
        *self.channel.sync_hook.lock() = Some(SyncHook::from(hook));
    }

    /// Has `hook` called whenever more can be read, and when the log is poisoned. As quick and as careful as
    /// [`Done`](crate::Done): it runs on the log's threads.
    pub fn on_change(&self, hook: Box<dyn Fn() + Send + std::marker::Sync>) {
        self.channel.hooks.lock().push(Hook::from(hook));
    }
}
