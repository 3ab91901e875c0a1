//! The file channel: a log on disk that outlives the process. A put is acked once it is durable, whatever the sinks do.
//!
//! The crate `wasmflow-log` keeps the promises about the disk: whole puts across channels, recovery, cursors, corruption. Here
//! are a batch's columns, room, and waking. All file channels of a pipeline are logs of one set, so that one put can be atomic
//! over several of them.

pub mod columns;
mod cuts;
mod reader;

pub use columns::ColumnsError;
pub use cuts::ReaderCuts;
pub use reader::FileReader;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use wasmflow_log::{ChannelId, Leg, Log, LogSet, Poisoned, PositionChange, Put, PutError};

use super::room::{Amount, Capacity, Reserved, Room};
use super::{ChannelError, PutNote, ReceiptShare};
use crate::config::pipeline::Start;
use crate::event::Batch;
use crate::metrics::{ChannelCounts, Counter, DiskCounts, EVENTS, Histogram, Passed, SECONDS};
use crate::position::Part;

/// One log of the pipeline's set, with room and readers.
///
/// Invariant: settled <= taken <= durable <= put, for each reader.
pub struct FileChannel {
    number: usize,
    logs: Arc<LogSet>,
    log: Log,
    shared: Arc<Shared>,
}

/// What the log's own threads may touch. Apart from the channel, so that they never hold the log they belong to.
struct Shared {
    name: Arc<str>,
    room: Arc<Room>,
    writers: AtomicUsize,
    /// Puts given to the log and not answered for.
    under_way: AtomicUsize,
    /// One for each reader that is open.
    readers: Mutex<BTreeMap<Arc<str>, Arc<Signal>>>,
    counts: Mutex<Counts>,
    syncs: Histogram,
    group_commits: Histogram,
    torn_bytes: Counter,
}

/// What an open reader is told.
struct Signal {
    /// Woken when there is more to read, by the end, and when the log fails.
    arrived: Notify,
    /// The log ends here for this reader: it is to leave. `u64::MAX`: it is not.
    until: AtomicU64,
}

/// What has gone through since the start.
#[derive(Default)]
struct Counts {
    put: u64,
    /// Since when the disk has had something to answer for, its last answer counted as the begin of the next wait.
    asked_at: Option<Instant>,
    readers: Vec<Arc<Mutex<Passing>>>,
}

/// One reader's part of it.
struct Passing {
    name: Arc<str>,
    settled: u64,
    passed: Passed,
    /// Of the puts that were read and are not settled whole: behind the last event, by whom, and when.
    origins: VecDeque<(u64, Arc<str>, u64)>,
}

impl Passing {
    fn settle(&mut self, next: u64) {
        let oldest = self.origins.front().map(|(_, source, time_ms)| (source.clone(), age(*time_ms)));
        self.passed.settled(next.saturating_sub(self.settled), oldest.as_ref().map(|(source, age)| (source, *age)));
        self.settled = next;
        while self.origins.front().is_some_and(|(end, ..)| *end <= next) {
            self.origins.pop_front();
        }
    }
}

impl std::fmt::Debug for FileChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file channel `{}` ({})", self.shared.name, self.log.id())
    }
}

impl FileChannel {
    /// The channel of an open log. `number` is its place in the pipeline: puts into several channels reserve in this order.
    ///
    /// # Panics
    /// When `name` is not among the logs of the set.
    pub fn new(logs: &Arc<LogSet>, name: &str, number: usize, capacity: Capacity) -> Arc<Self> {
        let log = logs.log(name).expect("a channel's log is opened before the channel is made");
        let name = log.name().clone();
        let shared = Arc::new(Shared {
            room: Room::new(name.clone(), capacity),
            name,
            writers: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            readers: Mutex::default(),
            counts: Mutex::default(),
            syncs: Histogram::new(&SECONDS),
            group_commits: Histogram::new(&EVENTS),
            torn_bytes: Counter::default(),
        });
        log.on_sync(Box::new({
            let shared = shared.clone();
            move |took, events| {
                shared.syncs.took(took);
                shared.group_commits.observe(events);
            }
        }));
        log.on_change(Box::new({
            let shared = shared.clone();
            move || shared.wake_readers()
        }));
        let channel = Self { number, logs: logs.clone(), log, shared };
        channel.count_held();
        Arc::new(channel)
    }

    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    pub fn number(&self) -> usize {
        self.number
    }

    /// Random when the channel is made: with an event's sequence number it names the event for ever.
    pub fn id(&self) -> ChannelId {
        self.log.id()
    }

    pub fn room(&self) -> &Arc<Room> {
        &self.shared.room
    }

    /// As [`Channel::begin_put`](super::Channel::begin_put).
    ///
    /// # Errors
    /// When a reader of the channel has failed, or its log.
    pub async fn begin_put(self: &Arc<Self>, batch: Batch) -> Result<FilePut, ChannelError> {
        let room = self.shared.room.reserve(Amount::of(&batch)).await?;
        Ok(FilePut { channel: self.clone(), batch, room })
    }

