//! Slows a stage down whose calls are ended for taking too long, so that a plugin that loops cannot keep a core to itself.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Calls that may run into their limit before the stage has to rest: a batch and its second try are innocent until then.
const FREE_TIMEOUTS: u32 = 2;
/// A rest, in computing times that went before: the stage has a fifth of a core then, and instantiating some of the rest of a quarter.
const REST: u32 = 4;
/// A stage that went so long without is as good as new.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// When a stage may have its next instance.
#[derive(Debug)]
pub struct Pace {
    /// How many share the work, and with it the part of a core that they may burn.
    workers: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    timeouts: u32,
    not_before: Option<Instant>,
}

impl Pace {
    pub fn shared_by(workers: u32) -> Self {
        Self { workers, state: Mutex::default() }
    }

    /// Notes that a call was ended after computing for `spent`.
    ///
    /// Calls that went well in between change nothing: a plugin that loops on every second batch burns as much as one that always does.
    pub fn timed_out(&self, spent: Duration) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.not_before.is_some_and(|rested| now.saturating_duration_since(rested) > FORGIVEN_AFTER) {
            state.timeouts = 0;
        }
        state.timeouts = state.timeouts.saturating_add(1);
        let rest = if state.timeouts > FREE_TIMEOUTS { spent * REST * self.workers } else { Duration::ZERO };
        state.not_before = Some(now + rest);
    }

    /// Waits until the stage may have its next instance; at once where it never ran into its limits.
    ///
    /// Cancel: the rest goes on, and whoever waits next waits for what is left of it.
    pub async fn rest(&self) {
        let not_before = self.state.lock().not_before;
        if let Some(not_before) = not_before.filter(|&not_before| not_before > Instant::now()) {
            tokio::time::sleep_until(not_before).await;
        }
    }

    /// How long the stage still has to rest.
    pub fn left(&self) -> Duration {
        self.state.lock().not_before.map_or(Duration::ZERO, |rested| rested.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Duration = Duration::from_secs(1);

    #[test]
    fn the_third_timeout_costs_four_times_what_it_burnt() {
        let pace = Pace::shared_by(1);
        assert_eq!(pace.left(), Duration::ZERO);
        pace.timed_out(CPU);
        pace.timed_out(CPU);
        assert_eq!(pace.left(), Duration::ZERO);
        for _ in 0..3 {
            pace.timed_out(CPU);
            assert!(pace.left() > CPU * 3 && pace.left() <= CPU * 4, "{:?}", pace.left());
        }
    }

    #[test]
    fn a_minute_after_its_rest_a_stage_is_as_good_as_new() {
        let pace = Pace::shared_by(1);
        let long_ago =
            Instant::now().checked_sub(FORGIVEN_AFTER + CPU).expect("the machine runs for longer than a minute");
        *pace.state.lock() = State { timeouts: 9, not_before: Some(long_ago) };
        pace.timed_out(CPU);
        assert_eq!(pace.left(), Duration::ZERO);
    }
}
