//! An interceptor that stamps its version, and which batch of which instance it was, into headers. Tests make other versions of it by
//! changing the two letters in the component, and have it fail at a batch of their choice.

use std::hash::{BuildHasher as _, RandomState};
use std::hint::black_box;
use std::time::Duration;

use wasmflow_sdk::prelude::*;

/// In the component's data as it stands here: the last two letters are the version.
static VERSION: &str = "stamp-version=v1";

/// What to do beside stamping.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What goes wrong.
    #[serde(default)]
    fault: Option<Fault>,
    /// In which batch of an instance; 0: in `open`.
    #[serde(default = "one")]
    at: u64,
    /// Keeps this many batches back until the next, or a drain.
    #[serde(default)]
    keep: usize,
    /// How long a slow drain takes.
    #[serde(default = "a_minute")]
    drain_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    Trap,
    Loop,
    Memory,
    /// Takes 100 ms of computing, from that batch on.
    Slow,
    Reject,
    Fatal,
    Retry,
    /// Drops the last event, from that batch on.
    Drop,
    /// Waits when it is to let go of everything.
    Drain,
}

fn one() -> u64 {
    1
}

fn a_minute() -> u64 {
    60_000
}

/// The interceptor.
pub struct Stamp {
    config: Config,
    /// Tells it from every other instance.
    instance: u64,
    /// Batches kept back, with their numbers.
    kept: Vec<(u64, Vec<Event>)>,
}

impl Interceptor for Stamp {
    type Config = Config;
    const ABOUT: &'static str = "Stamps its version into a header.";

    fn open(config: Config) -> Result<Self, Failure> {
        let stamp = Stamp { config, instance: RandomState::new().hash_one(0), kept: Vec::new() };
        stamp.fail(0, 0)?;
        Ok(stamp)
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        self.intercept_numbered(batch, 0).map(drop)
    }

    fn intercept_numbered(&mut self, batch: &mut Batch, number: u64) -> Result<Option<u64>, Failure> {
        let count = batch.count();
        self.fail(number, count)?;
        self.stamp(batch, number)?;
        match self.fault(number) {
            Some(Fault::Reject) => batch.reject(&[Rejection::new(0, "bad by request")])?,
            Some(Fault::Drop) => batch.select(&(0..count as u32 - 1).collect::<Vec<_>>())?,
            _ => {}
        }
        if self.config.keep == 0 {
            return Ok(None);
        }
        self.kept.push((number, batch.events()));
        match self.kept.len() > self.config.keep {
            true => batch.set_events(&self.kept.remove(0).1),
            false => batch.set_events(&[]),
        }
        Ok(self.kept.first().map(|(number, _)| *number))
    }

    fn flush(&mut self, batch: &mut Batch, drain: bool) -> Result<Option<u64>, Failure> {
        if drain {
            if self.config.fault == Some(Fault::Drain) {
                std::thread::sleep(Duration::from_millis(self.config.drain_ms));
            }
            let events: Vec<Event> = self.kept.drain(..).flat_map(|(_, events)| events).collect();
            batch.set_events(&events);
        }
        Ok(self.kept.first().map(|(number, _)| *number))
    }
}

impl Stamp {
    /// A batch that has been stamped before keeps what it has, so that a second stamp shows.
    fn stamp(&self, batch: &mut Batch, number: u64) -> Result<(), Failure> {
        let mut stamp = format!("{:016x}-{number}/{}", self.instance, batch.count());
        if let Some(before) = batch.header("batch") {
            let before = before.get(0).unwrap_or_default();
            stamp = format!("{} {stamp}", String::from_utf8_lossy(before));
        }
        batch.set_header("version", Column::constant(version()))?;
        batch.set_header("batch", Column::constant(stamp))?;
        Ok(())
    }

    fn fault(&self, number: u64) -> Option<Fault> {
        self.config.fault.filter(|_| number >= self.config.at && (number > 0) == (self.config.at > 0))
    }

    fn fail(&self, number: u64, events: usize) -> Result<(), Failure> {
        match self.fault(number) {
            Some(Fault::Trap) => panic!("trap by request in batch {number}"),
            Some(Fault::Loop) => loop {
                black_box(events);
            },
            Some(Fault::Memory) => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            Some(Fault::Slow) => {
                let began = std::time::Instant::now();
                while began.elapsed() < Duration::from_millis(100) {}
                Ok(())
            }
            Some(Fault::Fatal) => Err(Failure::fatal("fatal by request")),
            Some(Fault::Retry) => Err(Failure::retry("retry by request")),
            Some(Fault::Reject | Fault::Drop | Fault::Drain) | None => Ok(()),
        }
    }
}

fn version() -> &'static str {
    let version: &'static str = black_box(VERSION);
    version.split_once('=').map_or("", |(_, version)| version)
}

wasmflow_sdk::export_interceptor!(Stamp);
