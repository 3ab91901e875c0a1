//! One segment file: making it, and reading frames from it without believing what they say.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::compress::expand;
use crate::format::crc;
use crate::format::frame::{HEAD_BYTES, Head, Meta, Parsed, Seat};
use crate::format::header::{BadHeader, FIXED_BYTES, Header};
use crate::names;
use crate::put::{ChannelId, Frame};
use crate::storage::{File, Storage, read_full, write_full};

/// How much is read at once by those who want everything ...
pub const CHUNK_BYTES: u64 = 512 << 10;
/// ... and by those who follow heads.
pub const HOP_BYTES: u64 = 16 << 10;

/// Says that nothing was written behind it.
pub const END: [u8; 8] = [0; 8];

/// A segment's file, its path, and how long its header is.
pub type Made = (Arc<dyn File>, PathBuf, u64);

/// Makes a segment so that it is there whole or not at all: aside, synced, renamed, and the folder synced.
///
/// Crash: until the folder is synced the name may be lost again, so nothing may be written into the segment before.
pub fn create(storage: &dyn Storage, folder: &Path, header: &Header) -> io::Result<Made> {
    let aside = names::temporary(folder);
    let file = storage.create(&aside)?;
    name(storage, folder, header, file, &aside)
}

/// As [`create`], of a file whose events nobody needs. Writing over space that was written before spares the file system its notes of
/// new space, which cost half of a disk's rate where each write is synced.
///
/// Crash: what the file held before can pass for nothing here: the head of a frame is only good in the segment it was written for,
/// numbers of segments are never used again, and the frames' own numbers would not follow on. Behind the header, and behind each
/// group of frames, stand eight zeros: nothing was written there.
pub fn recycle(storage: &dyn Storage, folder: &Path, header: &Header, spare: &Path) -> io::Result<Made> {
    let file = storage.open_write(spare)?;
    name(storage, folder, header, file, spare)
}

fn name(storage: &dyn Storage, folder: &Path, header: &Header, file: Arc<dyn File>, aside: &Path) -> io::Result<Made> {
    let bytes = header.write();
    let end: &[u8] = if header.recycled { &END } else { &[] };
    write_full(&*file, &mut [IoSlice::new(&bytes), IoSlice::new(end)], 0)?;
    file.sync_all()?;
    let path = folder.join(names::segment(header.number, header.base_sequence));
    storage.rename(aside, &path)?;
    storage.sync_folder(folder)?;
    Ok((file, path, bytes.len() as u64))
}

/// A segment open for reading.
pub struct SegmentReader {
    file: Arc<dyn File>,
    id: ChannelId,
    number: u64,
    chunk: u64,
    buffer: Bytes,
    buffer_at: u64,
    /// Takes checksums and lengths as they are. Only ever set by the tests of the tests.
    pub believing: bool,
}

/// What stands at an offset of a segment.
#[derive(Debug)]
pub enum At {
    Frame(RawFrame),
    Nothing,
    Bad(&'static str),
}

/// A frame whose checksums fit. Its bytes go as far as was asked for: to the end of meta, or of the frame.
#[derive(Debug, Clone)]
pub struct RawFrame {
    pub head: Head,
    bytes: Bytes,
}

/// What the next frame must say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub frame: u64,
    pub sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Head,
    Payload,
}

/// Reads the header of a file.
pub fn read_header(file: &dyn File) -> io::Result<Result<Header, BadHeader>> {
    let file_bytes = file.len()?;
    let mut need = FIXED_BYTES.max(4096);
    loop {
        let mut bytes = vec![0; need.min(file_bytes) as usize];
        let read = read_full(file, &mut bytes, 0)?;
        bytes.truncate(read);
        match Header::parse(&bytes.into(), file_bytes) {
            Err(BadHeader::More(more)) if more > need => need = more,
            Err(BadHeader::More(_)) => return Ok(Err(BadHeader::Bad("the file ends inside its header"))),
            parsed => return Ok(parsed),
        }
    }
}

