//! The times that Kafka keeps beside its records.
//!
//! Such a time shows as the header `timestamp`, and like `kafka.offset` it says where an event came from: it becomes no header of
//! what is sent to Kafka unless somebody has set it, or the sink asks for it. So a copy has the headers of its original and no more.

use std::sync::Arc;

use super::column::Column;
use super::packed::PackedBuilder;

/// The header that they show as.
pub const TIMESTAMP: &str = "timestamp";

/// Stands for a record without a time.
const NONE: i64 = i64::MIN;

/// Milliseconds since 1970 for each event of a batch, as far as it came from Kafka and its topic keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordTimes(Arc<[i64]>);

impl RecordTimes {
    /// Nothing when no event has any.
    pub fn new(times: impl IntoIterator<Item = Option<i64>>) -> Option<Self> {
        Self::from_numbers(times.into_iter().map(|time| time.unwrap_or(NONE)).collect())
    }

    /// From what [`numbers`](Self::numbers) gave.
    pub fn from_numbers(numbers: Arc<[i64]>) -> Option<Self> {
        numbers.iter().any(|&number| number != NONE).then_some(Self(numbers))
    }

    /// One for each event, for a file.
    pub fn numbers(&self) -> &[i64] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn select(&self, rows: impl Iterator<Item = usize>) -> Option<Self> {
        Self::from_numbers(rows.map(|row| self.0[row]).collect())
    }

    /// Laid end to end; a part without times has none.
    pub(super) fn concat(parts: &[(Option<&Self>, usize)]) -> Option<Self> {
        let times = |&(part, count): &(Option<&Self>, usize)| match part {
            Some(part) => part.0.to_vec(),
            None => vec![NONE; count],
        };
        parts.iter().any(|(part, _)| part.is_some()).then(|| Self(parts.iter().flat_map(times).collect()))
    }

    /// The header `timestamp` of a batch: an event's own where it has one, else Kafka's.
    pub(super) fn column(&self, own: Option<&Column>) -> Column {
        if own.is_none() && !self.0.contains(&NONE) {
            return Column::Numbers(self.0.clone());
        }
        let (mut rows, mut values) = (Vec::new(), PackedBuilder::default());
        for (row, &time) in self.0.iter().enumerate() {
            if let Some(own) = own.and_then(|own| own.get(row)) {
                values.push(&own);
            } else if time != NONE {
                values.push(time.to_string().as_bytes());
            } else {
                continue;
            }
            rows.push(row as u32);
        }
        let values = values.finish();
        if rows.len() == self.0.len() { Column::Dense(values) } else { Column::Sparse { rows: rows.into(), values } }
    }

    pub(super) fn byte_size(&self) -> usize {
        8 * self.0.len()
    }
}
