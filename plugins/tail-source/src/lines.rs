//! The lines of one poll, as packed columns ready for a batch.

use std::rc::Rc;

use memchr::memchr;
use wasmflow_sdk::append::append;
use wasmflow_sdk::disk::CHUNK_BYTES;

use crate::decimal;
use crate::split::{Most, split};

/// Lines in order, from one file or several.
#[derive(Debug, Default)]
pub struct Lines {
    /// The bodies, end to end.
    pub data: Vec<u8>,
    pub ends: Vec<u32>,
    /// Where each line begins in its file, in decimal, end to end; empty where nobody wants it.
    pub offsets: Vec<u8>,
    pub offset_ends: Vec<u32>,
    /// Which file the lines are from: as many of this path, then as many of the next.
    pub runs: Vec<(Rc<str>, u32)>,
    /// Pieces that a line was cut into because it was too long.
    pub cut: u64,
    bounds: Bounds,
}

/// How the system keeps files in memory.
const PAGE_BYTES: usize = 4096;

/// What a poll has room for without moving what it has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    events: usize,
    bytes: usize,
    offset_bytes: usize,
}

/// How much one poll may bring, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    pub max_events: usize,
    /// Passed by at most one line.
    pub max_bytes: usize,
    pub max_line_bytes: usize,
    pub with_offsets: bool,
}

impl Lines {
    pub fn new(bounds: Bounds) -> Self {
        Lines { bounds, ..Lines::default() }
    }

    /// With room for as much as the poll before brought.
    pub fn as_many_as(before: Sizes, bounds: Bounds) -> Self {
        let Sizes { events, bytes, offset_bytes } = before;
        Lines {
            data: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(events),
            offsets: Vec::with_capacity(offset_bytes),
            offset_ends: Vec::with_capacity(if bounds.with_offsets { events } else { 0 }),
            ..Lines::new(bounds)
        }
    }

    /// What these lines would have needed, and some more.
    pub fn sizes(&self) -> Sizes {
        let more = |size: usize| size + size / 8;
        Sizes {
            events: more(self.count()),
            bytes: self.data.len().min(self.bounds.max_bytes) + 2 * CHUNK_BYTES,
            offset_bytes: more(self.offsets.len()),
        }
    }

    /// How much to read for the lines that there is room for, if they are as long as those before them.
    pub fn bytes_wanted(&self) -> usize {
        let Some(average) = self.data.len().checked_div(self.count()) else { return CHUNK_BYTES };
        let wanted = (self.bounds.max_events - self.count()).saturating_mul(average + 1);
        // Some more, so that it is seldom too little; whole pages, as the system keeps them.
        (wanted.saturating_add(wanted / 16 + PAGE_BYTES) & !(PAGE_BYTES - 1)).min(CHUNK_BYTES)
    }

    pub fn count(&self) -> usize {
        self.ends.len()
    }

    pub fn is_full(&self) -> bool {
        self.count() >= self.bounds.max_events || self.data.len() >= self.bounds.max_bytes
    }

    /// The longest line that is brought as one event.
    pub fn max_line_bytes(&self) -> usize {
        self.bounds.max_line_bytes
    }

    /// Takes whole lines from `bytes`, which are at `offset` in the file, until there is no room; says how many bytes it took.
    ///
    /// The first `searched` bytes are known to hold no newline. A line longer than the limit is cut into pieces of exactly the
    /// limit and a rest, each an event. Cuts depend on where the line begins and on nothing else, so that reading again from
    /// any event's offset cuts in the same places.
    pub fn take(&mut self, bytes: &[u8], offset: u64, searched: usize) -> usize {
        let limit = self.bounds.max_line_bytes;
        let mut at = if searched == 0 { self.take_in_steps(bytes, offset) } else { 0 };
        let mut skip = searched.min(limit);
        while !self.is_full() {
            let rest = &bytes[at..];
            // One byte more than the limit: a newline there ends a line that is just not too long.
            let window = &rest[..rest.len().min(limit + 1)];
            let (length, passed) = match memchr(b'\n', &window[skip.min(window.len())..]) {
                Some(found) => (skip + found, skip + found + 1),
                None if rest.len() > limit => {
                    self.cut += 1;
                    (limit, limit)
                }
                None => break,
            };
            self.push(&rest[..length], offset + at as u64);
            (at, skip) = (at + passed, 0);
        }
        at
    }

