//! How long a stage is without a batch when nobody swaps it: what the gap at a swap is held against.
//!
//! A runner waits for room in its channels, for a transaction to be committed and for the next events, whoever serves, and a swap that
//! comes in such a wait has all of it in its gap. Swaps come at any moment, and long gaps have more moments than short ones, so a gap
//! counts here for as long as it could be met.

use std::time::Duration;

/// Quarters of powers of two: what is told is at most a quarter more than what was.
const QUARTERS: usize = 4;
/// From 4 µs to 2^33 µs, more than two hours.
const OCTAVES: usize = 31;
const OCTAVE_MIN: u32 = 2;

/// The gaps of one use of a stage in one generation: plain numbers, kept by its runner.
#[derive(Debug)]
pub struct Gaps([Duration; OCTAVES * QUARTERS]);

/// The gap that half of all moments come to, and the one that 99 of 100 come to at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsualGap {
    pub half: Duration,
    pub most: Duration,
}

impl Default for Gaps {
    fn default() -> Self {
        Self([Duration::ZERO; OCTAVES * QUARTERS])
    }
}

impl Gaps {
    /// Notes a gap, and from how long a time it was the next: the gap itself, and the batch before it.
    pub fn add(&mut self, gap: Duration, met_from: Duration) {
        self.0[place(gap)] += met_from;
    }

    /// Nothing where there was no gap.
    pub fn usual(&self) -> Option<UsualGap> {
        Some(UsualGap { half: self.share(50)?, most: self.share(99)? })
    }

    /// What so many percent of all moments come to at most.
    fn share(&self, percent: u32) -> Option<Duration> {
        let wanted = self.0.iter().sum::<Duration>() * percent / 100;
        let mut passed = Duration::ZERO;
        let reached = self.0.iter().position(|moments| {
            passed += *moments;
            !moments.is_zero() && passed >= wanted
        });
        reached.map(end)
    }
}

fn place(gap: Duration) -> usize {
    let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX).max(1 << OCTAVE_MIN);
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - OCTAVE_MIN)) as usize % QUARTERS;
    ((octave - OCTAVE_MIN) as usize * QUARTERS + quarter).min(OCTAVES * QUARTERS - 1)
}

/// Where the gaps of a place end.
fn end(place: usize) -> Duration {
    Duration::from_micros(((place % QUARTERS + QUARTERS + 1) as u64) << (place / QUARTERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_gap_is_told_with_at_most_a_quarter_more() {
        assert_eq!(Gaps::default().usual(), None);
        for micros in [4, 5, 7, 8, 1000, 1023, 1024, 123_456, 7_200_000_000] {
            let gap = Duration::from_micros(micros);
            let mut gaps = Gaps::default();
            gaps.add(gap, gap);
            let told = gaps.usual().unwrap().most;
            assert!(gap < told && told <= gap * 5 / 4 + Duration::from_micros(1), "{gap:?}: {told:?}");
        }
        let mut gaps = Gaps::default();
        gaps.add(Duration::ZERO, MS);
        gaps.add(Duration::MAX, MS);
        assert!(gaps.usual().unwrap().half < gaps.usual().unwrap().most);
    }

    #[test]
    fn a_gap_counts_for_as_long_as_it_could_be_met() {
        let mut gaps = Gaps::default();
        // A thousand batches of 1 ms each, one right behind the other, and then a wait that lasts as long as a third of them.
        (0..1000).for_each(|_| gaps.add(MS / 100, MS));
        gaps.add(333 * MS, 334 * MS);
        let usual = gaps.usual().unwrap();
        assert!(usual.half < MS && usual.most > 333 * MS, "{usual:?}");
        // One in two hundred moments is not among 99 of 100.
        (0..70_000).for_each(|_| gaps.add(MS / 100, MS));
        assert!(gaps.usual().unwrap().most < MS);
    }
}
