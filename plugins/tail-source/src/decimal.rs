//! A number in decimal that only grows: adding to its digits costs less than writing them anew for each line.

/// The longest number of 64 bits.
const DIGITS: usize = 20;

/// A number with its digits.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    digits: [u8; DIGITS],
    start: usize,
}

impl Decimal {
    pub fn new(value: u64) -> Self {
        let mut decimal = Decimal { digits: [b'0'; DIGITS], start: DIGITS - 1 };
        decimal.add(value);
        decimal
    }

    /// # Panics
    /// When the sum passes 64 bits: no file is as large.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let (mut at, mut carry) = (DIGITS, value);
        while carry > 0 {
            at -= 1;
            let sum = u64::from(self.digits[at] - b'0') + carry;
            carry = sum / 10;
            self.digits[at] = b'0' + (sum - 10 * carry) as u8;
        }
        self.start = self.start.min(at);
    }

    /// Its digits, without zeros in front.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_one_zero() {
        assert_eq!(Decimal::new(0).as_bytes(), b"0");
    }

    proptest! {
        #[test]
        fn sums_are_written_as_numbers_are(first in 0..u64::MAX / 4, added in prop::collection::vec(0..1_000_000_u64, 0..50)) {
            let (mut decimal, mut sum) = (Decimal::new(first), first);
            for value in added {
                decimal.add(value);
                sum += value;
                prop_assert_eq!(std::str::from_utf8(decimal.as_bytes()).unwrap(), sum.to_string());
            }
        }
    }
}
