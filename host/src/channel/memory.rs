//! The memory channel: fast, bounded, gone with the process. Sources are acked after settlement, so nothing is lost as long
//! as they can replay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{ChannelError, ReceiptShare};
use crate::event::Batch;

/// How much a channel holds before puts wait.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub events: u32,
    pub bytes: u32,
}

/// An ordered log in memory with a cursor for each reader.
///
/// Invariant: settled <= taken <= put, for each reader. An entry stays until every reader has settled it, and gives its room
/// back then.
#[derive(Debug)]
pub struct MemoryChannel {
    name: Arc<str>,
    number: usize,
    capacity: Capacity,
    log: Mutex<Log>,
    /// Room in events and in bytes. Semaphores queue fairly: a large put is not starved by small ones.
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting_puts: AtomicUsize,
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Entry>,
    /// Sequence number of the next event to be put.
    next: u64,
    readers: Vec<ReaderState>,
    writers: usize,
    failed: Option<Arc<str>>,
}

#[derive(Debug)]
struct ReaderState {
    settled: u64,
    /// Woken by a put and by the end.
    arrived: Arc<Notify>,
    /// Woken when a put has to wait for room.
    pressed: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    first: u64,
    batch: Batch,
    share: Option<ReceiptShare>,
    /// Gives the room back when the entry goes.
    _room: [OwnedSemaphorePermit; 2],
}

impl Entry {
    fn next(&self) -> u64 {
        self.first + self.batch.count() as u64
    }
}

impl MemoryChannel {
    /// `number` is the channel's place in the pipeline: puts into several channels reserve in this order.
    pub fn new(name: impl Into<Arc<str>>, number: usize, capacity: Capacity) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            number,
            capacity,
            log: Mutex::default(),
            events: Arc::new(Semaphore::new(capacity.events as usize)),
            bytes: Arc::new(Semaphore::new(capacity.bytes as usize)),
            waiting_puts: AtomicUsize::new(0),
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn number(&self) -> usize {
        self.number
    }

    /// Events put and not yet settled by every reader, or reserved for an open put.
    pub fn held_events(&self) -> usize {
        self.capacity.events as usize - self.events.available_permits()
    }

    /// Opens a put and waits for its room. A put larger than the whole channel is let in once the channel is empty.
    ///
    /// Cancel: dropping the future gives up the place in the queue; nothing was put.
    ///
    /// # Errors
    /// When a reader of the channel has failed: the room would never come.
    pub async fn begin_put(self: &Arc<Self>, batch: Batch) -> Result<PutTransaction, ChannelError> {
        if let Ok(put) = self.try_begin_put(batch.clone()) {
            return Ok(put);
        }
        self.check_failed()?;
        let _waiting = Waiting::new(self);
        let (events, bytes) = self.room_for(&batch);
        let events = self.events.clone().acquire_many_owned(events).await.map_err(|_| self.failure())?;
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| self.failure())?;
        Ok(PutTransaction { channel: self.clone(), batch, room: [events, bytes] })
    }

    /// Opens a put if there is room for it now.
    ///
    /// # Errors
    /// When the channel is full, or a reader of it has failed.
    pub fn try_begin_put(self: &Arc<Self>, batch: Batch) -> Result<PutTransaction, ChannelError> {
        self.check_failed()?;
        let (events, bytes) = self.room_for(&batch);
        let full = |_| ChannelError::Full {
            channel: self.name.clone(),
            held: self.held_events(),
            capacity: self.capacity.events as usize,
        };
        let events = self.events.clone().try_acquire_many_owned(events).map_err(full)?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes).map_err(full)?;
        Ok(PutTransaction { channel: self.clone(), batch, room: [events, bytes] })
    }

    /// A new reader; it gets every event put from now on.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut log = self.log.lock();
        let (arrived, pressed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let next = log.next;
        log.readers.push(ReaderState { settled: next, arrived: arrived.clone(), pressed: pressed.clone() });
        let index = log.readers.len() - 1;
        Reader { channel: self.clone(), index, taken: next, fuller_until: None, arrived, pressed }
    }

    /// Announces somebody who puts. The log ends for its readers when every writer is gone.
    pub fn writer(self: &Arc<Self>) -> Writer {
        self.log.lock().writers += 1;
        Writer(self.clone())
    }

    /// Whether a put is waiting for room.
    pub fn has_waiting_puts(&self) -> bool {
        self.waiting_puts.load(Ordering::Acquire) > 0
    }

    /// Marks the channel as failed: a reader has stopped for good, so waiting puts are refused from now on.
    pub fn fail(&self, reason: impl Into<Arc<str>>) {
        self.log.lock().failed = Some(reason.into());
        self.events.close();
        self.bytes.close();
    }

    fn check_failed(&self) -> Result<(), ChannelError> {
        if self.events.is_closed() { Err(self.failure()) } else { Ok(()) }
    }

    fn failure(&self) -> ChannelError {
        let reason = self.log.lock().failed.clone().unwrap_or_else(|| "it was closed".into());
        ChannelError::Failed { channel: self.name.clone(), reason }
    }

    fn room_for(&self, batch: &Batch) -> (u32, u32) {
        let at_most = |size: usize, capacity: u32| u32::try_from(size).map_or(capacity, |size| size.min(capacity));
        (at_most(batch.count(), self.capacity.events), at_most(batch.byte_size(), self.capacity.bytes))
    }

    fn append(&self, batch: Batch, room: [OwnedSemaphorePermit; 2], share: Option<ReceiptShare>) {
        let mut log = self.log.lock();
        if batch.is_empty() || log.readers.is_empty() {
            drop(log);
            share.into_iter().for_each(ReceiptShare::settle);
            return;
        }
        let first = log.next;
        log.next += batch.count() as u64;
        log.entries.push_back(Entry { first, batch, share, _room: room });
        log.wake_readers();
    }

    fn settle(&self, reader: usize, next: u64) {
        let mut log = self.log.lock();
        assert!(
            log.readers[reader].settled <= next && next <= log.next,
            "reader {reader} of `{}` settles {next} after {} of {}",
            self.name,
            log.readers[reader].settled,
            log.next
        );
        log.readers[reader].settled = next;
        let passed = log.readers.iter().map(|reader| reader.settled).min().unwrap_or(next);
        let mut gone = Vec::new();
        while log.entries.front().is_some_and(|entry| entry.next() <= passed) {
            gone.extend(log.entries.pop_front());
        }
        drop(log);
        gone.into_iter().filter_map(|entry| entry.share).for_each(ReceiptShare::settle);
    }
}

