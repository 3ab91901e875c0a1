//! Brings the numbers `0`, `1`, `2`, … as events: the probe for loss, repeats and order.

use std::time::Duration;

use wasmflow_sdk::prelude::*;

/// Which numbers come.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first number.
    #[serde(default)]
    start: u64,
    /// How many numbers come; left out: without end.
    total: Option<u64>,
}

/// The source. Its position has one part, the next number in decimal.
pub struct Seq {
    next: u64,
    /// One behind the last number.
    end: u64,
}

const NEXT: &str = "next";
/// The longest number has 20 digits.
const DIGITS_MAX: u32 = 20;

impl Source for Seq {
    type Config = Config;
    const ABOUT: &'static str = "Brings the numbers 0, 1, 2, … as events.";
    const REPLAYS: bool = true;

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        let last = config.start.checked_add(config.total.unwrap_or(0));
        match last {
            Some(_) => Ok(Vec::new()),
            None => {
                Err(vec![Problem::new("/total", "`start` and `total` together pass the greatest number, 2^64 - 1")])
            }
        }
    }

    fn open(config: Config, position: &Position) -> Result<Self, Failure> {
        let next = position.number(NEXT)?.unwrap_or(config.start);
        let end = config.total.map_or(u64::MAX, |total| config.start.saturating_add(total));
        Ok(Seq { next, end })
    }

    fn poll(&mut self, max_events: u32, max_bytes: u32, _wait: Duration) -> Result<Progress, Failure> {
        if self.next >= self.end {
            return Ok(Progress::Finished);
        }
        if max_events == 0 {
            return Ok(Progress::Idle);
        }
        let room = u64::from(max_events.min(max_bytes / DIGITS_MAX).max(1));
        let count = room.min(self.end - self.next);
        let batch = Batch::new(&numbers(self.next, count));
        self.next += count;
        Ok(Progress::events(batch, vec![Part::new(NEXT, self.next.to_string())]))
    }
}

wasmflow_sdk::export_source!(Seq);

fn numbers(first: u64, count: u64) -> Packed {
    let mut digits = itoa::Buffer::new();
    let longest = digits.format(first + count - 1).len();
    let mut packed = PackedBuilder::with_capacity(count as usize, longest * count as usize);
    for number in first..first + count {
        packed.push(digits.format(number).as_bytes());
    }
    packed.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(start: u64, total: Option<u64>, position: &[Part]) -> Seq {
        Seq::open(Config { start, total }, &position.to_vec().into()).unwrap()
    }

    fn poll(seq: &mut Seq, max_events: u32) -> (Vec<String>, Vec<Part>) {
        match seq.poll(max_events, 1 << 20, Duration::ZERO).unwrap() {
            Progress::Events(polled) => {
                let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
                (polled.batch.bodies().iter().map(text).collect(), polled.position)
            }
            other => panic!("no events: {other:?}"),
        }
    }

    #[test]
    fn numbers_come_in_order_across_batches() {
        let mut seq = open(8, None, &[]);
        assert_eq!(poll(&mut seq, 3).0, ["8", "9", "10"]);
        assert_eq!(poll(&mut seq, 1).0, ["11"]);
    }

    #[test]
    fn it_goes_on_exactly_at_its_position() {
        let (_, position) = poll(&mut open(0, Some(5), &[]), 2);
        let mut again = open(0, Some(5), &position);
        assert_eq!(poll(&mut again, 10).0, ["2", "3", "4"]);
        assert!(matches!(again.poll(10, 1000, Duration::ZERO), Ok(Progress::Finished)));
    }

    #[test]
    fn a_full_channel_gets_nothing_and_loses_nothing() {
        let mut seq = open(0, None, &[]);
        assert!(matches!(seq.poll(0, 0, Duration::ZERO), Ok(Progress::Idle)));
        assert_eq!(poll(&mut seq, 1).0, ["0"]);
    }

    #[test]
    fn a_batch_stays_within_its_bytes() {
        let Progress::Events(polled) = open(0, None, &[]).poll(1000, 200, Duration::ZERO).unwrap() else { panic!() };
        assert!(polled.batch.bodies().data.len() <= 200);
    }

    #[test]
    fn a_range_that_no_number_can_hold_is_refused() {
        assert!(Seq::check(&Config { start: u64::MAX, total: Some(1) }).is_err());
        assert!(Seq::check(&Config { start: 1, total: Some(1) }).is_ok());
    }
}
