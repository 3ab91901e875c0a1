//! `wasmflow:plugin/events`: batches as handles of the host.
//!
//! A call gets a clone of the batch, which shares all its columns; a change replaces a column of the clone. On ok the runner
//! goes on with the clone, on a failure or a trap it is forgotten, and the original stands.

use std::collections::HashSet;

use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, LinkerInstance, Resource, ResourceTable, ResourceType};

use super::columns::{ColumnIn, ColumnOut, EventIn, EventOut, PackedIn, PackedOut, RejectionIn};
use crate::event::{self, Event};
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
    held: usize,
    /// Limit: as much as the instance may have of memory, since a guest could else hoard in the host.
    held_max: usize,
}

impl Batches {
    pub fn new(held_max: usize) -> Self {
        Self { bound: OutputBound::for_input(0, 0), held: 0, held_max }
    }

    fn bounded(&self, batch: &event::Batch) -> Result<(), Broken> {
        let (events, bytes) = (batch.count(), batch.byte_size());
        if events > self.bound.events || bytes > self.bound.bytes {
            let OutputBound { events: most, bytes: most_bytes } = self.bound;
            return Err(Broken::contract(format!(
                "a batch grew to {events} events and {bytes} bytes; this call may make {most} events and {most_bytes} bytes"
            )));
        }
        Ok(())
    }

    fn recharge(&mut self, before: usize, now: usize) -> Result<(), Broken> {
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
    charge: Option<usize>,
}

/// Where the functions of this interface find what they work on.
pub trait Host {
    fn batches(&mut self) -> (&mut ResourceTable, &mut Batches);
}

impl<H: Host + ?Sized> Host for &mut H {
    fn batches(&mut self) -> (&mut ResourceTable, &mut Batches) {
        H::batches(self)
    }
}

/// For the generated bindings, whose interfaces all have one.
pub trait HostWithStore<T>: HasData {}
impl<H: ?Sized + HasData, T> HostWithStore<T> for H {}

/// Lends a batch to the guest for one call; [`take`] gets it back.
pub fn lend(host: &mut impl Host, events: event::Batch) -> wasmtime::Result<Resource<Batch>> {
    let (table, _) = host.batches();
    Ok(table.push(Batch { events, rejected: Vec::new(), reshaped: false, charge: None })?)
}

/// Gives a batch to the guest for good.
///
/// # Errors
/// When it is larger than what a call may bring, or the guest holds too much already.
pub fn give(host: &mut impl Host, events: event::Batch) -> wasmtime::Result<Resource<Batch>> {
    let (table, batches) = host.batches();
    batches.bounded(&events)?;
    let charge = events.byte_size();
    batches.recharge(0, charge)?;
    Ok(table.push(Batch { events, rejected: Vec::new(), reshaped: false, charge: Some(charge) })?)
}

/// Takes a batch out of the store: what was lent, or what the guest handed over.
pub fn take(host: &mut impl Host, handle: Resource<Batch>) -> wasmtime::Result<Batch> {
    let (table, batches) = host.batches();
    let batch = table.delete(handle)?;
    batches.held -= batch.charge.unwrap_or(0);
    Ok(batch)
}

/// The events of a handle that the guest lends to a host function.
pub fn events_of<'a>(host: &'a mut impl Host, handle: &Resource<Batch>) -> wasmtime::Result<&'a event::Batch> {
    Ok(&host.batches().0.get(handle)?.events)
}

/// What a change did: the guest's answer inside, a trap outside.
type Change = wasmtime::Result<Result<(), String>>;

