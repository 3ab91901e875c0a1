//! How an event becomes a record: where topic, key, partition, timestamp and null come from, and which events cannot.

mod draft;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::event::{Batch, Column, RecordHeaders};
use draft::{Draft, Record};

/// How a value is found for each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The same for all.
    Fixed(String),
    /// The event's header of this name; an event without it is refused.
    Header(String),
    /// The event's header of this name, or else this value.
    HeaderOr { name: String, fallback: String },
}

/// How the events of one `send` become records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOptions {
    pub topic: Choice,
    /// The header that holds the record key; an event without it has a null key.
    pub key_header: Option<String>,
    /// The header that holds the partition number.
    pub partition_header: Option<String>,
    /// The header that holds the timestamp in milliseconds since 1970; nothing: the time of sending.
    pub timestamp_header: Option<String>,
    /// An event that carries this header has a null value (a tombstone).
    pub null_header: Option<String>,
    /// The headers that become record headers; nothing means all but those above and those whose name begins with
    /// `kafka.`.
    pub forward_headers: Option<Vec<String>>,
}

/// Headers of this namespace say where an event came from. Never forwarded, so that there is no loop.
const OWN_HEADERS: &str = "kafka.";

impl SendOptions {
    fn forwards(&self, name: &str) -> bool {
        if name.starts_with(OWN_HEADERS) {
            return false;
        }
        match &self.forward_headers {
            Some(wanted) => wanted.iter().any(|wanted| wanted == name),
            None => !self.names().any(|used| used == name),
        }
    }

    /// Whether this header is listed among those that become record headers.
    fn asks_for(&self, name: &str) -> bool {
        self.forward_headers.is_some() && self.forwards(name)
    }

    /// The headers that mean something else here.
    fn names(&self) -> impl Iterator<Item = &str> {
        let topic = match &self.topic {
            Choice::Fixed(_) => None,
            Choice::Header(name) | Choice::HeaderOr { name, .. } => Some(name),
        };
        let others = [&self.key_header, &self.partition_header, &self.timestamp_header, &self.null_header];
        topic.into_iter().chain(others.into_iter().flatten()).map(String::as_str)
    }
}

/// A batch as records, checked: every row in [`rows`](Self::rows) will be taken by the client.
#[derive(Debug)]
pub struct Records {
    pub batch: Batch,
    /// The rows that become records, counting up.
    pub rows: Vec<u32>,
    /// The topics, and for each of `rows` which one it is where there are several.
    pub topics: Vec<Arc<str>>,
    pub topic_of: Option<Vec<u32>>,
    pub keys: Option<Column>,
    /// Whether there are null values.
    pub nulls: Option<Column>,
    /// One for each of `rows`, as far as it says one.
    pub partitions: Option<Vec<Option<i32>>>,
    pub timestamps: Option<Vec<Option<i64>>>,
    /// Columns that become record headers, and the headers that came with the records and still do.
    pub headers: Vec<(Arc<str>, Column)>,
    pub untouched: Option<Untouched>,
    /// Values, keys and headers.
    pub bytes: usize,
}

/// Headers as Kafka brought them, as far as they go out again.
#[derive(Debug)]
pub struct Untouched {
    pub headers: RecordHeaders,
    /// Names that stay behind.
    pub held_back: Vec<Arc<str>>,
}

/// A row that can never become a record, and why.
pub type RefusedRow = (u32, String);

impl Records {
    /// Works out every record of a batch. `max_bytes` is the client's `message.max.bytes`: a record above it would only be
    /// refused later.
    pub fn new(batch: &Batch, options: &SendOptions, max_bytes: usize) -> (Self, Vec<RefusedRow>) {
        let mut refused = Vec::new();
        let mut draft = Draft::new(batch, options);
        if let Some(records) = draft.all_alike(max_bytes) {
            return (records, refused);
        }
        let mut records = draft.empty();
        for row in 0..batch.count() {
            match draft.row(row, max_bytes) {
                Ok(record) => records.push(row as u32, record),
                Err(reason) => refused.push((row as u32, reason)),
            }
        }
        if draft.topics.len() <= 1 {
            records.topic_of = None;
        }
        records.topics = draft.topics;
        (records, refused)
    }

