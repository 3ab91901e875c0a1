//! Histograms: how long things take and how large they are, in atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Limit: series of one histogram; each bucket is one for every stage.
const BUCKETS: usize = 16;

/// What a histogram counts in, and the upper bounds of its buckets but the last, which has none.
#[derive(Debug)]
pub struct Unit {
    upper: [u64; BUCKETS - 1],
    /// How many of what is observed make one of what is shown.
    per_shown: f64,
}

/// Nanoseconds, shown as seconds: 10 µs, what a small batch takes in a plugin, to a minute, what a call may take.
pub static SECONDS: Unit = Unit {
    upper: [
        10_000,
        50_000,
        100_000,
        500_000,
        1_000_000,
        5_000_000,
        10_000_000,
        50_000_000,
        100_000_000,
        500_000_000,
        1_000_000_000,
        5_000_000_000,
        10_000_000_000,
        30_000_000_000,
        60_000_000_000,
    ],
    per_shown: 1e9,
};

/// Events, in powers of four: from one to more than a channel's sync ever carries.
pub static EVENTS: Unit = Unit {
    upper: [
        1,
        4,
        16,
        64,
        256,
        1_024,
        4_096,
        16_384,
        65_536,
        262_144,
        1_048_576,
        4_194_304,
        16_777_216,
        67_108_864,
        268_435_456,
    ],
    per_shown: 1.0,
};

/// Observations, counted by size.
#[derive(Debug)]
pub struct Histogram {
    unit: &'static Unit,
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone)]
pub struct Observed {
    pub count: u64,
    pub sum: f64,
    /// Upper bounds with what lies in each bucket alone.
    pub buckets: Vec<(f64, u64)>,
}

impl Default for Histogram {
    /// In seconds, as most are.
    fn default() -> Self {
        Self::new(&SECONDS)
    }
}

impl Histogram {
    pub fn new(unit: &'static Unit) -> Self {
        Self { unit, buckets: Default::default(), sum: AtomicU64::new(0) }
    }

    pub fn observe(&self, value: u64) {
        let bucket = self.unit.upper.partition_point(|&upper| upper < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Of a histogram in [`SECONDS`].
    pub fn took(&self, time: Duration) {
        self.observe(time.as_nanos() as u64);
    }

    pub fn observed(&self) -> Observed {
        let shown = |value: u64| value as f64 / self.unit.per_shown;
        let upper = self.unit.upper.iter().map(|&upper| shown(upper)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<_> = upper.zip(counts).collect();
        // Counted from the buckets: so they add up whatever is observed meanwhile.
        let count = buckets.iter().map(|(_, count)| count).sum();
        Observed { count, sum: shown(self.sum.load(Ordering::Relaxed)), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&SECONDS);
        histogram.took(Duration::from_micros(10));
        histogram.took(Duration::from_micros(11));
        histogram.took(Duration::from_secs(61));
        let observed = histogram.observed();
        let filled: Vec<_> = observed.buckets.iter().filter(|(_, count)| *count > 0).map(|(upper, _)| *upper).collect();
        assert_eq!(filled, [10e-6, 50e-6, f64::INFINITY]);
        assert_eq!(observed.count, 3);
        assert!((observed.sum - 61.000_021).abs() < 1e-9);
    }
}
