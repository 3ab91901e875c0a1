//! Lines out of a block of bytes, found and copied in one pass, 64 bytes at a time.

/// Bytes looked at together.
const STEP: usize = 64;

/// Up to where lines are taken.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Lines in all, those that are there before included.
    pub lines: usize,
    /// Bytes of lines in all, passed by one line at most.
    pub bytes: usize,
    /// Bytes of one line.
    pub line_bytes: usize,
}

/// Appends whole lines from the front of `bytes` to `data`, without their newlines, and to `ends` where each ends there. At least one,
/// so there must be room for it.
///
/// Stops in front of a line that is too long, and of one that reaches into the last bytes of the block: those are the caller's to look
/// at. Answers how many bytes were passed.
///
/// A function of its own, with as little in it as can be: among other code the loop would have its variables in memory.
#[inline(never)]
pub fn split(bytes: &[u8], most: Most, data: &mut Vec<u8>, ends: &mut Vec<u32>) -> usize {
    let Some(last) = bytes.len().checked_sub(STEP) else { return 0 };
    // A step writes a whole one where less is needed.
    data.reserve(bytes.len() + STEP);
    ends.reserve(most.lines.saturating_sub(ends.len()).clamp(1, bytes.len()));
    // From where to where the next step copies, and where the line under way begins.
    let (mut at, mut to, mut start) = (0, data.len(), 0);
    let (mut count, mut copied) = (ends.len(), data.len());
    while at <= last {
        // SAFETY: the step ends within `bytes`, as `at` is no further than `last`; and as `to` has moved no further than `at` has, it
        // ends within what is reserved.
        let newlines = unsafe { copy_step(bytes.as_ptr().add(at), data.as_mut_ptr().add(to)) };
        if newlines == 0 {
            (at, to) = (at + STEP, to + STEP);
            continue;
        }
        let found = newlines.trailing_zeros() as usize;
        (at, to) = (at + found + 1, to + found);
        if at - start > most.line_bytes + 1 {
            break;
        }
        // SAFETY: there is room for as many as may come, or for as many as there can be newlines.
        unsafe { ends.as_mut_ptr().add(count).write(to as u32) };
        (count, copied, start) = (count + 1, to, at);
        if count >= most.lines || to >= most.bytes {
            break;
        }
    }
    // SAFETY: so many have been written behind those that were there.
    unsafe {
        data.set_len(copied);
        ends.set_len(count);
    }
    start
}

/// Copies a step; answers a bit for each byte that is a newline, the first the lowest.
///
/// # Safety
/// `from` can be read and `to` be written for a step.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
unsafe fn copy_step(from: *const u8, to: *mut u8) -> u64 {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_splat, v128_load, v128_store};

    let newline = u8x16_splat(b'\n');
    let quarter = |index: usize| {
        // SAFETY: a quarter of the step.
        let bytes = unsafe { v128_load(from.add(16 * index).cast()) };
        // SAFETY: as above.
        unsafe { v128_store(to.add(16 * index).cast(), bytes) };
        u64::from(u8x16_bitmask(u8x16_eq(bytes, newline))) << (16 * index)
    };
    quarter(0) | quarter(1) | quarter(2) | quarter(3)
}

/// Copies a step; answers a bit for each byte that is a newline, the first the lowest.
///
/// # Safety
/// `from` can be read and `to` be written for a step.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
unsafe fn copy_step(from: *const u8, to: *mut u8) -> u64 {
    // SAFETY: as promised.
    let step = unsafe { from.cast::<[u8; STEP]>().read() };
    // SAFETY: as promised.
    unsafe { to.cast::<[u8; STEP]>().write(step) };
    (0..STEP).fold(0, |bits, index| bits | u64::from(step[index] == b'\n') << index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What it passes are lines, as many as there are in front of the place where it stops.
        #[test]
        fn what_is_passed_is_whole_lines_without_their_newlines(text in prop::collection::vec(prop::sample::select(b"abcdefgh\n".to_vec()), 0..600), limit in 1_usize..40, most in 1_usize..60, room in 1_usize..600) {
            let (mut data, mut ends) = (b"before".to_vec(), vec![6]);
            let passed = split(&text, Most { lines: 1 + most, bytes: 6 + room, line_bytes: limit }, &mut data, &mut ends);
            let lines = ends.len() - 1;
            let whole: Vec<&[u8]> = text.split(|&byte| byte == b'\n').take(lines).collect();
            let copied: Vec<&[u8]> = ends.windows(2).map(|pair| &data[pair[0] as usize..pair[1] as usize]).collect();
            prop_assert_eq!(&copied, &whole);
            prop_assert_eq!(passed, whole.iter().map(|line| line.len() + 1).sum::<usize>());
            prop_assert_eq!(data.len(), ends[lines] as usize);
            let next = text[passed..].split(|&byte| byte == b'\n').next().unwrap();
            let stays = text.len() - passed - next.len() < STEP || next.len() > limit;
            prop_assert!(lines == most || data.len() >= 6 + room || stays, "{} bytes and {} left behind {}", next.len(), text.len(), passed);
        }
    }
}
