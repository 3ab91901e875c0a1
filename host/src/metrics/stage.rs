//! What one stage has done, and how it fares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::{Counter, Histogram, millis};
use crate::config::mask;
use crate::plugin::{CallError, Failure, TrapKind};

/// Limit: a last error that is kept. A trap's text names a few functions; the log has the whole.
const MAX_ERROR_BYTES: usize = 1024;

/// Limit: calls of one stage that are timed at once, by instances that work side by side. Further ones are not looked at.
const CALLS_MAX: usize = 16;

/// What one stage has done since the pipeline started.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Sources: events polled. Interceptors: events given. Sinks: events attempted.
    pub received: Counter,
    /// Of sources.
    pub received_bytes: Counter,
    /// Sources: events put. Interceptors: events that went on. Sinks: events drained.
    pub accepted: Counter,
    /// Of sinks.
    pub accepted_bytes: Counter,
    pub filtered: Counter,
    pub rejected: Counter,
    /// Of the rejected those that are larger than `max_event_bytes`.
    pub oversize: Counter,
    pub dead_lettered: Counter,
    pub errors: Counter,
    pub restarts: Counter,
    pub traps: Counter,
    /// Of the traps those by time: `limits.cpu` and `limits.call`.
    pub timeouts: Counter,
    pub memory_traps: Counter,
    pub contract_traps: Counter,
    /// Of sources: puts that had to wait for room.
    pub channel_full: Counter,
    /// Of sinks: takes of which the interceptors left nothing, deliveries of fewer events than a batch may have, full ones.
    pub empty_batches: Counter,
    pub underflow_batches: Counter,
    pub complete_batches: Counter,
    /// Of sinks: the time of each delivery that did not fail.
    pub deliveries: Histogram,
    /// The time of each call into the plugin; that of a source's `poll` is mostly its waiting.
    pub calls: Histogram,
    results: [Counter; Call::ALL.len()],
    denials: [Counter; Denied::ALL.len()],
    /// Of the newest instance.
    memory_bytes: AtomicU64,
    /// Since when each call under way has been, in [`millis`]; 0: none is in this place.
    calling_since: [AtomicU64; CALLS_MAX],
    /// When a call last went well; 0: never.
    went_well: AtomicU64,
    /// Since when every call has failed; 0: the last one has not.
    failing_since: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

/// How a call into a plugin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Ok,
    Retry,
    Reject,
    Fatal,
    Trap,
}

impl Call {
    pub const ALL: [Self; 5] = [Self::Ok, Self::Retry, Self::Reject, Self::Fatal, Self::Trap];

    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Fatal => "fatal",
            Self::Trap => "trap",
        }
    }

    fn of(error: &CallError) -> Self {
        match error {
            CallError::Failure(Failure::Retry { .. }) => Self::Retry,
            CallError::Failure(Failure::Reject(_)) => Self::Reject,
            CallError::Failure(Failure::Fatal(_)) => Self::Fatal,
            CallError::Trap { .. } => Self::Trap,
        }
    }
}

/// What a plugin asks for and does not get, without the call failing for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// What it was not granted.
    Grant,
    /// A change to a batch that does not fit it.
    Contract,
    /// A log line too many.
    Log,
}

impl Denied {
    pub const ALL: [Self; 3] = [Self::Grant, Self::Contract, Self::Log];

    pub fn label(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Contract => "contract",
            Self::Log => "log",
        }
    }
}

/// What last went wrong in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Without secrets, and cut to a bounded length.
    pub text: String,
    pub at: SystemTime,
}

/// A call under way; dropped in the middle, it was given up.
#[derive(Debug)]
pub struct Running {
    counters: Arc<StageCounters>,
    started: Instant,
    /// Its place among the calls under way, if there was one.
    place: Option<usize>,
}

impl StageCounters {
    pub fn trapped(&self, kind: TrapKind) {
        self.traps.add(1);
        self.restarts.add(1);
        match kind {
            kind if kind.is_timeout() => self.timeouts.add(1),
            TrapKind::Memory => self.memory_traps.add(1),
            TrapKind::Contract => self.contract_traps.add(1),
            _ => {}
        }
    }

