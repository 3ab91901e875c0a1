//! What a memory channel keeps: its entries, and where each reader stands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::channel::ReceiptShare;
use crate::channel::room::Reserved;
use crate::channel::take::{TakeLimits, collect};
use crate::event::Batch;
use crate::metrics::Passed;

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) entries: VecDeque<Entry>,
    /// Sequence number of the next event to be put.
    pub(super) next: u64,
    /// By the number each gets when it is made: a reader that has been removed leaves nothing behind.
    pub(super) readers: BTreeMap<u64, ReaderState>,
    pub(super) readers_made: u64,
    pub(super) writers: usize,
    /// Events put since the start.
    pub(super) put: u64,
    /// Whoever has put.
    pub(super) sources: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct ReaderState {
    pub(super) name: Arc<str>,
    pub(super) settled: u64,
    /// The log ends here for this reader, or where it has taken up to if that is further: it is to leave.
    pub(super) until: Option<u64>,
    pub(super) counts: Passed,
    /// Woken by a put and by the end.
    pub(super) arrived: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) first: u64,
    pub(super) batch: Batch,
    pub(super) share: Option<ReceiptShare>,
    /// Gives the room back when the entry goes. Dead letters of a transaction have none: they would wait for room that only the
    /// end of this very transaction gives; its size bounds them.
    pub(super) _room: Option<Reserved>,
    pub(super) cut: u64,
    pub(super) put_at: Instant,
    /// Who put it; nothing for dead letters of a transaction.
    pub(super) source: Option<Arc<str>>,
}

impl Entry {
    /// Who put it, and when.
    pub(super) fn origin(&self) -> Option<(Arc<str>, Instant)> {
        Some((self.source.clone()?, self.put_at))
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.batch.count() as u64
    }
}

impl Log {
    /// A name of whoever puts, made once.
    pub(super) fn source(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.sources.iter().find(|known| ***known == *name) {
            return known.clone();
        }
        self.sources.push(name.into());
        self.sources[self.sources.len() - 1].clone()
    }

    pub(super) fn wake_readers(&self) {
        self.readers.values().for_each(|reader| reader.arrived.notify_one());
    }

    /// Takes out what every reader has settled.
    pub(super) fn passed(&mut self) -> Vec<Entry> {
        let passed = self.readers.values().map(|reader| reader.settled).min().unwrap_or(self.next);
        let mut gone = Vec::new();
        while self.entries.front().is_some_and(|entry| entry.next() <= passed) {
            gone.extend(self.entries.pop_front());
        }
        gone
    }

    /// Where the log ends for a reader that is to leave.
    pub(super) fn end_for(&self, number: u64, taken: u64) -> Option<u64> {
        match self.readers.get(&number) {
            Some(reader) => reader.until.map(|until| until.max(taken)),
            None => Some(taken),
        }
    }

    /// The entries from the one on that holds this event.
    pub(super) fn from(&self, event: u64) -> impl Iterator<Item = &Entry> {
        let start = self.entries.partition_point(|entry| entry.next() <= event);
        self.entries.range(start..)
    }

    pub(super) fn collect(&self, from: u64, until: u64, limits: &TakeLimits) -> Vec<Batch> {
        let entries = self.from(from).take_while(|entry| entry.first < until);
        collect(entries.map(|entry| (entry.first, &entry.batch)), from, limits)
    }
}
