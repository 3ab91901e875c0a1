//! When a source has been silent for long enough to end.

use std::time::{Duration, Instant};

use wasmflow_sdk::kafka::Fetch;

/// The silence since the last record.
///
/// It begins with the first record, or when the assigned partitions turn out to be at their end: joining a group takes
/// seconds in which nothing can come, and a broker that is away is not silence either.
pub struct Silence {
    limit: Duration,
    since: Option<Instant>,
}

impl Silence {
    pub fn new(limit: Duration) -> Silence {
        Silence { limit, since: None }
    }

    /// `wait`, or less where the silence will be long enough before.
    pub fn shorten(&self, wait: Duration, now: Instant) -> Duration {
        match self.since {
            Some(since) => wait.min((since + self.limit).saturating_duration_since(now)),
            None => wait,
        }
    }

    /// Takes note of a fetch. While the channel is full nobody has asked, so that is no silence.
    pub fn is_over(&mut self, fetch: &Fetch, channel_full: bool, now: Instant) -> bool {
        match fetch {
            Fetch::Records(_) => self.since = Some(now),
            Fetch::AtEnd => self.since = self.since.or(Some(now)),
            Fetch::Idle if channel_full => self.since = self.since.map(|_| now),
            Fetch::Idle => {}
        }
        self.since.is_some_and(|since| now.duration_since(since) >= self.limit) && !matches!(fetch, Fetch::Records(_))
    }
}

#[cfg(test)]
mod tests {
    use wasmflow_sdk::prelude::{Batch, Polled};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn records() -> Fetch {
        Fetch::Records(Polled { batch: Batch::empty(), position: vec![] })
    }

    #[test]
    fn it_is_over_when_nothing_came_for_long_enough() {
        let start = Instant::now();
        let mut silence = Silence::new(LIMIT);
        assert!(!silence.is_over(&records(), false, start));
        assert!(!silence.is_over(&Fetch::Idle, false, start + LIMIT / 2));
        assert!(!silence.is_over(&records(), false, start + LIMIT));
        assert!(silence.is_over(&Fetch::Idle, false, start + LIMIT * 2));
    }

    #[test]
    fn joining_the_group_is_no_silence() {
        let start = Instant::now();
        let mut silence = Silence::new(LIMIT);
        assert!(!silence.is_over(&Fetch::Idle, false, start + LIMIT * 5));
        assert!(!silence.is_over(&Fetch::AtEnd, false, start + LIMIT * 6));
        assert!(silence.is_over(&Fetch::Idle, false, start + LIMIT * 7));
    }

    #[test]
    fn a_full_channel_is_no_silence() {
        let start = Instant::now();
        let mut silence = Silence::new(LIMIT);
        silence.is_over(&records(), false, start);
        assert!(!silence.is_over(&Fetch::Idle, true, start + LIMIT * 3));
        assert!(!silence.is_over(&Fetch::Idle, false, start + LIMIT * 3));
    }

    #[test]
    fn a_wait_ends_with_the_silence() {
        let start = Instant::now();
        let mut silence = Silence::new(LIMIT);
        let wait = Duration::from_secs(10);
        assert_eq!(silence.shorten(wait, start), wait);
        silence.is_over(&records(), false, start);
        assert_eq!(silence.shorten(wait, start + LIMIT / 2), LIMIT / 2);
    }
}