/// Replaces the events of a handle by what `change` makes of them, within the bounds.
fn change(
    host: &mut impl Host,
    handle: &Resource<Batch>,
    change: impl FnOnce(&mut Batch, &Batches) -> Change,
) -> Change {
    let (table, batches) = host.batches();
    let batch = table.get_mut(handle)?;
    let answer = change(batch, batches)?;
    if answer.is_ok() {
        batches.bounded(&batch.events)?;
        if let Some(before) = batch.charge {
            let now = batch.events.byte_size();
            batch.charge = Some(now);
            batches.recharge(before, now)?;
        }
    }
    Ok(answer)
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

fn set_header(batch: &mut Batch, name: &str, values: ColumnIn) -> Result<(), String> {
    check_name(name)?;
    let column = values.checked().map_err(|error| error.to_string())?;
    let names = batch.events.columns().count();
    if names >= MAX_HEADER_NAMES && batch.events.header(name).is_none() {
        return Err(format!("a batch carries at most {MAX_HEADER_NAMES} headers"));
    }
    batch.events.set_header(name, column).map_err(|error| error.to_string())
}

fn select(batch: &mut Batch, rows: &[u32], batches: &Batches) -> Change {
    if rows.len() > batches.bound.events || grows(&batch.events, rows, batches.bound.bytes) {
        return Err(Broken::contract(format!("a selection of {} rows makes too large a batch", rows.len())).into());
    }
    Ok(match batch.events.select(rows) {
        Ok(events) => {
            batch.events = events;
            batch.reshaped = true;
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    })
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

fn reject(batch: &mut Batch, rejections: Vec<RejectionIn>) -> Result<(), String> {
    let count = batch.events.count();
    let mut refused = vec![false; count];
    for rejection in &rejections {
        match refused.get_mut(rejection.row as usize) {
            None => return Err(format!("row {} is outside the batch of {count} events", rejection.row)),
            Some(true) => return Err(format!("row {} is refused twice", rejection.row)),
            Some(first) => *first = true,
        }
    }
    batch.rejected.extend(rejections.into_iter().map(|rejection| {
        let row = rejection.row as usize;
        Rejected { event: batch.events.slice(row..row + 1), reason: shortened(rejection.reason) }
    }));
    let kept: Vec<u32> = (0..count as u32).filter(|&row| !refused[row as usize]).collect();
    batch.events = batch.events.select(&kept).expect("the rows kept are rows of the batch");
    Ok(())
}

/// Refuses rows of a lent batch on the guest's behalf, as `reject` would. Of a batch of the guest's own nothing can be a dead
/// letter: the answer is then why the call has to fail.
pub fn refuse(
    host: &mut impl Host,
    handle: &Resource<Batch>,
    rows: Vec<(u32, String)>,
) -> wasmtime::Result<Result<(), String>> {
    let batch = host.batches().0.get_mut(handle)?;
    if batch.charge.is_some() {
        let (row, reason) = rows.into_iter().next().unwrap_or_default();
        return Ok(Err(format!("event {row}: {reason}")));
    }
    Ok(reject(batch, rows.into_iter().map(|(row, reason)| RejectionIn { row, reason }).collect()))
}

fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        reason.push('…');
    }
    reason
}

fn from_rows(events: Vec<EventIn>) -> Result<event::Batch, Broken> {
    let events: Vec<Event> = events.into_iter().map(Event::from).collect();
    let mut names = HashSet::new();
    for (name, _) in events.iter().flat_map(|event| &event.headers) {
        if names.insert(name) {
            check_name(name).map_err(Broken::contract)?;
        }
        if names.len() > MAX_HEADER_NAMES {
            return Err(Broken::contract(format!("a batch carries at most {MAX_HEADER_NAMES} headers")));
        }
    }
    Ok(event::Batch::from_events(&events))
}

fn to_rows(events: &event::Batch, batches: &Batches) -> Result<Vec<EventOut>, Broken> {
    // Limit: what could not fit the guest's memory is not made in the host's. A constant header counts once an event here.
    let mut bytes = 0;
    if (0..events.count()).any(|row| {
        bytes += row_bytes(events, row);
        bytes > batches.held_max
    }) {
        return Err(Broken::memory("the events in row form are larger than the guest's memory".into()));
    }
    Ok(events.events().into_iter().map(EventOut::from).collect())
}

fn contract(error: impl std::fmt::Display) -> Broken {
    Broken::contract(error.to_string())
}

/// Offers this interface. `get` finds the host's part of the store.
pub fn add_to_linker<T, D>(linker: &mut Linker<T>, get: fn(&mut T) -> D::Data<'_>) -> wasmtime::Result<()>
where
    D: HostWithStore<T>,
    for<'a> D::Data<'a>: Host,
    T: 'static,
{
    let mut events = linker.instance("wasmflow:plugin/events@0.1.0")?;
    add_making::<T, D>(&mut events, get)?;
    add_columns::<T, D>(&mut events, get)?;
    add_rows::<T, D>(&mut events, get)
}

type Store<'a, T> = StoreContextMut<'a, T>;
type Handle = Resource<Batch>;
type Instance<'a, T> = LinkerInstance<'a, T>;

/// Batches that a guest makes, and their end.
fn add_making<T, D>(events: &mut Instance<'_, T>, get: fn(&mut T) -> D::Data<'_>) -> wasmtime::Result<()>
where
    D: HostWithStore<T>,
    for<'a> D::Data<'a>: Host,
    T: 'static,
{
    events.resource("batch", ResourceType::host::<Batch>(), move |mut store, rep| {
        take(&mut get(store.data_mut()), Resource::new_own(rep)).map(drop)
    })?;
    events.func_wrap("[constructor]batch", move |mut store: Store<'_, T>, (bodies,): (PackedIn,)| {
        let bodies = bodies.checked().map_err(contract)?;
        Ok((give(&mut get(store.data_mut()), event::Batch::new(bodies))?,))
    })?;
    events.func_wrap("[static]batch.from-events", move |mut store: Store<'_, T>, (rows,): (Vec<EventIn>,)| {
        Ok((give(&mut get(store.data_mut()), from_rows(rows)?)?,))
    })?;
    Ok(())
}