impl Log {
    fn wake_readers(&self) {
        self.readers.iter().for_each(|reader| reader.arrived.notify_one());
    }

    /// Events from `from` on, within the limits, cut at nothing but them. The first event always fits.
    fn collect(&self, from: u64, limits: &TakeLimits) -> Vec<Batch> {
        let start = self.entries.partition_point(|entry| entry.next() <= from);
        let (mut batches, mut events, mut bytes) = (Vec::new(), 0, 0);
        for entry in self.entries.range(start..) {
            let skip = from.saturating_sub(entry.first) as usize;
            let count = (entry.batch.count() - skip).min(limits.events - events);
            let part = entry.batch.slice(skip..skip + count);
            let fitting = fitting(&part, limits.bytes.saturating_sub(bytes), batches.is_empty());
            if fitting == 0 {
                break;
            }
            let part = part.slice(0..fitting);
            events += fitting;
            bytes += part.byte_size();
            batches.push(part);
            if fitting < count || events == limits.events || bytes >= limits.bytes {
                break;
            }
        }
        batches
    }
}

/// How many leading events of `part` fit into `bytes`, at least one where `one` says that one must go.
fn fitting(part: &Batch, bytes: usize, one: bool) -> usize {
    if part.byte_size() <= bytes {
        return part.count();
    }
    // By the bodies alone: headers rarely vary enough to matter, and `bytes` is a bound of batches, not of memory.
    let fitting = part.bodies().ends().partition_point(|&end| end as usize <= bytes);
    fitting.max(usize::from(one)).min(part.count())
}

/// A batch on its way into a channel, with its room reserved.
///
/// Readers see the events once [`commit`](Self::commit) returns: all of them or none. Dropping an uncommitted transaction rolls
/// it back, so an early return, a trap or a panic leaves the channel as it was.
#[derive(Debug)]
#[must_use = "an uncommitted transaction is rolled back"]
pub struct PutTransaction {
    channel: Arc<MemoryChannel>,
    batch: Batch,
    room: [OwnedSemaphorePermit; 2],
}

impl PutTransaction {
    /// By value: no second commit, no late put.
    pub fn commit(self, share: Option<ReceiptShare>) {
        self.channel.append(self.batch, self.room, share);
    }

    pub fn rollback(self) {}
}

/// Bounds of one take.
#[derive(Debug, Clone, Copy)]
pub struct TakeLimits {
    pub events: usize,
    /// About: the first event is taken whatever its size.
    pub bytes: usize,
    /// How long to wait for a fuller batch once the first event is there.
    pub wait: Duration,
}

/// Events taken and not yet settled: `first` to `next`, `next` not included.
#[derive(Debug)]
pub struct Taken {
    pub batch: Batch,
    pub first: u64,
    pub next: u64,
}

