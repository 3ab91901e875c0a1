//! Samples of one figure, and how far they lie apart.

use serde::{Deserialize, Serialize};

/// What several runs of the same thing came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// The middle half of the runs lies between these.
    pub quartiles: (f64, f64),
    pub runs: usize,
}

impl Spread {
    /// Nothing, of no samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let quartiles = (between(&sorted, 0.25), between(&sorted, 0.75));
        Some(Self { median: between(&sorted, 0.5), min, max, quartiles, runs: sorted.len() })
    }

    /// Whether some value lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// The value at this part of the way through the sorted values, in a straight line between its neighbours: for few samples.
fn between(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The least value that at least this part of the values are not above: for many samples, none of which is made up.
///
/// # Panics
/// When there are none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    // 99.9 % of 1000 is 999, and not the least bit more that binary fractions make of it.
    let rank = (percent / 100.0 * sorted.len() as f64 - 1e-6).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles_are_in_order_whatever_the_order_of_the_samples() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.min, spread.quartiles.0, spread.median), (1.0, 2.0, 3.0));
        assert_eq!((spread.quartiles.1, spread.max, spread.runs), (4.0, 5.0, 5));
    }

    #[test]
    fn of_an_even_number_the_median_lies_between_the_middle_two() {
        assert_eq!(Spread::of(&[1.0, 2.0, 4.0, 8.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[7.0]).unwrap().quartiles, (7.0, 7.0));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let found = [50.0, 99.0, 99.9, 100.0, 0.0].map(|percent| percentile(&values, percent));
        assert_eq!(found, [500.0, 990.0, 999.0, 1000.0, 1.0]);
        assert_eq!(percentile(&[3.0], 99.9), 3.0);
        assert_eq!(percentile(&[1.0, 2.0], 50.1), 2.0);
    }

    #[test]
    fn spreads_overlap_where_a_value_lies_in_both() {
        let spread = |samples: &[f64]| Spread::of(samples).unwrap();
        assert!(spread(&[1.0, 2.0]).overlaps(&spread(&[2.0, 3.0])));
        assert!(!spread(&[1.0, 2.0]).overlaps(&spread(&[2.1, 3.0])));
        assert!(spread(&[1.0, 9.0]).overlaps(&spread(&[4.0, 5.0])));
    }
}
