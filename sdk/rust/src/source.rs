//! Sources bring events in.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::describe::{Need, Problem};
use crate::failure::Failure;
use crate::position::{Part, Position};

/// Events, and where the source stands after them.
#[derive(Debug)]
pub struct Polled {
    /// May be empty: then only the position moves.
    pub batch: Batch,
    /// The parts of the position that changed since the poll before. Stored in the same transaction as the events.
    pub position: Vec<Part>,
}

/// What a poll brought.
#[derive(Debug)]
pub enum Progress {
    /// Events, in order.
    Events(Polled),
    /// Nothing came within the wait.
    Idle,
    /// Nothing will ever come again. `acked` and `close` still come.
    Finished,
}

impl Progress {
    /// These events, and the parts of the position that changed.
    pub fn events(batch: Batch, position: Vec<Part>) -> Progress {
        Progress::Events(Polled { batch, position })
    }
}

/// Brings events in. Export it with [`export_source!`](crate::export_source).
///
/// No function of an instance is called while another runs: nothing can be said to a source while it waits in `poll`. The
/// host therefore lets it wait only when nothing is unacknowledged.
pub trait Source: Sized + 'static {
    /// The stage's `config` table.
    type Config: DeserializeOwned + JsonSchema;

    /// One sentence for people.
    const ABOUT: &'static str;

    /// Whether it brings the same events again when it is opened at an older position. Without, what is lost in a crash is
    /// lost, and `validate` says so.
    const REPLAYS: bool = false;

    /// Checks what a schema cannot, and says which grants will be needed. Secrets are replaced by a placeholder.
    ///
    /// # Errors
    ///
    /// All problems at once, each with the JSON Pointer of its place.
    fn check(_config: &Self::Config) -> Result<Vec<Need>, Vec<Problem>> {
        Ok(Vec::new())
    }

    /// Called once, before `poll`: goes on from `position`, which is empty the first time.
    ///
    /// # Errors
    ///
    /// `Retry` is tried again; the other failures stop the stage.
    fn open(config: Self::Config, position: &Position) -> Result<Self, Failure>;

    /// Brings up to `max_events` events and about `max_bytes` bytes, waiting at most `wait` for the first of them; what is
    /// there rather than a full batch. With `max_events` 0 the channel is full: bring nothing, but serve what is open.
    ///
    /// # Errors
    ///
    /// `Retry` is polled again after the stage's back-off; the other failures stop the stage.
    fn poll(&mut self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Progress, Failure>;

    /// The first `batches` batches that this instance brought are settled. May skip numbers.
    ///
    /// # Errors
    ///
    /// As `poll`.
    fn acked(&mut self, _batches: u64) -> Result<(), Failure> {
        Ok(())
    }

    /// Called before the instance goes away.
    fn close(&mut self) {}
}

/// Makes the crate a source component. Its name is the crate's without `-source`.
#[macro_export]
macro_rules! export_source {
    ($source:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::describe::Traits;

            $crate::__component!($source);
            $crate::__descriptor!(
                $source,
                $crate::source::Source,
                if <$source as $crate::source::Source>::REPLAYS { Traits::REPLAYS } else { Traits::empty() },
                None
            );
    $crate::bindings::source::export!(Component with_types_in $crate::bindings::source);
        };
    };
}

#[cfg(target_family = "wasm")]
mod glue {
    use super::*;
    use crate::bindings::source::exports::wasmflow::plugin::source as wit;
    use crate::{config, slot::Slot};

    impl<S: Slot<Plugin: Source>> wit::Guest for S {
        fn open(config: String, position: Vec<Part>) -> Result<(), Failure> {
            let config = config::parse(&config)?;
            S::fill(S::Plugin::open(config, &position.into())?);
            Ok(())
        }

        fn poll(max_events: u32, max_bytes: u32, wait_ms: u32) -> Result<wit::Progress, Failure> {
            let wait = Duration::from_millis(wait_ms.into());
            Ok(match S::call(|source| source.poll(max_events, max_bytes, wait))? {
                Progress::Events(Polled { batch, position }) => {
                    wit::Progress::Events(wit::Polled { batch: batch.0.into_handle(), position })
                }
                Progress::Idle => wit::Progress::Idle,
                Progress::Finished => wit::Progress::Finished,
            })
        }

        fn acked(batches: u64) -> Result<(), Failure> {
            S::call(|source| source.acked(batches))
        }

        fn close() {
            <S as Slot>::close(Source::close);
        }
    }
}
