//! One turn at one file: lines from its bookmark on, as many as there is room for.

use std::io;

use wasmflow_sdk::disk::{CHUNK_BYTES, Handle};

use crate::bookmark::Bookmark;
use crate::lines::Lines;

/// Limit: what one file may bring before the next one has its turn; enough that a single busy file costs nothing by it.
const TURN_BYTES: u64 = 256 * 1024;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The turn is used up or the batch is full: there may be more.
    More,
    /// Everything that is there was read, up to this byte; behind the bookmark is at most a line without its newline.
    End(u64),
    /// The bytes in front of the bookmark are not those that were read: the file was cut, rewritten or replaced.
    Rewritten,
}

/// What to do with a last line that has no newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    Leave,
    Bring,
}

/// Reads on from the bookmark and moves it past what was brought. Nothing beyond `end` is read.
///
/// # Errors
/// Of the disk; what was brought before it stays brought, and the bookmark is right.
pub fn turn(
    handle: &Handle,
    bookmark: &mut Bookmark,
    end: u64,
    unfinished: Unfinished,
    lines: &mut Lines,
) -> io::Result<Turn> {
    let stop = bookmark.offset.saturating_add(TURN_BYTES);
    while bookmark.offset < stop && !lines.is_full() {
        // Reading begins with the bytes behind us: one comparison in each read proves that the file is still the same.
        let mut view = View { handle, start: bookmark.tail_start(), end: end.max(bookmark.offset), seen: Vec::new() };
        let mut more = view.extend(lines.bytes_wanted())?;
        if !bookmark.tail.begins(&view.seen) {
            return Ok(Turn::Rewritten);
        }
        let behind = bookmark.tail.length as usize;
        // A newline here ends the line that was brought without one.
        let mut at = behind + usize::from(bookmark.open && view.seen.get(behind) == Some(&b'\n'));
        let mut taken = lines.take(&view.seen[at..], view.offset(at), 0);
        // A line longer than one read. Limit: what is held is the longest line there may be and one read more, in one
        // allocation: growing by doubling would take three times that.
        if taken == 0 && more {
            view.seen.reserve_exact(lines.max_line_bytes() + CHUNK_BYTES);
        }
        while taken == 0 && more {
            let searched = view.seen.len() - at;
            more = view.extend(CHUNK_BYTES)?;
            taken = lines.take(&view.seen[at..], view.offset(at), searched);
        }
        at += taken;
        let last = !more && !lines.is_full();
        let bring_rest = last && unfinished == Unfinished::Bring && at < view.seen.len();
        if bring_rest {
            lines.push(&view.seen[at..], view.offset(at));
            at = view.seen.len();
        }
        if at > behind {
            bookmark.advance(&view.seen[..at], at - behind);
            bookmark.open = bring_rest;
        }
        if last {
            return Ok(Turn::End(view.offset(view.seen.len())));
        }
    }
    Ok(Turn::More)
}

/// What has been read of a file in one go, from `start` on.
struct View<'h> {
    handle: &'h Handle,
    start: u64,
    /// Nothing from here on is looked at.
    end: u64,
    seen: Vec<u8>,
}

