//! An interceptor that misbehaves as its config tells it.

use hostile_acts::{Call, Config, Hostile, Mode};
use wasmflow_sdk::prelude::*;

/// The interceptor.
pub struct Plugin(Hostile);

impl Interceptor for Plugin {
    type Config = Config;
    const ABOUT: &'static str = "Misbehaves as it is told, so that the host is seen to bear it.";
    const TICK: Option<std::time::Duration> = Some(std::time::Duration::from_millis(20));

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        Hostile::check(config);
        Ok(Vec::new())
    }

    fn open(config: Config) -> Result<Self, Failure> {
        Hostile::open(config).map(Plugin)
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        self.0.act_on(batch)
    }

    fn intercept_numbered(&mut self, batch: &mut Batch, number: u64) -> Result<Option<u64>, Failure> {
        self.intercept(batch)?;
        Ok(self.0.lies(Mode::KeptInFuture).then_some(number + 1000))
    }

    fn flush(&mut self, _batch: &mut Batch, _drain: bool) -> Result<Option<u64>, Failure> {
        self.0.act(Call::Flush).map(|()| None)
    }

    fn close(&mut self) {
        let _ = self.0.act(Call::Close);
    }
}

wasmflow_sdk::export_interceptor!(Plugin);