    /// By the words of the metrics; the two kinds that are about time are one.
    pub fn traps_by_kind(&self) -> [(&'static str, u64); 4] {
        let (time, memory, contract) = (self.timeouts.get(), self.memory_traps.get(), self.contract_traps.get());
        let rest = self.traps.get().saturating_sub(time + memory + contract);
        [("trap", rest), ("time", time), ("memory", memory), ("contract", contract)]
    }

    pub fn denied(&self, what: Denied) {
        self.denials[what as usize].add(1);
    }

    pub fn denials(&self, what: Denied) -> u64 {
        self.denials[what as usize].get()
    }

    /// A call begins.
    pub fn call(self: &Arc<Self>) -> Running {
        let started = Instant::now();
        let since = millis(started);
        let take = |place: &AtomicU64| place.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Running { counters: self.clone(), started, place: self.calling_since.iter().position(take) }
    }

    /// A call has failed, or what was to come before it.
    pub fn note_error(&self, error: &dyn std::fmt::Display) {
        let mut text = mask(&error.to_string()).into_owned();
        text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
        *self.last_error.lock() = Some(LastError { text, at: SystemTime::now() });
    }

    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }

    pub fn result(&self, call: Call) -> u64 {
        self.results[call as usize].get()
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// How long the oldest call under way has taken.
    pub fn calling_for(&self) -> Option<Duration> {
        self.calling_since.iter().filter_map(since).max()
    }

    /// How long ago a call last went well.
    pub fn well_before(&self) -> Option<Duration> {
        since(&self.went_well)
    }

    /// How long every call has failed.
    pub fn failing_for(&self) -> Option<Duration> {
        since(&self.failing_since)
    }

    fn ended(&self, took: Duration, now: Instant, error: Option<&CallError>) {
        self.calls.took(took);
        let result = error.map_or(Call::Ok, Call::of);
        self.results[result as usize].add(1);
        match result {
            // An event that is refused is no failure of the stage.
            Call::Ok | Call::Reject => {
                self.went_well.store(millis(now), Ordering::Relaxed);
                self.failing_since.store(0, Ordering::Relaxed);
            }
            Call::Retry | Call::Fatal | Call::Trap => {
                // The first failure stays.
                _ = self.failing_since.compare_exchange(0, millis(now), Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        if let Some(error) = error {
            self.note_error(error);
        }
    }
}

impl Running {
    /// The call has ended so, with so much memory in use.
    pub fn end(self, error: Option<&CallError>, memory_bytes: usize) {
        let now = Instant::now();
        self.counters.memory_bytes.store(memory_bytes as u64, Ordering::Relaxed);
        self.counters.ended(now - self.started, now, error);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.counters.calling_since[place].store(0, Ordering::Relaxed);
        }
    }
}

fn since(moment: &AtomicU64) -> Option<Duration> {
    match moment.load(Ordering::Relaxed) {
        0 => None,
        moment => Some(Duration::from_millis(millis(Instant::now()).saturating_sub(moment))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(counters: &Arc<StageCounters>, failure: Failure) {
        counters.call().end(Some(&CallError::Failure(failure)), 0);
    }

    #[test]
    fn a_stage_fails_from_the_first_failed_call_to_the_next_that_goes_well() {
        let counters = Arc::new(StageCounters::default());
        failed(&counters, Failure::Retry { reason: "away".into(), after: None });
        let first = counters.failing_since.load(Ordering::Relaxed);
        failed(&counters, Failure::Retry { reason: "still away".into(), after: None });
        assert_eq!(counters.failing_since.load(Ordering::Relaxed), first);
        assert_eq!(counters.last_error().unwrap().text, "still away");
        failed(&counters, Failure::Reject("not an event".into()));
        assert!(counters.failing_for().is_none(), "an event that is refused is no failure of the stage");
        assert_eq!((counters.result(Call::Retry), counters.result(Call::Reject)), (2, 1));
    }

    #[test]
    fn a_call_that_is_given_up_is_no_longer_under_way() {
        let counters = Arc::new(StageCounters::default());
        let running = counters.call();
        assert!(counters.calling_for().is_some());
        drop(counters.call());
        assert!(counters.calling_for().is_some(), "another instance's call is still under way");
        drop(running);
        assert!(counters.calling_for().is_none());
        assert_eq!(counters.calls.observed().count, 0);
    }

    #[test]
    fn a_last_error_is_bounded() {
        let counters = StageCounters::default();
        counters.note_error(&"ä".repeat(MAX_ERROR_BYTES));
        assert!(counters.last_error().unwrap().text.len() <= MAX_ERROR_BYTES);
    }
}
