//! What is on disk, field by field. All numbers are little-endian; everything begins at a multiple of eight bytes.
//!
//! ```text
//! <root>/                      a LogSet, for instance <state_dir>/channels
//!   lock                       names the holder; the kernel's lock on it counts, not its presence
//!   folder                     "wasmflow channels\nformat 1\npipeline NAME\n"
//!   <channel>/
//!     0000000007-00000000000000120000.log      a segment: its number, and the sequence it begins with
//!     next.tmp                                  a segment or cursor that is being made; worth nothing
//!     0000000003.spare                          a segment that nobody needs any more, kept for its space; worth nothing
//!     <reader>.cursor                           a cursor file
//!     quarantine/                               copies of damaged ranges
//!
//! segment = header frame* u64 0 anything       (frame.rs, header.rs); anything is zeros unless the file is a recycled one
//! cursor file = slot, at 0 and at 4096          (cursor.rs)
//! ```
//!
//! One frame is one put in one channel. The frames of a segment follow each other without gaps; a length of zero, or the end
//! of the file, says that nothing more was written. Where a segment ends is stated by the header of the one after it, so
//! whatever stands behind that place is not part of the log, ever: making the next segment is the single step that ends a
//! recovery, and cutting the old file afterwards is housekeeping.
//!
//! Numbers: a *sequence* counts events, a *frame* number counts frames of a channel, a *put* number counts puts of a source.

pub mod cursor;
pub mod fields;
pub mod frame;
pub mod header;

/// The format of everything in a folder. A folder of a later one is refused; earlier ones are read (there are none yet).
pub const FORMAT: u32 = 1;

/// The largest frame that is written. Well inside the 32 bits of a length, and more than a batch should ever be.
pub const MAX_FRAME_BYTES: u64 = 1 << 30;

/// `bytes` as a number that continues `crc`.
pub fn crc(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}
