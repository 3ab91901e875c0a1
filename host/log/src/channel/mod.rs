//! One open channel: the writer's half (`append.rs`), what readers see of it (`state.rs`), and the upkeep of cursors and
//! segments (`upkeep.rs`).

pub mod append;
pub mod state;
pub mod upkeep;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::error::Poisoned;
use crate::options::ChannelOptions;
use crate::put::{ChannelId, PositionChange};
use crate::source::UnderWay;
use crate::storage::Storage;
use append::Core;
use state::State;

pub struct Channel {
    pub options: ChannelOptions,
    pub id: ChannelId,
    pub path: PathBuf,
    pub storage: Arc<dyn Storage>,
    pub queue: Mutex<Queue>,
    /// Wakes the writer.
    pub wake: Condvar,
    /// Only the writer takes this, so it may be held during writes and syncs. Locked before `state`.
    pub core: Mutex<Core>,
    /// Held for moments only.
    pub state: Mutex<State>,
    /// Held while cursors are written and segments removed.
    pub upkeep: Mutex<()>,
    /// Files for the next segments. Held for moments only.
    pub spares: Mutex<Vec<Spare>>,
    pub hooks: Mutex<Vec<Hook>>,
    pub sync_hook: Mutex<Option<SyncHook>>,
    /// Asks for upkeep before its time.
    pub call_keeper: Arc<dyn Fn() + Send + std::marker::Sync>,
}

pub type Hook = Arc<dyn Fn() + Send + std::marker::Sync>;

/// Told how long a write and sync took, and of how many events.
pub type SyncHook = Arc<dyn Fn(std::time::Duration, u64) + Send + std::marker::Sync>;

/// A segment whose events nobody needs, kept for its space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spare {
    pub path: PathBuf,
    pub bytes: u64,
}

/// Limit: one to be filled while the next one is retired; the disk has the rest back.
pub const MOST_SPARES: usize = 2;

impl Spare {
    /// Whether a file is worth keeping for segments of this size: not much less, and not much more.
    pub fn fits(bytes: u64, segment_bytes: u64) -> bool {
        (segment_bytes / 2..=segment_bytes * 2).contains(&bytes)
    }
}

/// Puts that wait for the writer.
#[derive(Default)]
pub struct Queue {
    pub puts: VecDeque<Queued>,
    /// The writer is to look, whatever it waits for.
    pub poked: bool,
    pub closing: bool,
}

/// What a channel gets of a put, ready to be written but for its place.
pub struct Queued {
    pub put: Arc<UnderWay>,
    pub events: u32,
    pub time_ms: u64,
    /// As they were put, for the cache.
    pub columns: Vec<Bytes>,
    /// As they are stored.
    pub stored: Vec<Bytes>,
    pub compression: u32,
    pub payload_crc: u32,
    pub payload_len: u32,
    pub meta: Vec<u8>,
    pub channels: Vec<ChannelId>,
    pub position: PositionChange,
}

impl Channel {
    /// Lets readers have what is complete at the front.
    pub fn advance_readable(&self) {
        if self.state.lock().advance_readable() {
            self.call_hooks();
        }
    }

    pub fn call_hooks(&self) {
        let hooks = self.hooks.lock().clone();
        hooks.iter().for_each(|hook| hook());
    }

    pub fn call_sync_hook(&self, took: std::time::Duration, events: u64) {
        let hook = self.sync_hook.lock().clone();
        hook.iter().for_each(|hook| hook(took, events));
    }

    pub fn poisoned(&self) -> Option<Poisoned> {
        self.state.lock().poisoned.clone()
    }

    /// Says for ever that nothing more is safe here.
    pub fn note_poison(&self, poisoned: &Poisoned) {
        self.state.lock().poisoned.get_or_insert_with(|| poisoned.clone());
        self.queue.lock().poked = true;
        self.wake.notify_all();
        self.call_hooks();
    }

    pub fn poison(&self, action: impl Into<Arc<str>>, source: io::Error) -> Poisoned {
        let poisoned = Poisoned { channel: self.options.name.clone(), action: action.into(), source: Arc::new(source) };
        self.note_poison(&poisoned);
        poisoned
    }

    /// Whether the tests of the tests want lengths and checksums to be taken as they are.
    pub fn believes(&self) -> bool {
        #[cfg(any(test, feature = "simulator"))]
        return self.options.sabotage == crate::options::Sabotage::BelieveLength;
        #[cfg(not(any(test, feature = "simulator")))]
        false
    }

    /// The error of a cursor file that could not be written; the channel is poisoned by the next upkeep or write, not here,
    /// where its state is locked.
    pub fn poison_later(&self, reader: &str, source: io::Error) -> Poisoned {
        let action = format!("write the cursor of reader `{reader}`").into();
        Poisoned { channel: self.options.name.clone(), action, source: Arc::new(source) }
    }

    pub fn enqueue(&self, queued: Queued) {
        {
            let mut state = self.state.lock();
            state.queued.events += u64::from(queued.events);
            state.queued.bytes += queued.length();
        }
        self.queue.lock().puts.push_back(queued);
        self.wake.notify_one();
    }
}
