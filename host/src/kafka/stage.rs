//! The Kafka side of one stage: its consumer, its producers, and what a delivery has staged.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Batch;
use crate::kafka::SendOptions;
use crate::plugin::Failure;
use crate::position::{Part, Position};

/// What a consumer reads, as a plugin asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub connection: String,
    pub group: String,
    /// Topic names; one that starts with `^` is a pattern.
    pub topics: Vec<String>,
    /// Fixed partitions in place of the group's assignment.
    pub partitions: Option<Vec<(String, i32)>>,
    /// Where a partition starts that has neither a stored position nor an offset of the group.
    pub start: Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

/// The answer to [`StageKafka::poll`].
#[derive(Debug)]
pub enum Fetch {
    /// One part for each partition that moved: key and value as [`StageKafka::set_position`] takes them back.
    Records { batch: Batch, position: Vec<Part> },
    /// Nothing came within the wait, or [`StageKafka::interrupt`] was called.
    Idle,
    /// Every partition assigned has been read to its end as it was when it was assigned. Said once.
    AtEnd,
}

/// A record that the broker will never take.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The event as it was given to `stage_send`: a batch of one row.
    pub event: Batch,
    pub reason: String,
}

/// Records of a delivery may not have reached the broker, and nothing more of this producer will: send everything from this
/// delivery on again, in order, after what `failure` says (`Retry`, or `Fatal` where the operator must act). The next
/// `open_producer` or `stage_send` builds a new client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct ProducerLost {
    pub failure: Failure,
}

/// A delivery on its way to the brokers.
///
/// Cancel: dropping it, or its `done`, forgets the answer; the records go out all the same.
#[must_use = "the delivery is settled once `done` has answered"]
pub struct InFlight {}

impl InFlight {
    /// Waits until the brokers have acknowledged or refused every record of the delivery.
    ///
    /// # Errors
    /// [`ProducerLost`].
    pub async fn done(self) -> Result<Vec<Refused>, ProducerLost> {
        Ok(Vec::new())
    }
}

/// The Kafka side of one stage.
pub struct StageKafka {
    stage: Arc<str>,
}

impl StageKafka {
    pub(super) fn new(stage: &str) -> Self {
        Self { stage: stage.into() }
    }

    fn not_yet(&self) -> Failure {
        Failure::Fatal(format!("stage `{}`: Kafka is not connected in this build", self.stage))
    }

    /// Where the next [`subscribe`](Self::subscribe) goes on. Called by the runner before each `open` of the plugin.
    pub fn set_position(&self, _position: &Position) {}

    /// Subscribes. With the subscription it has, the consumer goes on from the position set: partitions that were read
    /// further are rewound to it.
    ///
    /// # Errors
    /// `Fatal` for a connection that is not granted or an option that is wrong.
    pub fn subscribe(&self, _subscription: Subscription) -> Result<(), Failure> {
        Err(self.not_yet())
    }

    /// Brings up to `max_events` records and about `max_bytes` bytes, waiting at most `wait` for the first of them.
    ///
    /// # Errors
    /// `Retry` for what may pass, `Fatal` for refused credentials and the like.
    pub async fn poll(&self, _max_events: u32, _max_bytes: u32, _wait: Duration) -> Result<Fetch, Failure> {
        Err(self.not_yet())
    }

    pub fn has_consumer(&self) -> bool {
        false
    }

    /// Makes a waiting `poll`, or else the next one, answer `Idle` at once.
    pub fn interrupt(&self) {}

    /// These positions are settled: their offsets are committed to the group within a quarter of a second, in bulk.
    pub fn settled(&self, _parts: &[Part]) {}

    /// # Errors
    /// `Fatal` for a connection that is not granted.
    pub fn open_producer(&self, _connection: &str) -> Result<(), Failure> {
        Err(self.not_yet())
    }

    /// Adds every event to the current delivery, but for the rows it answers: those can never become records. Nothing
    /// leaves before [`send_staged`](Self::send_staged).
    ///
    /// # Errors
    /// `Fatal` for a connection that is not granted; `Retry` while a lost producer is not rebuilt.
    pub fn stage_send(
        &self,
        _connection: &str,
        _batch: &Batch,
        _options: &SendOptions,
    ) -> Result<Vec<(u32, String)>, Failure> {
        Err(self.not_yet())
    }

    /// Forgets what is staged: the call that staged it has failed.
    pub fn discard_staged(&self) {}

    pub fn has_staged(&self) -> bool {
        false
    }

    /// Hands all staged records to the producers, in order.
    pub fn send_staged(&self) -> InFlight {
        InFlight {}
    }

    /// Waits until there is room for more records in flight. Awaited before more is taken from the channel.
    pub async fn room(&self) {}
}
