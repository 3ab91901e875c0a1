//! Counters of the running pipelines, and how they look to Prometheus.
//!
//! What flows only adds to atomics, once a batch; names, labels and sums are made when somebody asks (`text.rs`). Labels are names from
//! the pipeline file, so there are as many series as the file has stages. The one exception is `plugin_info`, one series a
//! stage, whose values are escaped and bounded.

mod agent;
mod channel;
mod families;
mod histogram;
mod kafka;
mod rates;
mod stage;
mod text;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use agent::{AgentCounters, LastReload, Refusal};
pub use channel::{ChannelCounts, DiskCounts, Passed, ReaderCounts};
pub use families::Snapshot;
pub use histogram::{EVENTS, Histogram, Observed, SECONDS, Unit};
pub use kafka::{KafkaCounters, KafkaCounts};
pub use rates::{INTERVAL, Rates};
pub use stage::{Call, Denied, LastError, Running, StageCounters};
pub use text::{Format, encode};

/// A counter that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Milliseconds of this process's life, never 0: a moment that fits into an atomic, where 0 says "never".
pub fn millis(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    1 + at.saturating_duration_since(*start).as_millis() as u64
}
