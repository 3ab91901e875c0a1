//! An interceptor for the corners of the contract: it keeps events back, multiplies them, rejects them, or fails for a while.

use wasmflow_sdk::prelude::*;

/// What to do.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    /// `hold`: how many batches are kept back. `multiply`: how often each event comes. `retry`: how many calls fail.
    #[serde(default = "two")]
    times: usize,
    /// `reject`: which bodies are refused.
    #[serde(default = "bad")]
    pattern: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Keeps whole batches back until there are `times`; a `flush` then brings all of them.
    Hold,
    /// Makes one event, `a+b`, of two; the odd one waits for the next batch, or for the drain.
    Pair,
    Multiply,
    Reject,
    Retry,
}

fn two() -> usize {
    2
}

fn bad() -> String {
    "bad".into()
}

/// The interceptor.
pub struct Corner {
    config: Config,
    calls: usize,
    /// With the numbers of their batches, oldest first.
    kept: Vec<(u64, Vec<Event>)>,
}

impl Interceptor for Corner {
    type Config = Config;
    const ABOUT: &'static str = "Keeps back, multiplies, rejects, fails: the corners of the contract.";
    const TICK: Option<std::time::Duration> = Some(std::time::Duration::from_millis(20));

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Corner { config, calls: 0, kept: Vec::new() })
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        self.intercept_numbered(batch, 0).map(drop)
    }

    fn intercept_numbered(&mut self, batch: &mut Batch, number: u64) -> Result<Option<u64>, Failure> {
        self.calls += 1;
        match self.config.mode {
            Mode::Hold => {
                self.kept.push((number, batch.events()));
                batch.select(&[])?;
            }
            Mode::Pair => self.pair(batch, number),
            Mode::Multiply => multiply(batch, self.config.times)?,
            Mode::Reject => reject(batch, &self.config.pattern)?,
            Mode::Retry if self.calls <= self.config.times => {
                return Err(Failure::retry(format!("call {} of {} that fail", self.calls, self.config.times)));
            }
            Mode::Retry => {}
        }
        Ok(self.oldest())
    }

    fn flush(&mut self, batch: &mut Batch, drain: bool) -> Result<Option<u64>, Failure> {
        let due = drain || self.config.mode == Mode::Hold && self.kept.len() >= self.config.times;
        if due && !self.kept.is_empty() {
            let events: Vec<Event> = self.kept.drain(..).flat_map(|(_, events)| events).collect();
            batch.set_events(&events);
        }
        Ok(self.oldest())
    }
}

wasmflow_sdk::export_interceptor!(Corner);

impl Corner {
    fn oldest(&self) -> Option<u64> {
        self.kept.first().map(|(number, _)| *number)
    }

    fn pair(&mut self, batch: &mut Batch, number: u64) {
        let mut pairs = Vec::new();
        for event in batch.events() {
            match self.kept.pop() {
                None => self.kept.push((number, vec![event])),
                Some((_, first)) => pairs.extend(first.into_iter().map(|first| joined(first, &event))),
            }
        }
        batch.set_events(&pairs);
    }
}

fn joined(mut first: Event, second: &Event) -> Event {
    first.body.push(b'+');
    first.body.extend_from_slice(&second.body);
    first
}

fn multiply(batch: &mut Batch, times: usize) -> Result<(), Misfit> {
    let rows: Vec<u32> = (0..batch.count() as u32).flat_map(|row| std::iter::repeat_n(row, times)).collect();
    batch.select(&rows)
}

fn reject(batch: &mut Batch, pattern: &str) -> Result<(), Misfit> {
    let refused: Vec<Rejection> = (0u32..)
        .zip(&batch.bodies())
        .filter(|(_, body)| String::from_utf8_lossy(body).contains(pattern))
        .map(|(row, _)| Rejection::new(row, format!("contains `{pattern}`")))
        .collect();
    batch.reject(&refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(mode: Mode) -> Corner {
        Corner::open(Config { mode, times: two(), pattern: bad() }).unwrap()
    }

    fn bodies(batch: &Batch) -> Vec<String> {
        batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
    }

    #[test]
    fn held_batches_come_together_and_nothing_is_kept_then() {
        let mut corner = open(Mode::Hold);
        let mut first = Batch::from_bodies(["a"]);
        assert_eq!(corner.intercept_numbered(&mut first, 1), Ok(Some(1)));
        assert!(first.is_empty());
        assert_eq!(corner.flush(&mut Batch::empty(), false), Ok(Some(1)));
        corner.intercept_numbered(&mut Batch::from_bodies(["b"]), 2).unwrap();
        let mut flushed = Batch::empty();
        assert_eq!(corner.flush(&mut flushed, false), Ok(None));
        assert_eq!(bodies(&flushed), ["a", "b"]);
    }

    #[test]
    fn the_odd_event_waits_for_the_next_batch_or_the_drain() {
        let mut corner = open(Mode::Pair);
        let mut batch = Batch::from_bodies(["a", "b", "c"]);
        assert_eq!(corner.intercept_numbered(&mut batch, 1), Ok(Some(1)));
        assert_eq!(bodies(&batch), ["a+b"]);
        let mut batch = Batch::from_bodies(["d", "e"]);
        assert_eq!(corner.intercept_numbered(&mut batch, 2), Ok(Some(2)));
        assert_eq!(bodies(&batch), ["c+d"]);
        let mut flushed = Batch::empty();
        assert_eq!(corner.flush(&mut flushed, false), Ok(Some(2)));
        assert_eq!(corner.flush(&mut flushed, true), Ok(None));
        assert_eq!(bodies(&flushed), ["e"]);
    }

    #[test]
    fn events_are_multiplied_in_order_or_rejected_by_pattern() {
        let mut batch = Batch::from_bodies(["a", "bad"]);
        open(Mode::Multiply).intercept(&mut batch).unwrap();
        assert_eq!(bodies(&batch), ["a", "a", "bad", "bad"]);
        open(Mode::Reject).intercept(&mut batch).unwrap();
        assert_eq!(bodies(&batch), ["a", "a"]);
        assert_eq!(batch.rejected().len(), 2);
    }

    #[test]
    fn calls_fail_for_a_while() {
        let mut corner = open(Mode::Retry);
        let mut attempt = || corner.intercept(&mut Batch::from_bodies(["a"])).is_ok();
        assert_eq!([attempt(), attempt(), attempt()], [false, false, true]);
    }
}
