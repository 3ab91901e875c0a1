//! The memory channel: fast, bounded, gone with the process. Sources are acked after settlement, so nothing is lost as long
//! as they can replay.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::room::{Amount, Capacity, Pressure, Reserved, Room};
use super::take::{TakeLimits, Taken, collect, is_due};
use super::{ChannelError, ReceiptShare};
use crate::event::Batch;

/// An ordered log in memory with a cursor for each reader.
///
/// Invariant: settled <= taken <= put, for each reader. An entry stays until every reader has settled it, and gives its room
/// back then.
#[derive(Debug)]
pub struct MemoryChannel {
    name: Arc<str>,
    number: usize,
    log: Mutex<Log>,
    room: Arc<Room>,
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Entry>,
    /// Sequence number of the next event to be put.
    next: u64,
    readers: Vec<ReaderState>,
    writers: usize,
}

#[derive(Debug)]
struct ReaderState {
    settled: u64,
    /// Woken by a put and by the end.
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    first: u64,
    batch: Batch,
    share: Option<ReceiptShare>,
    /// Gives the room back when the entry goes.
    _room: Reserved,
}

impl Entry {
    fn next(&self) -> u64 {
        self.first + self.batch.count() as u64
    }
}

impl MemoryChannel {
    /// `number` is the channel's place in the pipeline: puts into several channels reserve in this order.
    pub fn new(name: impl Into<Arc<str>>, number: usize, capacity: Capacity) -> Arc<Self> {
        let name = name.into();
        Arc::new(Self { room: Room::new(name.clone(), capacity), name, number, log: Mutex::default() })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// As [`Channel::begin_put`](super::Channel::begin_put).
    ///
    /// # Errors
    /// When a reader of the channel has failed: the room would never come.
    pub async fn begin_put(self: &Arc<Self>, batch: Batch) -> Result<MemoryPut, ChannelError> {
        let room = self.room.reserve(Amount::of(&batch)).await?;
        Ok(MemoryPut { channel: self.clone(), batch, room })
    }

    /// Opens a put if there is room for it now.
    ///
    /// # Errors
    /// When the channel is full, or a reader of it has failed.
    pub fn try_begin_put(self: &Arc<Self>, batch: Batch) -> Result<MemoryPut, ChannelError> {
        let room = self.room.try_reserve(Amount::of(&batch))?;
        Ok(MemoryPut { channel: self.clone(), batch, room })
    }

    /// A new reader; it gets every event put from now on.
    pub fn reader(self: &Arc<Self>) -> MemoryReader {
        let mut log = self.log.lock();
        let arrived = Arc::new(Notify::new());
        let next = log.next;
        log.readers.push(ReaderState { settled: next, arrived: arrived.clone() });
        let index = log.readers.len() - 1;
        MemoryReader { channel: self.clone(), index, taken: next, fuller_until: None, arrived }
    }

    pub(super) fn add_writer(&self) {
        self.log.lock().writers += 1;
    }

    pub(super) fn remove_writer(&self) {
        let mut log = self.log.lock();
        log.writers -= 1;
        if log.writers == 0 {
            log.wake_readers();
        }
    }

    fn append(&self, batch: Batch, room: Reserved, share: Option<ReceiptShare>) {
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

    fn collect(&self, from: u64, limits: &TakeLimits) -> Vec<Batch> {
        let start = self.entries.partition_point(|entry| entry.next() <= from);
        collect(self.entries.range(start..).map(|entry| (entry.first, &entry.batch)), from, limits)
    }
}

/// A batch on its way into a memory channel, with its room reserved.
#[derive(Debug)]
#[must_use = "an uncommitted transaction is rolled back"]
pub struct MemoryPut {
    channel: Arc<MemoryChannel>,
    batch: Batch,
    room: Reserved,
}

impl MemoryPut {
    pub(super) fn channel(&self) -> &Arc<MemoryChannel> {
        &self.channel
    }

    /// By value: no second commit, no late put.
    pub fn commit(self, share: Option<ReceiptShare>) {
        self.channel.append(self.batch, self.room, share);
    }
}

/// One cursor on a memory channel.
#[derive(Debug)]
pub struct MemoryReader {
    channel: Arc<MemoryChannel>,
    index: usize,
    /// Sequence number of the next event to be taken.
    taken: u64,
    /// Until when the take under way waits for a fuller batch. Kept here, so that a cancelled take waits no longer than one.
    fuller_until: Option<Instant>,
    arrived: Arc<Notify>,
}

impl MemoryReader {
    pub fn channel(&self) -> &Arc<MemoryChannel> {
        &self.channel
    }

    /// As [`Reader::take`](super::Reader::take).
    pub async fn take(&mut self, limits: &TakeLimits) -> Option<Taken> {
        loop {
            let (batches, waiting, ended) = {
                let log = self.channel.log.lock();
                let (waiting, ended) = ((log.next - self.taken) as usize, log.writers == 0);
                let due = waiting >= limits.events || ended || is_due(&mut self.fuller_until, waiting, limits.wait);
                (if due { log.collect(self.taken, limits) } else { Vec::new() }, waiting, ended)
            };
            if !batches.is_empty() {
                let taken = Taken::new(&batches, self.taken);
                self.fuller_until = None;
                self.taken = taken.next;
                return Some(taken);
            }
            // A wake-up between looking and waiting is kept as a permit, so it cannot be lost.
            match (waiting, self.fuller_until) {
                (0, _) if ended => return None,
                (1.., Some(deadline)) => _ = tokio::time::timeout_at(deadline, self.arrived.notified()).await,
                _ => self.arrived.notified().await,
            }
        }
    }

    pub fn pressure(&self) -> Pressure {
        self.channel.room.pressure()
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

    pub fn taken_up_to(&self) -> u64 {
        self.taken
    }

    /// Whether everything put so far has been taken.
    pub fn is_at_end(&self) -> bool {
        self.channel.log.lock().next == self.taken
    }

    pub fn settle(&mut self, next: u64) {
        assert!(next <= self.taken, "settled {next} before it was taken (up to {})", self.taken);
        self.channel.settle(self.index, next);
    }

    pub fn rollback(&mut self) {
        self.taken = self.channel.log.lock().readers[self.index].settled;
    }
}
