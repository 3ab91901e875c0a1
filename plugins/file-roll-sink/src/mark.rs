//! The mark beside a file that is being written: which batch is on its way into it.
//!
//! Before a batch is written, the mark says where it begins and where it will end:
//!
//! ```text
//! <begin, 20 digits> <end, 20 digits>\n
//! ```
//!
//! Crash: after a kill, a file that ends before `end` has a part of that batch, which was never settled and comes again: it
//! is cut back to `begin`. The mark itself is not synced. A power cut may therefore leave an older one, and that is harmless:
//! its batch was synced before the next began, so the file is at least as long as its `end`, and nothing settled is ever cut.

use std::io;

use wasmflow_sdk::disk::Handle;

const LENGTH: usize = 42;

/// The bytes of the file that are one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub begin: u64,
    pub end: u64,
}

/// What a mark says about a file of some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It ends with a whole batch.
    Whole,
    /// It has a part of a batch behind this many bytes.
    CutTo(u64),
    /// The mark is of another time: only its lines can tell.
    Unknown,
}

impl Mark {
    pub fn write(self, file: &Handle) -> io::Result<()> {
        file.write(0, format!("{:020} {:020}\n", self.begin, self.end).as_bytes())
    }

    /// Nothing where the bytes are no mark.
    pub fn read(file: &Handle) -> io::Result<Option<Mark>> {
        Ok(Self::decode(&file.read(0, LENGTH + 1)?))
    }

    fn decode(bytes: &[u8]) -> Option<Mark> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() == LENGTH)?;
        let (begin, end) = text.strip_suffix('\n')?.split_once(' ')?;
        let mark = Mark { begin: begin.parse().ok()?, end: end.parse().ok()? };
        (mark.begin <= mark.end).then_some(mark)
    }

    pub fn judge(self, size: u64) -> Verdict {
        match size {
            _ if size == self.end => Verdict::Whole,
            _ if (self.begin..self.end).contains(&size) => Verdict::CutTo(self.begin),
            _ => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_batch_of_the_mark_is_ever_cut() {
        let mark = Mark { begin: 10, end: 20 };
        let verdicts = [9, 10, 11, 19, 20, 21].map(|size| mark.judge(size));
        let cut = Verdict::CutTo(10);
        assert_eq!(verdicts, [Verdict::Unknown, cut, cut, cut, Verdict::Whole, Verdict::Unknown]);
    }

    #[test]
    fn torn_marks_are_no_marks() {
        let whole = b"00000000000000000010 00000000000000000020\n";
        assert_eq!(Mark::decode(whole), Some(Mark { begin: 10, end: 20 }));
        for length in 0..whole.len() {
            assert_eq!(Mark::decode(&whole[..length]), None);
        }
        assert_eq!(Mark::decode(&[0; LENGTH]), None);
        assert_eq!(Mark::decode(b"00000000000000000020 00000000000000000010\n"), None);
    }
}
