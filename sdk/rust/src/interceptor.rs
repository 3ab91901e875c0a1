//! Interceptors change, drop, multiply or refuse events on their way.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::describe::{Need, Problem};
use crate::failure::Failure;

/// Changes events on their way. Export it with [`export_interceptor!`](crate::export_interceptor).
pub trait Interceptor: Sized + 'static {
    /// The stage's `config` table.
    type Config: DeserializeOwned + JsonSchema;

    /// One sentence for people.
    const ABOUT: &'static str;

    /// How often `flush` is called while the pipeline runs; `None`: only to drain.
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

    /// Works on one batch. On a failure the host goes on with the batch as it was.
    ///
    /// # Errors
    ///
    /// `Retry` brings the batch again, `Reject` sends it to the dead letters, `Fatal` stops the stage.
    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure>;

    /// As [`intercept`](Self::intercept), for an interceptor that keeps events back for later: it overrides this and
    /// [`flush`](Self::flush), and answers the number of the oldest batch of which something is kept. The host settles
    /// nothing from there on, so a crash brings it again. `number` counts the batches of this instance from 1.
    ///
    /// # Errors
    ///
    /// As `intercept`.
    fn intercept_numbered(&mut self, batch: &mut Batch, _number: u64) -> Result<Option<u64>, Failure> {
        self.intercept(batch).map(|()| None)
    }

    /// Fills the empty `batch` with what is due of the events kept back; with `drain` everything is due. Answers as
    /// `intercept_numbered` does.
    ///
    /// # Errors
    ///
    /// As `intercept`.
    fn flush(&mut self, _batch: &mut Batch, _drain: bool) -> Result<Option<u64>, Failure> {
        Ok(None)
    }

    /// Called before the instance goes away.
    fn close(&mut self) {}
}

/// Makes the crate an interceptor component. Its name is the crate's without `-interceptor`.
#[macro_export]
macro_rules! export_interceptor {
    ($interceptor:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__component!($interceptor);
            $crate::__descriptor!(
                $interceptor,
                $crate::interceptor::Interceptor,
                $crate::describe::Traits::empty(),
                <$interceptor as $crate::interceptor::Interceptor>::TICK
            );
    $crate::bindings::interceptor::export!(Component with_types_in $crate::bindings::interceptor);
        };
    };
}

#[cfg(target_family = "wasm")]
mod glue {
    use super::*;
    use crate::bindings::imports::wasmflow::plugin::events;
    use crate::bindings::interceptor::exports::wasmflow::plugin::interceptor as wit;
    use crate::{config, slot::Slot};

    impl<S: Slot<Plugin: Interceptor>> wit::Guest for S {
        fn open(config: String) -> Result<(), Failure> {
            let config = config::parse(&config)?;
            S::fill(S::Plugin::open(config)?);
            Ok(())
        }

        fn intercept(batch: &events::Batch, number: u64) -> Result<Option<u64>, Failure> {
            Batch::lend(batch, |batch| S::call(|interceptor| interceptor.intercept_numbered(batch, number)))
        }

        fn flush(batch: &events::Batch, drain: bool) -> Result<Option<u64>, Failure> {
            Batch::lend(batch, |batch| S::call(|interceptor| interceptor.flush(batch, drain)))
        }

        fn close() {
            <S as Slot>::close(Interceptor::close);
        }
    }
}
