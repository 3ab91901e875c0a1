//! One instance of an interceptor.

use wasmtime::component::Resource;

use super::bindings::exports::wasmflow::plugin::interceptor::Guest;
use super::instance::{Answer, Instance, within};
use super::{Broken, CallError, Intercepted, Worn, output};
use crate::capability::Export;
use crate::capability::events::{self, OutputBound};
use crate::event::Batch;
use crate::metrics::StageCounters;

/// An interceptor at work. Dropping a call's future in the middle ends the instance; so does a trap.
pub struct InterceptorInstance {
    instance: Instance<Guest>,
    max_event_bytes: usize,
    /// The newest batch it was given.
    newest: u64,
}

impl InterceptorInstance {
    pub(super) fn new(instance: Instance<Guest>, max_event_bytes: usize) -> Self {
        Self { instance, max_event_bytes, newest: 0 }
    }

    /// Opens the interceptor. Called once, first.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn open(&mut self, config: &str) -> Result<(), CallError> {
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer: Answer<()> = within(cpu, deadline, guest.call_open(store, config)).await;
        self.instance.end(live, answer)
    }

    /// Sends a batch through. `batch` stays as it is; `number` counts this instance's batches from 1.
    ///
    /// # Errors
    /// The plugin's failure, or its end; then nothing of the batch has changed.
    pub async fn intercept(&mut self, batch: &Batch, number: u64) -> Result<Intercepted, CallError> {
        self.newest = self.newest.max(number);
        let bound = OutputBound::for_input(batch.count(), batch.byte_size());
        let mut live = self.instance.begin(Export::Intercept, bound)?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let (newest, max_event_bytes) = (self.newest, self.max_event_bytes);
        let counters = self.instance.counters();
        let answer = within(cpu, deadline, async {
            let handle = events::lend(store.data_mut(), batch.clone())?;
            let lent = Resource::new_borrow(handle.rep());
            let answer = guest.call_intercept(&mut *store, lent, number).await?;
            let after = events::take(store.data_mut(), handle)?;
            Ok(match answer {
                Ok(kept) => Ok(checked(batch, after, kept, newest, max_event_bytes, counters)?),
                Err(failure) => Err(failure),
            })
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Asks for what is due of what was kept back; with `drain` that is everything.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn flush(&mut self, drain: bool) -> Result<Intercepted, CallError> {
        // What was kept back was in the guest's memory, so this is bounded by that.
        let bytes = self.instance.limits().memory_bytes;
        let mut live = self.instance.begin(Export::Flush, OutputBound { events: bytes / 16, bytes })?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let (newest, max_event_bytes) = (self.newest, self.max_event_bytes);
        let counters = self.instance.counters();
        let answer = within(cpu, deadline, async {
            let handle = events::lend(store.data_mut(), Batch::empty())?;
            let answer = guest.call_flush(&mut *store, Resource::new_borrow(handle.rep()), drain).await?;
            let after = events::take(store.data_mut(), handle)?;
            Ok(match answer {
                Ok(kept) => Ok(checked(&Batch::empty(), after, kept, newest, max_event_bytes, counters)?),
                Err(failure) => Err(failure),
            })
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Lets the interceptor end in order. Called once, last.
    ///
    /// # Errors
    /// Its end, when that comes in a trap.
    pub async fn close(&mut self) -> Result<(), CallError> {
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, deadline, guest.call_close(store)).await;
        self.instance.end(live, answer.map(Ok))
    }

    /// Why a fresh instance should take its place, if one should.
    pub fn worn(&self) -> Option<Worn> {
        self.instance.worn()
    }
}

fn checked(
    before: &Batch,
    after: events::Batch,
    oldest_kept: Option<u64>,
    newest: u64,
    max_event_bytes: usize,
    counters: &StageCounters,
) -> Result<Intercepted, Broken> {
    if let Some(kept) = oldest_kept
        && !(1..=newest).contains(&kept)
    {
        return Err(Broken::contract(format!("it keeps something of batch {kept}; it was given 1 to {newest}")));
    }
    let mut rejected = after.rejected;
    let filtered = match after.reshaped {
        true => output::filtered(before, &after.events, &rejected),
        false => 0,
    };
    let refused = rejected.len();
    let batch = output::without_oversized(after.events, max_event_bytes, &mut rejected);
    counters.oversize.add(rejected.len() - refused);
    Ok(Intercepted { batch, rejected, filtered, oldest_kept })
}
