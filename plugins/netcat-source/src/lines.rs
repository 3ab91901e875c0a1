//! From the bytes of one client to its lines.

use std::mem::take;

/// Lines end to end, without their line ends, in the order in which they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    data: Vec<u8>,
    ends: Vec<usize>,
    /// Lines at the front that were taken already; their bytes go when all are taken.
    taken: usize,
}

/// What a line costs beside its bytes, so that a flood of empty lines counts against the bound too.
const LINE_COST_BYTES: usize = size_of::<usize>();

impl Lines {
    /// How many lines wait.
    pub fn count(&self) -> usize {
        self.ends.len() - self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// What these lines hold in memory, those taken included until all are.
    pub fn held_bytes(&self) -> usize {
        self.data.len() + self.ends.len() * LINE_COST_BYTES
    }

    /// The next line, which stays.
    pub fn peek(&self) -> Option<&[u8]> {
        let end = *self.ends.get(self.taken)?;
        Some(&self.data[self.start()..end])
    }

    /// Takes the line that [`peek`](Self::peek) showed.
    pub fn skip(&mut self) {
        self.taken += 1;
        if self.taken == self.ends.len() {
            *self = Self::default();
        }
    }

    fn start(&self) -> usize {
        self.taken.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    fn push(&mut self, parts: [&[u8]; 2]) {
        for part in parts {
            self.data.extend_from_slice(part);
        }
        if self.data.last() == Some(&b'\r') && self.data.len() > self.ends.last().copied().unwrap_or(0) {
            self.data.pop();
        }
        self.ends.push(self.data.len());
    }
}

/// A client's line is longer than the limit; nothing after it can be told apart from it.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Cuts what a client sends at `\n`, and strips one `\r` before it.
///
/// Limit: holds one unfinished line of at most `max_line_bytes` bytes and a `\r`.
#[derive(Debug)]
pub struct LineSplitter {
    partial: Vec<u8>,
    max_line_bytes: usize,
}

impl LineSplitter {
    pub fn new(max_line_bytes: usize) -> Self {
        Self { partial: Vec::new(), max_line_bytes }
    }

    /// The bytes of the unfinished line.
    pub fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Adds the lines that `bytes` finishes to `lines`.
    ///
    /// # Errors
    /// When a line is too long; the lines before it have been added, the rest is dropped.
    pub fn split(&mut self, bytes: &[u8], lines: &mut Lines) -> Result<(), LineTooLong> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (last, after) = (&rest[..end], &rest[end + 1..]);
            self.check(last)?;
            lines.push([&self.partial, last]);
            self.partial.clear();
            rest = after;
        }
        self.check(rest)?;
        self.keep(rest);
        Ok(())
    }

    /// The client will send no more. An unfinished line becomes a line where `keep_partial`, and is dropped otherwise.
    pub fn finish(&mut self, keep_partial: bool, lines: &mut Lines) {
        let partial = take(&mut self.partial);
        if keep_partial && !partial.is_empty() {
            lines.push([&partial, b""]);
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        if self.partial.is_empty() && rest.is_empty() {
            self.partial = Vec::new(); // A long line's buffer goes with the line.
        }
        self.partial.extend_from_slice(rest);
    }

    /// One byte more is allowed to a `\r` that may be the end of the line.
    fn check(&self, rest: &[u8]) -> Result<(), LineTooLong> {
        let bytes = self.partial.len() + rest.len();
        let ends_in_return = rest.last().or(self.partial.last()) == Some(&b'\r');
        if bytes > self.max_line_bytes + usize::from(ends_in_return) { Err(LineTooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(max_line_bytes: usize, parts: &[&str], keep_partial: bool) -> (Vec<String>, Result<(), LineTooLong>) {
        let (mut splitter, mut lines) = (LineSplitter::new(max_line_bytes), Lines::default());
        let outcome = parts.iter().try_for_each(|part| splitter.split(part.as_bytes(), &mut lines));
        splitter.finish(keep_partial, &mut lines);
        let mut texts = Vec::new();
        while let Some(line) = lines.peek() {
            texts.push(String::from_utf8_lossy(line).into_owned());
            lines.skip();
        }
        assert_eq!(lines.held_bytes(), 0);
        (texts, outcome)
    }

    #[test]
    fn a_line_ends_at_the_newline_wherever_the_network_cuts_it() {
        for parts in [&["one\ntwo\n\nfour\n"][..], &["on", "e\nt", "wo\n", "\n", "four\n"], &["one\ntwo\n\nfour", "\n"]]
        {
            assert_eq!(split(100, parts, false), (vec!["one".into(), "two".into(), "".into(), "four".into()], Ok(())));
        }
    }

    #[test]
    fn one_carriage_return_before_the_newline_goes_and_no_more() {
        let (lines, _) = split(100, &["telnet\r", "\na\r\r\nb\rc\n\r\nd\n"], false);
        assert_eq!(lines, ["telnet", "a\r", "b\rc", "", "d"]);
    }

    #[test]
    fn an_unfinished_last_line_is_dropped_unless_it_is_to_be_kept() {
        assert_eq!(split(100, &["whole\nhalf"], false).0, ["whole"]);
        assert_eq!(split(100, &["whole\nhalf"], true).0, ["whole", "half"]);
        assert_eq!(split(100, &["whole\n"], true).0, ["whole"]);
    }

    #[test]
    fn the_limit_counts_the_line_and_not_its_end() {
        assert_eq!(split(5, &["12345\r\n12345\n"], false), (vec!["12345".into(), "12345".into()], Ok(())));
        assert_eq!(split(5, &["12345\n123456\n7\n"], false), (vec!["12345".into()], Err(LineTooLong)));
        assert_eq!(split(5, &["123", "456"], true), (vec!["123".into()], Err(LineTooLong)));
        assert_eq!(split(5, &["12345", "\r", "\n"], false), (vec!["12345".into()], Ok(())));
    }

    #[test]
    fn a_line_too_long_is_refused_before_it_is_whole() {
        let (mut splitter, mut lines) = (LineSplitter::new(8), Lines::default());
        assert_eq!(splitter.split(b"123456789", &mut lines), Err(LineTooLong));
        assert!(splitter.held_bytes() <= 9);
    }

    #[test]
    fn empty_lines_count_against_the_memory_too() {
        let (mut splitter, mut lines) = (LineSplitter::new(8), Lines::default());
        splitter.split(&[b'\n'; 1000], &mut lines).unwrap();
        assert_eq!((lines.count(), lines.held_bytes()), (1000, 1000 * LINE_COST_BYTES));
    }
}
