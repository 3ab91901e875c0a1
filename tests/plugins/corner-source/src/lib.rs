//! A source for the corners of the contract: empty batches that only move the position, many parts, polls that fail, events
//! refused at the door. It brings numbers, and logs every ack.

use std::time::Duration;

use wasmflow_sdk::prelude::{
    Batch, Deserialize, Failure, JsonSchema, Part, Position, Progress, Rejection, Source, log,
};

/// What to do.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    /// How many numbers come.
    #[serde(default = "hundred")]
    total: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Numbers that can be divided by 3 are left out, and a batch may be empty: then only the position moves.
    PositionOnly,
    /// Even and odd numbers have a part of the position each, and the part of the last decade is gone in the next.
    Parts,
    /// Every second poll fails and is to be tried again.
    Retry,
    /// Every tenth number is refused at once.
    Reject,
    /// A poll waits its whole time before it brings anything.
    Late,
    /// Never finishes.
    Endless,
    /// Its position is not kept: it cannot replay what is lost.
    Forgetful,
    /// Takes a minute to open.
    SlowOpen,
}

fn hundred() -> u64 {
    100
}

/// The source.
pub struct Corner {
    config: Config,
    next: u64,
    polls: u64,
}

impl Source for Corner {
    type Config = Config;
    const ABOUT: &'static str = "Empty batches, many parts, polls that fail: the corners of the contract.";
    const REPLAYS: bool = true;

    fn open(config: Config, position: &Position) -> Result<Self, Failure> {
        let next = ["next", "even", "odd"].map(|key| position.number(key));
        let next = next.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().max();
        if config.mode == Mode::SlowOpen {
            std::thread::sleep(Duration::from_secs(60));
        }
        log::info(format!("opened at {next:?} with {} parts", position.iter().count()));
        Ok(Corner { config, next: next.unwrap_or(0), polls: 0 })
    }

    /// One number a poll keeps batches, acks and positions in step, so that a test can count them.
    fn poll(&mut self, max_events: u32, _max_bytes: u32, wait: Duration) -> Result<Progress, Failure> {
        self.polls += 1;
        match self.config.mode {
            Mode::Retry if self.polls % 2 == 1 => return Err(Failure::retry("every second poll fails")),
            Mode::Late => std::thread::sleep(wait),
            _ => {}
        }
        if self.next >= self.config.total {
            return Ok(if self.config.mode == Mode::Endless { Progress::Idle } else { Progress::Finished });
        }
        if max_events == 0 {
            return Ok(Progress::Idle);
        }
        let number = self.next;
        self.next += 1;
        Ok(Progress::events(self.batch(number)?, self.position(number)))
    }

    fn acked(&mut self, batches: u64) -> Result<(), Failure> {
        log::info(format!("acked {batches}"));
        Ok(())
    }

    fn close(&mut self) {
        log::info("closed");
    }
}

wasmflow_sdk::export_source!(Corner);

impl Corner {
    fn batch(&self, number: u64) -> Result<Batch, Failure> {
        let mut batch = Batch::from_bodies([number.to_string()]);
        match self.config.mode {
            Mode::PositionOnly if number.is_multiple_of(3) => batch.select(&[])?,
            Mode::Reject if number.is_multiple_of(10) => batch.reject(&[Rejection::new(0, "a tenth number")])?,
            _ => {}
        }
        Ok(batch)
    }

    fn position(&self, number: u64) -> Vec<Part> {
        let next = (number + 1).to_string();
        match self.config.mode {
            Mode::Forgetful => Vec::new(),
            Mode::Parts => {
                let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
                let decade = format!("decade {}", number / 10);
                let before = format!("decade {}", (number / 10).wrapping_sub(1));
                vec![Part::new(parity, next.clone()), Part::new(decade, next), Part::gone(before)]
            }
            _ => vec![Part::new("next", next)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: Mode, position: Vec<Part>) -> (Vec<String>, Vec<Part>) {
        let mut corner = Corner::open(Config { mode, total: 12 }, &position.into()).unwrap();
        let (mut bodies, mut parts) = (Vec::new(), Vec::new());
        loop {
            match corner.poll(10, 100, Duration::ZERO) {
                Ok(Progress::Events(polled)) => {
                    bodies
                        .extend(polled.batch.events().iter().map(|event| String::from_utf8_lossy(&event.body).into()));
                    parts.extend(polled.position);
                }
                Ok(Progress::Finished) => return (bodies, parts),
                Ok(Progress::Idle) | Err(Failure::Retry(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn positions_move_without_events() {
        let (bodies, parts) = run(Mode::PositionOnly, vec![]);
        assert_eq!(bodies, ["1", "2", "4", "5", "7", "8", "10", "11"]);
        assert_eq!(parts.len(), 12);
    }

    #[test]
    fn it_goes_on_from_the_greatest_part() {
        let (bodies, parts) = run(Mode::Parts, vec![Part::new("even", "9"), Part::new("odd", "8")]);
        assert_eq!(bodies, ["9", "10", "11"]);
        assert_eq!(Position::from(parts).iter().count(), 3);
    }

    #[test]
    fn failing_polls_and_refusals_lose_nothing_else() {
        assert_eq!(run(Mode::Retry, vec![]).0.len(), 12);
        assert_eq!(run(Mode::Reject, vec![]).0.len(), 10);
    }
}
