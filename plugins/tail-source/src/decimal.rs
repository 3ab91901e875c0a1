//! Where lines begin, in decimal: eight digits at a time, without a loop over them.

/// One more than the greatest number of eight digits.
const EIGHT_DIGITS: u64 = 100_000_000;
/// The longest number of 64 bits.
const DIGITS: usize = 20;
/// What is written at once, however much of it counts: the digits in front of the last eight, and those.
const SLACK: usize = 16 + 8;

/// Appends, for each line that ends at one of `ends`, where it begins: `first` for the first of them, whose text begins at `before`;
/// each newline counts as well. `digits` are the numbers end to end, `digit_ends` where each ends.
///
/// # Panics
/// When a number passes 64 bits: no file is as large.
#[inline(never)]
pub fn begins(first: u64, before: usize, ends: &[u32], digits: &mut Vec<u8>, digit_ends: &mut Vec<u32>) {
    let Some(&end) = ends.last() else { return };
    let last = first.checked_add(u64::from(end) - before as u64 + ends.len() as u64).expect("a file is smaller");
    digits.reserve(ends.len() * length(last) + SLACK);
    digit_ends.reserve(ends.len());
    let (mut number, mut high, mut before) = (first % EIGHT_DIGITS, High::new(first / EIGHT_DIGITS), before as u32);
    let (mut to, mut count) = (digits.len(), digit_ends.len());
    for &end in ends {
        let (low, low_length) = low(number, high.length > 0);
        // SAFETY: no number is longer than `last`, so what counts is within what is reserved for the numbers, and what is written
        // beyond that is within the slack; there is room for an end of each.
        unsafe {
            let at = digits.as_mut_ptr().add(to);
            at.cast::<[u8; 16]>().write(high.digits);
            at.add(high.length).cast::<[u8; 8]>().write(low.to_le_bytes());
            to += high.length + low_length;
            digit_ends.as_mut_ptr().add(count).write(to as u32);
        }
        count += 1;
        number += u64::from(end - before) + 1;
        before = end;
        if number >= EIGHT_DIGITS {
            high = High::new(high.value + number / EIGHT_DIGITS);
            number %= EIGHT_DIGITS;
        }
    }
    // SAFETY: so many have been written behind those that were there.
    unsafe {
        digits.set_len(to);
        digit_ends.set_len(count);
    }
}

/// How many digits a number has.
fn length(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// What stands in front of the last eight digits: nothing for a small number.
struct High {
    value: u64,
    digits: [u8; 16],
    length: usize,
}

impl High {
    fn new(value: u64) -> Self {
        let length = if value == 0 { 0 } else { length(value) };
        const { assert!(DIGITS - 8 <= 16) };
        let (mut digits, mut rest) = ([0; 16], value);
        for digit in digits[..length].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        High { value, digits, length }
    }
}

/// The last eight digits, the first in the lowest byte, and how many of them count: all, or those from the first that is no zero on.
#[inline(always)]
fn low(number: u64, all: bool) -> (u64, usize) {
    // Pairs of four digits, then four of two, then eight of one, each step on all of them at once: dividing by multiplying, with
    // factors that are exact for numbers as small.
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds + ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens + ((twos - 10 * tens) << 8);
    // The last digit counts, even if it is zero.
    let zeros = if all { 0 } else { (ones | 1 << 63).trailing_zeros() as usize / 8 };
    ((ones | 0x3030_3030_3030_3030) >> (8 * zeros), 8 - zeros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(first: u64, lengths: &[u32]) -> Vec<String> {
        let mut end = 7;
        let ends: Vec<u32> = lengths.iter().map(|length| (end += length, end).1).collect();
        let (mut digits, mut digit_ends) = (b"x".to_vec(), vec![1]);
        begins(first, 7, &ends, &mut digits, &mut digit_ends);
        assert_eq!(digits.len(), digit_ends[digit_ends.len() - 1] as usize);
        let text = |pair: &[u32]| String::from_utf8(digits[pair[0] as usize..pair[1] as usize].to_vec()).unwrap();
        digit_ends.windows(2).map(text).collect()
    }

    #[test]
    fn numbers_of_every_length_are_written_as_numbers_are() {
        for number in (0..19).flat_map(|power| [10_u64.pow(power) - 1, 10_u64.pow(power), 7 * 10_u64.pow(power)]) {
            assert_eq!(texts(number, &[0, 0]), [number.to_string(), (number + 1).to_string()]);
        }
        assert_eq!(texts(5, &[]), [""; 0]);
    }

    proptest! {
        #[test]
        fn each_line_begins_behind_the_newline_of_the_one_before(first in prop_oneof![0..2_000_u64, 99_990_000..100_010_000_u64, 0..u64::MAX / 4], lengths in prop::collection::vec(0..3_000_u32, 0..60)) {
            let mut begin = first;
            let expected: Vec<String> = lengths.iter().map(|length| {
                let text = begin.to_string();
                begin += u64::from(*length) + 1;
                text
            }).collect();
            prop_assert_eq!(texts(first, &lengths), expected);
        }

        #[test]
        fn eight_digits_are_the_last_of_a_number(number in 0..EIGHT_DIGITS) {
            let (digits, length) = low(number, true);
            prop_assert_eq!((String::from_utf8(digits.to_le_bytes().to_vec()).unwrap(), length), (format!("{number:08}"), 8));
        }
    }
}