    fn push(&mut self, row: u32, record: Record) {
        self.rows.push(row);
        self.bytes += record.bytes;
        self.topic_of.as_mut().expect("kept until all rows are in").push(record.topic);
        if let Some(partitions) = &mut self.partitions {
            partitions.push(record.partition);
        }
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.push(record.timestamp);
        }
    }

    /// Keeps those records for which there is a `true`.
    pub fn keep_only(&mut self, keep: &[bool]) {
        retain(&mut self.rows, keep);
        self.topic_of.iter_mut().for_each(|topic_of| retain(topic_of, keep));
        self.partitions.iter_mut().for_each(|partitions| retain(partitions, keep));
        self.timestamps.iter_mut().for_each(|timestamps| retain(timestamps, keep));
    }

    /// Hashes everything that one record consists of but its time.
    pub fn hash_record(&self, index: usize, hasher: &mut impl Hasher) {
        let row = self.rows[index] as usize;
        self.topics[self.topic_of.as_ref().map_or(0, |topic_of| topic_of[index] as usize)].hash(hasher);
        self.partitions.as_ref().and_then(|partitions| partitions[index]).hash(hasher);
        self.keys.as_ref().and_then(|keys| keys.get(row)).hash(hasher);
        (!is_null(self.nulls.as_ref(), row)).then(|| self.batch.bodies().get(row)).hash(hasher);
        for (name, column) in &self.headers {
            (name, column.get(row)).hash(hasher);
        }
        for header in self.untouched.iter().flat_map(|untouched| untouched.row(row)) {
            (&header.name, &header.value).hash(hasher);
        }
    }

    /// No record has a header or a timestamp of its own: they can go in one call.
    pub fn are_plain(&self) -> bool {
        self.headers.is_empty() && self.untouched.is_none() && self.timestamps.is_none()
    }
}

fn retain<T>(list: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    list.retain(|_| *keep.next().expect("there is one for each record"));
}

impl Untouched {
    /// The headers of one record that go out again, in their order.
    pub fn row(&self, row: usize) -> impl Iterator<Item = &crate::event::RecordHeader> {
        self.headers.untouched(row).filter(|header| !self.held_back.contains(&header.name))
    }

    fn share(&self) -> Self {
        Self { headers: self.headers.clone(), held_back: self.held_back.clone() }
    }
}

/// Whether this row's value is null.
pub fn is_null(nulls: Option<&Column>, row: usize) -> bool {
    nulls.is_some_and(|nulls| nulls.get(row).is_some())
}

/// Reads a column's values row by row, counting up, without allocating.
pub struct ColumnCursor<'c> {
    column: Option<&'c Column>,
    /// Of a sparse column: the first value whose row is not passed.
    next: usize,
}

impl<'c> ColumnCursor<'c> {
    /// The column must be written out: it holds no numbers.
    pub fn new(column: Option<&'c Column>) -> Self {
        Self { column, next: 0 }
    }

