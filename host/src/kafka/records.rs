//! How an event becomes a record: where topic, key, partition, timestamp and null come from, and which events cannot.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::event::{Batch, Column, RecordHeaders};

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

/// Kafka's own limit on the length of a topic's name.
const TOPIC_NAME_BYTES: usize = 249;

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

/// What was worked out of one row.
struct Record {
    topic: u32,
    partition: Option<i32>,
    timestamp: Option<i64>,
    bytes: usize,
}

/// The columns a batch's records are made of.
struct Draft<'b> {
    batch: &'b Batch,
    options: &'b SendOptions,
    topic: Option<Cow<'b, Column>>,
    keys: Option<Column>,
    partitions: Option<Numbers<'b>>,
    timestamps: Option<Numbers<'b>>,
    nulls: Option<Column>,
    headers: Vec<(Arc<str>, Column)>,
    untouched: Option<Untouched>,
    topics: Vec<Arc<str>>,
    topic_numbers: HashMap<Vec<u8>, u32>,
    /// Of the row before: most batches go into one topic.
    last_topic: u32,
}

impl<'b> Draft<'b> {
    fn new(batch: &'b Batch, options: &'b SendOptions) -> Self {
        let column = |name: &Option<String>| name.as_ref().and_then(|name| batch.header(name));
        let owned = |name: &Option<String>| column(name).map(|column| column.written_out().into_owned());
        let headers = batch.columns().filter(|(name, _)| options.forwards(name));
        let topic = match &options.topic {
            Choice::Fixed(_) => None,
            Choice::Header(name) | Choice::HeaderOr { name, .. } => batch.header(name).map(written_out),
        };
        Self {
            batch,
            options,
            topic,
            keys: owned(&options.key_header),
            partitions: column(&options.partition_header).map(Numbers::new),
            timestamps: column(&options.timestamp_header).map(Numbers::new),
            nulls: owned(&options.null_header),
            headers: headers.map(|(name, column)| (name.clone(), column.written_out().into_owned())).collect(),
            untouched: untouched(batch, options),
            topics: Vec::new(),
            topic_numbers: HashMap::new(),
            last_topic: 0,
        }
    }

    fn empty(&self) -> Records {
        let count = self.batch.count();
        Records {
            batch: self.batch.clone(),
            rows: Vec::with_capacity(count),
            topics: Vec::new(),
            topic_of: Some(Vec::with_capacity(count)),
            keys: self.keys.clone(),
            nulls: self.nulls.clone(),
            partitions: self.partitions.as_ref().map(|_| Vec::with_capacity(count)),
            timestamps: self.timestamps.as_ref().map(|_| Vec::with_capacity(count)),
            headers: self.headers.clone(),
            untouched: self.untouched.as_ref().map(Untouched::share),
            bytes: 0,
        }
    }

    fn row(&mut self, row: usize, max_bytes: usize) -> Result<Record, String> {
        let bytes = self.bytes(row);
        if bytes > max_bytes {
            return Err(format!(
                "the record has {bytes} bytes, more than the connection's \"message.max.bytes\" of {max_bytes}"
            ));
        }
        Ok(Record {
            topic: self.topic(row)?,
            partition: number(self.partitions.as_ref(), row, &self.options.partition_header, "partition number")?,
            timestamp: number(self.timestamps.as_ref(), row, &self.options.timestamp_header, "time in milliseconds")?,
            bytes,
        })
    }

    fn topic(&mut self, row: usize) -> Result<u32, String> {
        let value = self.topic.as_ref().and_then(|column| column.get(row));
        let topic: &[u8] = match (&value, &self.options.topic) {
            (Some(value), _) => value,
            (None, Choice::Fixed(topic)) => topic.as_bytes(),
            (None, Choice::HeaderOr { fallback, .. }) => fallback.as_bytes(),
            (None, Choice::Header(name)) => return Err(format!("the event has no header `{name}` to name its topic")),
        };
        if self.topics.get(self.last_topic as usize).is_some_and(|last| last.as_bytes() == topic) {
            return Ok(self.last_topic);
        }
        if let Some(&number) = self.topic_numbers.get(topic) {
            self.last_topic = number;
            return Ok(number);
        }
        let name = valid_topic(topic)?;
        let number = self.topics.len() as u32;
        self.topics.push(name.into());
        self.topic_numbers.insert(topic.to_vec(), number);
        self.last_topic = number;
        Ok(number)
    }

