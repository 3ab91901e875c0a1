//! Events, and the batches that carry them: immutable columns behind reference counts.
//!
//! A batch is never a list of events. Bodies and headers are columns, a clone shares all of them, and a change replaces one
//! column (copy on write); so fan-out to several channels copies nothing, and a failed plugin call is undone by
//! forgetting its clone.

mod column;
mod packed;
mod record_headers;
mod times;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

pub use column::{Column, ColumnError};
pub use packed::{Packed, PackedBuilder, PackedError};
pub use record_headers::{RecordHeader, RecordHeaders};
pub use times::{RecordTimes, TIMESTAMP};

use packed::as_run;

/// Marks an event that an interceptor made: it stands for no event of the batch as it was taken.
pub const MADE_HERE: u32 = u32::MAX;

/// Events in order: one column of bodies, a column for each header.
///
/// Invariant: every column fits the count. Header names are unique; of a header that Kafka brought and a plugin set, only
/// the plugin's shows.
#[derive(Debug, Clone)]
pub struct Batch {
    bodies: Packed,
    headers: Arc<Vec<(Arc<str>, Column)>>,
    records: Option<RecordHeaders>,
    times: Option<RecordTimes>,
    /// For each event its row in the batch as it was polled or taken; nothing while they are the same.
    origin: Option<Arc<[u32]>>,
}

