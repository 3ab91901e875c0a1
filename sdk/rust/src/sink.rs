//! Sinks deliver events.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::describe::{Need, Problem};
use crate::failure::{Failure, Retry};

/// Which events of which log these are: `first` to `next`, `next` not included.
///
/// They come again when a batch is tried again; after a restart or a bisection the ranges may be cut differently. A
/// destination that keeps `next` beside its data can drop every event numbered below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// A memory channel is a new log at each start.
    pub log: String,
    /// The number of the first event.
    pub first: u64,
    /// The number behind the last event.
    pub next: u64,
    /// 1 the first time.
    pub attempt: u32,
}

/// How a delivery that did not fail went.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The destination has all of it, rejected rows aside, and all that was held before; or the host's Kafka producer has
    /// been given it.
    Delivered,
    /// Taken, not yet safe: the host keeps the events until a later `Delivered` or `flush` settles them.
    Held,
    /// Only these rows must come again; the destination has the others.
    Partly {
        /// Strictly increasing.
        rows: Vec<u32>,
        /// Why, and when to try again.
        why: Retry,
    },
}

/// Delivers events. Export it with [`export_sink!`](crate::export_sink).
pub trait Sink: Sized + 'static {
    /// The stage's `config` table.
    type Config: DeserializeOwned + JsonSchema;

    /// One sentence for people.
    const ABOUT: &'static str;

    /// Whether its only effect is through the host's Kafka producer: then it can be part of an exactly-once pipeline.
    const ONLY_KAFKA: bool = false;

    /// How often `flush` is called, also when no events come; `None`: only to drain.
    const TICK: Option<Duration> = None;

    /// Checks what a schema cannot, and says which grants will be needed. Secrets are replaced by a placeholder.
    ///
    /// # Errors
    ///
    /// All problems at once, each with the JSON Pointer of its place.
    fn check(_config: &Self::Config) -> Result<Vec<Need>, Vec<Problem>> {
        Ok(Vec::new())
    }

    /// Called once, before anything else.
    ///
    /// # Errors
    ///
    /// `Retry` is tried again; the other failures stop the stage.
    fn open(config: Self::Config) -> Result<Self, Failure>;

    /// Delivers a batch, in order. On ok the host settles what the outcome says.
    ///
    /// # Errors
    ///
    /// On `Retry` the same events come again, perhaps cut into other batches; `Reject` sends them to the dead letters;
    /// `Fatal` stops the stage.
    fn deliver(&mut self, batch: &mut Batch, delivery: &Delivery) -> Result<Outcome, Failure>;

    /// Rolls a file, sends a buffer. True: nothing is held any more; with `drain` it must be.
    ///
    /// # Errors
    ///
    /// As `deliver`, for all that is held.
    fn flush(&mut self, _drain: bool) -> Result<bool, Failure> {
        Ok(true)
    }

    /// Called before the instance goes away.
    fn close(&mut self) {}
}

/// Makes the crate a sink component. Its name is the crate's without `-sink`.
#[macro_export]
macro_rules! export_sink {
    ($sink:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::describe::Traits;

            $crate::__component!($sink);
            $crate::__descriptor!(
                $sink,
                $crate::sink::Sink,
                if <$sink as $crate::sink::Sink>::ONLY_KAFKA { Traits::ONLY_KAFKA } else { Traits::empty() },
                <$sink as $crate::sink::Sink>::TICK
            );
    $crate::bindings::sink::export!(Component with_types_in $crate::bindings::sink);
        };
    };
}

#[cfg(target_family = "wasm")]
mod glue {
    use super::*;
    use crate::bindings::imports::wasmflow::plugin::events;
    use crate::bindings::sink::exports::wasmflow::plugin::sink as wit;
    use crate::{config, slot::Slot};

    impl<S: Slot<Plugin: Sink>> wit::Guest for S {
        fn open(config: String) -> Result<(), Failure> {
            let config = config::parse(&config)?;
            S::fill(S::Plugin::open(config)?);
            Ok(())
        }

        fn deliver(batch: &events::Batch, delivery: wit::Delivery) -> Result<wit::Outcome, Failure> {
            let wit::Delivery { log, first, next, attempt } = delivery;
            let delivery = Delivery { log, first, next, attempt };
            Ok(match Batch::lend(batch, |batch| S::call(|sink| sink.deliver(batch, &delivery)))? {
                Outcome::Delivered => wit::Outcome::Delivered,
                Outcome::Held => wit::Outcome::Held,
                Outcome::Partly { rows, why } => wit::Outcome::Partly(wit::Partly { rows, why }),
            })
        }

        fn flush(drain: bool) -> Result<bool, Failure> {
            S::call(|sink| sink.flush(drain))
        }

        fn close() {
            <S as Slot>::close(Sink::close);
        }
    }
}
