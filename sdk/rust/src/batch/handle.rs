//! A batch as the host's handle.

use crate::bindings::imports::wasmflow::plugin::events;
use crate::packed::{Column, Packed};

use super::{Batch, Event, Rejection};

impl Batch {
    /// Lends a batch of the host to a call.
    pub(crate) fn lend<R>(batch: &events::Batch, call: impl FnOnce(&mut Batch) -> R) -> R {
        let mut lent = Batch(Store::lent(batch));
        let result = call(&mut lent);
        lent.0.give_back(batch);
        result
    }
}

/// A handle of the host: its own, or an alias of the one that the host lent for the call.
#[derive(Debug)]
pub(crate) enum Store {
    Owned(events::Batch),
    /// Never dropped here: the bindings give the loan back when the call ends.
    Lent(std::mem::ManuallyDrop<events::Batch>),
}

impl Store {
    pub(super) fn new(bodies: &Packed) -> Store {
        Store::Owned(events::Batch::new(bodies))
    }

    pub(super) fn from_events(events: &[Event]) -> Store {
        Store::Owned(events::Batch::from_events(events))
    }

    /// An alias of a batch that outlives this call.
    fn lent(batch: &events::Batch) -> Store {
        // SAFETY: the handle is live for as long as `batch` is borrowed, and the alias is never dropped.
        let alias = unsafe { events::Batch::from_handle(batch.handle()) };
        Store::Lent(std::mem::ManuallyDrop::new(alias))
    }

    /// What a call has made of a lent batch. A plugin may have put a batch of its own in its place: then the host's is given
    /// the events of that one.
    fn give_back(self, lent: &events::Batch) {
        if let Store::Owned(other) = self {
            lent.set_events(&other.events());
        }
    }

    /// The handle itself, to be handed to the host.
    pub(crate) fn into_handle(self) -> events::Batch {
        match self {
            Store::Owned(batch) => batch,
            Store::Lent(batch) => events::Batch::from_events(&batch.events()),
        }
    }

    pub(crate) fn handle(&self) -> &events::Batch {
        match self {
            Store::Owned(batch) => batch,
            Store::Lent(batch) => batch,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.handle().count()
    }

    pub(super) fn bodies(&self) -> Packed {
        self.handle().bodies()
    }

    pub(super) fn set_bodies(&mut self, bodies: &Packed) -> Result<(), String> {
        self.handle().set_bodies(bodies)
    }

    pub(super) fn header_names(&self) -> Vec<String> {
        self.handle().header_names()
    }

    pub(super) fn header(&self, name: &str) -> Option<Column> {
        self.handle().header(name)
    }

    pub(super) fn set_header(&mut self, name: &str, values: &Column) -> Result<(), String> {
        self.handle().set_header(name, values)
    }

    pub(super) fn remove_header(&mut self, name: &str) {
        self.handle().remove_header(name);
    }

    pub(super) fn select(&mut self, rows: &[u32]) -> Result<(), String> {
        self.handle().select(rows)
    }

    pub(super) fn reject(&mut self, rows: &[Rejection]) -> Result<(), String> {
        self.handle().reject(rows)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.handle().events()
    }

    pub(super) fn set_events(&mut self, events: &[Event]) {
        self.handle().set_events(events);
    }
}
