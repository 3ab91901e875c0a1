//! `wasmflow:plugin/events`: batches as handles of the host.
//!
//! A call gets a clone of the batch, which shares all its columns; a change replaces a column of the clone. On ok the runner
//! goes on with the clone, on a failure or a trap it is forgotten, and the original stands.

use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, LinkerInstance, Resource, ResourceTable, ResourceType};

use super::columns::{ColumnIn, ColumnOut, EventIn, EventOut, PackedIn, PackedOut, RejectionIn};
use super::handed::{from_rows, to_rows};
use crate::event::{self, Event};
use crate::plugin::Broken;

pub use super::handed::{Batch, Batches, OutputBound};

/// Where the functions of this interface find what they work on.
pub trait Host {
    fn batches(&mut self) -> (&mut ResourceTable, &mut Batches);

    /// A change was not made, since it does not fit the batch; the guest is told the same.
    fn misfit(&mut self, why: &str);
}

impl<H: Host + ?Sized> Host for &mut H {
    fn batches(&mut self) -> (&mut ResourceTable, &mut Batches) {
        H::batches(self)
    }

    fn misfit(&mut self, why: &str) {
        H::misfit(self, why);
    }
}

/// For the generated bindings, whose interfaces all have one.
pub trait HostWithStore<T>: HasData {}
impl<H: ?Sized + HasData, T> HostWithStore<T> for H {}

/// Lends a batch to the guest for one call; [`take`] gets it back.
pub fn lend(host: &mut impl Host, events: event::Batch) -> wasmtime::Result<Resource<Batch>> {
    let (table, _) = host.batches();
    Ok(table.push(Batch::lent(events))?)
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
    Ok(table.push(Batch { charge: Some(charge), ..Batch::lent(events) })?)
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
    if let Err(why) = &answer {
        host.misfit(why);
    }
    Ok(answer)
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
    Ok(batch.reject(rows))
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
        let bodies = bodies.copied(&store).map_err(contract)?;
        Ok((give(&mut get(store.data_mut()), event::Batch::new(bodies))?,))
    })?;
    events.func_wrap("[static]batch.from-events", move |mut store: Store<'_, T>, (rows,): (Vec<EventIn>,)| {
        Ok((give(&mut get(store.data_mut()), from_rows(&rows.into_iter().map(Event::from).collect::<Vec<_>>())?)?,))
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
            let bodies = bodies.copied(&store).map_err(|error| error.to_string());
            let answer = change(&mut get(store.data_mut()), &batch, |batch, _| {
                Ok(bodies.and_then(|bodies| batch.set_bodies(bodies)))
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
            let column = values.copied(&store).map_err(|error| error.to_string());
            let host = &mut get(store.data_mut());
            Ok((change(host, &batch, |batch, _| Ok(column.and_then(|column| batch.set_header(&name, column))))?,))
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
        Ok((change(&mut get(store.data_mut()), &batch, |batch, batches| Ok(batch.select(&rows, batches)?))?,))
    })?;
    events.func_wrap(
        "[method]batch.reject",
        move |mut store: Store<'_, T>, (batch, rows): (Handle, Vec<RejectionIn>)| {
            Ok((change(&mut get(store.data_mut()), &batch, |batch, _| {
                let rows = rows.into_iter().map(|rejection| (rejection.row, rejection.reason)).collect();
                Ok(batch.reject(rows))
            })?,))
        },
    )?;
    events.func_wrap("[method]batch.events", move |mut store: Store<'_, T>, (batch,): (Handle,)| {
        let mut host = get(store.data_mut());
        let (table, batches) = host.batches();
        let rows = to_rows(&table.get(&batch)?.events, batches)?;
        Ok((rows.into_iter().map(EventOut::from).collect::<Vec<_>>(),))
    })?;
    events.func_wrap(
        "[method]batch.set-events",
        move |mut store: Store<'_, T>, (batch, rows): (Handle, Vec<EventIn>)| {
            let rows = from_rows(&rows.into_iter().map(Event::from).collect::<Vec<_>>())?;
            let _ = change(&mut get(store.data_mut()), &batch, |batch, _| {
                batch.set_events(rows);
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

        fn misfit(&mut self, _: &str) {}
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
        let selected =
            |store: &mut Store, rows: &[u32]| change(store, &handle, |batch, all| Ok(batch.select(rows, all)?));
        assert!(selected(&mut store, &[0, 0, 0, 0]).is_err());
        assert!(selected(&mut store, &[1; 101]).is_err());
        assert_eq!(selected(&mut store, &[5]).unwrap().unwrap_err(), "row 5 is outside the batch of 2 events");
        selected(&mut store, &[1, 0, 1]).unwrap().unwrap();
        assert_eq!(events_of(&mut store, &handle).unwrap().count(), 3);
    }
}