    /// As librdkafka counts it: value, key and headers.
    fn bytes(&self, row: usize) -> usize {
        let value = match is_null(self.nulls.as_ref(), row) {
            true => 0,
            false => self.batch.bodies().get(row).len(),
        };
        let key = self.keys.as_ref().and_then(|keys| keys.get(row)).map_or(0, |key| key.len());
        // Names and values are each led by a length of at most 5 bytes.
        let headers = self.headers.iter().filter_map(|(name, column)| Some(name.len() + column.get(row)?.len() + 10));
        let untouched = self.untouched.iter().flat_map(|untouched| untouched.row(row));
        let untouched =
            untouched.map(|header| header.name.len() + header.value.as_ref().map_or(0, bytes::Bytes::len) + 10);
        value + key + headers.sum::<usize>() + untouched.sum::<usize>()
    }
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

fn untouched(batch: &Batch, options: &SendOptions) -> Option<Untouched> {
    let headers = batch.records()?;
    let names = headers.names();
    let held_back: Vec<_> = names.iter().filter(|name| !options.forwards(name)).cloned().collect();
    (held_back.len() < names.len()).then(|| Untouched { headers: headers.clone(), held_back })
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

fn written_out(column: Cow<'_, Column>) -> Cow<'_, Column> {
    match column {
        Cow::Borrowed(column) => column.written_out(),
        Cow::Owned(column) => Cow::Owned(column.written_out().into_owned()),
    }
}

/// A column read as integers.
enum Numbers<'c> {
    /// All events have this one, or text that is no number; a batch of one partition does.
    Same(Option<i64>),
    Each(Cow<'c, Column>),
}

impl<'c> Numbers<'c> {
    fn new(column: Cow<'c, Column>) -> Self {
        match &*column {
            Column::Constant(_) => Self::Same(column.get_integer(0)),
            _ => Self::Each(column),
        }
    }
}

fn number<T: TryFrom<i64>>(
    column: Option<&Numbers<'_>>,
    row: usize,
    name: &Option<String>,
    meaning: &str,
) -> Result<Option<T>, String> {
    let number = match column {
        None => return Ok(None),
        Some(Numbers::Same(number)) => *number,
        Some(Numbers::Each(column)) => match &**column {
            Column::Numbers(values) => Some(values[row]),
            column if column.get(row).is_none() => return Ok(None),
            column => column.get_integer(row),
        },
    };
    match number.filter(|number| *number >= 0).and_then(|number| T::try_from(number).ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(format!("header `{}` is no {meaning}", name.as_deref().unwrap_or_default())),
    }
}

fn valid_topic(topic: &[u8]) -> Result<&str, String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let valid =
        (1..=TOPIC_NAME_BYTES).contains(&topic.len()) && topic.iter().all(allowed) && !matches!(topic, b"." | b"..");
    match std::str::from_utf8(topic) {
        Ok(name) if valid => Ok(name),
        _ => Err(format!("`{}` cannot be the name of a topic", String::from_utf8_lossy(topic).escape_default())),
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
    fn a_header_that_is_no_number_refuses_its_row() {
        let batch = Batch::from_events(&[event("a", &[("p", "3")]), event("b", &[("p", "-1")]), event("c", &[])]);
        let (records, refused) =
            Records::new(&batch, &SendOptions { partition_header: Some("p".into()), ..options() }, 100);
        assert_eq!(records.partitions.as_deref(), Some(&[Some(3), None][..]));
        assert_eq!(refused, [(1, "header `p` is no partition number".into())]);
    }
}