    /// Opens a put if there is room for it now.
    ///
    /// # Errors
    /// When the channel is full, or has failed.
    pub fn try_begin_put(self: &Arc<Self>, batch: Batch) -> Result<FilePut, ChannelError> {
        let room = self.shared.room.try_reserve(Amount::of(&batch))?;
        Ok(FilePut { channel: self.clone(), batch, room })
    }

    pub(super) fn end(&self) -> u64 {
        self.log.status().readable_sequence
    }

    pub(super) fn add_reader(&self, name: &str, start: Start) -> Result<u64, ChannelError> {
        self.log.add_reader(name, start).map_err(|error| broken(self.name(), &error))?;
        let made = self.log.readers().into_iter().find(|reader| &*reader.name == name);
        self.count_held();
        Ok(made.map_or_else(|| self.end(), |reader| reader.cursor))
    }

    pub(super) fn stop_reader(&self, name: &str, until: u64) {
        if let Some(signal) = self.shared.readers.lock().get(name) {
            signal.until.store(until, Ordering::Release);
            signal.arrived.notify_one();
        }
    }

    pub(super) fn settled_by(&self, name: &str) -> Option<u64> {
        self.log.readers().into_iter().find(|reader| &*reader.name == name).map(|reader| reader.cursor)
    }

    pub(super) fn remove_reader(&self, name: &str) -> Result<u64, ChannelError> {
        let known = self.log.readers().into_iter().find(|reader| &*reader.name == name);
        let given_up = known.map_or(0, |reader| self.log.readable_from(reader.cursor));
        self.log.remove_reader(name).map_err(|error| broken(self.name(), &error))?;
        self.shared.counts.lock().readers.retain(|reader| *reader.lock().name != *name);
        self.count_held();
        Ok(given_up)
    }

    /// Recovery has left so many bytes out at the end, which nobody was ever told are durable.
    pub fn note_torn(&self, bytes: u64) {
        self.shared.torn_bytes.add(bytes as usize);
    }

    /// What it holds and has done.
    pub fn counts(&self) -> ChannelCounts {
        let (put_attempts, backpressure) = self.shared.room.asked();
        let status = self.log.status();
        // Nothing else is locked while the log is asked: its threads note their answers under these locks.
        let (put_events, asked_at, readers) = {
            let counts = self.shared.counts.lock();
            (counts.put, counts.asked_at, counts.readers.clone())
        };
        let reader = |reader: &Arc<Mutex<Passing>>| {
            let lag = self.log.readable_from(reader.lock().settled);
            let reader = reader.lock();
            reader.passed.of(&reader.name, lag)
        };
        let oldest = readers.iter().filter_map(|reader| reader.lock().origins.front().map(|(.., time_ms)| *time_ms));
        let oldest_age = oldest.min().map(age);
        ChannelCounts {
            held: Amount { events: status.held.events, bytes: status.held.bytes },
            capacity: self.shared.room.capacity(),
            oldest_age,
            put_attempts,
            put_events,
            backpressure,
            readers: readers.iter().map(reader).collect(),
            disk: Some(DiskCounts {
                sync_seconds: Some(self.shared.syncs.observed()),
                group_commit_events: Some(self.shared.group_commits.observed()),
                corrupt_frames: status.skipped_places,
                skipped_events: status.skipped_events,
                torn_bytes: self.shared.torn_bytes.get(),
                answers_wait: asked_at.map(|at| at.elapsed()),
                last_sync: status.last_sync,
                waits_for_space: status.waiting.map(|waiting| waiting.reason),
            }),
        }
    }

    pub(super) fn add_writer(&self) {
        self.shared.writers.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn remove_writer(&self) {
        if self.shared.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.wake_readers();
        }
    }

    /// The log has taken a put: readers that had nothing to do have something now.
    fn note_put(&self, events: u64) {
        let readers = {
            let mut counts = self.shared.counts.lock();
            counts.put += events;
            counts.readers.clone()
        };
        for reader in &readers {
            let settled = reader.lock().settled;
            if self.log.readable_from(settled) == 0 {
                reader.lock().passed.moved = Instant::now();
            }
        }
    }

    /// What passes the reader of this name: also what did when it was open before.
    fn passing(&self, name: &str, settled: u64) -> Arc<Mutex<Passing>> {
        let mut counts = self.shared.counts.lock();
        if let Some(known) = counts.readers.iter().find(|reader| *reader.lock().name == *name) {
            return known.clone();
        }
        let passing = Arc::new(Mutex::new(Passing {
            name: name.into(),
            settled,
            passed: Passed::default(),
            origins: VecDeque::new(),
        }));
        counts.readers.push(passing.clone());
        passing
    }

