//! Brings the same event over and over, as fast as it is asked or at a rate: for benchmarks.

use std::time::{Duration, Instant};

use wasmflow_sdk::prelude::*;

/// How many events of which size come, and how fast.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Length of each body.
    #[serde(default = "flume_size")]
    #[schemars(range(max = 16_777_216))]
    size_bytes: u32,
    /// How many events come; left out: without end.
    total: Option<u64>,
    /// Events per second; 0: as fast as possible.
    #[serde(default)]
    rate: u32,
}

fn flume_size() -> u32 {
    500
}

/// The source. With `total` its position has one part, how many events it has brought.
pub struct Stress {
    size_bytes: usize,
    /// Bodies of the batch before: made again only when another number is asked for.
    bodies: Packed,
    brought: u64,
    total: Option<u64>,
    pace: Option<Pace>,
}

const BROUGHT: &str = "brought";

impl Source for Stress {
    type Config = Config;
    const ABOUT: &'static str = "Brings the same event over and over, for benchmarks.";
    const REPLAYS: bool = true;

    fn open(config: Config, position: &Position) -> Result<Self, Failure> {
        let brought = position.number(BROUGHT)?.unwrap_or(0);
        Ok(Stress {
            size_bytes: config.size_bytes as usize,
            bodies: Packed { data: Vec::new(), ends: Vec::new() },
            brought,
            total: config.total,
            pace: (config.rate > 0).then(|| Pace::new(config.rate)),
        })
    }

    fn poll(&mut self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Progress, Failure> {
        let left = self.total.map_or(u64::MAX, |total| total.saturating_sub(self.brought));
        if left == 0 {
            return Ok(Progress::Finished);
        }
        let room = u64::from(max_events).min((max_bytes as usize / self.size_bytes.max(1)).max(1) as u64);
        let due = self.pace.as_ref().map_or(u64::MAX, |pace| pace.due(wait));
        let count = room.min(left).min(due);
        if count == 0 {
            return Ok(Progress::Idle);
        }
        self.brought += count;
        if let Some(pace) = &mut self.pace {
            pace.took(count);
        }
        let position = self.total.map(|_| Part::new(BROUGHT, self.brought.to_string()));
        Ok(Progress::events(Batch::new(self.bodies(count as usize)), position.into_iter().collect()))
    }
}

wasmflow_sdk::export_source!(Stress);

impl Stress {
    fn bodies(&mut self, count: usize) -> &Packed {
        if self.bodies.count() != count {
            self.bodies = bodies(count, self.size_bytes);
        }
        &self.bodies
    }
}

/// Printable, so that it can be looked at on a console: `!"#$…`, as Flume's.
fn bodies(count: usize, size_bytes: usize) -> Packed {
    let body: Vec<u8> = (b'!'..=b'~').cycle().take(size_bytes).collect();
    let mut packed = PackedBuilder::with_capacity(count, count * size_bytes);
    (0..count).for_each(|_| packed.push(&body));
    packed.finish()
}

/// Keeps to a number of events per second.
struct Pace {
    per_second: f64,
    /// The moment when everything brought so far was due.
    due_at: Instant,
}

impl Pace {
    fn new(rate: u32) -> Pace {
        Pace { per_second: f64::from(rate), due_at: Instant::now() }
    }

    /// How many events are due, after a wait of at most `wait` for the first of them.
    fn due(&self, wait: Duration) -> u64 {
        let first = self.due_at + Duration::from_secs_f64(1.0 / self.per_second);
        std::thread::sleep(first.saturating_duration_since(Instant::now()).min(wait));
        (self.due_at.elapsed().as_secs_f64() * self.per_second) as u64
    }

    /// Limit: what a full channel has held up is caught up for one second at most, so that no flood follows.
    fn took(&mut self, count: u64) {
        self.due_at += Duration::from_secs_f64(count as f64 / self.per_second);
        let oldest = Instant::now().checked_sub(Duration::from_secs(1));
        self.due_at = oldest.map_or(self.due_at, |oldest| self.due_at.max(oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(size_bytes: u32, total: Option<u64>, rate: u32, position: Vec<Part>) -> Stress {
        Stress::open(Config { size_bytes, total, rate }, &position.into()).unwrap()
    }

    fn poll(stress: &mut Stress, max_events: u32) -> (usize, Vec<Part>) {
        match stress.poll(max_events, 1 << 20, Duration::ZERO).unwrap() {
            Progress::Events(polled) => (polled.batch.count(), polled.position),
            other => panic!("no events: {other:?}"),
        }
    }

    #[test]
    fn every_body_is_the_same_and_as_long_as_asked() {
        let packed = bodies(3, 100);
        assert!(packed.iter().all(|body| body == packed.get(0) && body.len() == 100));
        assert_eq!(packed.fits(3), Ok(()));
    }

    #[test]
    fn the_last_batch_is_cut_to_the_total() {
        let mut stress = open(10, Some(5), 0, vec![]);
        assert_eq!(poll(&mut stress, 3).0, 3);
        assert_eq!(poll(&mut stress, 3).0, 2);
        assert!(matches!(stress.poll(3, 100, Duration::ZERO), Ok(Progress::Finished)));
    }

    #[test]
    fn it_goes_on_at_its_position() {
        let (_, position) = poll(&mut open(10, Some(5), 0, vec![]), 3);
        assert_eq!(poll(&mut open(10, Some(5), 0, position), 100).0, 2);
    }

    #[test]
    fn a_batch_stays_within_its_bytes_but_brings_one_event_at_least() {
        let count = |size_bytes, max_bytes| {
            let mut stress = open(size_bytes, None, 0, vec![]);
            let Ok(Progress::Events(polled)) = stress.poll(1000, max_bytes, Duration::ZERO) else { panic!() };
            polled.batch.count()
        };
        assert_eq!(count(100, 1000), 10);
        assert_eq!(count(100, 10), 1);
        assert_eq!(count(0, 1000), 1000);
    }

    #[test]
    fn a_full_channel_gets_nothing() {
        assert!(matches!(open(10, None, 0, vec![]).poll(0, 1000, Duration::ZERO), Ok(Progress::Idle)));
    }

    #[test]
    fn a_rate_is_kept() {
        let mut stress = open(10, None, 1000, vec![]);
        let start = Instant::now();
        let mut brought = 0;
        while brought < 50 {
            if let Progress::Events(polled) = stress.poll(1000, 1 << 20, Duration::from_millis(5)).unwrap() {
                brought += polled.batch.count();
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(brought as u64 - 1), "{brought} in {:?}", start.elapsed());
    }
}
