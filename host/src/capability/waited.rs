//! How long the calls of an instance have waited for the host: that time is back-pressure, not the guest's slowness.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time spent waiting, of all calls into one instance. `limits.call` does not count it.
#[derive(Debug, Clone, Default)]
pub struct Waited(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    before: Duration,
    since: Option<Instant>,
}

impl Waited {
    /// So far, with the wait under way.
    pub fn total(&self) -> Duration {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.before + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Counts from now until the guard is dropped.
    ///
    /// Cancel: a future that holds the guard counts until it is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).since = Some(Instant::now());
        Waiting(self)
    }
}

/// Something waits; one at a time, as an instance is in one call at a time.
#[must_use = "the wait ends when this is dropped"]
pub struct Waiting<'w>(&'w Waited);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = state.since.take() {
            state.before += since.elapsed();
        }
    }
}
