//! A batch as byte columns, and back: what stands in the payload of a frame.
//!
//! Bodies and header values go to disk as they lie in memory, and come back without an event being touched. Column 0 is a table
//! of contents; numbers are little-endian:
//!
//! ```text
//! format u8 = 1 | events u32 | headers u32 | records u8 (1: the record headers of Kafka follow the last header)
//! for each header: form u8 | name length u32 | name | with form 0: value length u32 | value
//! ```
//!
//! The columns behind it: `data` and `ends` (u32 each) of the bodies; then for each header, by its form:
//!
//! ```text
//! 0 constant  none: its value stands in the table
//! 1 dense     data, ends
//! 2 sparse    rows (u32 each), data, ends
//! 3 numbers   numbers (i64 each)
//! 4 times     numbers (i64 each): the times that Kafka keeps beside its records
//! ```
//!
//! and the record headers: how many each event has (u32 each), the index of each one's name (u32 each), the names (data,
//! ends), which values are null (u8 each), the values (data, ends).

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::event::{Batch, Column, Packed, PackedBuilder, RecordHeader, RecordHeaders, RecordTimes, TIMESTAMP};

const FORMAT: u8 = 1;

/// Why columns are not a batch: they were written by a later wasmflow, or by none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    #[error("its events have format {0}; this wasmflow reads format {FORMAT}")]
    NewerFormat(u8),
    #[error("its events make no batch: {0}")]
    Malformed(String),
}

/// The columns of a batch. What is large in them is shared with the batch, not copied.
pub fn encode(batch: &Batch) -> Vec<Bytes> {
    let mut table = Vec::with_capacity(64);
    let headers: Vec<_> = batch.columns().collect();
    table.put_u8(FORMAT);
    table.put_u32_le(batch.count() as u32);
    table.put_u32_le((headers.len() + usize::from(batch.times().is_some())) as u32);
    table.put_u8(u8::from(batch.records().is_some()));
    let mut columns = vec![Bytes::new()];
    push_packed(&mut columns, batch.bodies());
    for (name, column) in headers {
        table.put_u8(form(column));
        put_bytes(&mut table, name.as_bytes());
        match column {
            Column::Constant(value) => put_bytes(&mut table, value),
            Column::Dense(values) => push_packed(&mut columns, values),
            Column::Sparse { rows, values } => {
                columns.push(from_u32s(rows));
                push_packed(&mut columns, values);
            }
            Column::Numbers(numbers) => columns.push(from_i64s(numbers)),
        }
    }
    if let Some(times) = batch.times() {
        table.put_u8(4);
        put_bytes(&mut table, TIMESTAMP.as_bytes());
        columns.push(from_i64s(times.numbers()));
    }
    if let Some(records) = batch.records() {
        push_records(&mut columns, records, batch.count());
    }
    columns[0] = table.into();
    columns
}

/// The batch that [`encode`] was given. Shares the memory of the columns.
///
/// # Errors
/// When they are not what `encode` makes, or what a later version makes.
pub fn decode(columns: Vec<Bytes>) -> Result<Batch, ColumnsError> {
    let mut columns = columns.into_iter();
    let mut table = Table(columns.next().ok_or_else(|| malformed("no table of contents"))?);
    let format = table.u8()?;
    if format != FORMAT {
        return Err(ColumnsError::NewerFormat(format));
    }
    let count = table.u32()? as usize;
    let headers = table.u32()?;
    let has_records = table.u8()? != 0;
    let bodies = packed(&mut columns)?;
    if bodies.len() != count {
        return Err(malformed(format!("{} bodies for {count} events", bodies.len())));
    }
    let mut batch = Batch::new(bodies);
    for _ in 0..headers {
        let form = table.u8()?;
        let name = table.text()?;
        let column = match form {
            0 => Column::Constant(table.bytes()?),
            1 => Column::Dense(packed(&mut columns)?),
            2 => Column::Sparse { rows: u32s(&mut columns)?, values: packed(&mut columns)? },
            3 => Column::Numbers(i64s(&mut columns)?),
            4 => {
                let times = RecordTimes::from_numbers(i64s(&mut columns)?);
                batch.set_times(times).map_err(|error| malformed(format!("times: {error}")))?;
                continue;
            }
            other => return Err(malformed(format!("header `{name}` has the unknown form {other}"))),
        };
        batch.set_header(&name, column).map_err(|error| malformed(format!("header `{name}`: {error}")))?;
    }
    if has_records {
        batch.set_records(records(&mut columns, count)?);
    }
    if !table.0.is_empty() || columns.next().is_some() {
        return Err(malformed("there is more than the table of contents says"));
    }
    Ok(batch)
}