    /// The value of `row`, which must not be smaller than the row before.
    pub fn get(&mut self, row: usize) -> Option<&'c [u8]> {
        match self.column? {
            Column::Constant(value) => Some(value),
            Column::Dense(values) => Some(values.get(row)),
            Column::Sparse { rows, values } => {
                while rows.get(self.next).is_some_and(|&known| (known as usize) < row) {
                    self.next += 1;
                }
                (rows.get(self.next) == Some(&(row as u32))).then(|| values.get(self.next))
            }
            Column::Numbers(_) => unreachable!("the column has been written out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn options() -> SendOptions {
        SendOptions {
            topic: Choice::Fixed("t".into()),
            key_header: Some("key".into()),
            partition_header: None,
            timestamp_header: None,
            null_header: Some("kafka.null".into()),
            forward_headers: None,
        }
    }

    fn event(body: &str, headers: &[(&str, &str)]) -> Event {
        let headers = headers.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Event { headers, body: body.into() }
    }

    #[test]
    fn a_row_without_its_topic_is_refused_and_its_neighbours_are_not() {
        let batch = Batch::from_events(&[
            event("a", &[("to", "x")]),
            event("b", &[]),
            event("c", &[("to", "no topic")]),
            event("d", &[("to", "y")]),
        ]);
        let options = SendOptions { topic: Choice::Header("to".into()), ..options() };
        let (records, refused) = Records::new(&batch, &options, 100);
        assert_eq!(records.rows, [0, 3]);
        assert_eq!(records.topics, ["x".into(), "y".into()]);
        assert_eq!(records.topic_of.as_deref(), Some(&[0, 1][..]));
        assert_eq!(refused[0], (1, "the event has no header `to` to name its topic".into()));
        assert_eq!(refused[1], (2, "`no topic` cannot be the name of a topic".into()));
    }

    #[test]
    fn a_fallback_names_the_topic_of_rows_without_one() {
        let batch = Batch::from_events(&[event("a", &[]), event("b", &[("to", "x")])]);
        let topic = Choice::HeaderOr { name: "to".into(), fallback: "rest".into() };
        let (records, refused) = Records::new(&batch, &SendOptions { topic, ..options() }, 100);
        assert!(refused.is_empty());
        assert_eq!(records.topics, ["rest".into(), "x".into()]);
    }

    #[test]
    fn a_record_too_large_is_refused_with_its_size() {
        let batch = Batch::from_events(&[event("12345", &[("key", "123456")]), event("1234", &[("key", "123456")])]);
        let (records, refused) = Records::new(&batch, &options(), 10);
        assert_eq!(records.rows, [1]);
        assert_eq!(records.bytes, 10);
        assert!(refused[0].1.contains("11 bytes"), "{refused:?}");
    }

    #[test]
    fn where_an_event_came_from_is_never_forwarded() {
        let batch = Batch::from_events(&[event("a", &[("kafka.topic", "in"), ("key", "k"), ("level", "info")])]);
        let (records, _) = Records::new(&batch, &options(), 100);
        assert_eq!(records.headers.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["level"]);
        let listed = SendOptions { forward_headers: Some(vec!["kafka.topic".into(), "key".into()]), ..options() };
        let (records, _) = Records::new(&batch, &listed, 100);
        assert_eq!(records.headers.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["key"]);
    }

    #[test]
    fn kafkas_own_time_is_a_record_header_only_of_who_lists_it() {
        let mut batch = Batch::from_events(&[event("a", &[])]);
        batch.set_times(crate::event::RecordTimes::new([Some(7)])).unwrap();
        assert!(Records::new(&batch, &options(), 100).0.are_plain());
        let listed = SendOptions { forward_headers: Some(vec!["timestamp".into()]), ..options() };
        let (records, _) = Records::new(&batch, &listed, 100);
        assert_eq!(records.headers[0].1.get(0).as_deref(), Some(&b"7"[..]));
        let native = SendOptions { timestamp_header: Some("timestamp".into()), ..options() };
        assert_eq!(Records::new(&batch, &native, 100).0.timestamps.as_deref(), Some(&[Some(7)][..]));
    }

    /// What the short way makes is what the long way makes.
    #[test]
    fn alike_rows_become_the_same_records_at_once_as_one_by_one() {
        let options = SendOptions { partition_header: Some("p".into()), ..options() };
        for partitions in [Column::Constant("3".into()), Column::Numbers([3, 4].into())] {
            let mut batch = Batch::from_events(&[event("a", &[("key", "k")]), event("bc", &[("key", "l")])]);
            batch.set_header("p", partitions).unwrap();
            let (at_once, _) = Records::new(&batch, &options, 100);
            // Too near the bound for the short way, which only estimates.
            let (one_by_one, _) = Records::new(&batch, &options, 3);
            assert_eq!(format!("{at_once:?}"), format!("{one_by_one:?}"));
        }
    }

    #[test]
    fn a_header_that_is_no_number_refuses_its_row() {
        let batch = Batch::from_events(&[event("a", &[("p", "3")]), event("b", &[("p", "-1")]), event("c", &[])]);
        let (records, refused) =
            Records::new(&batch, &SendOptions { partition_header: Some("p".into()), ..options() }, 100);
        assert_eq!(records.partitions.as_deref(), Some(&[Some(3), None][..]));
        assert_eq!(refused, [(1, "header `p` is no partition number".into())]);
    }
}
