//! A memory channel's part in the transactions of its pipeline.

use std::sync::Arc;

use tokio::time::Instant;

use super::MemoryChannel;
use super::log::{Entry, Log};
use crate::channel::ReceiptShare;
use crate::channel::cut::{CutClock, CutLog, WorkAhead};
use crate::channel::room::Capacity;
use crate::event::Batch;

/// A channel's part in the transactions of its pipeline.
#[derive(Debug)]
pub(super) struct Cuts {
    pub(super) clock: Arc<CutClock>,
    ahead: WorkAhead,
}

/// What a reader may take next.
pub(super) struct Window {
    /// Up to here, not included.
    pub(super) until: u64,
    /// Nothing more will come in front of `until`.
    pub(super) closed: bool,
    /// All of the cut that the reader is in has been taken.
    pub(super) cut_ends: bool,
}

impl MemoryChannel {
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

    pub(super) fn window(&self, log: &Log, taken: u64, cut: Option<u64>) -> Window {
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