/// What a guest sees and changes a column at a time.
fn add_columns<T, D>(events: &mut Instance<'_, T>, get: fn(&mut T) -> D::Data<'_>) -> wasmtime::Result<()>
where
    D: HostWithStore<T>,
    for<'a> D::Data<'a>: Host,
    T: 'static,
{
    events.func_wrap("[method]batch.count", move |mut store: Store<'_, T>, (batch,): (Handle,)| {
        Ok((events_of(&mut get(store.data_mut()), &batch)?.count() as u32,))
    })?;
    events.func_wrap("[method]batch.bodies", move |mut store: Store<'_, T>, (batch,): (Handle,)| {
        Ok((PackedOut::from(events_of(&mut get(store.data_mut()), &batch)?.bodies()),))
    })?;
    events.func_wrap(
        "[method]batch.set-bodies",
        move |mut store: Store<'_, T>, (batch, bodies): (Handle, PackedIn)| {
            let answer = change(&mut get(store.data_mut()), &batch, |batch, _| {
                let bodies = bodies.checked().map_err(|error| error.to_string());
                Ok(bodies.and_then(|bodies| batch.events.set_bodies(bodies).map_err(|error| error.to_string())))
            })?;
            Ok((answer,))
        },
    )?;
    events.func_wrap("[method]batch.header-names", move |mut store: Store<'_, T>, (batch,): (Handle,)| {
        Ok((events_of(&mut get(store.data_mut()), &batch)?.header_names(),))
    })?;
    events.func_wrap("[method]batch.header", move |mut store: Store<'_, T>, (batch, name): (Handle, String)| {
        let mut host = get(store.data_mut());
        let column = events_of(&mut host, &batch)?.header(&name);
        Ok((column.map(|column| ColumnOut::from(column.as_ref())),))
    })?;
    events.func_wrap(
        "[method]batch.set-header",
        move |mut store: Store<'_, T>, (batch, name, values): (Handle, String, ColumnIn)| {
            let host = &mut get(store.data_mut());
            Ok((change(host, &batch, |batch, _| Ok(set_header(batch, &name, values)))?,))
        },
    )?;
    events.func_wrap(
        "[method]batch.remove-header",
        move |mut store: Store<'_, T>, (batch, name): (Handle, String)| {
            let host = &mut get(store.data_mut());
            let _ = change(host, &batch, |batch, _| {
                batch.events.remove_header(&name);
                Ok(Ok(()))
            })?;
            Ok(())
        },
    )?;
    Ok(())
}

