//! A frame: one put in one channel.
//!
//! ```text
//!   0  u32  length          of the whole frame, a multiple of 8; 0: nothing was written here
//!   4  u32  head crc        CRC32C of the channel's id, the segment's number, the frame's offset, bytes 0-3, and 8 to the end of meta
//!   8  u32  payload crc     CRC32C of the payload as it stands here
//!  12  u32  meta length
//!  16  u32  payload length
//!  20  u32  events
//!  24  u64  frame           its number
//!  32  u64  first sequence
//!  40  u64  durable frames  how many frames of this channel were synced when this one was written
//!  48  u64  put             its number
//!  56  u64  complete put    the newest put of this source that was durable in all its channels when this one was written
//!  64  u64  time            milliseconds since 1970
//!  72  u32  compression     0 none, 1 lz4, 2 zstd
//!  76  u32  zero
//!  80  meta: source         u32 length, UTF-8
//!            other channels of the put     u32 count, 16 bytes each
//!            position       u8 (0: parts that changed, 1: all there are), u32 count, each u32 length, key, u32 length, value
//!                           (length 0xFFFFFFFF: the part is gone)
//!            columns        u32 count, each u32 length as put, u32 length as stored; equal lengths: not compressed
//!      payload              the columns, one behind the other
//!      zeros                to a multiple of 8
//! ```
//!
//! The head crc covers the payload crc, so the frame has one checksum in two steps: heads can be followed, and a put can be
//! summed by its own thread, without the other half. Id, segment and offset in it make a frame worthless anywhere but in its
//! place: old bytes, copied files and misplaced writes do not pass.

use bytes::Bytes;

use super::fields::{FieldsReader, FieldsWriter};
use super::{MAX_FRAME_BYTES, crc};
use crate::put::{ChannelId, PositionChange};

pub const HEAD_BYTES: u64 = 80;

/// The place a frame must be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub id: ChannelId,
    pub segment: u64,
    pub offset: u64,
}

impl Seat {
    fn seed(&self) -> u32 {
        crc(crc(crc(0, &self.id.0), &self.segment.to_le_bytes()), &self.offset.to_le_bytes())
    }
}

/// The fixed fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub length: u32,
    pub payload_crc: u32,
    pub meta_len: u32,
    pub payload_len: u32,
    pub events: u32,
    pub frame: u64,
    pub first_sequence: u64,
    pub durable_frames: u64,
    pub put: u64,
    pub complete_put: u64,
    pub time_ms: u64,
    pub compression: u32,
}

/// What a frame says besides its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub source: Bytes,
    pub others: Vec<ChannelId>,
    pub position: PositionChange,
    /// Length as put and length as stored, of each column.
    pub columns: Vec<(u32, u32)>,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The head, whose checksum fits.
    Head(Head),
    /// Nothing was written here.
    Nothing,
    /// This many bytes are needed to tell.
    More(u64),
    Bad(&'static str),
}

impl Head {
    pub fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.events)
    }

    pub fn payload_at(&self) -> u64 {
        HEAD_BYTES + u64::from(self.meta_len)
    }

    /// Writes the head with its checksum in front of `meta`.
    pub fn write(&self, seat: Seat, meta: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let mut fields = FieldsWriter(std::mem::take(out));
        fields.u32(self.length);
        fields.u32(0);
        fields.u32(self.payload_crc);
        fields.u32(self.meta_len);
        fields.u32(self.payload_len);
        fields.u32(self.events);
        for number in [self.frame, self.first_sequence, self.durable_frames, self.put, self.complete_put, self.time_ms]
        {
            fields.u64(number);
        }
        fields.u32(self.compression);
        fields.u32(0);
        fields.raw(meta);
        *out = fields.0;
        Self::seal(seat, &mut out[start..]);
    }

    /// Writes the checksum of a head and its meta into it.
    pub fn seal(seat: Seat, bytes: &mut [u8]) {
        let sum = head_crc(seat, bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads what stands at `seat`, of which `bytes` are known and `room` bytes are there before the file or the log ends.
    ///
    /// Invariant: no length leads further than `room`.
    pub fn parse(bytes: &[u8], seat: Seat, room: u64) -> Parsed {
        if room < 8 {
            return Parsed::Nothing;
        }
        let Some(length) = bytes.get(..4) else { return Parsed::More(HEAD_BYTES.min(room)) };
        let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
        if length == 0 {
            return Parsed::Nothing;
        }
        let len = u64::from(length);
        if len > room || !(HEAD_BYTES..=MAX_FRAME_BYTES).contains(&len) || len % 8 != 0 {
            return Parsed::Bad("its length cannot be");
        }
        if (bytes.len() as u64) < HEAD_BYTES {
            return Parsed::More(HEAD_BYTES);
        }
        let head = Self::fields(bytes);
        let used = head.payload_at() + u64::from(head.payload_len);
        if used > len || used.next_multiple_of(8) != len {
            return Parsed::Bad("its lengths do not fit each other");
        }
        if (bytes.len() as u64) < head.payload_at() {
            return Parsed::More(head.payload_at());
        }
        if head_crc(seat, &bytes[..head.payload_at() as usize]) != u32_at(bytes, 4) {
            return Parsed::Bad("its checksum does not fit");
        }
        Parsed::Head(head)
    }

    /// The fields of at least [`HEAD_BYTES`] bytes, unchecked.
    pub fn fields(bytes: &[u8]) -> Self {
        Self {
            length: u32_at(bytes, 0),
            payload_crc: u32_at(bytes, 8),
            meta_len: u32_at(bytes, 12),
            payload_len: u32_at(bytes, 16),
            events: u32_at(bytes, 20),
            frame: u64_at(bytes, 24),
            first_sequence: u64_at(bytes, 32),
            durable_frames: u64_at(bytes, 40),
            put: u64_at(bytes, 48),
            complete_put: u64_at(bytes, 56),
            time_ms: u64_at(bytes, 64),
            compression: u32_at(bytes, 72),
        }
    }
}

fn head_crc(seat: Seat, bytes: &[u8]) -> u32 {
    crc(crc(seat.seed(), &bytes[..4]), &bytes[8..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Meta {
    pub fn write(&self) -> Vec<u8> {
        let mut fields = FieldsWriter::default();
        fields.bytes(&self.source);
        fields.ids(&self.others);
        fields.parts(&self.position);
        fields.count(self.columns.len());
        for (put, stored) in &self.columns {
            fields.u32(*put);
            fields.u32(*stored);
        }
        fields.0
    }

    /// Nothing when the bytes are not a meta: a bug, or a checksum that fits by accident.
    pub fn parse(bytes: Bytes) -> Option<Self> {
        let mut fields = FieldsReader::new(bytes);
        let source = fields.text()?;
        let others = fields.ids()?;
        let position = fields.parts()?;
        let columns = fields.count(8)?;
        let columns = (0..columns).map(|_| Some((fields.u32()?, fields.u32()?))).collect::<Option<_>>()?;
        Some(Self { source, others, position, columns })
    }
}
