//! The interceptor chain of a source or a sink: each batch through each plugin in turn.

mod crew;
mod link;
mod switch;

use std::sync::Arc;

use tokio::time::Instant;

use crate::dead_letter::RejectedBy;
use crate::event::Batch;
use crate::stage::{Stage, StageStop};
use crate::swap::Bell;

use crew::Crew;

/// Interceptors in their order, each with an instance of its own for this use, or with several.
///
/// The runner numbers its batches (*tags*). What an interceptor keeps back for later is not settled: the runner asks
/// [`oldest_kept`](Self::oldest_kept) and settles nothing from that tag on.
#[derive(Default)]
pub struct Chain {
    crews: Vec<Crew>,
}

/// What a batch became.
#[derive(Debug)]
pub struct Processed {
    pub batch: Batch,
    pub rejected: Vec<RejectedBy>,
    /// The oldest tag whose events may be among these: older than the batch's own where an interceptor let go of what it
    /// had kept back.
    pub since: u64,
}

impl Processed {
    fn new(batch: Batch, since: u64) -> Self {
        Self { batch, rejected: Vec::new(), since }
    }
}

impl Chain {
    pub fn new(stages: impl IntoIterator<Item = Arc<Stage>>) -> Self {
        Self { crews: Crew::all(stages) }
    }

    /// Opens every instance, so that a wrong configuration shows at the start and not with the first event.
    ///
    /// # Errors
    /// When one of the stages has to stop.
    pub async fn open(&mut self) -> Result<(), StageStop> {
        for crew in &mut self.crews {
            crew.open().await?;
        }
        Ok(())
    }

    /// Sends a batch through all interceptors. Tags must count up.
    ///
    /// # Errors
    /// When one of the stages has to stop; the batch is the caller's to roll back.
    pub async fn process(&mut self, batch: Batch, tag: u64) -> Result<Processed, StageStop> {
        let processed = Processed::new(batch, tag);
        self.process_from(0, processed).await
    }

    /// Calls `flush` on every interceptor whose tick has come, or on all of them to drain, and sends what they let go
    /// through those behind them. `tag` is that of the newest batch.
    ///
    /// # Errors
    /// When one of the stages has to stop, also because it keeps something back after a drain.
    pub async fn flush(&mut self, tag: u64, drain: bool) -> Result<Processed, StageStop> {
        let mut all = Processed::new(Batch::empty(), tag);
        let mut batches = Vec::new();
        for index in 0..self.crews.len() {
            if !drain && !self.crews[index].tick_is_due() {
                continue;
            }
            let since = self.crews[index].oldest_kept().unwrap_or(tag);
            let flushed = self.crews[index].flush(tag, drain).await?;
            let processed = self.process_from(index + 1, Processed { since, ..flushed }).await?;
            all.since = all.since.min(processed.since);
            all.rejected.extend(processed.rejected);
            batches.push(processed.batch);
        }
        all.batch = joined(batches);
        Ok(all)
    }

    /// The oldest tag of which something is kept back.
    pub fn oldest_kept(&self) -> Option<u64> {
        self.crews.iter().filter_map(Crew::oldest_kept).min()
    }

    /// When `flush` is due next.
    pub fn next_tick(&self) -> Option<Instant> {
        self.crews.iter().filter_map(Crew::next_tick).min()
    }

    /// The interceptors look for swaps when this bell rings.
    pub fn attach(&mut self, bell: &Arc<Bell>) {
        self.crews.iter_mut().for_each(|crew| crew.attach(bell));
    }

    pub fn has_orders(&self) -> bool {
        self.crews.iter().any(Crew::has_orders)
    }

    /// Whether one of the interceptors is to have no batch for now.
    pub fn is_paused(&self) -> bool {
        self.crews.iter().any(Crew::is_paused)
    }

    /// Does what swaps have ordered, between two batches. What a generation lets go of goes through the interceptors behind it.
    /// `tag` is that of the newest batch.
    ///
    /// # Errors
    /// When one of the stages has to stop.
    pub async fn take_up_orders(&mut self, tag: u64) -> Result<Processed, StageStop> {
        let mut all = Processed::new(Batch::empty(), tag);
        let mut batches = Vec::new();
        for index in 0..self.crews.len() {
            if !self.crews[index].has_orders() {
                continue;
            }
            let since = self.crews[index].oldest_kept().unwrap_or(tag);
            let drained = self.crews[index].take_up_orders(tag).await;
            let processed = self.process_from(index + 1, Processed { since, ..drained }).await?;
            all.since = all.since.min(processed.since);
            all.rejected.extend(processed.rejected);
            batches.push(processed.batch);
        }
        all.batch = joined(batches);
        Ok(all)
    }

    /// Throws every instance away with what it keeps back: the events come again.
    pub fn reset(&mut self) {
        self.crews.iter_mut().for_each(Crew::reset);
    }

    pub async fn close(&mut self) {
        for crew in &mut self.crews {
            crew.close().await;
        }
    }

    async fn process_from(&mut self, index: usize, processed: Processed) -> Result<Processed, StageStop> {
        let mut processed = processed;
        for crew in &mut self.crews[index..] {
            if processed.batch.is_empty() {
                break;
            }
            // What was kept so far may come out with this batch.
            let since = crew.oldest_kept().unwrap_or(processed.since).min(processed.since);
            let batch = std::mem::replace(&mut processed.batch, Batch::empty());
            let made = crew.intercept(batch, processed.since).await?;
            processed.batch = made.batch;
            processed.rejected.extend(made.rejected);
            processed.since = since;
        }
        Ok(processed)
    }
}

/// One batch of all.
fn joined(mut batches: Vec<Batch>) -> Batch {
    match batches.len() {
        0 => Batch::empty(),
        1 => batches.remove(0),
        _ => Batch::join(&batches),
    }
}
