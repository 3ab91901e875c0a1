//! Keeps a producer quiet while its brokers answer nothing.
//!
//! librdkafka 2.12 spins for as long as an idempotent producer has a batch ready to send and the answer to the one before is
//! outstanding: `rd_kafka_toppar_producer_serve` asks for an immediate wake-up before it looks at what is in flight. A broker that
//! hangs then costs a whole core. A partition that is paused is passed over before that, so the host pauses all partitions
//! once answers stay away, and lets them go with the first one that comes.

use std::time::{Duration, Instant};

use super::client::{Client, TopicOffset};

/// With records in flight and no answer for so long the partitions are held. Longer than a healthy broker takes, so that
/// holding costs its neighbours nothing.
const SILENCE: Duration = Duration::from_millis(500);

/// Held partitions are let go so often without an answer: a request that failed and is to be sent again must not wait for ever.
const HOLD: Duration = Duration::from_secs(20);

/// How long they are let go then. A spin of this length each [`HOLD`] is a thousandth of a core.
const PROBE: Duration = Duration::from_millis(20);

/// What the partitions of one producer may do.
///
/// ```text
/// sending --(silence)--> held --(hold is over)--> probing --(probe is over)--> held
///  ^  ^--------------------+------(an answer)--------+
///  +--(an answer)-- free <--(a connection fails)-- any of them
/// ```
///
/// Free: the connection is made anew and what failed is sent again, at librdkafka's own pace; without a connection it does not spin.
#[derive(Debug)]
pub(super) struct Stall {
    state: State,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    Held,
    Probing,
    Free,
}

/// What happened since the stall was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Brokers have answered, or nothing is in flight.
    Answer,
    /// A connection has failed.
    Failure,
    Silence,
}

impl Stall {
    pub(super) fn new() -> Self {
        Self { state: State::Sending, since: Instant::now() }
    }

    /// How long the producer's thread may sleep before it looks again.
    pub(super) fn patience(&self) -> Duration {
        // At least a moment, so that a length that is over makes no spin of its own.
        self.length().saturating_sub(self.since.elapsed()).max(Duration::from_millis(1))
    }

    /// Takes note of what was heard, and holds or lets go the partitions that `partitions` names.
    pub(super) fn look(&mut self, heard: Heard, client: &Client, partitions: impl FnOnce() -> Vec<TopicOffset>) {
        let next = self.next(heard, self.since.elapsed());
        if next != self.state {
            tracing::debug!(from = ?self.state, to = ?next, "producer's partitions");
            match next {
                State::Held => client.pause(&partitions()),
                _ if self.state == State::Held => client.resume(&partitions()),
                _ => {}
            }
        }
        if next != self.state || heard == Heard::Answer {
            (self.state, self.since) = (next, Instant::now());
        }
    }

    fn next(&self, heard: Heard, elapsed: Duration) -> State {
        match (heard, self.state) {
            (Heard::Answer, _) => State::Sending,
            (Heard::Failure, _) | (Heard::Silence, State::Free) => State::Free,
            (Heard::Silence, state) if elapsed < self.length() => state,
            (Heard::Silence, State::Held) => State::Probing,
            (Heard::Silence, State::Sending | State::Probing) => State::Held,
        }
    }

    fn length(&self) -> Duration {
        match self.state {
            State::Sending => SILENCE,
            State::Held => HOLD,
            State::Probing => PROBE,
            // Until an answer comes.
            State::Free => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(state: State, heard: Heard, elapsed: Duration) -> State {
        Stall { state, since: Instant::now() }.next(heard, elapsed)
    }

    #[test]
    fn silence_holds_and_probes_in_turn() {
        assert_eq!(after(State::Sending, Heard::Silence, SILENCE / 2), State::Sending);
        assert_eq!(after(State::Sending, Heard::Silence, SILENCE), State::Held);
        assert_eq!(after(State::Held, Heard::Silence, HOLD / 2), State::Held);
        assert_eq!(after(State::Held, Heard::Silence, HOLD), State::Probing);
        assert_eq!(after(State::Probing, Heard::Silence, PROBE), State::Held);
    }

    #[test]
    fn an_answer_lets_everything_go() {
        for state in [State::Sending, State::Held, State::Probing, State::Free] {
            assert_eq!(after(state, Heard::Answer, Duration::ZERO), State::Sending);
        }
    }

    #[test]
    fn after_a_failed_connection_nothing_is_held_before_an_answer() {
        assert_eq!(after(State::Held, Heard::Failure, Duration::ZERO), State::Free);
        assert_eq!(after(State::Free, Heard::Silence, HOLD * 10), State::Free);
        let free = Stall { state: State::Free, since: Instant::now() };
        assert!(free.patience() > HOLD * 10, "nobody looks again and again meanwhile");
    }
}
