//! A sink that misbehaves as its config tells it; what it delivers it prints.

use hostile_acts::{Call, Config, Hostile, Mode};
use wasmflow_sdk::console;
use wasmflow_sdk::kafka::{Choice, Producer, SendOptions};
use wasmflow_sdk::prelude::*;

/// The sink.
pub struct Plugin(Hostile);

impl Sink for Plugin {
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

    fn deliver(&mut self, batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        self.0.act_on(batch)?;
        if self.0.lies(Mode::Kafka) {
            send(batch)?;
        }
        if let Some(rows) = self.wrong_rows(batch.count() as u32) {
            return Ok(Outcome::Partly { rows, why: Retry::new("as told") });
        }
        if self.0.lies(Mode::HeldForEver) {
            return Ok(Outcome::Held);
        }
        let bodies = batch.bodies();
        let lines: Vec<u8> = bodies.iter().flat_map(|body| body.iter().copied().chain([b'\n'])).collect();
        console::write(&lines)?;
        Ok(Outcome::Delivered)
    }

    fn flush(&mut self, _drain: bool) -> Result<bool, Failure> {
        self.0.act(Call::Flush)?;
        Ok(!self.0.lies(Mode::HeldForEver))
    }

    fn close(&mut self) {
        let _ = self.0.act(Call::Close);
    }
}

wasmflow_sdk::export_sink!(Plugin);

impl Plugin {
    fn wrong_rows(&self, count: u32) -> Option<Vec<u32>> {
        let lies = |mode| self.0.lies(mode);
        match () {
            () if lies(Mode::PartlyOutOfRange) => Some(vec![count]),
            () if lies(Mode::PartlyUnsorted) => Some(vec![0, 0]),
            () if lies(Mode::PartlyEmpty) => Some(Vec::new()),
            () => None,
        }
    }
}

fn send(batch: &Batch) -> Result<(), Failure> {
    let options = SendOptions {
        topic: Choice::Fixed("breach".into()),
        key_header: None,
        partition_header: None,
        timestamp_header: None,
        null_header: None,
        forward_headers: None,
    };
    Producer::open("main")?.send(batch, &options)?;
    Err(Failure::fatal("breach: sent to a connection that was not granted"))
}
