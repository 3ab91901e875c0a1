//! Back-off between attempts: doubling, capped, with jitter so that stages that failed together do not return together.

use std::time::Duration;

use crate::config::pipeline::RetryPolicy;

/// The waits of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    /// 0: for ever.
    attempts: u32,
    tried: u32,
}

impl Backoff {
    pub fn new(policy: &RetryPolicy) -> Self {
        Self { initial: policy.initial, max: policy.max, attempts: policy.attempts, tried: 0 }
    }

    /// Failed attempts so far.
    pub fn tried(&self) -> u32 {
        self.tried
    }

    /// Counts a failed attempt. How long to wait before the next one, at least `at_least`; nothing when they are used up.
    pub fn next(&mut self, at_least: Option<Duration>) -> Option<Duration> {
        let wait = self.delay();
        (self.attempts == 0 || self.tried <= self.attempts).then(|| wait.max(at_least.unwrap_or_default()))
    }

    /// Counts a failed attempt and says how long to wait, however many there were.
    pub fn delay(&mut self) -> Duration {
        let doubled = self.initial.saturating_mul(2_u32.saturating_pow(self.tried.min(30)));
        self.tried = self.tried.saturating_add(1);
        doubled.min(self.max).mul_f64(rand::random_range(0.75..=1.0))
    }

    pub fn reset(&mut self) {
        self.tried = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pipeline::AfterRetries;

    fn policy(attempts: u32) -> RetryPolicy {
        RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(1),
            attempts,
            then: AfterRetries::Stop,
        }
    }

    #[test]
    fn waits_double_up_to_the_cap_with_at_most_a_quarter_off() {
        let mut backoff = Backoff::new(&policy(0));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next(None).unwrap().as_millis();
            assert!((expected * 3 / 4..=expected).contains(&wait), "{wait} ms for {expected} ms");
        }
    }

    #[test]
    fn attempts_are_counted_and_the_plugin_may_ask_for_more_time() {
        let mut backoff = Backoff::new(&policy(2));
        assert_eq!(backoff.next(Some(Duration::from_secs(9))), Some(Duration::from_secs(9)));
        assert!(backoff.next(None).is_some());
        assert_eq!(backoff.next(None), None);
    }
}
