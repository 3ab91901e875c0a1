//! Batches as a guest may change them: what it hands over is checked here, once, and kept within what a call may make.
//!
//! Nothing in here names the engine, so that all of it can be given any bytes by a fuzzer.

use std::collections::HashSet;

use crate::event::{self, Column, Event, Packed};
use crate::plugin::{Broken, Rejected};

/// Limit: names in one batch. Far above any use, and it keeps a guest from making the host compare names without end.
const MAX_HEADER_NAMES: usize = 1024;
/// Limit: one header's name.
const MAX_NAME_BYTES: usize = 1024;
/// Limit: a refusal's reason, which becomes a header of the dead letter.
const MAX_REASON_BYTES: usize = 4096;

/// What one call may hand over, so that a small batch cannot become a flood.
#[derive(Debug, Clone, Copy)]
pub struct OutputBound {
    pub events: usize,
    pub bytes: usize,
}

impl OutputBound {
    /// For a call that is given this much: 16 times of it, or 8 MiB and 100,000 events, whichever is more.
    pub fn for_input(events: usize, bytes: usize) -> Self {
        Self { events: (16 * events).max(100_000), bytes: bytes.saturating_mul(16).max(8 << 20) }
    }
}

/// The batches that a store holds for its guest.
#[derive(Debug)]
pub struct Batches {
    pub bound: OutputBound,
    /// Bytes of the batches that the guest itself holds: its own, and what it fetched.
    pub held: usize,
    /// Limit: as much as the instance may have of memory, since a guest could else hoard in the host.
    held_max: usize,
}

impl Batches {
    pub fn new(held_max: usize) -> Self {
        Self { bound: OutputBound::for_input(0, 0), held: 0, held_max }
    }

    /// # Errors
    /// When a batch is larger than this call may make.
    pub fn bounded(&self, batch: &event::Batch) -> Result<(), Broken> {
        let (events, bytes) = (batch.count(), batch.byte_size());
        if events > self.bound.events || bytes > self.bound.bytes {
            let OutputBound { events: most, bytes: most_bytes } = self.bound;
            return Err(Broken::contract(format!(
                "a batch grew to {events} events and {bytes} bytes; this call may make {most} events and {most_bytes} bytes"
            )));
        }
        Ok(())
    }

    /// Charges the guest for a batch that has changed its size.
    ///
    /// # Errors
    /// When it holds more than it may.
    pub fn recharge(&mut self, before: usize, now: usize) -> Result<(), Broken> {
        self.held = (self.held - before) + now;
        if self.held > self.held_max {
            return Err(Broken::memory(format!(
                "the guest holds batches of {} bytes; its memory limit is {} bytes",
                self.held, self.held_max
            )));
        }
        Ok(())
    }
}

/// A `batch` as the host keeps it.
#[derive(Debug)]
pub struct Batch {
    pub events: event::Batch,
    pub rejected: Vec<Rejected>,
    /// Whether rows may be missing or new: something was selected or replaced.
    pub reshaped: bool,
    /// Bytes charged to the guest; nothing for a batch that is lent to it.
    pub charge: Option<usize>,
}

/// What a change did: the guest's answer inside, its end outside. A change that was not made leaves the batch as it was.
pub type Change = Result<Result<(), String>, Broken>;

impl Batch {
    /// A batch that is lent to the guest for one call.
    pub fn lent(events: event::Batch) -> Self {
        Self { events, rejected: Vec::new(), reshaped: false, charge: None }
    }

    /// Replaces every body.
    pub fn set_bodies(&mut self, bodies: Packed) -> Result<(), String> {
        self.events.set_bodies(bodies).map_err(|error| error.to_string())
    }

    pub fn set_header(&mut self, name: &str, column: Column) -> Result<(), String> {
        check_name(name)?;
        let names = self.events.columns().count();
        if names >= MAX_HEADER_NAMES && self.events.header(name).is_none() {
            return Err(format!("a batch carries at most {MAX_HEADER_NAMES} headers"));
        }
        self.events.set_header(name, column).map_err(|error| error.to_string())
    }

