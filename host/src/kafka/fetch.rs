//! Records on their way into a batch: columns are built as the records are read, in Kafka's native form.

use std::sync::Arc;

use bytes::Bytes;

use super::client::Message;
use crate::event::{Batch, Column, Packed, PackedBuilder, RecordHeader, RecordHeaders, RecordTimes};

/// The answer to `StageKafka::poll`.
#[derive(Debug)]
pub enum Fetch {
    /// One part for each partition that moved: key and value as `StageKafka::set_position` takes them back.
    Records { batch: Batch, position: Vec<crate::position::Part> },
    /// Nothing came within the wait, or `StageKafka::interrupt` was called.
    Idle,
    /// Every partition assigned has been read to its end as it was when it was assigned. Said once.
    AtEnd,
}

/// Collects records of several partitions.
#[derive(Default)]
pub(super) struct Columns {
    bodies: PackedBuilder,
    nulls: Vec<u32>,
    keys: PackedBuilder,
    key_rows: Vec<u32>,
    offsets: Vec<i64>,
    times: Vec<Option<i64>>,
    /// Runs of records of one partition.
    runs: Vec<Run>,
    headers: Headers,
    bytes: usize,
}

struct Run {
    topic: Arc<str>,
    partition: i32,
    records: usize,
}

impl Columns {
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of values, keys and headers so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, topic: &Arc<str>, partition: i32, message: &Message) {
        let row = self.len() as u32;
        let value = message.value();
        if value.is_none() {
            self.nulls.push(row);
        }
        self.bodies.push(value.unwrap_or_default());
        if let Some(key) = message.key() {
            self.keys.push(key);
            self.key_rows.push(row);
            self.bytes += key.len();
        }
        self.bytes += value.map_or(0, <[u8]>::len) + self.headers.push(row, message);
        self.offsets.push(message.offset());
        self.times.push(message.timestamp());
        match self.runs.last_mut() {
            Some(run) if run.partition == partition && Arc::ptr_eq(&run.topic, topic) => run.records += 1,
            _ => self.runs.push(Run { topic: topic.clone(), partition, records: 1 }),
        }
    }

    pub(super) fn finish(self) -> Batch {
        let count = self.len();
        let mut batch = Batch::new(self.bodies.finish());
        let keys = carried(self.key_rows, self.keys.finish(), count);
        let nulls = self.nulls.len();
        let nulls = carried(self.nulls, std::iter::repeat_n("true", nulls).collect(), count);
        batch.set_times(RecordTimes::new(self.times)).expect("each record has been asked for its time");
        // First, so that what stands in a column does not show, or go out, a second time.
        batch.set_records(self.headers.finish(count));
        let columns = [
            ("kafka.topic", Some(topics(&self.runs))),
            ("kafka.partition", Some(partitions(&self.runs))),
            ("kafka.offset", Some(Column::Numbers(self.offsets.into()))),
            ("kafka.null", nulls),
            ("key", keys),
        ];
        for (name, column) in columns {
            if let Some(column) = column {
                batch.set_header(name, column).expect("every column has been given a value for each record");
            }
        }
        batch
    }
}

fn topics(runs: &[Run]) -> Column {
    match runs {
        [first, rest @ ..] if rest.iter().all(|run| run.topic == first.topic) => {
            Column::Constant(Bytes::copy_from_slice(first.topic.as_bytes()))
        }
        runs => Column::Dense(runs.iter().flat_map(|run| std::iter::repeat_n(&*run.topic, run.records)).collect()),
    }
}

fn partitions(runs: &[Run]) -> Column {
    match runs {
        [only] => Column::Constant(only.partition.to_string().into()),
        runs => {
            let numbers = runs.iter().flat_map(|run| std::iter::repeat_n(i64::from(run.partition), run.records));
            Column::Numbers(numbers.collect())
        }
    }
}

/// A column of those rows that carry a value; nothing when none does.
fn carried(rows: Vec<u32>, values: Packed, count: usize) -> Option<Column> {
    match rows.len() {
        0 => None,
        all if all == count => Some(Column::Dense(values)),
        _ => Some(Column::Sparse { rows: rows.into(), values }),
    }
}

/// Record headers, kept for the rows that have any.
#[derive(Default)]
struct Headers {
    rows: Vec<(u32, Vec<RecordHeader>)>,
    /// Names seen, so that each is kept once.
    names: Vec<Arc<str>>,
}

/// Limit: names looked through for each header; beyond it a name is kept once for each record.
const NAMES: usize = 32;

impl Headers {
    /// Adds a record's headers, if any; answers their bytes.
    fn push(&mut self, row: u32, message: &Message) -> usize {
        let mut headers = Vec::new();
        let mut bytes = 0;
        message.each_header(|name, value| {
            bytes += name.len() + value.map_or(0, <[u8]>::len);
            let name = self.name(&String::from_utf8_lossy(name));
            headers.push(RecordHeader { name, value: value.map(Bytes::copy_from_slice) });
        });
        if !headers.is_empty() {
            self.rows.push((row, headers));
        }
        bytes
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        if self.names.len() < NAMES {
            self.names.push(name.clone());
        }
        name
    }

    fn finish(self, count: usize) -> Option<RecordHeaders> {
        if self.rows.is_empty() {
            return None;
        }
        let mut rows = self.rows.into_iter().peekable();
        RecordHeaders::new(
            (0..count as u32)
                .map(|row| rows.next_if(|(known, _)| *known == row).map_or_else(Vec::new, |(_, headers)| headers)),
        )
    }
}
