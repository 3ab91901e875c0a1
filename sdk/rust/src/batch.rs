//! Events in order: the host's handle in the sandbox, plain memory in a native test.

#[cfg(target_family = "wasm")]
#[path = "batch/handle.rs"]
mod store;
#[cfg(not(target_family = "wasm"))]
#[path = "batch/memory.rs"]
mod store;

use crate::failure::Failure;
use crate::packed::{Column, Packed, PackedBuilder};
use crate::surround::surround;

pub use crate::bindings::imports::wasmflow::plugin::events::{Event, Header, Rejection};
pub(crate) use store::Store;

/// Events in order, held by the host.
///
/// Nothing crosses into the sandbox until it is asked for, and then one packed column at a time: a plugin that only sets
/// headers never sees a body. Changes made during a call take effect only when the call answers ok.
#[derive(Debug)]
pub struct Batch(pub(crate) Store);

/// A column, or a list of rows, that does not fit the batch. The batch is as it was.
///
/// It is always a mistake in the plugin, so as a [`Failure`] it is fatal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit(String);

impl std::fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Misfit {}

impl From<Misfit> for Failure {
    fn from(misfit: Misfit) -> Failure {
        Failure::Fatal(misfit.0)
    }
}

impl Batch {
    /// A batch of these bodies, without headers.
    pub fn new(bodies: &Packed) -> Batch {
        Batch(Store::new(bodies))
    }

    /// A batch without events.
    pub fn empty() -> Batch {
        Batch::new(&PackedBuilder::new().finish())
    }

    /// A batch from events in row form.
    pub fn from_events(events: &[Event]) -> Batch {
        Batch(Store::from_events(events))
    }

    /// A batch of these bodies; the short way for tests.
    pub fn from_bodies<B: AsRef<[u8]>>(bodies: impl IntoIterator<Item = B>) -> Batch {
        Batch::new(&bodies.into_iter().collect())
    }

    /// How many events there are.
    pub fn count(&self) -> usize {
        self.0.count() as usize
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// All bodies, in one copy.
    pub fn bodies(&self) -> Packed {
        self.0.bodies()
    }

    /// Replaces every body, in one copy.
    ///
    /// # Errors
    ///
    /// When there is not one body for each event.
    pub fn set_bodies(&mut self, bodies: &Packed) -> Result<(), Misfit> {
        self.0.set_bodies(bodies).map_err(Misfit)
    }

    /// Rewrites every body: `rewrite` appends to the buffer what takes the place of the body it is given.
    ///
    /// # Errors
    ///
    /// None that a caller could cause; the host checks the column all the same.
    pub fn map_bodies(&mut self, mut rewrite: impl FnMut(&[u8], &mut Vec<u8>)) -> Result<(), Misfit> {
        self.map_bodies_adding(0, &mut rewrite)
    }

    /// As [`map_bodies`](Self::map_bodies), for a rewrite that adds about `extra` bytes to each body: the new column is then
    /// allocated once, at its final size.
    ///
    /// # Errors
    ///
    /// As `map_bodies`.
    pub fn map_bodies_adding(
        &mut self,
        extra: usize,
        mut rewrite: impl FnMut(&[u8], &mut Vec<u8>),
    ) -> Result<(), Misfit> {
        let before = self.bodies();
        let bytes = before.data.len() + extra * before.count();
        let mut after = PackedBuilder::with_capacity(before.count(), bytes);
        for body in &before {
            after.push_with(|out| rewrite(body, out));
        }
        self.set_bodies(&after.finish())
    }

    /// Puts `prefix` before and `suffix` behind each body.
    ///
    /// # Errors
    ///
    /// As `map_bodies`.
    pub fn surround_bodies(&mut self, prefix: &[u8], suffix: &[u8]) -> Result<(), Misfit> {
        self.set_bodies(&surround(&self.bodies(), prefix, suffix))
    }

    /// Keeps the events whose body passes, in order. Answers how many were dropped.
    ///
    /// # Errors
    ///
    /// As `map_bodies`.
    pub fn retain_bodies(&mut self, mut keep: impl FnMut(&[u8]) -> bool) -> Result<usize, Misfit> {
        let bodies = self.bodies();
        let rows: Vec<u32> = (0u32..).zip(&bodies).filter(|(_, body)| keep(body)).map(|(row, _)| row).collect();
        let dropped = bodies.count() - rows.len();
        if dropped > 0 {
            self.select(&rows)?;
        }
        Ok(dropped)
    }

    /// The names of all headers that any event carries, each once.
    pub fn header_names(&self) -> Vec<String> {
        self.0.header_names()
    }

    /// One header, or nothing where no event carries it.
    pub fn header(&self, name: &str) -> Option<Column> {
        self.0.header(name)
    }

    /// Sets one header, replacing the column of that name. [`Column::constant`] costs the same for any number of events.
    ///
    /// # Errors
    ///
    /// When the column does not fit the batch, or the name is one that the host refuses.
    pub fn set_header(&mut self, name: &str, values: impl Into<Column>) -> Result<(), Misfit> {
        self.0.set_header(name, &values.into()).map_err(Misfit)
    }

    /// Sets one header of the events that do not carry it yet to `value`, and leaves the others.
    ///
    /// # Errors
    ///
    /// As [`set_header`](Self::set_header).
    pub fn set_missing_header(&mut self, name: &str, value: &[u8]) -> Result<(), Misfit> {
        match self.header(name) {
            None => self.set_header(name, Column::constant(value)),
            Some(column @ Column::Sparse(_)) => {
                let filled: Packed = column.iter(self.count()).map(|present| present.unwrap_or(value)).collect();
                self.set_header(name, filled)
            }
            Some(_) => Ok(()),
        }
    }

    /// Removes one header from every event.
    pub fn remove_header(&mut self, name: &str) {
        self.0.remove_header(name);
    }

    /// Keeps just these rows, in this order; a row named twice is there twice.
    ///
    /// # Errors
    ///
    /// When there is no such row.
    pub fn select(&mut self, rows: &[u32]) -> Result<(), Misfit> {
        self.0.select(rows).map_err(Misfit)
    }

    /// Refuses these rows for good: they leave the batch for the dead letters.
    ///
    /// # Errors
    ///
    /// When there is no such row.
    pub fn reject(&mut self, rows: &[Rejection]) -> Result<(), Misfit> {
        self.0.reject(rows).map_err(Misfit)
    }

    /// All events in row form: easy to work with, and an allocation for every field.
    pub fn events(&self) -> Vec<Event> {
        self.0.events()
    }

    /// Replaces all events.
    pub fn set_events(&mut self, events: &[Event]) {
        self.0.set_events(events);
    }

    /// What was rejected so far, with the reason: for the assertions of a native test.
    #[cfg(not(target_family = "wasm"))]
    pub fn rejected(&self) -> &[(Event, String)] {
        self.0.rejected()
    }
}

impl Event {
    /// An event without headers.
    pub fn new(body: impl Into<Vec<u8>>) -> Event {
        Event { headers: Vec::new(), body: body.into() }
    }