/// What works on rows.
fn add_rows<T, D>(events: &mut Instance<'_, T>, get: fn(&mut T) -> D::Data<'_>) -> wasmtime::Result<()>
where
    D: HostWithStore<T>,
    for<'a> D::Data<'a>: Host,
    T: 'static,
{
    events.func_wrap("[method]batch.select", move |mut store: Store<'_, T>, (batch, rows): (Handle, Vec<u32>)| {
        Ok((change(&mut get(store.data_mut()), &batch, |batch, batches| select(batch, &rows, batches))?,))
    })?;
    events.func_wrap(
        "[method]batch.reject",
        move |mut store: Store<'_, T>, (batch, rows): (Handle, Vec<RejectionIn>)| {
            Ok((change(&mut get(store.data_mut()), &batch, |batch, _| Ok(reject(batch, rows)))?,))
        },
    )?;
    events.func_wrap("[method]batch.events", move |mut store: Store<'_, T>, (batch,): (Handle,)| {
        let mut host = get(store.data_mut());
        let (table, batches) = host.batches();
        Ok((to_rows(&table.get(&batch)?.events, batches)?,))
    })?;
    events.func_wrap(
        "[method]batch.set-events",
        move |mut store: Store<'_, T>, (batch, rows): (Handle, Vec<EventIn>)| {
            let rows = from_rows(rows)?;
            let _ = change(&mut get(store.data_mut()), &batch, |batch, _| {
                batch.events = rows.with_origin_of(&batch.events);
                batch.reshaped = true;
                Ok(Ok(()))
            })?;
            Ok(())
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store(ResourceTable, Batches);

    impl Host for Store {
        fn batches(&mut self) -> (&mut ResourceTable, &mut Batches) {
            (&mut self.0, &mut self.1)
        }
    }

    fn store(held_max: usize) -> Store {
        Store(ResourceTable::new(), Batches::new(held_max))
    }

    fn batch(bodies: &[&str]) -> event::Batch {
        event::Batch::new(bodies.iter().collect())
    }

    #[test]
    fn a_guest_does_not_hoard_batches_in_the_host() {
        let mut store = store(250);
        let body = "x".repeat(100);
        give(&mut store, batch(&[&body])).unwrap();
        give(&mut store, batch(&[&body])).unwrap();
        let error = give(&mut store, batch(&[&body])).unwrap_err();
        assert_eq!(error.downcast_ref::<Broken>().unwrap().kind, crate::plugin::TrapKind::Memory);
    }

    #[test]
    fn what_a_guest_gave_back_is_not_charged_any_more() {
        let mut store = store(250);
        for _ in 0..10 {
            let handle = give(&mut store, batch(&[&"x".repeat(100)])).unwrap();
            take(&mut store, handle).unwrap();
        }
        assert_eq!(store.1.held, 0);
    }

    #[test]
    fn a_selection_that_would_grow_too_large_is_not_made() {
        let mut store = store(0);
        store.1.bound = OutputBound { events: 100, bytes: 1000 };
        let handle = lend(&mut store, batch(&[&"x".repeat(300), "y"])).unwrap();
        let selected = |store: &mut Store, rows: &[u32]| change(store, &handle, |batch, all| select(batch, rows, all));
        assert!(selected(&mut store, &[0, 0, 0, 0]).is_err());
        assert!(selected(&mut store, &[1; 101]).is_err());
        assert_eq!(selected(&mut store, &[5]).unwrap().unwrap_err(), "row 5 is outside the batch of 2 events");
        selected(&mut store, &[1, 0, 1]).unwrap().unwrap();
        assert_eq!(events_of(&mut store, &handle).unwrap().count(), 3);
    }

    #[test]
    fn rejected_rows_leave_the_batch_as_they_were() {
        let mut batch = Batch { events: batch(&["a", "b", "c"]), rejected: Vec::new(), reshaped: false, charge: None };
        let refuse =
            |rows: &[u32]| rows.iter().map(|&row| RejectionIn { row, reason: "no".into() }).collect::<Vec<_>>();
        assert!(reject(&mut batch, refuse(&[3])).unwrap_err().contains("outside"));
        assert!(reject(&mut batch, refuse(&[1, 1])).unwrap_err().contains("twice"));
        assert_eq!((batch.events.count(), batch.rejected.len()), (3, 0));
        reject(&mut batch, refuse(&[2, 0])).unwrap();
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
