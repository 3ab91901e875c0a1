//! Lines out of a block of bytes, found and copied in one pass, 16 bytes at a time.

/// Bytes looked at together.
const STEP: usize = 16;

/// Where one line went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Where it begins in the block.
    pub start: usize,
    /// Its length in the block, newline included.
    pub passed: usize,
    /// Where it ends in what was copied.
    pub end: usize,
}

/// Appends whole lines from the front of `bytes` to `data`, without their newlines, and tells `each` of one after the other until it
/// answers false.
///
/// Stops in front of a line longer than `limit`, and of one that reaches into the last bytes of the block: those are the caller's to
/// look at. Answers how many bytes were passed.
pub fn split(bytes: &[u8], limit: usize, data: &mut Vec<u8>, mut each: impl FnMut(Line) -> bool) -> usize {
    let before = data.len();
    // The last step may write a whole one where it needs less.
    data.reserve(bytes.len() + STEP);
    let room = data.spare_capacity_mut();
    // From where to where the next step copies, and where the line under way begins.
    let (mut at, mut to, mut start) = (0, 0, 0);
    let mut copied = 0;
    while let Some(step) = bytes[at..].first_chunk::<STEP>() {
        room[to..to + STEP].write_copy_of_slice(step);
        let newlines = newlines(step);
        if newlines == 0 {
            (at, to) = (at + STEP, to + STEP);
            continue;
        }
        let found = newlines.trailing_zeros() as usize;
        (at, to) = (at + found + 1, to + found);
        let passed = at - start;
        if passed > limit + 1 {
            break;
        }
        copied = to;
        let more = each(Line { start, passed, end: before + to });
        start = at;
        if !more {
            break;
        }
    }
    // SAFETY: so many bytes have been written behind those that were there.
    unsafe { data.set_len(before + copied) };
    start
}

/// A bit for each byte that is a newline, the first the lowest.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
fn newlines(step: &[u8; STEP]) -> u32 {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_splat, v128_load};

    // SAFETY: the step has the 16 bytes that are read.
    let bytes = unsafe { v128_load(step.as_ptr().cast()) };
    u32::from(u8x16_bitmask(u8x16_eq(bytes, u8x16_splat(b'\n'))))
}

/// A bit for each byte that is a newline, the first the lowest.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline]
fn newlines(step: &[u8; STEP]) -> u32 {
    (0..STEP).fold(0, |bits, index| bits | u32::from(step[index] == b'\n') << index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What it passes are lines, as many as there are in front of the place where it stops.
        #[test]
        fn what_is_passed_is_whole_lines_without_their_newlines(text in prop::collection::vec(prop::sample::select(b"abcdefgh\n".to_vec()), 0..300), limit in 1_usize..40, most in 1_usize..30) {
            let mut data = b"before".to_vec();
            let mut lines = Vec::new();
            let passed = split(&text, limit, &mut data, |line| {
                lines.push(line);
                lines.len() < most
            });
            let whole: Vec<&[u8]> = text.split(|&byte| byte == b'\n').take(lines.len()).collect();
            let starts = std::iter::once(6).chain(lines.iter().map(|line| line.end));
            let copied: Vec<&[u8]> = starts.zip(&lines).map(|(start, line)| &data[start..line.end]).collect();
            prop_assert_eq!(&copied, &whole);
            prop_assert_eq!(passed, lines.iter().map(|line| line.passed).sum::<usize>());
            prop_assert_eq!(data.len(), lines.last().map_or(6, |line| line.end));
            let next = text[passed..].split(|&byte| byte == b'\n').next().unwrap();
            let stays = text.len() - passed - next.len() < STEP || next.len() > limit;
            prop_assert!(lines.len() == most || stays, "{} bytes and {} left behind {}", next.len(), text.len(), passed);
        }
    }
}
