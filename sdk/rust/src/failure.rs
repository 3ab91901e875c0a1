//! Why a call failed, and so what the host does next.

use std::time::Duration;

pub use crate::bindings::imports::wasmflow::plugin::errors::{Failure, Retry};

impl Failure {
    /// May go well later: the host tries again with the stage's back-off.
    pub fn retry(reason: impl ToString) -> Failure {
        Failure::Retry(Retry::new(reason))
    }

    /// May go well later, but not before `after`.
    pub fn retry_after(reason: impl ToString, after: Duration) -> Failure {
        Failure::Retry(Retry { reason: reason.to_string(), after_ms: Some(milliseconds(after)) })
    }

    /// This batch can never be accepted: its events go to the dead letters. From `open` and `poll` it is fatal.
    pub fn reject(reason: impl ToString) -> Failure {
        Failure::Reject(reason.to_string())
    }

    /// The plugin cannot go on; the stage stops.
    pub fn fatal(reason: impl ToString) -> Failure {
        Failure::Fatal(reason.to_string())
    }
}

impl Retry {
    /// To be tried again with the stage's back-off.
    pub fn new(reason: impl ToString) -> Retry {
        Retry { reason: reason.to_string(), after_ms: None }
    }
}

/// For the contract, which counts in milliseconds: at most some seven weeks.
pub(crate) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
