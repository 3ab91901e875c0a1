//! The memory channel: fast, bounded, gone with the process. Sources are acked after settlement, so nothing is lost as long
//! as they can replay.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cut::{CutClock, CutLog, WorkAhead};
use super::room::{Amount, Capacity, Pressure, Reserved, Room};
use super::take::{TakeLimits, Taken, collect, is_due};
use super::{ChannelError, ReceiptShare};
use crate::event::Batch;
use crate::metrics::{ChannelCounts, Passed};

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

/// A channel's part in the transactions of its pipeline.
#[derive(Debug)]
struct Cuts {
    clock: Arc<CutClock>,
    ahead: WorkAhead,
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Entry>,
    /// Sequence number of the next event to be put.
    next: u64,
    /// By the number each gets when it is made: a reader that has been removed leaves nothing behind.
    readers: BTreeMap<u64, ReaderState>,
    readers_made: u64,
    writers: usize,
    /// Events put since the start.
    put: u64,
    /// Whoever has put.
    sources: Vec<Arc<str>>,
}

#[derive(Debug)]
struct ReaderState {
    name: Arc<str>,
    settled: u64,
    /// The log ends here for this reader, or where it has taken up to if that is further: it is to leave.
    until: Option<u64>,
    counts: Passed,
    /// Woken by a put and by the end.
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    first: u64,
    batch: Batch,
    share: Option<ReceiptShare>,
    /// Gives the room back when the entry goes. Dead letters of a transaction have none: they would wait for room that only the
    /// end of this very transaction gives; its size bounds them.
    _room: Option<Reserved>,
    cut: u64,
    put_at: Instant,
    /// Who put it; nothing for dead letters of a transaction.
    source: Option<Arc<str>>,
}

impl Entry {
    /// Who put it, and when.
    fn origin(&self) -> Option<(Arc<str>, Instant)> {
        Some((self.source.clone()?, self.put_at))
    }

    fn next(&self) -> u64 {
        self.first + self.batch.count() as u64
    }
}

impl MemoryChannel {
    /// `number` is the channel's place in the pipeline: puts into several channels reserve in this order.
    pub fn new(name: impl Into<Arc<str>>, number: usize, capacity: Capacity) -> Arc<Self> {
        let name = name.into();
        let log_name = format!("{name}-{:08x}", rand::random::<u32>()).into();
        let room = Room::new(name.clone(), capacity);
        Arc::new(Self { room, name, number, log_name, log: Mutex::default(), cuts: None })
    }

