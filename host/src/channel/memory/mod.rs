//! The memory channel: fast, bounded, gone with the process. Sources are acked after settlement, so nothing is lost as long
//! as they can replay.

mod cuts;
mod log;
mod reader;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::room::{Amount, Capacity, Reserved, Room};
use super::{ChannelError, ReceiptShare};
use crate::event::Batch;
use crate::metrics::{ChannelCounts, Passed};
use cuts::Cuts;
use log::{Entry, Log, ReaderState};
pub use reader::MemoryReader;

/// An ordered log in memory with a cursor for each reader.
///
/// Invariant: settled <= taken <= put, for each reader. An entry stays until every reader has settled it, and gives its room
/// back then.
#[derive(Debug)]
pub struct MemoryChannel {
    name: Arc<str>,
    number: usize,
    log_name: Arc<str>,
    log: Mutex<Log>,
    room: Arc<Room>,
    cuts: Option<Cuts>,
}

impl MemoryChannel {
    /// `number` is the channel's place in the pipeline: puts into several channels reserve in this order.
    pub fn new(name: impl Into<Arc<str>>, number: usize, capacity: Capacity) -> Arc<Self> {
        let name = name.into();
        let log_name = format!("{name}-{:08x}", rand::random::<u32>()).into();
        let room = Room::new(name.clone(), capacity);
        Arc::new(Self { room, name, number, log_name, log: Mutex::default(), cuts: None })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn log_name(&self) -> &Arc<str> {
        &self.log_name
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

    /// The reader of this name, where it has settled up to; a new one gets every event put from now on.
    pub fn reader(self: &Arc<Self>, name: &str) -> MemoryReader {
        let mut log = self.log.lock();
        let log = &mut *log;
        let known = log.readers.iter().find(|(_, reader)| &*reader.name == name).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            log.readers_made += 1;
            log.readers_made
        });
        let fresh = || ReaderState {
            name: name.into(),
            settled: log.next,
            until: None,
            counts: Passed::default(),
            arrived: Arc::default(),
        };
        let state = log.readers.entry(number).or_insert_with(fresh);
        state.until = None;
        let (taken, arrived) = (state.settled, state.arrived.clone());
        MemoryReader { channel: self.clone(), number, taken, fuller_until: None, arrived, cut: None }
    }

    /// As [`Channel::stop_reader`](super::Channel::stop_reader).
    pub(super) fn stop_reader(&self, name: &str, until: u64) {
        let mut log = self.log.lock();
        if let Some(reader) = log.readers.values_mut().find(|reader| &*reader.name == name) {
            reader.until = Some(until);
            reader.arrived.notify_one();
        }
    }

    /// As [`Channel::remove_reader`](super::Channel::remove_reader).
    pub(super) fn remove_reader(&self, name: &str) -> u64 {
        let mut log = self.log.lock();
        let Some((&number, _)) = log.readers.iter().find(|(_, reader)| &*reader.name == name) else { return 0 };
        let reader = log.readers.remove(&number).expect("it has just been found");
        let given_up = log.next - reader.settled;
        let gone = if self.cuts.is_none() { log.passed() } else { Vec::new() };
        drop(log);
        reader.arrived.notify_one();
        gone.into_iter().filter_map(|entry| entry.share).for_each(ReceiptShare::settle);
        given_up
    }

    pub(super) fn settled_by(&self, name: &str) -> Option<u64> {
        let log = self.log.lock();
        log.readers.values().find(|reader| &*reader.name == name).map(|reader| reader.settled)
    }

    /// Sequence number of the next event to be put.
    pub(super) fn next(&self) -> u64 {
        self.log.lock().next
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

    fn append(&self, batch: Batch, room: Reserved, source: &str, share: Option<ReceiptShare>) {
        let mut log = self.log.lock();
        if batch.is_empty() || log.readers.is_empty() {
            drop(log);
            share.into_iter().for_each(ReceiptShare::settle);
            return;
        }
        let (first, put_at, source) = (log.next, Instant::now(), Some(log.source(source)));
        log.readers
            .values_mut()
            .filter(|reader| reader.settled == first)
            .for_each(|reader| reader.counts.moved = put_at);
        log.next += batch.count() as u64;
        log.put += batch.count() as u64;
        let cut = self.cuts.as_ref().map_or(0, |cuts| cuts.clock.open());
        log.entries.push_back(Entry { first, batch, share, _room: Some(room), cut, put_at, source });
        log.wake_readers();
    }

    /// What it holds and has done.
    pub fn counts(&self) -> ChannelCounts {
        let (put_attempts, backpressure) = self.room.asked();
        let bytes = self.room.held().bytes;
        let log = self.log.lock();
        let kept: u64 = log.entries.iter().map(|entry| entry.batch.count() as u64).sum();
        // In transactions an event is settled with its cut.
        let lag = |reader: &ReaderState| if self.cuts.is_some() { kept } else { log.next - reader.settled };
        let readers = log.readers.values().map(|reader| reader.counts.of(&reader.name, lag(reader)));
        ChannelCounts {
            held: Amount { events: log.readers.values().map(lag).max().unwrap_or(0), bytes },
            capacity: self.room.capacity(),
            oldest_age: log.entries.front().map(|entry| entry.put_at.elapsed()),
            put_attempts,
            put_events: log.put,
            backpressure,
            readers: readers.collect(),
            disk: None,
        }
    }

    fn settle(&self, number: u64, next: u64) {
        let mut log = self.log.lock();
        let put = log.next;
        let before = log.readers.get(&number).map(|reader| reader.settled);
        let oldest = before.and_then(|before| log.from(before).next()?.origin());
        // A reader that has been removed holds nothing any more.
        let Some(reader) = log.readers.get_mut(&number) else { return };
        assert!(
            reader.settled <= next && next <= put,
            "reader `{}` of `{}` settles {next} after {} of {put}",
            reader.name,
            self.name,
            reader.settled,
        );
        let events = next - reader.settled;
        reader.settled = next;
        if let Some(cuts) = &self.cuts {
            drop(log);
            cuts.clock.delivered.notify_one();
            return;
        }
        reader.counts.settled(events, oldest.as_ref().map(|(source, put_at)| (source, put_at.elapsed())));
        let gone = log.passed();
        drop(log);
        gone.into_iter().filter_map(|entry| entry.share).for_each(ReceiptShare::settle);
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

    pub(super) fn commit(self, source: &str, share: Option<ReceiptShare>) {
        self.channel.append(self.batch, self.room, source, share);
    }
}
