//! Kafka, spoken by the host: a plugin names a connection of the pipeline file and never sees its secrets.
//!
//! There is no Kafka in a native test: opening answers [`Failure::Fatal`] there, so keep what is worth testing (the
//! options made of a config) in functions of their own.

use std::time::Duration;

use crate::batch::Batch;
use crate::failure::Failure;
use crate::source::{Polled, Progress};

pub use crate::bindings::imports::wasmflow::plugin::kafka::{
    Choice, HeaderOr, Partition, SendOptions, Start, Subscription,
};

/// What a consumer's poll brought.
#[derive(Debug)]
pub enum Fetch {
    /// Records as events, and the parts of the position that moved.
    Records(Polled),
    /// Nothing came within the wait.
    Idle,
    /// Every partition assigned has been read to its end as it was when it was assigned. Said once.
    AtEnd,
}

impl From<Fetch> for Progress {
    /// For a source that never ends: the end of the partitions is only a pause.
    fn from(fetch: Fetch) -> Progress {
        match fetch {
            Fetch::Records(polled) => Progress::Events(polled),
            Fetch::Idle | Fetch::AtEnd => Progress::Idle,
        }
    }
}

#[cfg(target_family = "wasm")]
mod client {
    use super::*;
    use crate::bindings::imports::wasmflow::plugin::kafka as host;
    use crate::failure::milliseconds;

    #[derive(Debug)]
    pub(super) struct Producer(host::Producer);

    impl Producer {
        pub(super) fn open(connection: &str) -> Result<Self, Failure> {
            host::Producer::open(connection).map(Self)
        }

        pub(super) fn send(&self, batch: &Batch, options: &SendOptions) -> Result<(), Failure> {
            self.0.send(batch.0.handle(), options)
        }
    }

    #[derive(Debug)]
    pub(super) struct Consumer(host::Consumer);

    impl Consumer {
        pub(super) fn subscribe(subscription: &Subscription) -> Result<Self, Failure> {
            host::Consumer::subscribe(subscription).map(Self)
        }

        pub(super) fn poll(&self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Fetch, Failure> {
            Ok(match self.0.poll(max_events, max_bytes, milliseconds(wait))? {
                host::Fetch::Records(fetched) => {
                    let batch = Batch(crate::batch::Store::Owned(fetched.batch));
                    Fetch::Records(Polled { batch, position: fetched.position })
                }
                host::Fetch::Idle => Fetch::Idle,
                host::Fetch::AtEnd => Fetch::AtEnd,
            })
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod client {
    use super::*;

    const ABSENT: &str = "Kafka is spoken by the host; there is none in a native test";

    #[derive(Debug)]
    pub(super) enum Producer {}

    impl Producer {
        pub(super) fn open(_connection: &str) -> Result<Self, Failure> {
            Err(Failure::fatal(ABSENT))
        }

        pub(super) fn send(&self, _batch: &Batch, _options: &SendOptions) -> Result<(), Failure> {
            match *self {}
        }
    }

    #[derive(Debug)]
    pub(super) enum Consumer {}

    impl Consumer {
        pub(super) fn subscribe(_subscription: &Subscription) -> Result<Self, Failure> {
            Err(Failure::fatal(ABSENT))
        }

        pub(super) fn poll(&self, _max_events: u32, _max_bytes: u32, _wait: Duration) -> Result<Fetch, Failure> {
            match *self {}
        }
    }
}

/// The host's producer: idempotent, and inside the pipeline's transaction where there is one.
#[derive(Debug)]
pub struct Producer(client::Producer);

impl Producer {
    /// The producer of the `[kafka.NAME]` table that `connection` names.
    ///
    /// # Errors
    ///
    /// `Fatal` without the grant `kafka = ["NAME"]`.
    pub fn open(connection: &str) -> Result<Producer, Failure> {
        client::Producer::open(connection).map(Producer)
    }

    /// Adds every event to the current delivery. The host hands them to the broker once `deliver` or `flush` has answered
    /// ok; after a failure or a trap nothing was sent.
    ///
    /// # Errors
    ///
    /// `Fatal` outside `deliver` and `flush`.
    pub fn send(&self, batch: &Batch, options: &SendOptions) -> Result<(), Failure> {
        self.0.send(batch, options)
    }
}

/// A member of a consumer group, kept by the host for the stage.
#[derive(Debug)]
pub struct Consumer(client::Consumer);

impl Consumer {
    /// Subscribes; a fresh instance that asks for the same finds the consumer as it was.
    ///
    /// # Errors
    ///
    /// `Fatal` without the grant `kafka = ["NAME"]`, or when the topics make no sense together.
    pub fn subscribe(subscription: &Subscription) -> Result<Consumer, Failure> {
        client::Consumer::subscribe(subscription).map(Consumer)
    }

    /// Brings what is there, waiting at most `wait` for the first record.
    ///
    /// # Errors
    ///
    /// As the host's: `Retry` while the broker is away.
    pub fn poll(&self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Fetch, Failure> {
        self.0.poll(max_events, max_bytes, wait)
    }
}