impl SegmentReader {
    pub fn new(file: Arc<dyn File>, id: ChannelId, number: u64, chunk: u64) -> Self {
        Self { file, id, number, chunk, buffer: Bytes::new(), buffer_at: 0, believing: false }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads from disk again what is asked for next.
    pub fn forget(&mut self) {
        self.buffer = Bytes::new();
        // Advice only: where it cannot be had, memory is read again.
        _ = self.file.drop_cache();
    }

    /// What stands at `offset`; nothing at or behind `bound` is looked at.
    ///
    /// # Errors
    /// When the file cannot be read, after a few tries.
    pub fn at(&mut self, offset: u64, bound: u64, expected: Expected, want: Want) -> io::Result<At> {
        let room = bound.saturating_sub(offset);
        let mut need = HEAD_BYTES.min(room);
        let head = loop {
            let bytes = self.bytes(offset, need, bound)?;
            if self.believing && bytes.len() as u64 >= HEAD_BYTES && bytes[..4] != [0; 4] {
                break Head::fields(&bytes);
            }
            match Head::parse(&bytes, self.seat(offset), room) {
                Parsed::Head(head) => break head,
                Parsed::Nothing => return Ok(At::Nothing),
                Parsed::Bad(why) => return Ok(At::Bad(why)),
                Parsed::More(more) if more > need => need = more,
                Parsed::More(_) => return Ok(At::Bad("the file ends inside it")),
            }
        };
        if !self.believing && (head.frame != expected.frame || head.first_sequence != expected.sequence) {
            return Ok(At::Bad("it does not follow on"));
        }
        match want {
            Want::Head => Ok(At::Frame(RawFrame { head, bytes: self.bytes(offset, head.payload_at(), bound)? })),
            Want::Payload => self.with_payload(offset, bound, head),
        }
    }

    fn with_payload(&mut self, offset: u64, bound: u64, head: Head) -> io::Result<At> {
        let length = u64::from(head.length);
        let bytes = self.bytes(offset, length, bound)?;
        let end = head.payload_at() + u64::from(head.payload_len);
        let Some(payload) = bytes.get(head.payload_at() as usize..end as usize) else {
            return Ok(At::Bad("the file ends inside it"));
        };
        if !self.believing && crc(0, payload) != head.payload_crc {
            return Ok(At::Bad("the checksum of its events does not fit"));
        }
        Ok(At::Frame(RawFrame { head, bytes: bytes.slice(..length.min(bytes.len() as u64) as usize) }))
    }

    fn seat(&self, offset: u64) -> Seat {
        Seat { id: self.id, segment: self.number, offset }
    }

    /// At least `need` bytes from `offset` on, or all there are before `bound`.
    fn bytes(&mut self, offset: u64, need: u64, bound: u64) -> io::Result<Bytes> {
        let need = need.min(bound.saturating_sub(offset));
        let buffered = self.buffer_at + self.buffer.len() as u64;
        if offset < self.buffer_at || offset + need > buffered || self.buffer.is_empty() {
            let size = need.max(self.chunk).min(bound.saturating_sub(offset));
            let mut bytes = vec![0; size as usize];
            let read = read_full(&*self.file, &mut bytes, offset)?;
            bytes.truncate(read);
            (self.buffer, self.buffer_at) = (bytes.into(), offset);
        }
        Ok(self.buffer.slice((offset - self.buffer_at) as usize..))
    }

    /// The first place from `offset` on where a head stands that can only have been written there, for a later frame than the
    /// expected one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn resync(&mut self, offset: u64, bound: u64, expected: Expected) -> io::Result<Option<(u64, Head)>> {
        let mut at = offset.next_multiple_of(8);
        // No frame number is further away than the bytes between allow.
        let frames = expected.frame + 1..=expected.frame + bound.saturating_sub(offset) / HEAD_BYTES + 1;
        while at + HEAD_BYTES <= bound {
            let bytes = self.bytes(at, HEAD_BYTES, bound)?;
            if (bytes.len() as u64) < HEAD_BYTES {
                return Ok(None);
            }
            for candidate in bytes.windows(HEAD_BYTES as usize).step_by(8) {
                if candidate[..4] != [0; 4]
                    && let Some(head) = self.candidate(candidate, at, bound, &frames, expected.sequence)?
                {
                    return Ok(Some((at, head)));
                }
                at += 8;
            }
        }
        Ok(None)
    }

    fn candidate(
        &mut self,
        bytes: &[u8],
        at: u64,
        bound: u64,
        frames: &std::ops::RangeInclusive<u64>,
        sequence: u64,
    ) -> io::Result<Option<Head>> {
        let fields = Head::fields(bytes);
        if !frames.contains(&fields.frame) || fields.first_sequence < sequence {
            return Ok(None);
        }
        let expected = Expected { frame: fields.frame, sequence: fields.first_sequence };
        Ok(match self.at(at, bound, expected, Want::Head)? {
            At::Frame(raw) => Some(raw.head),
            At::Nothing | At::Bad(_) => None,
        })
    }

    /// How many bytes from `offset` to `bound` there are up to the last that is not zero.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn used(&mut self, offset: u64, bound: u64) -> io::Result<u64> {
        let (mut at, mut used) = (offset, 0);
        while at < bound {
            let bytes = self.bytes(at, 1, bound)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                used = at - offset + last as u64 + 1;
            }
            at += bytes.len() as u64;
        }
        Ok(used)
    }
}

impl RawFrame {
    pub fn length(&self) -> u64 {
        u64::from(self.head.length)
    }

    pub fn meta(&self) -> Option<Meta> {
        let end = self.head.payload_at() as usize;
        (end <= self.bytes.len()).then(|| Meta::parse(self.bytes.slice(HEAD_BYTES as usize..end)))?
    }

    /// The frame as a reader gets it. `source` is the name of the frame before: as a rule it is the same.
    pub fn decode(&self, source: &mut Arc<str>) -> Option<Frame> {
        let meta = self.meta()?;
        if source.as_bytes() != meta.source {
            *source = std::str::from_utf8(&meta.source).ok()?.into();
        }
        let (from, len) = (self.head.payload_at() as usize, self.head.payload_len as usize);
        let payload = (from + len <= self.bytes.len()).then(|| self.bytes.slice(from..from + len))?;
        Some(Frame {
            first_sequence: self.head.first_sequence,
            events: self.head.events,
            source: source.clone(),
            put: self.head.put,
            time_ms: self.head.time_ms,
            position: meta.position,
            columns: expand(payload, &meta.columns, self.head.compression)?,
        })
    }
}
