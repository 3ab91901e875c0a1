//! Counters of the running pipeline, by the names of the field's metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::plugin::TrapKind;

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

/// What one stage has done since the pipeline started.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Sources: events polled. Interceptors: events given. Sinks: events attempted.
    pub received: Counter,
    /// Sources: events put. Interceptors: events that went on. Sinks: events drained.
    pub accepted: Counter,
    pub filtered: Counter,
    pub rejected: Counter,
    pub dead_lettered: Counter,
    pub errors: Counter,
    pub restarts: Counter,
    pub traps: Counter,
    /// Of the traps those by time: `limits.cpu` and `limits.call`.
    pub timeouts: Counter,
}

impl StageCounters {
    pub fn trapped(&self, kind: TrapKind) {
        self.traps.add(1);
        self.restarts.add(1);
        if kind.is_timeout() {
            self.timeouts.add(1);
        }
    }
}
