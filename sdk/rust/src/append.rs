//! Appending short byte strings, which is what most plugins do once or more for each event.
//!
//! A copy of a length that the compiler does not know becomes the instruction `memory.copy`, which wasmtime carries out by a call
//! into the host: more than the copy itself for anything that is short. Here it is done in place, 16 bytes at a time.

/// Limit: longer ones are left to `memory.copy`, whose copy loop is the better one once its call is paid for.
#[cfg(target_family = "wasm")]
const SHORT: usize = 512;

/// Appends `bytes`: as `extend_from_slice`, and inside the sandbox several times as fast for short ones.
#[inline(always)]
pub fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    append_all(out, [bytes]);
}

/// Appends one after another: cheaper than each for itself.
#[cfg(target_family = "wasm")]
#[inline(always)]
pub fn append_all<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    let bytes = parts.iter().map(|part| part.len()).sum();
    out.reserve(bytes);
    // SAFETY: there is room for all parts behind the bytes that `out` has, and a vector that is borrowed mutably cannot overlap with
    // them. All of them are written before they count.
    unsafe {
        let mut to = out.as_mut_ptr().add(out.len());
        // Written out: the compiler would make a loop of it, with the parts in memory and a look at the epoch for each.
        if N > 0 {
            to = put(parts[0], to);
        }
        if N > 1 {
            to = put(parts[1], to);
        }
        if N > 2 {
            to = put(parts[2], to);
        }
        if N > 3 {
            for part in &parts[3..] {
                to = put(part, to);
            }
        }
        out.set_len(out.len() + bytes);
    }
}

/// Copies a part; answers where the next one goes.
///
/// # Safety
/// There is room for it at `to`, which does not overlap with it.
#[cfg(target_family = "wasm")]
#[inline(always)]
unsafe fn put(part: &[u8], to: *mut u8) -> *mut u8 {
    // SAFETY: as promised.
    unsafe {
        match part.len() {
            0..=SHORT => copy(part.as_ptr(), to, part.len()),
            _ => to.copy_from_nonoverlapping(part.as_ptr(), part.len()),
        }
        to.add(part.len())
    }
}

/// Appends one after another.
#[cfg(not(target_family = "wasm"))]
pub fn append_all<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    parts.into_iter().for_each(|part| out.extend_from_slice(part));
}

/// 16 bytes, as one register holds them.
#[cfg(target_family = "wasm")]
pub(crate) type Block = core::arch::wasm32::v128;
#[cfg(not(target_family = "wasm"))]
pub(crate) type Block = u128;

/// Copies in steps of fixed sizes, of which the last may overlap with the one before.
///
/// # Safety
/// `from` can be read and `to` be written for `length` bytes, and they do not overlap.
#[cfg(any(target_family = "wasm", test))]
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: each step lies within `length`, by the conditions.
    unsafe {
        match length {
            129.. => {
                let mut at = 0;
                while at + 64 < length {
                    four_blocks(from, to, at);
                    at += 64;
                }
                four_blocks(from, to, length - 64);
            }
            65.. => {
                four_blocks(from, to, 0);
                four_blocks(from, to, length - 64);
            }
            33.. => {
                step::<Block>(from, to, 0);
                step::<Block>(from, to, 16);
                step::<Block>(from, to, length - 32);
                step::<Block>(from, to, length - 16);
            }
            16.. => {
                step::<Block>(from, to, 0);
                step::<Block>(from, to, length - 16);
            }
            8.. => {
                step::<u64>(from, to, 0);
                step::<u64>(from, to, length - 8);
            }
            4.. => {
                step::<u32>(from, to, 0);
                step::<u32>(from, to, length - 4);
            }
            1.. => {
                step::<u8>(from, to, 0);
                step::<u8>(from, to, length / 2);
                step::<u8>(from, to, length - 1);
            }
            0 => {}
        }
    }
}

/// Copies 64 bytes. Written out: a loop over one block would be taken for what it is, and become `memory.copy` again.
///
/// # Safety
/// Both can be accessed for as many bytes from `at` on.
#[inline(always)]
pub(crate) unsafe fn four_blocks(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: as promised.
    unsafe {
        step::<Block>(from, to, at);
        step::<Block>(from, to, at + 16);
        step::<Block>(from, to, at + 32);
        step::<Block>(from, to, at + 48);
    }
}

/// Copies one value.
///
/// # Safety
/// Both can be accessed for as many bytes from `at` on.
#[inline(always)]
unsafe fn step<T>(from: *const u8, to: *mut u8, at: usize) {
    // SAFETY: as promised; neither needs to be aligned, and any bytes are a value of the integers and blocks that are copied here.
    unsafe { to.add(at).cast::<T>().write_unaligned(from.add(at).cast::<T>().read_unaligned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_there_whatever_its_length() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1100).collect();
        for length in 0..bytes.len() {
            let mut out = b"before".to_vec();
            append(&mut out, &bytes[..length]);
            append_all(&mut out, [b".", &bytes[..length]]);
            assert_eq!(out, [b"before", &bytes[..length], b".", &bytes[..length]].concat());
        }
    }

    /// Natively `append` leaves the copying to the standard library: so this is the part that the sandbox uses.
    #[test]
    fn a_copy_in_steps_copies_each_byte_and_no_other() {
        let bytes: Vec<u8> = (1..=255).cycle().take(300).collect();
        for length in 0..bytes.len() {
            let mut out = vec![0; length + 2];
            // SAFETY: `out` has room for `length` bytes from 1 on.
            unsafe { copy(bytes.as_ptr(), out.as_mut_ptr().add(1), length) };
            assert_eq!(out, [b"\0", &bytes[..length], b"\0"].concat(), "{length}");
        }
    }
}