impl View<'_> {
    /// Where the byte at `index` stands in the file.
    fn offset(&self, index: usize) -> u64 {
        self.start + index as u64
    }

    /// Reads up to so many bytes more; says whether there may be still more to read.
    fn extend(&mut self, length: usize) -> io::Result<bool> {
        let at = self.offset(self.seen.len());
        let mut bytes = self.handle.read(at, length)?;
        bytes.truncate(usize::try_from(self.end - at).unwrap_or(usize::MAX));
        let more = bytes.len() == length;
        match self.seen.is_empty() {
            true => self.seen = bytes,
            false => self.seen.extend_from_slice(&bytes),
        }
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Bounds;
    use proptest::prelude::*;
    use wasmflow_sdk::disk::Disk;

    const ALL: Bounds =
        Bounds { max_events: 100_000, max_bytes: 1 << 30, max_line_bytes: 1 << 20, with_offsets: false };

    fn bodies(lines: &Lines) -> Vec<Vec<u8>> {
        let starts = std::iter::once(0).chain(lines.ends.iter().copied());
        starts.zip(&lines.ends).map(|(start, end)| lines.data[start as usize..*end as usize].to_vec()).collect()
    }

    /// A file of these bytes, and all turns at it with these bounds from the bookmark on.
    fn read_all(bytes: &[u8], bookmark: &mut Bookmark, unfinished: Unfinished, bounds: Bounds) -> (Vec<Vec<u8>>, Turn) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let handle = Disk::new().open(path.to_str().unwrap()).unwrap();
        let mut all = Vec::new();
        loop {
            let mut lines = Lines::new(bounds);
            let ended = turn(&handle, bookmark, u64::MAX, unfinished, &mut lines).unwrap();
            all.extend(bodies(&lines));
            if ended != Turn::More {
                return (all, ended);
            }
        }
    }

    #[test]
    fn a_line_without_newline_waits_unless_it_is_wanted() {
        let mut bookmark = Bookmark::default();
        assert_eq!(read_all(b"a\nb", &mut bookmark, Unfinished::Leave, ALL), (vec![b"a".to_vec()], Turn::End(3)));
        assert_eq!(bookmark.offset, 2);
        assert_eq!(read_all(b"a\nb", &mut bookmark, Unfinished::Bring, ALL), (vec![b"b".to_vec()], Turn::End(3)));
        assert!(bookmark.open);
    }

    #[test]
    fn the_newline_of_a_line_already_brought_is_no_event() {
        let mut bookmark = Bookmark::default();
        read_all(b"a", &mut bookmark, Unfinished::Bring, ALL);
        let (lines, _) = read_all(b"a\n", &mut bookmark, Unfinished::Leave, ALL);
        assert_eq!((lines, bookmark.offset, bookmark.open), (vec![], 2, false));
        assert_eq!(read_all(b"a\n\nb\n", &mut bookmark, Unfinished::Leave, ALL).0, [b"".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn bytes_that_changed_behind_the_bookmark_are_noticed() {
        let mut bookmark = Bookmark::default();
        read_all(b"one\ntwo\n", &mut bookmark, Unfinished::Leave, ALL);
        assert_eq!(read_all(b"ONE\nTWO\nthree\n", &mut bookmark, Unfinished::Leave, ALL), (vec![], Turn::Rewritten));
        assert_eq!(read_all(b"one\n", &mut bookmark, Unfinished::Leave, ALL), (vec![], Turn::Rewritten));
    }

    #[test]
    fn a_line_of_many_reads_is_cut_into_pieces_of_the_limit() {
        let line = vec![b'x'; 5 * CHUNK_BYTES];
        let bounds = Bounds { max_line_bytes: 2 * CHUNK_BYTES, ..ALL };
        let (lines, _) = read_all(&[&line[..], b"\ny\n"].concat(), &mut Bookmark::default(), Unfinished::Leave, bounds);
        let lengths: Vec<_> = lines.iter().map(Vec::len).collect();
        assert_eq!(lengths, [2 * CHUNK_BYTES, 2 * CHUNK_BYTES, CHUNK_BYTES, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the bounds and wherever the source was stopped and opened again: every line, once, in order.
        #[test]
        fn every_line_once_in_order(lines in prop::collection::vec(prop::collection::vec(prop::sample::select(b"abc\0\r\xff".to_vec()), 0..3000), 0..60), long in 0_usize..200_000, max_events in 1_usize..50, max_bytes in 1_usize..100_000) {
            let mut lines = lines;
            lines.push(vec![b'z'; long]);
            let bytes: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
            let bounds = Bounds { max_events, max_bytes, ..ALL };
            let half = bytes.len() / 2;
            let mut bookmark = Bookmark::default();
            let (mut found, _) = read_all(&bytes[..half], &mut bookmark, Unfinished::Leave, bounds);
            let mut stored = Bookmark::decode(&bookmark.encode()).unwrap();
            found.extend(read_all(&bytes, &mut stored, Unfinished::Leave, bounds).0);
            prop_assert_eq!(found, lines);
            prop_assert_eq!(stored.offset, bytes.len() as u64);
        }
    }
}
