//! A sink for the corners of the contract: it holds, takes a part, rejects, fails for a while, or is slow.
//!
//! What it delivers it prints, a body a line, so that a test sees what was delivered, how often and in which order.

use wasmflow_sdk::console;
use wasmflow_sdk::prelude::*;

/// What to do.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    /// `hold`: how many events are held before all are released. `partly`: how many a delivery takes. `retry`: how many
    /// calls fail. `flaky`: one call in so many fails.
    #[serde(default = "two")]
    count: usize,
    /// `hold`: a tick releases what is held, too.
    #[serde(default)]
    release_on_tick: bool,
    /// `reject`, `reject-batch`, `fatal`: which bodies are meant.
    #[serde(default = "bad")]
    pattern: String,
    /// `slow`, `slow-open`, `slow-drain`: how long a delivery, opening it, or a drain takes. `partly`, `retry`: how long to wait before the next attempt.
    #[serde(default = "nothing")]
    delay: Duration,
    /// Prints a line `log first-next attempt` before each delivery.
    #[serde(default)]
    ranges: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Hold,
    /// Takes the first `count` rows.
    Partly,
    /// Takes every second row, beginning with the first.
    PartlyOdd,
    Reject,
    RejectBatch,
    Retry,
    Flaky,
    Fatal,
    Slow,
    SlowOpen,
    SlowDrain,
}

fn two() -> usize {
    2
}

fn bad() -> String {
    "bad".into()
}

fn nothing() -> Duration {
    Duration(std::time::Duration::ZERO)
}

/// The sink.
pub struct Corner {
    config: Config,
    calls: usize,
    held: Vec<u8>,
    held_events: usize,
}

impl Sink for Corner {
    type Config = Config;
    const ABOUT: &'static str = "Holds, takes a part, rejects, fails: the corners of the contract.";
    const TICK: Option<std::time::Duration> = Some(std::time::Duration::from_millis(20));

    fn open(config: Config) -> Result<Self, Failure> {
        if config.mode == Mode::SlowOpen {
            std::thread::sleep(config.delay.0);
        }
        Ok(Corner { config, calls: 0, held: Vec::new(), held_events: 0 })
    }

    fn deliver(&mut self, batch: &mut Batch, delivery: &Delivery) -> Result<Outcome, Failure> {
        self.calls += 1;
        if self.config.ranges {
            let Delivery { log, first, next, attempt } = delivery;
            console::write(format!("{log} {first}-{next} {attempt}\n").as_bytes())?;
        }
        self.deliver_as_told(batch)
    }

    fn flush(&mut self, drain: bool) -> Result<bool, Failure> {
        if drain || self.config.release_on_tick {
            self.release()?;
        }
        if drain && self.config.mode == Mode::SlowDrain {
            std::thread::sleep(self.config.delay.0);
        }
        Ok(self.held.is_empty())
    }
}

wasmflow_sdk::export_sink!(Corner);

impl Corner {
    fn deliver_as_told(&mut self, batch: &mut Batch) -> Result<Outcome, Failure> {
        let bodies = batch.bodies();
        let count = bodies.count();
        match self.config.mode {
            Mode::Hold => return self.hold(&bodies),
            Mode::Partly => return self.take(&bodies, |row| row < self.config.count),
            Mode::PartlyOdd => return self.take(&bodies, |row| row % 2 == 0),
            Mode::Reject => {
                let refused = |row| Rejection::new(row as u32, "refused for good");
                let rows: Vec<Rejection> = (0..count).filter(|&row| self.is_meant(&bodies, row)).map(refused).collect();
                batch.reject(&rows)?;
            }
            Mode::RejectBatch if self.is_any_meant(&bodies) => return Err(Failure::reject("a batch refused for good")),
            Mode::Fatal if self.is_any_meant(&bodies) => return Err(Failure::fatal("cannot go on")),
            Mode::Retry if self.calls <= self.config.count => {
                let reason = format!("call {} of {} that fail", self.calls, self.config.count);
                return Err(Failure::retry_after(reason, self.config.delay.0));
            }
            Mode::Flaky if self.calls.is_multiple_of(self.config.count) => {
                return Err(Failure::retry_after("fails now and then", self.config.delay.0));
            }
            Mode::Slow => std::thread::sleep(self.config.delay.0),
            Mode::RejectBatch | Mode::Fatal | Mode::Retry | Mode::Flaky | Mode::SlowOpen | Mode::SlowDrain => {}
        }
        console::write(&lines(&batch.bodies(), |_| true))?;
        Ok(Outcome::Delivered)
    }