fn form(column: &Column) -> u8 {
    match column {
        Column::Constant(_) => 0,
        Column::Dense(_) => 1,
        Column::Sparse { .. } => 2,
        Column::Numbers(_) => 3,
    }
}

fn put_bytes(table: &mut Vec<u8>, bytes: &[u8]) {
    table.put_u32_le(bytes.len() as u32);
    table.put_slice(bytes);
}

fn push_packed(columns: &mut Vec<Bytes>, packed: &Packed) {
    columns.push(packed.data().clone());
    columns.push(from_u32s(packed.ends()));
}

fn push_records(columns: &mut Vec<Bytes>, records: &RecordHeaders, count: usize) {
    let names = records.names();
    let (mut counts, mut indexes, mut nulls) = (Vec::with_capacity(count), Vec::new(), Vec::new());
    let mut values = PackedBuilder::default();
    for row in 0..count {
        let before = indexes.len();
        for header in records.untouched(row) {
            let index = names.iter().position(|name| *name == header.name);
            indexes.push(index.expect("`names` has every name that shows") as u32);
            nulls.push(u8::from(header.value.is_none()));
            values.push(header.value.as_deref().unwrap_or_default());
        }
        counts.push((indexes.len() - before) as u32);
    }
    columns.push(from_u32s(&counts));
    columns.push(from_u32s(&indexes));
    push_packed(columns, &names.iter().map(|name| name.as_bytes()).collect());
    columns.push(nulls.into());
    push_packed(columns, &values.finish());
}

fn records(columns: &mut impl Iterator<Item = Bytes>, count: usize) -> Result<Option<RecordHeaders>, ColumnsError> {
    let (counts, indexes, names) = (u32s(columns)?, u32s(columns)?, packed(columns)?);
    let (nulls, values) = (next(columns)?, packed(columns)?);
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let is_even = counts.len() == count && [nulls.len(), values.len(), total as usize] == [indexes.len(); 3];
    if !is_even {
        return Err(malformed("record headers that do not add up"));
    }
    let names: Vec<Arc<str>> = names.iter().map(text).collect::<Result<_, _>>()?;
    let header = |entry: usize| {
        let name = names.get(indexes[entry] as usize).ok_or_else(|| malformed("a record header without a name"))?;
        Ok(RecordHeader { name: name.clone(), value: (nulls[entry] == 0).then(|| values.get_bytes(entry)) })
    };
    let mut entry = 0;
    let mut rows = Vec::with_capacity(count);
    for &count in counts.iter() {
        let next = entry + count as usize;
        rows.push((entry..next).map(header).collect::<Result<Vec<_>, _>>()?);
        entry = next;
    }
    Ok(RecordHeaders::new(rows))
}

fn packed(columns: &mut impl Iterator<Item = Bytes>) -> Result<Packed, ColumnsError> {
    let data = next(columns)?;
    Packed::new(data, u32s(columns)?).map_err(|error| malformed(error.to_string()))
}

fn next(columns: &mut impl Iterator<Item = Bytes>) -> Result<Bytes, ColumnsError> {
    columns.next().ok_or_else(|| malformed("a column is missing"))
}

fn from_u32s(numbers: &[u32]) -> Bytes {
    let mut bytes = vec![0; 4 * numbers.len()];
    for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes.into()
}

fn from_i64s(numbers: &[i64]) -> Bytes {
    let mut bytes = vec![0; 8 * numbers.len()];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes.into()
}

fn u32s(columns: &mut impl Iterator<Item = Bytes>) -> Result<Arc<[u32]>, ColumnsError> {
    let bytes = next(columns)?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(malformed("a column of numbers is cut"));
    }
    Ok(numbers.iter().map(|number| u32::from_le_bytes(*number)).collect())
}

fn i64s(columns: &mut impl Iterator<Item = Bytes>) -> Result<Arc<[i64]>, ColumnsError> {
    let bytes = next(columns)?;
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(malformed("a column of numbers is cut"));
    }
    Ok(numbers.iter().map(|number| i64::from_le_bytes(*number)).collect())
}

/// The table of contents, read from its beginning.
struct Table(Bytes);