/// One event in row form: for tests, dead letters and plugins that prefer clarity to speed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub headers: Vec<(Arc<str>, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Batch {
    /// A batch of these bodies, without headers.
    pub fn new(bodies: Packed) -> Self {
        Self { bodies, headers: Arc::default(), records: None, times: None, origin: None }
    }

    pub fn empty() -> Self {
        Self::new(Packed::empty())
    }

    /// From events in row form. Header names are taken in the order of first appearance.
    pub fn from_events(events: &[Event]) -> Self {
        let mut names: Vec<Arc<str>> = Vec::new();
        for (name, _) in events.iter().flat_map(|event| &event.headers) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let mut batch = Self::new(events.iter().map(|event| &event.body).collect());
        let headers = names.into_iter().map(|name| {
            let column = column_from_rows(events, &name);
            (name, column)
        });
        batch.headers = Arc::new(headers.collect());
        batch
    }

    /// How many events there are.
    pub fn count(&self) -> usize {
        self.bodies.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub fn bodies(&self) -> &Packed {
        &self.bodies
    }

    /// Replaces every body.
    ///
    /// # Errors
    /// When there is not one for each event.
    pub fn set_bodies(&mut self, bodies: Packed) -> Result<(), ColumnError> {
        if bodies.len() != self.count() {
            return Err(ColumnError::Count { values: bodies.len(), count: self.count() });
        }
        self.bodies = bodies;
        Ok(())
    }

    /// The names of all headers that any event carries, each once.
    pub fn header_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.headers.iter().map(|(name, _)| name.clone()).collect();
        let records = self.records.iter().flat_map(RecordHeaders::names);
        for name in records {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if self.times.is_some() && !names.iter().any(|name| **name == *TIMESTAMP) {
            names.push(TIMESTAMP.into());
        }
        names
    }

    /// One header down the batch, or nothing where no event carries it.
    pub fn header(&self, name: &str) -> Option<Cow<'_, Column>> {
        let own = self.own_header(name);
        match &self.times {
            Some(times) if name == TIMESTAMP => Some(Cow::Owned(times.column(own.as_deref()))),
            _ => own,
        }
    }

    /// As [`header`](Self::header), without what Kafka keeps beside a record's headers.
    fn own_header(&self, name: &str) -> Option<Cow<'_, Column>> {
        match self.headers.iter().find(|(known, _)| &**known == name) {
            Some((_, column)) => Some(Cow::Borrowed(column)),
            None => self.records.as_ref()?.column(name).map(Cow::Owned),
        }
    }

    /// The headers that are columns of this batch: all but those still in the form of [`records`](Self::records) and
    /// [`times`](Self::times).
    pub fn columns(&self) -> impl Iterator<Item = (&Arc<str>, &Column)> {
        self.headers.iter().map(|(name, column)| (name, column))
    }

    /// The headers that came with Kafka records and that nobody has touched.
    pub fn records(&self) -> Option<&RecordHeaders> {
        self.records.as_ref()
    }

    /// The times that Kafka keeps beside its records: the header `timestamp` of the events that nobody has set it for.
    pub fn times(&self) -> Option<&RecordTimes> {
        self.times.as_ref()
    }

    /// Attaches the times that Kafka keeps beside its records.
    ///
    /// # Errors
    /// When there is not one for each event.
    pub fn set_times(&mut self, times: Option<RecordTimes>) -> Result<(), ColumnError> {
        if let Some(values) = times.as_ref().map(RecordTimes::len).filter(|&values| values != self.count()) {
            return Err(ColumnError::Count { values, count: self.count() });
        }
        self.times = times;
        Ok(())
    }

    /// Sets one header, replacing the column of that name.
    ///
    /// # Errors
    /// When the column does not fit the batch; nothing is changed then.
    pub fn set_header(&mut self, name: &str, column: Column) -> Result<(), ColumnError> {
        column.check(self.count())?;
        let absent = matches!(&column, Column::Sparse { rows, .. } if rows.is_empty());
        if absent {
            self.remove_header(name);
            return Ok(());
        }
        self.forget_native(name);
        let headers = Arc::make_mut(&mut self.headers);
        match headers.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, known)) => *known = column,
            None => headers.push((name.into(), column)),
        }
        Ok(())
    }

    /// Removes one header from every event.
    pub fn remove_header(&mut self, name: &str) {
        self.forget_native(name);
        if self.headers.iter().any(|(known, _)| &**known == name) {
            Arc::make_mut(&mut self.headers).retain(|(known, _)| &**known != name);
        }
    }

    /// Attaches the headers that came with Kafka records, one list for each event.
    pub fn set_records(&mut self, records: Option<RecordHeaders>) {
        self.records = records;
    }

    /// A run of events. Shares the data.
    pub fn slice(&self, rows: Range<usize>) -> Self {
        if rows == (0..self.count()) {
            return self.clone();
        }
        self.picked(
            self.bodies.slice(rows.clone()),
            |column| column.slice(rows.clone()),
            self.records.as_ref().map(|records| records.select(rows.clone())),
            self.times.as_ref().and_then(|times| times.select(rows.clone())),
            rows.clone().map(|row| self.origin(row)).collect(),
        )
    }

    /// These events, in this order; a row named twice is there twice.
    ///
    /// # Errors
    /// When a row is outside the batch.
    pub fn select(&self, rows: &[u32]) -> Result<Self, ColumnError> {
        let count = self.count();
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= count) {
            return Err(ColumnError::Outside { row, count });
        }
        if let Some(run) = as_run(rows) {
            return Ok(self.slice(run));
        }
        Ok(self.picked(
            self.bodies.select(rows),
            |column| column.select(rows),
            self.records.as_ref().map(|records| records.select(rows.iter().map(|&row| row as usize))),
            self.times.as_ref().and_then(|times| times.select(rows.iter().map(|&row| row as usize))),
            rows.iter().map(|&row| self.origin(row as usize)).collect(),
        ))
    }

    /// Several batches laid end to end, as one batch newly taken.
    pub fn concat(batches: &[Self]) -> Self {
        if let [only] = batches {
            return only.clone().as_taken();
        }
        let mut bodies = PackedBuilder::with_capacity(
            batches.iter().map(Self::count).sum(),
            batches.iter().map(|batch| batch.bodies.data().len()).sum(),
        );
        batches.iter().for_each(|batch| bodies.append(&batch.bodies));
        let mut joined = Self::new(bodies.finish());
        joined.headers = Arc::new(concat_headers(batches));
        if batches.iter().any(|batch| batch.records.is_some()) {
            let records: Vec<_> = batches.iter().map(|batch| (batch.records.as_ref(), batch.count())).collect();
            joined.records = RecordHeaders::concat(&records);
            // What is a column in one of the batches is a column in all of them from here on.
            let names: Vec<_> = joined.headers.iter().map(|(name, _)| name.clone()).collect();
            names.iter().for_each(|name| joined.mask_record_header(name));
        }
        let times: Vec<_> = batches.iter().map(|batch| (batch.times.as_ref(), batch.count())).collect();
        joined.times = RecordTimes::concat(&times);
        joined
    }

    /// As [`concat`](Self::concat), for pieces of one batch: each event still stands for its row of that.
    pub fn join(pieces: &[Self]) -> Self {
        let origin = pieces.iter().flat_map(|piece| (0..piece.count()).map(|row| piece.origin(row))).collect();
        Self { origin: Some(origin), ..Self::concat(pieces) }
    }

    /// The same events, standing for themselves: what they were cut from is forgotten.
    pub fn as_taken(mut self) -> Self {
        self.origin = None;
        self
    }

    /// The row of this event in the batch as it was polled or taken, or [`MADE_HERE`].
    pub fn origin(&self, row: usize) -> u32 {
        self.origin.as_ref().map_or(row as u32, |origin| origin[row])
    }

    /// The same columns, for a batch whose events an interceptor replaced: where the count is the same each event is
    /// taken to stand for the one in its place, else for none.
    pub fn with_origin_of(mut self, before: &Self) -> Self {
        self.origin = match self.count() == before.count() {
            true => before.origin.clone(),
            false => Some(std::iter::repeat_n(MADE_HERE, self.count()).collect()),
        };
        self
    }

    /// Bytes held: bodies, header values and 4 bytes an event for each column's ends. Shared data counts in full, since
    /// the last holder frees it.
    pub fn byte_size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, column)| name.len() + column.byte_size()).sum();
        let records = self.records.as_ref().map_or(0, RecordHeaders::byte_size);
        let times = self.times.as_ref().map_or(0, RecordTimes::byte_size);
        self.bodies.data().len() + 4 * self.count() + headers + records + times
    }

    /// One event in row form.
    pub fn event(&self, row: usize) -> Event {
        let headers = self.header_names().into_iter().filter_map(|name| {
            let column = self.header(&name)?;
            let value = column.get(row)?.into_owned();
            Some((name, value))
        });
        Event { headers: headers.collect(), body: self.bodies.get(row).to_vec() }
    }

    /// All events in row form.
    pub fn events(&self) -> Vec<Event> {
        let columns: Vec<_> = self
            .header_names()
            .into_iter()
            .filter_map(|name| self.header(&name).map(|column| (name, column)))
            .collect();
        (0..self.count())
            .map(|row| Event {
                headers: columns
                    .iter()
                    .filter_map(|(name, column)| Some((name.clone(), column.get(row)?.into_owned())))
                    .collect(),
                body: self.bodies.get(row).to_vec(),
            })
            .collect()
    }

    /// What Kafka brought under this name counts no more.
    fn forget_native(&mut self, name: &str) {
        self.mask_record_header(name);
        if name == TIMESTAMP {
            self.times = None;
        }
    }

    fn mask_record_header(&mut self, name: &str) {
        if let Some(records) = &mut self.records {
            records.mask(name);
        }
    }

    fn picked(
        &self,
        bodies: Packed,
        pick: impl Fn(&Column) -> Option<Column>,
        records: Option<RecordHeaders>,
        times: Option<RecordTimes>,
        origin: Arc<[u32]>,
    ) -> Self {
        let headers = self.headers.iter().filter_map(|(name, column)| Some((name.clone(), pick(column)?))).collect();
        Self { bodies, headers: Arc::new(headers), records, times, origin: Some(origin) }
    }
}

fn concat_headers(batches: &[Batch]) -> Vec<(Arc<str>, Column)> {
    let mut names: Vec<&Arc<str>> = Vec::new();
    for (name, _) in batches.iter().flat_map(|batch| batch.headers.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| {
            let columns: Vec<_> = batches.iter().map(|batch| batch.own_header(name)).collect();
            let parts: Vec<_> =
                columns.iter().zip(batches).map(|(column, batch)| (column.as_deref(), batch.count())).collect();
            (name.clone(), Column::concat(&parts))
        })
        .collect()
}

fn column_from_rows(events: &[Event], name: &str) -> Column {
    let mut rows = Vec::new();
    let mut values = PackedBuilder::default();
    for (row, event) in events.iter().enumerate() {
        if let Some((_, value)) = event.headers.iter().rev().find(|(known, _)| &**known == name) {
            rows.push(row as u32);
            values.push(value);
        }
    }
    let values = values.finish();
    if rows.len() == events.len() { Column::Dense(values) } else { Column::Sparse { rows: rows.into(), values } }
}

#[cfg(test)]
mod tests;