    /// The same event with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Event {
        self.headers.push(Header { name: name.into(), value: value.into() });
        self
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.name == name).map(|header| &header.value[..])
    }
}

impl Rejection {
    /// A row, and why it can never be accepted.
    pub fn new(row: u32, reason: impl Into<String>) -> Rejection {
        Rejection { row, reason: reason.into() }
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    fn bodies(batch: &Batch) -> Vec<String> {
        batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
    }

    #[test]
    fn bodies_are_rewritten_in_place() {
        let mut batch = Batch::from_bodies(["a", "bc"]);
        batch.map_bodies(|body, out| out.extend(body.iter().rev())).unwrap();
        assert_eq!(bodies(&batch), ["a", "cb"]);
    }

    #[test]
    fn a_column_that_does_not_fit_changes_nothing() {
        let mut batch = Batch::from_bodies(["a", "b"]);
        let one: Packed = ["x"].into_iter().collect();
        assert!(batch.set_bodies(&one).is_err());
        assert!(batch.set_header("h", one).is_err());
        assert!(batch.select(&[0, 2]).is_err());
        assert!(batch.reject(&[Rejection::new(2, "none")]).is_err());
        assert_eq!(bodies(&batch), ["a", "b"]);
        assert!(batch.header_names().is_empty());
    }

    #[test]
    fn selecting_takes_headers_along_and_may_repeat_rows() {
        let events = [Event::new("a").with_header("k", "1"), Event::new("b")];
        let mut batch = Batch::from_events(&events);
        batch.select(&[1, 0, 0]).unwrap();
        assert_eq!(bodies(&batch), ["b", "a", "a"]);
        let header = batch.header("k").unwrap();
        assert_eq!(header.iter(3).collect::<Vec<_>>(), [None, Some(&b"1"[..]), Some(b"1")]);
    }

    #[test]
    fn missing_headers_are_filled_and_others_kept() {
        let events = [Event::new("a").with_header("k", "own"), Event::new("b")];
        let mut batch = Batch::from_events(&events);
        batch.set_missing_header("k", b"new").unwrap();
        batch.set_missing_header("k", b"late").unwrap();
        let header = batch.header("k").unwrap();
        assert_eq!(header.iter(2).collect::<Vec<_>>(), [Some(&b"own"[..]), Some(b"new")]);
    }

    #[test]
    fn rejected_rows_leave_the_batch_with_their_reason() {
        let mut batch = Batch::from_bodies(["a", "b", "c"]);
        batch.reject(&[Rejection::new(1, "bad")]).unwrap();
        assert_eq!(bodies(&batch), ["a", "c"]);
        assert_eq!(batch.rejected(), [(Event::new("b"), "bad".to_string())]);
    }

    #[test]
    fn retained_bodies_are_counted() {
        let mut batch = Batch::from_bodies(["a", "b", "c"]);
        assert_eq!(batch.retain_bodies(|body| body != b"b"), Ok(1));
        assert_eq!(bodies(&batch), ["a", "c"]);
    }
}