impl Table {
    fn take(&mut self, length: usize) -> Result<Bytes, ColumnsError> {
        if length > self.0.len() {
            return Err(malformed("the table of contents is cut"));
        }
        Ok(self.0.split_to(length))
    }

    fn u8(&mut self) -> Result<u8, ColumnsError> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, ColumnsError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn bytes(&mut self) -> Result<Bytes, ColumnsError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Result<Arc<str>, ColumnsError> {
        text(&self.bytes()?)
    }
}

fn text(bytes: &[u8]) -> Result<Arc<str>, ColumnsError> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| malformed("a header's name is not UTF-8"))
}

fn malformed(detail: impl Into<String>) -> ColumnsError {
    ColumnsError::Malformed(detail.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(name: &str, value: Option<&str>) -> RecordHeader {
        RecordHeader { name: name.into(), value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())) }
    }

    /// Three events with a header of each form.
    fn sample() -> Batch {
        let mut batch = Batch::new(["a", "", "ccc"].into_iter().collect());
        batch.set_records(RecordHeaders::new([
            vec![record("t", Some("1")), record("t", Some("2")), record("gone", Some("x"))],
            vec![],
            vec![record("n", None)],
        ]));
        let values = |values: &[&str]| values.iter().collect::<Packed>();
        batch.set_header("kafka.topic", Column::Constant("orders".into())).unwrap();
        batch.set_header("key", Column::Sparse { rows: [0, 2].into(), values: values(&["k", ""]) }).unwrap();
        batch.set_header("level", Column::Dense(values(&["error", "", "info"]))).unwrap();
        batch.set_header("kafka.offset", Column::Numbers([7, -1, i64::MAX].into())).unwrap();
        batch.remove_header("gone");
        batch.set_times(RecordTimes::new([Some(1), None, Some(3)])).unwrap();
        batch
    }

    #[test]
    fn a_batch_comes_back_in_the_forms_it_had() {
        let batch = sample();
        let back = decode(encode(&batch)).unwrap();
        assert_eq!(back.events(), batch.events());
        assert!(back.columns().eq(batch.columns()));
        assert_eq!(back.times(), batch.times());
        let untouched = |batch: &Batch| -> Vec<Vec<RecordHeader>> {
            let records = batch.records().unwrap();
            (0..batch.count()).map(|row| records.untouched(row).cloned().collect()).collect()
        };
        assert_eq!(untouched(&back), untouched(&batch));
    }

    #[test]
    fn bodies_are_shared_and_not_copied() {
        let batch = sample();
        let columns = encode(&batch);
        assert_eq!(columns[1].as_ptr(), batch.bodies().data().as_ptr());
        let data = columns[1].as_ptr();
        assert_eq!(decode(columns).unwrap().bodies().data().as_ptr(), data);
    }

    #[test]
    fn nothing_is_a_batch_too() {
        assert_eq!(decode(encode(&Batch::empty())).unwrap().count(), 0);
    }

    /// What version 0.1 wrote must be readable for ever.
    #[test]
    fn the_format_of_the_first_release_is_read() {
        let mut batch = Batch::new(["a", "bc"].into_iter().collect());
        batch.set_header("h", Column::Constant("v".into())).unwrap();
        let table: &[u8] = b"\x01\x02\0\0\0\x01\0\0\0\0\0\x01\0\0\0h\x01\0\0\0v";
        let columns: Vec<Bytes> = vec![table.into(), b"abc"[..].into(), b"\x01\0\0\0\x03\0\0\0"[..].into()];
        assert_eq!(encode(&batch), columns);
        assert_eq!(decode(columns).unwrap().events(), batch.events());
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        assert_eq!(decode(vec![Bytes::from_static(b"\x02")]).unwrap_err(), ColumnsError::NewerFormat(2));
    }

    proptest! {
        #[test]
        fn no_columns_make_the_decoder_panic(
            column in 0..20usize, at in 0..200usize, byte: u8, cut in prop::option::of(0..20usize),
        ) {
            let mut columns = encode(&sample());
            if let Some(cut) = cut {
                columns.truncate(cut);
            }
            if let Some(column) = columns.get_mut(column) {
                let mut bytes = column.to_vec();
                match bytes.get_mut(at) {
                    Some(place) => *place = byte,
                    None => bytes.push(byte),
                }
                *column = bytes.into();
            }
            if let Ok(batch) = decode(columns) {
                batch.events();
            }
        }
    }
}
