//! Delivers events nowhere: for benchmarks, and for a channel that has to be emptied.

use wasmflow_sdk::prelude::*;

/// Nothing to set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The sink.
pub struct Null;

impl Sink for Null {
    type Config = Config;
    const ABOUT: &'static str = "Takes events and delivers them nowhere.";

    fn open(_config: Config) -> Result<Self, Failure> {
        Ok(Null)
    }

    /// Asks for no column, so no event enters the sandbox.
    fn deliver(&mut self, _batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        Ok(Outcome::Delivered)
    }
}

wasmflow_sdk::export_sink!(Null);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_delivered_at_once() {
        let delivery = Delivery { log: "main".into(), first: 0, next: 1, attempt: 1 };
        let outcome = Null.deliver(&mut Batch::from_bodies(["a"]), &delivery).unwrap();
        assert!(matches!(outcome, Outcome::Delivered));
    }
}
