//! One cursor on a memory channel: taking, settling, going back.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::MemoryChannel;
use super::cuts::Window;
use crate::channel::room::Pressure;
use crate::channel::take::{TakeLimits, Taken, is_due};

/// One cursor on a memory channel.
#[derive(Debug)]
pub struct MemoryReader {
    pub(super) channel: Arc<MemoryChannel>,
    pub(super) number: u64,
    /// Sequence number of the next event to be taken.
    pub(super) taken: u64,
    /// Until when the take under way waits for a fuller batch. Kept here, so that a cancelled take waits no longer than one.
    pub(super) fuller_until: Option<Instant>,
    pub(super) arrived: Arc<Notify>,
    /// Of what was taken last, as long as the end of its cut has not been told.
    pub(super) cut: Option<u64>,
}

impl MemoryReader {
    pub fn channel(&self) -> &Arc<MemoryChannel> {
        &self.channel
    }

    /// As [`Reader::take`](crate::channel::Reader::take).
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

    /// As [`Reader::skip_to`](crate::channel::Reader::skip_to).
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
