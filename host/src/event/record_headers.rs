//! Record headers as Kafka brought them, kept whole so that untouched headers go out as they came.

use std::sync::Arc;

use bytes::Bytes;

use super::column::Column;
use super::packed::PackedBuilder;

/// One header of a Kafka record. Names may repeat inside a record, and a value may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    pub name: Arc<str>,
    pub value: Option<Bytes>,
}

/// The headers of every record of a batch, in their order. A clone or a selection of rows copies no header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeaders {
    entries: Arc<[RecordHeader]>,
    /// For each row its share of `entries`.
    spans: Arc<[(u32, u32)]>,
    /// Names that were set or removed since: the batch's own column counts, or nothing.
    masked: Vec<Arc<str>>,
}

impl RecordHeaders {
    /// From the headers of each record in turn; nothing when no record has any.
    pub fn new(records: impl IntoIterator<Item = Vec<RecordHeader>>) -> Option<Self> {
        let mut entries = Vec::new();
        let spans: Vec<_> = records
            .into_iter()
            .map(|headers| {
                let start = entries.len() as u32;
                entries.extend(headers);
                (start, entries.len() as u32)
            })
            .collect();
        (!entries.is_empty()).then(|| Self { entries: entries.into(), spans: spans.into(), masked: Vec::new() })
    }

    /// The headers of one record that nobody has touched, in their order, repeated names included.
    pub fn untouched(&self, row: usize) -> impl Iterator<Item = &RecordHeader> {
        self.row(row).iter().filter(|header| !self.masked.contains(&header.name))
    }

    /// Each name once, in the order of first appearance.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for row in 0..self.spans.len() {
            for header in self.untouched(row) {
                if !names.contains(&header.name) {
                    names.push(header.name.clone());
                }
            }
        }
        names
    }

    /// One header as a column: of a name that occurs twice in a record the last value shows; null shows as empty.
    pub fn column(&self, name: &str) -> Option<Column> {
        if self.masked.iter().any(|masked| &**masked == name) {
            return None;
        }
        let mut rows = Vec::new();
        let mut values = PackedBuilder::default();
        for row in 0..self.spans.len() {
            if let Some(header) = self.row(row).iter().rev().find(|header| &*header.name == name) {
                rows.push(row as u32);
                values.push(header.value.as_deref().unwrap_or_default());
            }
        }
        let values = values.finish();
        match rows.len() {
            0 => None,
            all if all == self.spans.len() => Some(Column::Dense(values)),
            _ => Some(Column::Sparse { rows: rows.into(), values }),
        }
    }

    pub(super) fn mask(&mut self, name: &str) {
        if !self.masked.iter().any(|masked| &**masked == name) {
            self.masked.push(name.into());
        }
    }

    pub(super) fn select(&self, rows: impl Iterator<Item = usize>) -> Self {
        let spans = rows.map(|row| self.spans[row]).collect();
        Self { entries: self.entries.clone(), spans, masked: self.masked.clone() }
    }

    /// Laid end to end; a part without headers has empty rows.
    pub(super) fn concat(parts: &[(Option<&RecordHeaders>, usize)]) -> Option<Self> {
        Self::new(parts.iter().flat_map(|&(part, count)| {
            (0..count).map(move |row| part.map(|part| part.untouched(row).cloned().collect()).unwrap_or_default())
        }))
    }

    pub(super) fn byte_size(&self) -> usize {
        let entries: usize = self.entries.iter().map(|header| 32 + header.value.as_ref().map_or(0, Bytes::len)).sum();
        entries + 8 * self.spans.len()
    }

    fn row(&self, row: usize) -> &[RecordHeader] {
        let (start, end) = self.spans[row];
        &self.entries[start as usize..end as usize]
    }
}
