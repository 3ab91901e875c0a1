//! Working out the records of a batch: all at once where they are alike, else row by row.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::{Choice, Records, SendOptions, Untouched, is_null};
use crate::event::{Batch, Column, TIMESTAMP};

/// Kafka's own limit on the length of a topic's name.
const TOPIC_NAME_BYTES: usize = 249;

/// What was worked out of one row.
pub(super) struct Record {
    pub(super) topic: u32,
    pub(super) partition: Option<i32>,
    pub(super) timestamp: Option<i64>,
    pub(super) bytes: usize,
}

/// The columns a batch's records are made of.
pub(super) struct Draft<'b> {
    batch: &'b Batch,
    options: &'b SendOptions,
    topic: Option<Cow<'b, Column>>,
    keys: Option<Column>,
    partitions: Option<Numbers<'b>>,
    timestamps: Option<Numbers<'b>>,
    nulls: Option<Column>,
    headers: Vec<(Arc<str>, Column)>,
    untouched: Option<Untouched>,
    pub(super) topics: Vec<Arc<str>>,
    topic_numbers: HashMap<Vec<u8>, u32>,
    /// Of the row before: most batches go into one topic.
    last_topic: u32,
}

impl<'b> Draft<'b> {
    pub(super) fn new(batch: &'b Batch, options: &'b SendOptions) -> Self {
        let column = |name: &Option<String>| name.as_ref().and_then(|name| batch.header(name));
        let owned = |name: &Option<String>| column(name).map(|column| column.written_out().into_owned());
        let mut headers: Vec<_> = batch.columns().filter(|(name, _)| options.forwards(name)).map(written).collect();
        // Kafka's own time says where the event came from, as `kafka.offset` does: a header only of who asks for it.
        if batch.times().is_some() && options.asks_for(TIMESTAMP) {
            headers.retain(|(name, _)| **name != *TIMESTAMP);
            headers.extend(
                column(&Some(TIMESTAMP.into())).map(|times| (TIMESTAMP.into(), written_out(times).into_owned())),
            );
        }
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
            headers,
            untouched: untouched(batch, options),
            topics: Vec::new(),
            topic_numbers: HashMap::new(),
            last_topic: 0,
        }
    }

    pub(super) fn empty(&self) -> Records {
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

    /// All rows at once, where one look tells that each is a record, all go into one topic, and none has a header or a time of its
    /// own: most batches.
    pub(super) fn all_alike(&mut self, max_bytes: usize) -> Option<Records> {
        let is_plain = self.headers.is_empty() && self.untouched.is_none() && self.timestamps.is_none();
        if !is_plain || self.nulls.is_some() || !matches!(self.options.topic, Choice::Fixed(_)) {
            return None;
        }
        let (count, bodies) = (self.batch.count(), self.batch.bodies());
        let keys = self.keys.as_ref().map_or(0, |keys| keys.values_bytes(count));
        // More than any record has.
        if bodies.largest() + keys > max_bytes {
            return None;
        }
        let partitions = match &self.partitions {
            None => None,
            Some(partitions) => Some(partitions.partitions(count)?),
        };
        self.topic(0).ok()?;
        Some(Records {
            rows: (0..count as u32).collect(),
            topics: std::mem::take(&mut self.topics),
            topic_of: None,
            partitions,
            bytes: bodies.data().len() + keys,
            ..self.empty()
        })
    }

    pub(super) fn row(&mut self, row: usize, max_bytes: usize) -> Result<Record, String> {
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

fn untouched(batch: &Batch, options: &SendOptions) -> Option<Untouched> {
    let headers = batch.records()?;
    let names = headers.names();
    let held_back: Vec<_> = names.iter().filter(|name| !options.forwards(name)).cloned().collect();
    (held_back.len() < names.len()).then(|| Untouched { headers: headers.clone(), held_back })
}

fn written((name, column): (&Arc<str>, &Column)) -> (Arc<str>, Column) {
    (name.clone(), column.written_out().into_owned())
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

    /// As partition numbers for `count` rows; nothing where one of them is none.
    fn partitions(&self, count: usize) -> Option<Vec<Option<i32>>> {
        match self {
            Self::Same(number) => Some(vec![Some(partition((*number)?)?); count]),
            Self::Each(column) => match &**column {
                Column::Numbers(numbers) => numbers.iter().map(|&number| Some(Some(partition(number)?))).collect(),
                _ => None,
            },
        }
    }
}

fn partition(number: i64) -> Option<i32> {
    i32::try_from(number).ok().filter(|number| *number >= 0)
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
