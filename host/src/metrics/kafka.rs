//! What the Kafka clients of one connection have done.

use std::sync::Arc;
use std::time::Duration;

use super::histogram::Observed;
use super::{Counter, Histogram};

/// Counters of one connection.
#[derive(Debug, Default)]
pub struct KafkaCounters {
    committed: Counter,
    aborted: Counter,
    pub rebalances: Counter,
    commits: Histogram,
}

/// A connection at one moment.
#[derive(Debug, Clone, Default)]
pub struct KafkaCounts {
    pub committed: u64,
    pub aborted: u64,
    pub rebalances: u64,
    /// The time of each commit; nothing where the pipeline has no transactions.
    pub transactions: Option<Observed>,
    /// By topic.
    pub lag: Vec<(Arc<str>, u64)>,
}

impl KafkaCounters {
    pub fn committed(&self, took: Duration) {
        self.committed.add(1);
        self.commits.took(took);
    }

    pub fn aborted(&self) {
        self.aborted.add(1);
    }

    /// Of a connection with these lags; without transactions nothing is said of those.
    pub fn counts(&self, has_transactions: bool, lag: Vec<(Arc<str>, u64)>) -> KafkaCounts {
        KafkaCounts {
            committed: self.committed.get(),
            aborted: self.aborted.get(),
            rebalances: self.rebalances.get(),
            transactions: has_transactions.then(|| self.commits.observed()),
            lag,
        }
    }
}
