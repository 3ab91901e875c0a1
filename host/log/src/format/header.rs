//! The header of a segment: what it is, how the one before ended, and all that would be known had everything been read.
//!
//! ```text
//!   0  8 bytes  "WFLOGSEG"
//!   8  u32  format
//!  12  u32  length of the header, a multiple of 8
//!  16  u32  CRC32C of bytes 0-15 and 20 to the end of the header
//!  20  u32  sync mode          0 always, 1 interval, 2 os
//!  24  16 bytes  channel id
//!  40  u64  number             of the segment, from 1
//!  48  u64  base frame
//!  56  u64  base sequence
//!  64  u64  where the segment before ended: offset,
//!  72  u64    frame, base frame if nothing was lost,
//!  80  u64    sequence, base sequence if none were lost or left out
//!  88  u64  time of creation   milliseconds since 1970
//!  96  readers    u32 count, each u32 length, UTF-8
//!      voids      u32 count, each u64 frame, u64 first sequence, u32 events: frames of earlier segments that do not count
//!      sources    u32 count, each
//!                   u32 length, UTF-8
//!                   u64 last put     the greatest number ever used
//!                   u64 complete     the newest put here that was durable in all its channels
//!                   channels of that put, u32 count, 16 bytes each
//!                   u64, u64: puts above the first and up to the second number were taken back by a recovery
//!                   position as of that put, as in a frame
//!                   puts written here since, u32 count, each u64 put, channels, u64 frame, u64 first
//!                   sequence, u32 events, position
//!      zeros      to a multiple of 8
//!      u64        1: the file was another segment before, and behind its last frame it is not zeros. May be left out: 0
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::fields::{FieldsReader, FieldsWriter};
use super::{FORMAT, crc};
use crate::options::Sync;
use crate::put::ChannelId;
use crate::track::{PendingPut, SourceTrack, Tracks, Void, Voids};

const MAGIC: &[u8; 8] = b"WFLOGSEG";
pub const FIXED_BYTES: u64 = 96;
/// A header holds the position of every source. More than this is not believed.
pub const MAX_HEADER_BYTES: u64 = 1 << 28;

/// Where a segment ends: just behind its last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    pub offset: u64,
    /// The number the next frame gets.
    pub frame: u64,
    /// The sequence the next event gets.
    pub sequence: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// As it stands on disk; set by parsing.
    pub length: u64,
    pub lossy: Lossy,
    pub id: ChannelId,
    pub number: u64,
    pub base_frame: u64,
    pub base_sequence: u64,
    pub previous: End,
    pub created_ms: u64,
    pub readers: Vec<Arc<str>>,
    /// Frames that do not count.
    pub voids: Voids,
    pub tracks: Tracks,
    /// Behind the last frame stands what the file held before.
    pub recycled: bool,
}

/// What a power cut may take of a segment that is still being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lossy {
    Nothing,
    Interval,
    Os,
}

