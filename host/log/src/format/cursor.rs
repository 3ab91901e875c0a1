//! A cursor file: how far a reader has settled. Two slots are written in turn, so that one is whole whatever happens.
//!
//! ```text
//!   0  8 bytes  "WFCURSOR"
//!   8  u32  format
//!  12  u32  CRC32C of bytes 0-11, 16-79 and the reader's name
//!  16  16 bytes  channel id
//!  32  u64  generation         of the slot; the greater one counts
//!  40  u64  sequence           the next event the reader takes
//!  48  u64  epoch              of the reader, raised by `seek`
//!  56  u64  durable frames     that were synced when this was written
//!  64  u64  durable sequence   the same, in events
//!  72  u32  removed            1: the reader is gone; the file goes with the next start
//!  76  u32  zero
//! ```

use bytes::Bytes;

use super::fields::{FieldsReader, FieldsWriter};
use super::{FORMAT, crc};
use crate::put::ChannelId;

const MAGIC: &[u8; 8] = b"WFCURSOR";
pub const SLOT_BYTES: usize = 80;
/// Slots are this far apart: no sector, and no page of any disk we know, holds both.
pub const SLOT_STRIDE: u64 = 4096;
pub const FILE_BYTES: u64 = SLOT_STRIDE + SLOT_BYTES as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub id: ChannelId,
    pub generation: u64,
    pub sequence: u64,
    pub epoch: u64,
    pub durable_frames: u64,
    pub durable_sequence: u64,
    pub removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSlot {
    Newer(u32),
    Bad,
}

impl Slot {
    pub fn write(&self, reader: &str) -> Vec<u8> {
        let mut fields = FieldsWriter::default();
        fields.raw(MAGIC);
        fields.u32(FORMAT);
        fields.u32(0);
        fields.raw(&self.id.0);
        for number in [self.generation, self.sequence, self.epoch, self.durable_frames, self.durable_sequence] {
            fields.u64(number);
        }
        fields.u32(u32::from(self.removed));
        fields.u32(0);
        let mut bytes = fields.0;
        Self::seal(&mut bytes, reader);
        bytes
    }

    /// Writes a slot's checksum into it.
    pub fn seal(bytes: &mut [u8], reader: &str) {
        let sum = slot_crc(bytes, reader);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    }

    /// Where this generation is written.
    pub fn offset(&self) -> u64 {
        (self.generation % 2) * SLOT_STRIDE
    }

    pub fn parse(bytes: &[u8], reader: &str) -> Result<Self, BadSlot> {
        if bytes.len() < SLOT_BYTES || &bytes[..8] != MAGIC {
            return Err(BadSlot::Bad);
        }
        let mut fields = FieldsReader::new(Bytes::copy_from_slice(&bytes[8..SLOT_BYTES]));
        let format = fields.u32().ok_or(BadSlot::Bad)?;
        if format > FORMAT {
            return Err(BadSlot::Newer(format));
        }
        let sum = fields.u32().ok_or(BadSlot::Bad)?;
        if slot_crc(&bytes[..SLOT_BYTES], reader) != sum {
            return Err(BadSlot::Bad);
        }
        Self::fields(fields).ok_or(BadSlot::Bad)
    }

    fn fields(mut fields: FieldsReader) -> Option<Self> {
        Some(Self {
            id: fields.id()?,
            generation: fields.u64()?,
            sequence: fields.u64()?,
            epoch: fields.u64()?,
            durable_frames: fields.u64()?,
            durable_sequence: fields.u64()?,
            removed: fields.u32()? != 0,
        })
    }
}

fn slot_crc(bytes: &[u8], reader: &str) -> u32 {
    crc(crc(crc(0, &bytes[..12]), &bytes[16..]), reader.as_bytes())
}
