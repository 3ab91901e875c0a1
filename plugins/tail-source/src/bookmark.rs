//! Where one file stands, and how that is written into the source's position.
//!
//! A part of the position is one file. Its key is the file's identity in 32 hexadecimal digits; its value is one line of
//! text, so that a person can read it in the state folder:
//!
//! ```text
//! 1 <offset> <open|whole> <head length> <head hash> <tail length> <tail hash> <path>
//! ```
//!
//! `1` is the version of this form. The two hashes are what makes an offset trustworthy: an inode is used again, a file is
//! cut to nothing and filled beyond the old offset between two looks, a reboot renumbers the devices. Only where the bytes in
//! front of the offset are still those that were read is the offset used; otherwise the file is read from its start, which
//! repeats at worst and never skips.

/// How many bytes right before the offset are remembered; more than most time stamps, so that two log lines differ in them.
const TAIL_BYTES: usize = 64;
/// How many bytes from the start of the file are remembered.
const HEAD_BYTES: u64 = 256;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// A hash of some bytes of a file, by FNV-1a: part of a stored form, so it must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    pub length: u64,
    hash: u64,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint { length: 0, hash: FNV_BASIS }
    }
}

impl Fingerprint {
    pub fn of(bytes: &[u8]) -> Self {
        let mut fingerprint = Fingerprint::default();
        fingerprint.extend(bytes);
        fingerprint
    }

    /// Whether `bytes` begins with what this was made of.
    pub fn begins(&self, bytes: &[u8]) -> bool {
        usize::try_from(self.length)
            .ok()
            .and_then(|length| bytes.get(..length))
            .is_some_and(|found| Self::of(found) == *self)
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.hash = bytes.iter().fold(self.hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
        self.length += bytes.len() as u64;
    }
}

/// How far one file has been read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bookmark {
    /// As the file was last called.
    pub path: String,
    /// All bytes before this one have been brought.
    pub offset: u64,
    /// The last event was a line without its newline: a newline at the offset ends that line and is no event.
    pub open: bool,
    /// Of the first bytes of the file.
    pub head: Fingerprint,
    /// Of the bytes right before the offset.
    pub tail: Fingerprint,
}

impl Bookmark {
    pub fn new(path: String) -> Self {
        Bookmark { path, ..Bookmark::default() }
    }

    /// Moves on by the last `count` bytes of `seen`, which are what was read from the file up to the new offset.
    pub fn advance(&mut self, seen: &[u8], count: usize) {
        let passed = &seen[seen.len() - count..];
        if self.head.length == self.offset && self.offset < HEAD_BYTES {
            self.head.extend(&passed[..passed.len().min((HEAD_BYTES - self.offset) as usize)]);
        }
        self.offset += count as u64;
        self.tail = Fingerprint::of(&seen[seen.len().saturating_sub(TAIL_BYTES)..]);
    }

    /// Where the bytes begin that the tail fingerprint was made of.
    pub fn tail_start(&self) -> u64 {
        self.offset - self.tail.length
    }

    /// Back to the start of the file: it is not the one that was read.
    pub fn restart(&mut self) {
        *self = Bookmark::new(std::mem::take(&mut self.path));
    }

    /// Skips to `offset`; `head` and `tail` are the first bytes of the file and those right before the offset.
    pub fn skip_to(&mut self, offset: u64, head: &[u8], tail: &[u8]) {
        self.offset = offset;
        self.head = Fingerprint::of(&head[..head.len().min(HEAD_BYTES as usize).min(offset as usize)]);
        self.tail = Fingerprint::of(&tail[tail.len().saturating_sub(TAIL_BYTES)..]);
    }

    /// How many bytes before `offset` [`skip_to`](Self::skip_to) wants to see.
    pub fn tail_length(offset: u64) -> u64 {
        offset.min(TAIL_BYTES as u64)
    }

    pub fn encode(&self) -> Vec<u8> {
        let open = if self.open { "open" } else { "whole" };
        let (head, tail) = (self.head, self.tail);
        format!(
            "1 {} {open} {} {:016x} {} {:016x} {}",
            self.offset, head.length, head.hash, tail.length, tail.hash, self.path
        )
        .into_bytes()
    }

    /// Nothing where the bytes are not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.splitn(8, ' ');
        let _version = words.next().filter(|version| *version == "1")?;
        let offset = words.next()?.parse().ok()?;
        let open = match words.next()? {
            "open" => true,
            "whole" => false,
            _ => return None,
        };
        let (head, tail) = (fingerprint(&mut words)?, fingerprint(&mut words)?);
        let sound = tail.length <= offset && tail.length <= TAIL_BYTES as u64 && head.length <= HEAD_BYTES.min(offset);
        sound.then_some(Bookmark { path: words.next()?.into(), offset, open, head, tail })
    }
}

fn fingerprint<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Fingerprint> {
    Some(Fingerprint { length: words.next()?.parse().ok()?, hash: u64::from_str_radix(words.next()?, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stored_bookmarks_of_version_1_are_read_for_ever() {
        let bookmark = Bookmark::decode(b"1 6 whole 6 a9bc80cca21f28b3 6 a9bc80cca21f28b3 logs/a b.log").unwrap();
        assert_eq!((bookmark.path.as_str(), bookmark.offset, bookmark.open), ("logs/a b.log", 6, false));
        let mut written = Bookmark::new("logs/a b.log".into());
        written.advance(b"hello\n", 6);
        assert_eq!(written, bookmark);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(path in "[^/]{0,40}", reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8), open: bool) {
            let mut bookmark = Bookmark { open, ..Bookmark::new(path) };
            let mut seen = Vec::new();
            for read in &reads {
                seen.extend_from_slice(read);
                bookmark.advance(&seen, read.len());
            }
            prop_assert_eq!(Bookmark::decode(&bookmark.encode()), Some(bookmark.clone()));
            prop_assert!(bookmark.tail.begins(&seen[bookmark.tail_start() as usize..]));
            prop_assert!(bookmark.head.begins(&seen));
            prop_assert_eq!(bookmark.head.length, bookmark.offset.min(HEAD_BYTES));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Bookmark::decode(&bytes);
        }
    }
}