    /// A channel of a pipeline with transactions: what readers settle stays until its cut is [`commit`](Self::commit)ted.
    pub fn in_cuts(
        name: impl Into<Arc<str>>,
        number: usize,
        capacity: Capacity,
        clock: Arc<CutClock>,
        ahead: WorkAhead,
    ) -> Arc<Self> {
        let mut channel = Self::new(name, number, capacity);
        Arc::get_mut(&mut channel).expect("nobody else has it yet").cuts = Some(Cuts { clock, ahead });
        channel
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

    /// Puts dead letters into a cut that is not done: in front of all that is of later ones, which nobody has taken yet.
    pub fn put_letters(&self, letters: Batch, cut: u64) {
        let mut log = self.log.lock();
        let index = log.entries.partition_point(|entry| entry.cut <= cut);
        let count = letters.count() as u64;
        let first = log.entries.get(index).map_or(log.next, |entry| entry.first);
        log.entries.iter_mut().skip(index).for_each(|later| later.first += count);
        log.next += count;
        log.put += count;
        let put_at = Instant::now();
        log.entries.insert(index, Entry { first, batch: letters, share: None, _room: None, cut, put_at, source: None });
        log.wake_readers();
    }

    /// Whether every reader has settled all of this cut and of those before it.
    pub fn is_settled(&self, cut: u64) -> bool {
        let log = self.log.lock();
        let end = log.entries.iter().take_while(|entry| entry.cut <= cut).last().map_or(0, Entry::next);
        log.readers.values().all(|reader| reader.settled >= end)
    }

    /// A cut is done: its events go, and its room is free.
    pub fn commit(&self, cut: u64) {
        let mut log = self.log.lock();
        let mut gone = Vec::new();
        while log.entries.front().is_some_and(|entry| entry.cut <= cut) {
            gone.extend(log.entries.pop_front());
        }
        let events = gone.iter().map(|entry| entry.batch.count() as u64).sum();
        let oldest = gone.first().and_then(Entry::origin);
        for reader in log.readers.values_mut() {
            reader.counts.settled(events, oldest.as_ref().map(|(source, put_at)| (source, put_at.elapsed())));
        }
        let settled = log.readers.values().map(|reader| reader.settled).min();
        let end = gone.last().map_or(0, Entry::next);
        assert!(settled.is_none_or(|settled| settled >= end), "cut {cut} of `{}` ends behind {settled:?}", self.name);
        log.wake_readers();
        drop(log);
        gone.into_iter().filter_map(|entry| entry.share).for_each(ReceiptShare::settle);
    }

    /// Throws away all that is not committed: its sources bring it again. Nobody may be putting or taking; each reader then goes on
    /// with [`MemoryReader::restart`].
    pub fn void(&self) {
        let mut log = self.log.lock();
        let next = log.next;
        log.readers.values_mut().for_each(|reader| reader.settled = next);
        let gone = std::mem::take(&mut log.entries);
        drop(log);
        drop(gone);
    }

    /// The next cut is open: readers that have taken all of the one before hear of its end.
    pub fn wake_readers(&self) {
        self.log.lock().wake_readers();
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

    fn window(&self, log: &Log, taken: u64, cut: Option<u64>) -> Window {
        let Some(Cuts { clock, ahead }) = &self.cuts else {
            return Window { until: log.next, closed: false, cut_ends: false };
        };
        let next = log.from(taken).next().map(|entry| entry.cut);
        // Everything of this cut, and of those before it, has been taken; none of it will come any more but for dead letters.
        let through = next.map_or(clock.open(), |next| next.min(clock.open())) - 1;
        let until = match next {
            Some(next) if next <= clock.done() + ahead.cuts() => {
                log.from(taken).take_while(|entry| entry.cut == next).last().map_or(taken, Entry::next)
            }
            _ => taken,
        };
        let closed = next.is_some_and(|next| next < clock.open());
        Window { until, closed, cut_ends: cut.is_some_and(|cut| cut <= through) }
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

impl CutLog for MemoryChannel {
    fn is_settled(&self, cut: u64) -> bool {
        self.is_settled(cut)
    }

    fn commit(&self, cut: u64) {
        self.commit(cut);
    }

    fn void(&self) {
        self.void();
    }

    fn wake_readers(&self) {
        self.wake_readers();
    }
}

impl Log {
    /// A name of whoever puts, made once.
    fn source(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.sources.iter().find(|known| ***known == *name) {
            return known.clone();
        }
        self.sources.push(name.into());
        self.sources[self.sources.len() - 1].clone()
    }

    fn wake_readers(&self) {
        self.readers.values().for_each(|reader| reader.arrived.notify_one());
    }

    /// Takes out what every reader has settled.
    fn passed(&mut self) -> Vec<Entry> {
        let passed = self.readers.values().map(|reader| reader.settled).min().unwrap_or(self.next);
        let mut gone = Vec::new();
        while self.entries.front().is_some_and(|entry| entry.next() <= passed) {
            gone.extend(self.entries.pop_front());
        }
        gone
    }

    /// Where the log ends for a reader that is to leave.
    fn end_for(&self, number: u64, taken: u64) -> Option<u64> {
        match self.readers.get(&number) {
            Some(reader) => reader.until.map(|until| until.max(taken)),
            None => Some(taken),
        }
    }

    /// The entries from the one on that holds this event.
    fn from(&self, event: u64) -> impl Iterator<Item = &Entry> {
        let start = self.entries.partition_point(|entry| entry.next() <= event);
        self.entries.range(start..)
    }

    fn collect(&self, from: u64, until: u64, limits: &TakeLimits) -> Vec<Batch> {
        let entries = self.from(from).take_while(|entry| entry.first < until);
        collect(entries.map(|entry| (entry.first, &entry.batch)), from, limits)
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

/// One cursor on a memory channel.
#[derive(Debug)]
pub struct MemoryReader {
    channel: Arc<MemoryChannel>,
    number: u64,
    /// Sequence number of the next event to be taken.
    taken: u64,
    /// Until when the take under way waits for a fuller batch. Kept here, so that a cancelled take waits no longer than one.
    fuller_until: Option<Instant>,
    arrived: Arc<Notify>,
    /// Of what was taken last, as long as the end of its cut has not been told.
    cut: Option<u64>,
}

/// What a reader may take next.
struct Window {
    /// Up to here, not included.
    until: u64,
    /// Nothing more will come in front of `until`.
    closed: bool,
    /// All of the cut that the reader is in has been taken.
    cut_ends: bool,
}

impl MemoryReader {
    pub fn channel(&self) -> &Arc<MemoryChannel> {
        &self.channel
    }

    /// As [`Reader::take`](super::Reader::take).
    pub async fn take(&mut self, limits: &TakeLimits) -> Option<Taken> {
        loop {
            let (batches, waiting, ended) = {
                let mut log = self.channel.log.lock();
                let Window { until, closed, cut_ends } = self.channel.window(&log, self.taken, self.cut);
                if cut_ends {
                    self.cut = None;
                    return Some(Taken::new(&[], self.taken));
                }
                let end = log.end_for(self.number, self.taken);
                let until = end.map_or(until, |end| end.min(until));
                let ended = end == Some(until) || log.writers == 0 && log.next == until;
                let waiting = (until - self.taken) as usize;
                let due =
                    waiting >= limits.events || ended || closed || is_due(&mut self.fuller_until, waiting, limits.wait);
                if due && waiting > 0 && self.channel.cuts.is_some() {
                    self.cut = log.from(self.taken).next().map(|entry| entry.cut);
                }
                let batches = if due { log.collect(self.taken, until, limits) } else { Vec::new() };
                if let Some(reader) = log.readers.get_mut(&self.number) {
                    reader.counts.given += batches.iter().map(|batch| batch.count() as u64).sum::<u64>();
                }
                (batches, waiting, ended)
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
                let leaves = log.end_for(self.number, self.taken) == Some(self.taken);
                if leaves || log.writers == 0 && log.next == self.taken {
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
        self.channel.settle(self.number, next);
    }

    /// The cut of what was taken last; 0 in a pipeline without transactions.
    pub fn cut(&self) -> u64 {
        self.cut.unwrap_or_default()
    }

    /// Waits until nobody puts any more.
    pub async fn closed(&self) {
        while self.channel.log.lock().writers > 0 {
            self.arrived.notified().await;
        }
    }

    /// Goes on behind what was thrown away by [`MemoryChannel::void`]: not behind what others may have put since.
    pub fn restart(&mut self) {
        self.rollback();
        self.fuller_until = None;
        self.cut = None;
    }

    /// As [`Reader::skip_to`](super::Reader::skip_to).
    pub fn skip_to(&mut self, next: u64) {
        if next > self.taken {
            self.taken = next;
            self.channel.settle(self.number, next);
        }
    }

    pub fn rollback(&mut self) {
        let log = self.channel.log.lock();
        self.taken = log.readers.get(&self.number).map_or(self.taken, |reader| reader.settled);
    }
}
