//! Whether any broker of a consumer's connection answers, and what is done where none does.
//!
//! A source that waits for records fails in nothing while there is no broker, so nobody would know. librdkafka says when all connections
//! are gone, and not when one is back. And a cluster whose brokers are all fenced for a moment, as after a pause of a one-node cluster,
//! answers with topics and without a broker: librdkafka takes that for the truth, lets go of all brokers, the bootstrap servers among
//! them, and then has nobody left to ask, for ever and without a word (librdkafka#5301, open in 2.12 and 2.13). So a consumer that brings
//! nothing asks now and then, and starts from its bootstrap servers again where there is no answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Client, ClientError, Code};

/// Limit: a client that brings nothing is asked this often; each question is one small request to a broker.
const PAUSE: Duration = Duration::from_secs(5);

/// Limit: between two new starts while no broker answers. Each leaves the list of servers in librdkafka's memory once more.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Limit: how long one question takes. The thread that asks serves the group as well.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// What the consumer's thread finds out, for whoever asks how it goes.
#[derive(Debug)]
pub(super) struct Reach(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Since when no broker answers.
    lost: Option<Instant>,
    /// When the client is asked without a reason, or starts over.
    next: Instant,
    pause: Duration,
}

impl State {
    fn calm() -> Self {
        Self { lost: None, next: Instant::now() + PAUSE, pause: PAUSE }
    }
}

impl Default for Reach {
    fn default() -> Self {
        Self(Mutex::new(State::calm()))
    }
}

impl Reach {
    /// Takes note of an error: it may be the word that every broker is gone.
    pub(super) fn heard(&self, error: &ClientError) {
        if error.code == Code::ALL_BROKERS_DOWN {
            self.state().lost.get_or_insert_with(Instant::now);
        }
    }

    /// Asks for a sign of life where none is known. Call it at every turn of the thread, and say whether the client has brought anything
    /// since the turn before: then nothing is asked of brokers that are there.
    pub(super) fn look(&self, client: &Client, has_brought: bool) {
        let now = Instant::now();
        let is_due = {
            let mut state = self.state();
            if has_brought {
                // Perhaps from what was read ahead: that a broker is back shows only when it answers.
                *state = State { lost: state.lost, ..State::calm() };
            }
            state.lost.is_some() || now >= state.next
        };
        if !is_due {
            return;
        }
        if client.knows_a_broker(ANSWER_WAIT) {
            *self.state() = State::calm();
            return;
        }
        let mut state = self.state();
        state.lost.get_or_insert(now);
        if now >= state.next {
            client.start_over();
            state.pause = (state.pause * 2).min(MAX_PAUSE);
            state.next = now + state.pause;
        }
    }

    /// How long no broker has answered.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.state().lost.map(|lost| lost.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