    fn hold(&mut self, bodies: &Packed) -> Result<Outcome, Failure> {
        self.held.extend(lines(bodies, |_| true));
        self.held_events += bodies.count();
        if self.held_events < self.config.count {
            return Ok(Outcome::Held);
        }
        self.release()?;
        Ok(Outcome::Delivered)
    }

    fn release(&mut self) -> Result<(), Failure> {
        console::write(&self.held)?;
        self.held.clear();
        self.held_events = 0;
        Ok(())
    }

    fn take(&self, bodies: &Packed, takes: impl Fn(usize) -> bool) -> Result<Outcome, Failure> {
        console::write(&lines(bodies, &takes))?;
        let rows: Vec<u32> = (0..bodies.count()).filter(|&row| !takes(row)).map(|row| row as u32).collect();
        if rows.is_empty() {
            return Ok(Outcome::Delivered);
        }
        let why = Retry { reason: "took a part".into(), after_ms: Some(self.config.delay.as_millis() as u32) };
        Ok(Outcome::Partly { rows, why })
    }

    fn is_meant(&self, bodies: &Packed, row: usize) -> bool {
        String::from_utf8_lossy(bodies.get(row)).contains(&self.config.pattern)
    }

    fn is_any_meant(&self, bodies: &Packed) -> bool {
        (0..bodies.count()).any(|row| self.is_meant(bodies, row))
    }
}

fn lines(bodies: &Packed, takes: impl Fn(usize) -> bool) -> Vec<u8> {
    let taken = bodies.iter().enumerate().filter(|(row, _)| takes(*row));
    taken.flat_map(|(_, body)| body.iter().copied().chain([b'\n'])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(json: &str) -> Corner {
        Corner::open(wasmflow_sdk::serde_json::from_str(json).unwrap()).unwrap()
    }

    fn deliver(corner: &mut Corner, bodies: &[&str]) -> Result<Outcome, Failure> {
        let delivery = Delivery { log: "main".into(), first: 0, next: bodies.len() as u64, attempt: 1 };
        corner.deliver(&mut Batch::from_bodies(bodies), &delivery)
    }

    #[test]
    fn events_are_held_until_there_are_enough_or_a_drain_comes() {
        let mut corner = open(r#"{ "mode": "hold", "count": 3 }"#);
        assert!(matches!(deliver(&mut corner, &["a", "b"]), Ok(Outcome::Held)));
        assert_eq!(corner.flush(false), Ok(false));
        assert!(matches!(deliver(&mut corner, &["c"]), Ok(Outcome::Delivered)));
        assert!(matches!(deliver(&mut corner, &["d"]), Ok(Outcome::Held)));
        assert_eq!(corner.flush(true), Ok(true));
    }

    #[test]
    fn only_a_part_is_taken() {
        let rows = |mode: &str| match deliver(&mut open(&format!(r#"{{ "mode": "{mode}" }}"#)), &["a", "b", "c", "d"]) {
            Ok(Outcome::Partly { rows, .. }) => rows,
            other => panic!("{other:?}"),
        };
        assert_eq!(rows("partly"), [2, 3]);
        assert_eq!(rows("partly-odd"), [1, 3]);
    }

    #[test]
    fn failures_are_as_told() {
        let bodies = &["a", "bad"][..];
        assert!(matches!(deliver(&mut open(r#"{ "mode": "reject" }"#), bodies), Ok(Outcome::Delivered)));
        assert!(matches!(deliver(&mut open(r#"{ "mode": "reject-batch" }"#), bodies), Err(Failure::Reject(_))));
        assert!(matches!(deliver(&mut open(r#"{ "mode": "fatal" }"#), bodies), Err(Failure::Fatal(_))));
        let mut corner = open(r#"{ "mode": "retry", "count": 1 }"#);
        assert!(matches!(deliver(&mut corner, bodies), Err(Failure::Retry(_))));
        assert!(deliver(&mut corner, bodies).is_ok());
        let mut corner = open(r#"{ "mode": "flaky", "count": 3 }"#);
        let failed: Vec<bool> = (0..6).map(|_| deliver(&mut corner, bodies).is_err()).collect();
        assert_eq!(failed, [false, false, true, false, false, true]);
    }
}