    pub fn select(&mut self, rows: &[u32], batches: &Batches) -> Change {
        if rows.len() > batches.bound.events || grows(&self.events, rows, batches.bound.bytes) {
            return Err(Broken::contract(format!("a selection of {} rows makes too large a batch", rows.len())));
        }
        Ok(match self.events.select(rows) {
            Ok(events) => {
                self.events = events;
                self.reshaped = true;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// Refuses rows, each with a reason.
    pub fn reject(&mut self, rows: Vec<(u32, String)>) -> Result<(), String> {
        let count = self.events.count();
        let mut refused = vec![false; count];
        for (row, _) in &rows {
            match refused.get_mut(*row as usize) {
                None => return Err(format!("row {row} is outside the batch of {count} events")),
                Some(true) => return Err(format!("row {row} is refused twice")),
                Some(first) => *first = true,
            }
        }
        self.rejected.extend(rows.into_iter().map(|(row, reason)| {
            let row = row as usize;
            Rejected { event: self.events.slice(row..row + 1), reason: shortened(reason) }
        }));
        let kept: Vec<u32> = (0..count as u32).filter(|&row| !refused[row as usize]).collect();
        self.events = self.events.select(&kept).expect("the rows kept are rows of the batch");
        Ok(())
    }

    /// Replaces all events by these, which [`from_rows`] has checked.
    pub fn set_events(&mut self, events: event::Batch) {
        self.events = events.with_origin_of(&self.events);
        self.reshaped = true;
    }
}

/// What a guest may call a header: text that stays on one line wherever it is shown. Kafka's own may be anything.
fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a header's name is empty".into()),
        _ if name.len() > MAX_NAME_BYTES => {
            Err(format!("a header's name has {} bytes; at most {MAX_NAME_BYTES} are taken", name.len()))
        }
        _ if name.contains(char::is_control) => Err("a header's name has control characters".into()),
        _ => Ok(()),
    }
}

/// Whether these rows, some of which stand there twice, hold more bytes than `most`. Asked before they are copied.
fn grows(events: &event::Batch, rows: &[u32], most: usize) -> bool {
    if rows.windows(2).all(|pair| pair[0] < pair[1]) {
        return false;
    }
    let count = events.count();
    let mut bytes = 0;
    rows.iter().filter(|&&row| (row as usize) < count).any(|&row| {
        bytes += row_bytes(events, row as usize);
        bytes > most
    })
}

/// Bytes of one event in row form, names aside.
fn row_bytes(events: &event::Batch, row: usize) -> usize {
    let headers = events.columns().filter_map(|(_, column)| column.get(row)).map(|value| value.len());
    events.bodies().get(row).len() + headers.sum::<usize>()
}

fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        reason.push('…');
    }
    reason
}

/// A batch of events in row form.
///
/// # Errors
/// When a header's name does not do, or there are too many.
pub fn from_rows(events: &[Event]) -> Result<event::Batch, Broken> {
    let mut names = HashSet::new();
    for (name, _) in events.iter().flat_map(|event| &event.headers) {
        if names.insert(name) {
            check_name(name).map_err(Broken::contract)?;
        }
        if names.len() > MAX_HEADER_NAMES {
            return Err(Broken::contract(format!("a batch carries at most {MAX_HEADER_NAMES} headers")));
        }
    }
    Ok(event::Batch::from_events(events))
}

/// The events in row form.
///
/// # Errors
/// When they would not fit the guest's memory.
pub fn to_rows(events: &event::Batch, batches: &Batches) -> Result<Vec<Event>, Broken> {
    // Limit: what could not fit the guest's memory is not made in the host's. A constant header counts once an event here.
    let mut bytes = 0;
    if (0..events.count()).any(|row| {
        bytes += row_bytes(events, row);
        bytes > batches.held_max
    }) {
        return Err(Broken::memory("the events in row form are larger than the guest's memory".into()));
    }
    Ok(events.events())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_rows_leave_the_batch_as_they_were() {
        let mut batch = Batch::lent(event::Batch::new(["a", "b", "c"].iter().collect()));
        let refuse = |rows: &[u32]| rows.iter().map(|&row| (row, "no".to_owned())).collect::<Vec<_>>();
        assert!(batch.reject(refuse(&[3])).unwrap_err().contains("outside"));
        assert!(batch.reject(refuse(&[1, 1])).unwrap_err().contains("twice"));
        assert_eq!((batch.events.count(), batch.rejected.len()), (3, 0));
        batch.reject(refuse(&[2, 0])).unwrap();
        assert_eq!(batch.events.bodies().get(0), b"b");
        let refused: Vec<u32> = batch.rejected.iter().map(|rejected| rejected.event.origin(0)).collect();
        assert_eq!(refused, [2, 0]);
    }

    #[test]
    fn a_header_has_a_name_that_fits_a_line() {
        assert!(check_name("kafka.topic").is_ok());
        for name in ["", "a\nb", "\u{1b}[31m", &"x".repeat(2000)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