    /// Takes over what the log holds, whenever that may have changed.
    fn count_held(&self) {
        let held = self.log.held();
        self.shared.room.set_logged(Amount { events: held.events, bytes: held.bytes });
    }
}

impl Shared {
    fn wake_readers(&self) {
        self.readers.lock().values().for_each(|reader| reader.arrived.notify_one());
    }

    /// Nothing more is given to the log, and it has answered for all it was given.
    fn is_complete(&self) -> bool {
        self.writers.load(Ordering::Acquire) == 0 && self.under_way.load(Ordering::Acquire) == 0
    }

    fn answered(&self, outcome: &Result<(), Poisoned>) {
        if let Err(poisoned) = outcome {
            self.room.fail(broken(&self.name, poisoned));
        }
        let is_last = self.under_way.fetch_sub(1, Ordering::AcqRel) == 1;
        self.counts.lock().asked_at = (!is_last).then(Instant::now);
        self.wake_readers();
    }

    /// The log is about to be given a put, and answers for it later.
    fn note_asked(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.counts.lock().asked_at.get_or_insert_with(Instant::now);
    }
}

/// The events of a frame, as `channel export` shows them.
///
/// # Errors
/// When a later wasmflow wrote them, or none.
pub fn events_of(frame: wasmflow_log::Frame) -> Result<Batch, ColumnsError> {
    columns::decode(frame.columns)
}

/// A batch on its way into a file channel, with its room reserved.
#[derive(Debug)]
#[must_use = "an uncommitted transaction is rolled back"]
pub struct FilePut {
    channel: Arc<FileChannel>,
    batch: Batch,
    room: Reserved,
}

impl FilePut {
    pub(super) fn channel(&self) -> &Arc<FileChannel> {
        &self.channel
    }
}

/// Gives the puts of one source to the log as one: it is durable in all their channels or in none. `share` is settled then.
///
/// # Errors
/// When the log takes nothing any more, or never takes a put that large. Nothing was put.
pub(super) fn commit(puts: Vec<FilePut>, note: PutNote<'_>, share: ReceiptShare) -> Result<(), ChannelError> {
    let Some(first) = puts.first() else { return Ok(()) };
    let logs = first.channel.logs.clone();
    let put = Put {
        source: note.source.into(),
        position: match note.is_whole {
            true => PositionChange::Whole(parts(note.parts)),
            false => PositionChange::Parts(parts(note.parts)),
        },
        time_ms: now_ms(),
        legs: puts.iter().map(leg).collect(),
    };
    let channels: Vec<_> = puts.iter().map(|put| put.channel.shared.clone()).collect();
    channels.iter().for_each(|channel| channel.note_asked());
    let done = {
        let channels = channels.clone();
        move |outcome: Result<(), Poisoned>| {
            channels.iter().for_each(|channel| channel.answered(&outcome));
            if outcome.is_ok() {
                share.settle();
            }
        }
    };
    if let Err(error) = logs.put(put, Box::new(done)) {
        channels.iter().for_each(|channel| _ = channel.under_way.fetch_sub(1, Ordering::AcqRel));
        return Err(refused(&first.channel.shared.name, &error));
    }
    for put in puts {
        // The log counts the events from here on, so the reservation goes only after that.
        put.channel.count_held();
        put.channel.note_put(put.batch.count() as u64);
        drop(put.room);
    }
    Ok(())
}

fn leg(put: &FilePut) -> Leg {
    let events = u32::try_from(put.batch.count()).expect("a batch's rows are numbered in 32 bits");
    Leg { channel: put.channel.shared.name.clone(), events, columns: columns::encode(&put.batch) }
}

fn parts(parts: &[Part]) -> Vec<wasmflow_log::Part> {
    parts.iter().map(|part| wasmflow_log::Part { key: part.key.clone(), value: part.value.clone() }).collect()
}

/// The columns of a put without events.
pub fn empty_columns() -> Vec<bytes::Bytes> {
    columns::encode(&Batch::empty())
}

/// The time of a put, for `channel seek` and `retain` only: a clock that jumps harms nothing else.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Time since a put. A clock that jumps back makes it nothing.
fn age(time_ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(time_ms))
}

fn broken(channel: &Arc<str>, error: &dyn std::error::Error) -> ChannelError {
    ChannelError::Broken { channel: channel.clone(), detail: chain(error) }
}

fn refused(channel: &Arc<str>, error: &PutError) -> ChannelError {
    match error {
        PutError::Poisoned(poisoned) => broken(&poisoned.channel, poisoned),
        PutError::TooLarge { channel, .. } => {
            ChannelError::TooLarge { channel: channel.clone(), detail: error.to_string().into() }
        }
        PutError::NoSuchChannel { .. } | PutError::BadLegs { .. } => broken(channel, error),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> Arc<str> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text.into()
}
