//! The interceptor chain of a source or a sink: each batch through each plugin in turn.

mod link;
mod switch;

use std::sync::Arc;

use tokio::time::Instant;

use crate::dead_letter::RejectedBy;
use crate::event::Batch;
use crate::stage::{Stage, StageStop};
use crate::swap::Bell;

use link::Link;

/// Interceptors in their order, each with an instance of its own for this use.
///
/// The runner numbers its batches (*tags*). What an interceptor keeps back for later is not settled: the runner asks
/// [`oldest_kept`](Self::oldest_kept) and settles nothing from that tag on.
#[derive(Default)]
pub struct Chain {
    links: Vec<Link>,
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
        Self { links: stages.into_iter().map(Link::new).collect() }
    }

    /// Opens every instance, so that a wrong configuration shows at the start and not with the first event.
    ///
    /// # Errors
    /// When one of the stages has to stop.
    pub async fn open(&mut self) -> Result<(), StageStop> {
        for link in &mut self.links {
            link.ensure_open().await?;
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
        for index in 0..self.links.len() {
            if !drain && !self.links[index].tick_is_due() {
                continue;
            }
            let since = self.links[index].oldest_kept().unwrap_or(tag);
            let flushed = self.links[index].flush(tag, drain).await?;
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
        self.links.iter().filter_map(Link::oldest_kept).min()
    }

    /// When `flush` is due next.
    pub fn next_tick(&self) -> Option<Instant> {
        self.links.iter().filter_map(|link| link.next_tick).min()
    }

    /// The links look for swaps when this bell rings.
    pub fn attach(&mut self, bell: &Arc<Bell>) {
        for link in &mut self.links {
            link.seat.attach(&link.stage, bell);
        }
    }

    pub fn has_orders(&self) -> bool {
        self.links.iter().any(|link| link.seat.has_order())
    }

    /// Whether one of the interceptors is to have no batch for now.
    pub fn is_paused(&self) -> bool {
        self.links.iter().any(|link| link.seat.is_paused())
    }

    /// Does what swaps have ordered, between two batches. What a generation lets go of goes through the interceptors behind it.
    /// `tag` is that of the newest batch.
    ///
    /// # Errors
    /// When one of the stages has to stop.
    pub async fn take_up_orders(&mut self, tag: u64) -> Result<Processed, StageStop> {
        let mut all = Processed::new(Batch::empty(), tag);
        let mut batches = Vec::new();
        for index in 0..self.links.len() {
            let Some(order) = self.links[index].seat.order() else { continue };
            let since = self.links[index].oldest_kept().unwrap_or(tag);
            let drained = self.links[index].take_up(order, tag).await;
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
        for link in &mut self.links {
            link.instance = None;
            link.kept.clear();
        }
    }

    pub async fn close(&mut self) {
        for link in &mut self.links {
            link.seat.leave();
            link.close().await;
        }
    }

    async fn process_from(&mut self, index: usize, processed: Processed) -> Result<Processed, StageStop> {
        let mut processed = processed;
        for link in &mut self.links[index..] {
            if processed.batch.is_empty() {
                break;
            }
            // What the link kept so far may come out with this batch.
            let since = link.oldest_kept().unwrap_or(processed.since).min(processed.since);
            let batch = std::mem::replace(&mut processed.batch, Batch::empty());
            let linked = link.intercept(batch, processed.since).await?;
            processed.batch = linked.batch;
            processed.rejected.extend(linked.rejected);
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
