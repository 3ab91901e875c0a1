//! Little-endian fields, one after the other: written, and read back without believing anything.

use bytes::Bytes;

use crate::put::{ChannelId, Part, PositionChange};

/// A length that says "no value".
const GONE: u32 = u32::MAX;

/// Appends fields.
#[derive(Debug, Default)]
pub struct FieldsWriter(pub Vec<u8>);

impl FieldsWriter {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A count or length. The frame's limit is far below 4 GiB, so what could overflow was refused before.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a put is limited to less than 4 GiB"));
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub fn ids(&mut self, ids: &[ChannelId]) {
        self.count(ids.len());
        ids.iter().for_each(|id| self.raw(&id.0));
    }

    pub fn parts(&mut self, change: &PositionChange) {
        let (whole, parts) = match change {
            PositionChange::Parts(parts) => (0, parts),
            PositionChange::Whole(parts) => (1, parts),
        };
        self.u8(whole);
        self.count(parts.len());
        for part in parts {
            self.bytes(&part.key);
            match &part.value {
                Some(value) => self.bytes(value),
                None => self.u32(GONE),
            }
        }
    }

    /// Fills up with zeros to a multiple of eight, where everything on disk begins.
    pub fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }
}

/// Takes fields off the front; nothing when they are not all there. Slices share the bytes they are taken from.
#[derive(Debug, Clone)]
pub struct FieldsReader {
    bytes: Bytes,
    at: usize,
}

impl FieldsReader {
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn raw(&mut self, len: usize) -> Option<Bytes> {
        let from = self.at;
        self.skip(len)?;
        Some(self.bytes.slice(from..self.at))
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        (len <= self.left()).then(|| self.at += len)
    }

    /// What `align` wrote, up to the next multiple of eight bytes from the end.
    pub fn skip_zeros(&mut self) {
        self.at += self.left() % 8;
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let from = self.at;
        self.skip(N)?;
        Some(self.bytes[from..self.at].try_into().expect("it has N bytes"))
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take `least` bytes each: never more than there can be, so it may be trusted for an allocation.
    pub fn count(&mut self, least: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(least)? <= self.left()).then_some(count)
    }

    pub fn bytes(&mut self) -> Option<Bytes> {
        let len = self.u32()? as usize;
        self.raw(len)
    }

    pub fn text(&mut self) -> Option<Bytes> {
        self.bytes().filter(|text| std::str::from_utf8(text).is_ok())
    }

    pub fn id(&mut self) -> Option<ChannelId> {
        self.array().map(ChannelId)
    }

    pub fn ids(&mut self) -> Option<Vec<ChannelId>> {
        let count = self.count(16)?;
        (0..count).map(|_| self.id()).collect()
    }

    pub fn parts(&mut self) -> Option<PositionChange> {
        let whole = self.u8()?;
        let count = self.count(8)?;
        let parts: Option<Vec<Part>> = (0..count).map(|_| self.part()).collect();
        match whole {
            0 => parts.map(PositionChange::Parts),
            1 => parts.map(PositionChange::Whole),
            _ => None,
        }
    }

    fn part(&mut self) -> Option<Part> {
        let key = self.bytes()?;
        let value = match self.u32()? {
            GONE => None,
            len => Some(self.raw(len as usize)?),
        };
        Some(Part { key, value })
    }
}