impl From<Sync> for Lossy {
    fn from(sync: Sync) -> Self {
        match sync {
            Sync::Always => Self::Nothing,
            Sync::Interval(_) => Self::Interval,
            Sync::Os => Self::Os,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    Newer(u32),
    /// This many bytes are needed.
    More(u64),
    Bad(&'static str),
}

impl Header {
    pub fn write(&self) -> Vec<u8> {
        let mut fields = FieldsWriter::default();
        fields.raw(MAGIC);
        fields.u32(FORMAT);
        fields.u32(0);
        fields.u32(0);
        fields.u32(match self.lossy {
            Lossy::Nothing => 0,
            Lossy::Interval => 1,
            Lossy::Os => 2,
        });
        fields.raw(&self.id.0);
        let previous = self.previous;
        for number in [self.number, self.base_frame, self.base_sequence, previous.offset, previous.frame] {
            fields.u64(number);
        }
        fields.u64(previous.sequence);
        fields.u64(self.created_ms);
        fields.count(self.readers.len());
        self.readers.iter().for_each(|reader| fields.bytes(reader.as_bytes()));
        fields.count(self.voids.len());
        for (frame, void) in &self.voids {
            fields.u64(*frame);
            fields.u64(void.sequence);
            fields.u32(void.events);
        }
        fields.count(self.tracks.len());
        self.tracks.iter().for_each(|(name, track)| write_track(&mut fields, name, track));
        fields.align();
        if self.recycled {
            fields.u64(1);
        }
        let mut bytes = fields.0;
        let length = bytes.len() as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        Self::seal(&mut bytes);
        bytes
    }

    /// Writes a header's checksum into it, if there is room for one.
    pub fn seal(bytes: &mut [u8]) {
        let length =
            bytes.get(12..16).map(|length| u32::from_le_bytes(length.try_into().expect("four bytes")) as usize);
        if let Some(header) =
            length.filter(|&length| length >= FIXED_BYTES as usize).and_then(|length| bytes.get_mut(..length))
        {
            let sum = header_crc(header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// Reads a header from the front of a file of `file_bytes`, of which `bytes` are known.
    pub fn parse(bytes: &Bytes, file_bytes: u64) -> Result<Self, BadHeader> {
        if file_bytes < FIXED_BYTES {
            return Err(BadHeader::Bad("the file is shorter than a header"));
        }
        if (bytes.len() as u64) < FIXED_BYTES {
            return Err(BadHeader::More(FIXED_BYTES));
        }
        let mut fields = FieldsReader::new(bytes.clone());
        if fields.raw(8).as_deref() != Some(&MAGIC[..]) {
            return Err(BadHeader::Bad("it does not begin as a segment does"));
        }
        let format = fields.u32().expect("the fixed fields are there");
        if format > FORMAT {
            return Err(BadHeader::Newer(format));
        }
        let length = u64::from(fields.u32().expect("the fixed fields are there"));
        if length < FIXED_BYTES || length > file_bytes || length > MAX_HEADER_BYTES || length % 8 != 0 {
            return Err(BadHeader::Bad("its header's length cannot be"));
        }
        if (bytes.len() as u64) < length {
            return Err(BadHeader::More(length));
        }
        let bytes = bytes.slice(..length as usize);
        let sum = fields.u32().expect("the fixed fields are there");
        if header_crc(&bytes) != sum {
            return Err(BadHeader::Bad("its header's checksum does not fit"));
        }
        Self::parse_fields(FieldsReader::new(bytes.slice(20..)), length)
            .ok_or(BadHeader::Bad("its header makes no sense"))
    }

    fn parse_fields(mut fields: FieldsReader, length: u64) -> Option<Self> {
        let lossy = match fields.u32()? {
            0 => Lossy::Nothing,
            1 => Lossy::Interval,
            2 => Lossy::Os,
            _ => return None,
        };
        let id = fields.id()?;
        let (number, base_frame, base_sequence) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let previous = End { offset: fields.u64()?, frame: fields.u64()?, sequence: fields.u64()? };
        let created_ms = fields.u64()?;
        let readers = fields.count(4)?;
        let readers = (0..readers).map(|_| text(&mut fields)).collect::<Option<_>>()?;
        let voids = fields.count(20)?;
        let void = |_| Some((fields.u64()?, Void { sequence: fields.u64()?, events: fields.u32()? }));
        let voids = (0..voids).map(void).collect::<Option<_>>()?;
        let sources = fields.count(30)?;
        let tracks = (0..sources).map(|_| read_track(&mut fields)).collect::<Option<_>>()?;
        fields.skip_zeros();
        let recycled = fields.u64().is_some_and(|mark| mark == 1);
        Some(Self {
            length,
            lossy,
            id,
            number,
            base_frame,
            base_sequence,
            previous,
            created_ms,
            readers,
            voids,
            tracks,
            recycled,
        })
    }
}

fn header_crc(bytes: &[u8]) -> u32 {
    crc(crc(0, &bytes[..16]), &bytes[20..])
}

fn text(fields: &mut FieldsReader) -> Option<Arc<str>> {
    fields.text().map(|text| std::str::from_utf8(&text).expect("it was checked").into())
}

fn write_track(fields: &mut FieldsWriter, name: &str, track: &SourceTrack) {
    fields.bytes(name.as_bytes());
    fields.u64(track.last_put);
    fields.u64(track.complete);
    fields.ids(&track.channels);
    fields.u64(track.void.0);
    fields.u64(track.void.1);
    fields.parts(&track.position_as_change());
    fields.count(track.pending.len());
    for put in &track.pending {
        fields.u64(put.put);
        fields.ids(&put.channels);
        fields.u64(put.frame);
        fields.u64(put.sequence);
        fields.u32(put.events);
        fields.parts(&put.position);
    }
}

fn read_track(fields: &mut FieldsReader) -> Option<(Arc<str>, SourceTrack)> {
    let name = text(fields)?;
    let mut track = SourceTrack { last_put: fields.u64()?, complete: fields.u64()?, ..SourceTrack::default() };
    track.evidence = track.complete;
    track.channels = fields.ids()?;
    track.void = (fields.u64()?, fields.u64()?);
    track.apply(&fields.parts()?);
    let pending = fields.count(24)?;
    for _ in 0..pending {
        let (put, channels) = (fields.u64()?, fields.ids()?);
        let (frame, sequence) = (fields.u64()?, fields.u64()?);
        let (events, position) = (fields.u32()?, fields.parts()?);
        track.pending.push_back(PendingPut { put, channels, frame, sequence, events, position });
    }
    Some((name, track))
}