/// One cursor on a channel. Taking moves ahead of it; settling moves it.
#[derive(Debug)]
pub struct Reader {
    channel: Arc<MemoryChannel>,
    index: usize,
    /// Sequence number of the next event to be taken.
    taken: u64,
    /// Until when the take under way waits for a fuller batch. Kept here, so that a cancelled take waits no longer than one.
    fuller_until: Option<Instant>,
    arrived: Arc<Notify>,
    pressed: Arc<Notify>,
}

impl Reader {
    pub fn channel(&self) -> &Arc<MemoryChannel> {
        &self.channel
    }

    /// Takes the next events, waiting for the first of them. Nothing: the log has ended, and all of it has been taken.
    ///
    /// Cancel: dropping the future takes nothing.
    pub async fn take(&mut self, limits: &TakeLimits) -> Option<Taken> {
        loop {
            let (batches, waiting, ended) = {
                let log = self.channel.log.lock();
                let (waiting, ended) = ((log.next - self.taken) as usize, log.writers == 0);
                let due = waiting >= limits.events || ended || is_due(&mut self.fuller_until, waiting, limits.wait);
                (if due { log.collect(self.taken, limits) } else { Vec::new() }, waiting, ended)
            };
            if !batches.is_empty() {
                return Some(self.taken(&batches));
            }
            // A wake-up between looking and waiting is kept as a permit, so it cannot be lost.
            match (waiting, self.fuller_until) {
                (0, _) if ended => return None,
                (1.., Some(deadline)) => _ = tokio::time::timeout_at(deadline, self.arrived.notified()).await,
                _ => self.arrived.notified().await,
            }
        }
    }

    /// Tells when puts have to wait for room.
    pub fn pressure(&self) -> Pressure {
        Pressure { channel: self.channel.clone(), pressed: self.pressed.clone() }
    }

    /// Waits until the log has ended and all of it has been taken.
    pub async fn ended(&self) {
        loop {
            {
                let log = self.channel.log.lock();
                if log.writers == 0 && log.next == self.taken {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Sequence number of the next event to be taken.
    pub fn taken_up_to(&self) -> u64 {
        self.taken
    }

    /// Whether everything put so far has been taken.
    pub fn is_at_end(&self) -> bool {
        self.channel.log.lock().next == self.taken
    }

    /// Commits everything before `next`: it will not come again, and its room is free once every reader has passed.
    pub fn settle(&mut self, next: u64) {
        assert!(next <= self.taken, "settled {next} before it was taken (up to {})", self.taken);
        self.channel.settle(self.index, next);
    }

    /// Everything taken and not settled comes again, in order.
    pub fn rollback(&mut self) {
        self.taken = self.channel.log.lock().readers[self.index].settled;
    }

    fn taken(&mut self, batches: &[Batch]) -> Taken {
        let batch = Batch::concat(batches);
        let first = self.taken;
        self.fuller_until = None;
        self.taken += batch.count() as u64;
        Taken { batch, first, next: self.taken }
    }
}

/// Tells a reader that holds events back when puts have to wait for room.
#[derive(Debug)]
pub struct Pressure {
    channel: Arc<MemoryChannel>,
    pressed: Arc<Notify>,
}

impl Pressure {
    /// Waits until a put has to wait for room.
    pub async fn rises(&self) {
        while !self.channel.has_waiting_puts() {
            self.pressed.notified().await;
        }
    }
}

/// Whether what waits is to be taken now rather than wait for a fuller batch; starts the wait with the first event.
fn is_due(deadline: &mut Option<Instant>, waiting: usize, wait: Duration) -> bool {
    if waiting == 0 {
        return false;
    }
    if wait.is_zero() {
        return true;
    }
    let now = Instant::now();
    *deadline.get_or_insert(now + wait) <= now
}

/// Somebody who puts into a channel; the log ends when the last one is dropped.
#[derive(Debug)]
pub struct Writer(Arc<MemoryChannel>);

impl Writer {
    pub fn channel(&self) -> &Arc<MemoryChannel> {
        &self.0
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut log = self.0.log.lock();
        log.writers -= 1;
        if log.writers == 0 {
            log.wake_readers();
        }
    }
}

/// Counts a put that waits, and tells readers: one that holds events back may have to let go of them.
struct Waiting<'c>(&'c MemoryChannel);

impl<'c> Waiting<'c> {
    fn new(channel: &'c MemoryChannel) -> Self {
        channel.waiting_puts.fetch_add(1, Ordering::AcqRel);
        channel.log.lock().readers.iter().for_each(|reader| reader.pressed.notify_one());
        Self(channel)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting_puts.fetch_sub(1, Ordering::AcqRel);
    }
}
