//! What one channel holds and has done, at one moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::histogram::{Histogram, Observed, SECONDS};
use crate::channel::{Amount, Capacity};

/// A channel at one moment.
#[derive(Debug, Clone)]
pub struct ChannelCounts {
    /// Put and not settled by every reader.
    pub held: Amount,
    pub capacity: Capacity,
    /// Of the oldest event held, as far as it is known.
    pub oldest_age: Option<Duration>,
    /// Events for which room was asked.
    pub put_attempts: u64,
    pub put_events: u64,
    /// How long some put or other has waited for room, in all.
    pub backpressure: Duration,
    pub readers: Vec<ReaderCounts>,
    /// Of a file channel.
    pub disk: Option<DiskCounts>,
}

/// What has passed one reader; kept where its cursor is, under the same lock.
#[derive(Debug)]
pub struct Passed {
    /// Events handed out.
    pub given: u64,
    settled: u64,
    /// By source: how long the oldest of what was settled together had taken since it was put.
    ends: Vec<(Arc<str>, Histogram)>,
    /// When it last settled something, or something first came that it has not settled.
    pub moved: Instant,
}

impl Default for Passed {
    fn default() -> Self {
        Self { given: 0, settled: 0, ends: Vec::new(), moved: Instant::now() }
    }
}

impl Passed {
    /// So many events are settled, the oldest of them put by this source so long ago.
    pub fn settled(&mut self, events: u64, oldest: Option<(&Arc<str>, Duration)>) {
        self.settled += events;
        self.moved = Instant::now();
        let Some((source, age)) = oldest else { return };
        let known = self.ends.iter().position(|(known, _)| known == source).unwrap_or_else(|| {
            self.ends.push((source.clone(), Histogram::new(&SECONDS)));
            self.ends.len() - 1
        });
        self.ends[known].1.took(age);
    }

    pub fn of(&self, name: &Arc<str>, lag_events: u64) -> ReaderCounts {
        ReaderCounts {
            name: name.clone(),
            lag_events,
            take_attempts: self.given,
            taken_events: self.settled,
            end_to_end: self.ends.iter().map(|(source, ends)| (source.clone(), ends.observed())).collect(),
            waits: (lag_events > 0).then(|| self.moved.elapsed()),
        }
    }
}

/// One reader of a channel.
#[derive(Debug, Clone)]
pub struct ReaderCounts {
    pub name: Arc<str>,
    /// Put and not settled by this reader.
    pub lag_events: u64,
    /// Events handed out; those that come again count again.
    pub take_attempts: u64,
    /// Events settled.
    pub taken_events: u64,
    /// By source, from the put of the oldest event of what was settled together.
    pub end_to_end: Vec<(Arc<str>, Observed)>,
    /// How long the oldest of the lag has waited, or the last settlement is ago, whichever is less; nothing without lag.
    pub waits: Option<Duration>,
}

/// What only a channel on disk can tell.
#[derive(Debug, Clone)]
pub struct DiskCounts {
    pub sync_seconds: Option<Observed>,
    pub group_commit_events: Option<Observed>,
    pub corrupt_frames: u64,
    /// Events that damage has cost and that were passed over.
    pub skipped_events: u64,
    pub torn_bytes: u64,
    /// How long the disk has not answered for what it was given.
    pub answers_wait: Option<Duration>,
    /// Time of the last write and sync.
    pub last_sync: Duration,
    /// Why puts wait for space.
    pub waits_for_space: Option<String>,
}
