//! The same bytes before and behind each item of a column, in a loop that copies whole blocks: what most rewriting comes to, at
//! little more than the cost of a copy.

use crate::append::{Block, append_all, four_blocks};
use crate::packed::{Packed, PackedBuilder};

/// Bytes of a block.
const BLOCK: usize = size_of::<Block>();
/// What is copied at once.
const STEP: usize = 4 * BLOCK;
/// Limit: items of more bytes on average are left to `append_all`, which has the better loop for those.
const SHORT: usize = 512;

/// Every item of `items` between `prefix` and `suffix`.
pub fn surround(items: &Packed, prefix: &[u8], suffix: &[u8]) -> Packed {
    let bytes = items.data.len() + items.count() * (prefix.len() + suffix.len());
    let mut data = Vec::with_capacity(bytes + STEP + BLOCK);
    let mut ends = Vec::with_capacity(items.count());
    if let (Some(before), Some(behind)) = (Affix::new(prefix), Affix::new(suffix))
        && items.data.len() <= SHORT * items.count()
    {
        in_blocks(items, &before, &behind, &mut data, &mut ends);
    }
    let rest = ends.len();
    let mut surrounded = PackedBuilder { data, ends };
    for item in items.iter_from(rest) {
        surrounded.push_with(|out| append_all(out, [prefix, item, suffix]));
    }
    surrounded.finish()
}

/// Bytes that fit a block.
struct Affix {
    block: Block,
    length: usize,
}

impl Affix {
    fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; BLOCK];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        // SAFETY: any bytes are a block, and there are as many as one has.
        Some(Affix { block: unsafe { padded.as_ptr().cast::<Block>().read_unaligned() }, length: bytes.len() })
    }
}

/// Surrounds the first items: all but the last few, where a copy of whole steps would read beyond the data.
///
/// A function of its own: among other code the loop would have its variables in memory.
#[inline(never)]
fn in_blocks(items: &Packed, before: &Affix, behind: &Affix, data: &mut Vec<u8>, ends: &mut Vec<u32>) {
    let added = before.length + behind.length;
    assert!(data.is_empty() && data.capacity() >= items.data.len() + items.count() * added + STEP + BLOCK);
    assert!(ends.is_empty() && ends.capacity() >= items.count());
    let (from, bytes) = (items.data.as_ptr(), items.data.len());
    let (first, mut start, mut to) = (data.as_mut_ptr(), 0, data.as_mut_ptr());
    let mut count = 0;
    for &end in &items.ends {
        let end = end as usize;
        // Of an item of nothing a step is copied as well.
        if end < start || bytes < STEP || end > bytes - STEP {
            break;
        }
        // SAFETY: no step begins behind `end`, so all of them are read within `bytes`. Items follow one another, so what counts of what is
        // written is no more than `bytes` and what is added to each; a step and a block may reach beyond that, for which there is room.
        // There is room for an end of each item.
        unsafe {
            to.cast::<Block>().write_unaligned(before.block);
            to = to.add(before.length);
            let mut at = start;
            loop {
                four_blocks(from.add(at), to.add(at - start), 0);
                at += STEP;
                if at >= end {
                    break;
                }
            }
            to = to.add(end - start);
            to.cast::<Block>().write_unaligned(behind.block);
            to = to.add(behind.length);
            ends.as_mut_ptr().add(count).write(to.offset_from_unsigned(first) as u32);
        }
        start = end;
        count += 1;
    }
    // SAFETY: so much has been written.
    unsafe {
        data.set_len(to.offset_from_unsigned(first));
        ends.set_len(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items of all lengths around those of blocks and steps, with a few empty ones, and as many behind each.
    #[test]
    fn each_item_stands_between_the_two_whatever_their_lengths() {
        let text: Vec<u8> = (0..=255).cycle().take(700).collect();
        let affixes = [&b""[..], b"<", b"0123456789abcdef", b"longer than a block"];
        for length in 0..=300 {
            let items: Packed = [length, 0, 1, length / 2, 600 * usize::from(length == 7), 0, length]
                .map(|length| &text[..length])
                .into_iter()
                .collect();
            for (prefix, suffix) in
                affixes.iter().flat_map(|prefix| affixes.iter().map(move |suffix| (*prefix, *suffix)))
            {
                let expected: Packed = items.iter().map(|item| [prefix, item, suffix].concat()).collect();
                assert_eq!(surround(&items, prefix, suffix), expected, "{length}");
            }
        }
        assert_eq!(surround(&PackedBuilder::new().finish(), b"<", b">").count(), 0);
    }
}
