//! Whether any broker of a connection answers. A source that waits for records fails in nothing while there is none, so nobody would know.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Client, ClientError, Code};

/// Limit: how long one question takes. The thread that asks serves the group as well.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// When the last broker was lost. librdkafka says when all are gone, and not when one is back: that is asked for then.
#[derive(Debug, Default)]
pub(super) struct Reach(Mutex<Option<Instant>>);

impl Reach {
    /// Takes note of an error: it may be the word that every broker is gone.
    pub(super) fn heard(&self, error: &ClientError) {
        if error.code == Code::ALL_BROKERS_DOWN {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
    }

    /// Asks for a sign of life where none is known: nothing is asked of brokers that are there.
    pub(super) fn look(&self, client: &Client) {
        if self.lost_for().is_some() && client.knows_a_broker(ANSWER_WAIT) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// How long no broker has answered.
    pub(super) fn lost_for(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|lost| lost.elapsed())
    }
}
