//! One instance of a sink.

use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::exports::wasmflow::plugin::sink::{Delivery as WitDelivery, Guest, Outcome as WitOutcome};
use super::instance::{Answer, Instance, printed, within};
use super::{Broken, CallError, Delivered, Delivery, Outcome, Rejected, Worn};
use crate::capability::Export;
use crate::capability::events::{self, OutputBound};
use crate::event::{Batch, MADE_HERE};

/// A sink at work. Dropping a call's future in the middle ends the instance; so does a trap.
pub struct SinkInstance {
    instance: Instance<Guest>,
}

impl SinkInstance {
    pub(super) fn new(instance: Instance<Guest>) -> Self {
        Self { instance }
    }

    /// Opens the sink. Called once, first.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn open(&mut self, config: &str) -> Result<(), CallError> {
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, deadline, async {
            let answer = guest.call_open(&mut *store, config).await?;
            printed(store, Ok(answer)).await
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Delivers a batch, in order. What it printed is with the system when this answers.
    ///
    /// # Errors
    /// The plugin's failure, or its end; some of it may have been delivered all the same.
    pub async fn deliver(&mut self, batch: &Batch, delivery: &Delivery) -> Result<Delivered, CallError> {
        let bound = OutputBound::for_input(batch.count(), batch.byte_size());
        let mut live = self.instance.begin(Export::Deliver, bound)?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, deadline, async {
            // Rows are told as they were delivered, whatever the sink rejects meanwhile.
            let handle = events::lend(store.data_mut(), batch.clone().as_taken())?;
            let lent = Resource::new_borrow(handle.rep());
            let answer = guest.call_deliver(&mut *store, lent, &delivery.into()).await?;
            let after = events::take(store.data_mut(), handle)?;
            let answer = match answer {
                Ok(outcome) => Ok(checked(batch, after.rejected, outcome)?),
                Err(failure) => Err(failure),
            };
            printed(store, Ok(answer)).await
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Has the sink send what it holds; with `drain` all of it. Answers whether nothing is held any more.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn flush(&mut self, drain: bool) -> Result<bool, CallError> {
        let mut live = self.instance.begin(Export::Flush, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, deadline, async {
            let answer = guest.call_flush(&mut *store, drain).await?;
            printed(store, Ok(answer)).await
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Lets the sink end in order. Called once, last.
    ///
    /// # Errors
    /// Its end, when that comes in a trap.
    pub async fn close(&mut self) -> Result<(), CallError> {
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer: wasmtime::Result<Answer<()>> = within(cpu, deadline, async {
            guest.call_close(&mut *store).await?;
            Ok(printed(store, Ok(Ok(()))).await)
        })
        .await;
        self.instance.end(live, answer.and_then(|answer| answer))
    }

    /// Why a fresh instance should take its place, if one should.
    pub fn worn(&self) -> Option<Worn> {
        self.instance.worn()
    }
}

impl From<&Delivery> for WitDelivery {
    fn from(delivery: &Delivery) -> Self {
        let Delivery { log, first, next, attempt } = delivery;
        Self { log: log.to_string(), first: *first, next: *next, attempt: *attempt }
    }
}

fn checked(batch: &Batch, rejected: Vec<Rejected>, outcome: WitOutcome) -> Result<Delivered, Broken> {
    let refused: Vec<u32> = rejected.iter().map(|rejected| rejected.event.origin(0)).collect();
    let outcome = match outcome {
        WitOutcome::Delivered => Outcome::Delivered,
        WitOutcome::Held => Outcome::Held,
        WitOutcome::Partly(partly) => {
            check_rows(&partly.rows, batch.count(), &refused)?;
            let after = partly.why.after_ms.map(|ms| Duration::from_millis(ms.into()));
            Outcome::Partly { rows: partly.rows, reason: partly.why.reason, after }
        }
    };
    let rejected = rejected.into_iter().map(|rejected| as_delivered(batch, rejected)).collect();
    Ok(Delivered { outcome, rejected })
}

fn check_rows(rows: &[u32], count: usize, refused: &[u32]) -> Result<(), Broken> {
    if let Some(pair) = rows.windows(2).find(|pair| pair[1] <= pair[0]) {
        return Err(Broken::contract(format!("partly: row {} does not come after row {}", pair[1], pair[0])));
    }
    match rows.last() {
        None => return Err(Broken::contract("partly: no row is named".into())),
        Some(&last) if last as usize >= count => {
            return Err(Broken::contract(format!("partly: row {last} is outside the batch of {count} events")));
        }
        Some(_) => {}
    }
    match rows.iter().find(|row| refused.contains(row)) {
        Some(row) => Err(Broken::contract(format!("partly: row {row} was rejected and is to come again"))),
        None => Ok(()),
    }
}

/// The event as it was delivered, with its own lineage: what a sink did to its handle concerns nobody else.
fn as_delivered(batch: &Batch, rejected: Rejected) -> Rejected {
    match rejected.event.origin(0) {
        MADE_HERE => rejected,
        row => Rejected { event: batch.slice(row as usize..row as usize + 1), reason: rejected.reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_again_are_rows_of_the_batch_in_order_and_not_rejected() {
        assert!(check_rows(&[0, 2], 3, &[1]).is_ok());
        assert!(check_rows(&[2, 0], 3, &[]).unwrap_err().text.contains("row 0 does not come after row 2"));
        assert!(check_rows(&[3], 3, &[]).unwrap_err().text.contains("outside the batch of 3 events"));
        assert!(check_rows(&[1], 3, &[1]).unwrap_err().text.contains("row 1 was rejected"));
        assert!(check_rows(&[], 3, &[]).is_err());
    }
}