    /// Takes the lines that need no second look: short enough, and not at the end of the bytes.
    fn take_in_steps(&mut self, bytes: &[u8], offset: u64) -> usize {
        if self.is_full() {
            return 0;
        }
        let Bounds { max_events, max_bytes, max_line_bytes, with_offsets } = self.bounds;
        let (first, before) = (self.count(), self.data.len());
        let most = Most { lines: max_events, bytes: max_bytes, line_bytes: max_line_bytes };
        let passed = split(bytes, most, &mut self.data, &mut self.ends);
        if with_offsets {
            decimal::begins(offset, before, &self.ends[first..], &mut self.offsets, &mut self.offset_ends);
        }
        passed
    }

    /// Adds one event.
    pub fn push(&mut self, line: &[u8], offset: u64) {
        if line.len() > CHUNK_BYTES {
            self.data.reserve_exact(line.len());
        }
        let before = self.data.len();
        append(&mut self.data, line);
        let end = self.data.len() as u32;
        self.ends.push(end);
        if self.bounds.with_offsets {
            decimal::begins(offset, before, &[end], &mut self.offsets, &mut self.offset_ends);
        }
    }

    /// Notes that the events since the last note are from the file at `path`.
    pub fn end_run(&mut self, path: &Rc<str>) {
        let noted: u32 = self.runs.iter().map(|(_, count)| count).sum();
        let count = self.count() as u32 - noted;
        match self.runs.last_mut() {
            _ if count == 0 => {}
            Some((last, so_far)) if *last == *path => *so_far += count,
            _ => self.runs.push((path.clone(), count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(max_line_bytes: usize) -> Bounds {
        Bounds { max_events: usize::MAX, max_bytes: usize::MAX, max_line_bytes, with_offsets: true }
    }

    fn split<'a>(data: &'a [u8], ends: &[u32]) -> Vec<&'a [u8]> {
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(|(start, end)| &data[start as usize..*end as usize]).collect()
    }

    #[test]
    fn a_line_of_just_the_limit_is_not_cut() {
        let mut lines = Lines::new(bounds(4));
        assert_eq!(lines.take(b"abcd\nabcde\nxy", 0, 0), 11);
        assert_eq!(split(&lines.data, &lines.ends), [b"abcd".as_slice(), b"abcd", b"e"]);
        assert_eq!(split(&lines.offsets, &lines.offset_ends), [b"0".as_slice(), b"5", b"9"]);
        assert_eq!(lines.cut, 1);
    }

    #[test]
    fn events_and_bytes_are_bounded() {
        let mut lines = Lines::new(Bounds { max_events: 2, ..bounds(100) });
        assert_eq!(lines.take(b"a\nb\nc\n", 0, 0), 4);
        let mut lines = Lines::new(Bounds { max_bytes: 3, ..bounds(100) });
        assert_eq!(lines.take(b"ab\ncd\nef\n", 0, 0), 6);
    }

    #[test]
    fn runs_say_which_file_each_line_is_from() {
        let (a, b): (Rc<str>, Rc<str>) = ("a".into(), "b".into());
        let mut lines = Lines::new(bounds(100));
        for (path, text) in [(&a, "1\n2\n"), (&a, "3\n"), (&b, ""), (&b, "4\n")] {
            lines.take(text.as_bytes(), 0, 0);
            lines.end_run(path);
        }
        assert_eq!(lines.runs, [(a, 3), (b, 1)]);
    }

    proptest! {
        /// However the bytes arrive, and wherever reading stops for want of room, the events are the same.
        #[test]
        fn cuts_depend_on_the_line_alone(text in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..200), limit in 1_usize..20, step in 1_usize..30, room in 1_usize..5) {
            let mut whole = Lines::new(bounds(limit));
            let taken = whole.take(&text, 0, 0);

            let mut pieces: Vec<Vec<u8>> = Vec::new();
            let (mut at, mut end) = (0, 0);
            while end < text.len() || at < taken {
                let mut lines = Lines::new(Bounds { max_events: room, ..bounds(limit) });
                let passed = lines.take(&text[at..end], at as u64, 0);
                pieces.extend(split(&lines.data, &lines.ends).into_iter().map(<[u8]>::to_vec));
                at += passed;
                if passed == 0 {
                    end = (end + step).min(text.len());
                }
            }
            prop_assert_eq!(at, taken);
            prop_assert_eq!(pieces, split(&whole.data, &whole.ends));
        }
    }
}
