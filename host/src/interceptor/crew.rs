//! The instances of one interceptor in a chain: one, or `workers` of them side by side.
//!
//! A batch is cut into a piece for each of them; to its instance a piece is a batch like any other. What they make of the pieces is
//! joined in the order of the pieces, so the order of the events stays, the runner still has one batch at a time, and rollbacks, acks
//! and transactions know nothing of it. What an instance keeps back comes when that instance lets go of it: among events kept back by
//! several instances there is no order.
//!
//! To swaps each instance is a use of the stage, so all of them go to another generation between the same two batches.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::link::Link;
use super::{Processed, joined};
use crate::event::Batch;
use crate::stage::{Stage, StageStop};
use crate::swap::Bell;

/// The least events that a piece is cut for. Handing one over costs some 20 µs, as much as a light plugin takes for hundreds of events
/// and a heavy one for a few.
const PIECE_MIN: usize = 16;

/// How long the others are waited for when one instance has an order to switch and not all have: whoever orders asks one after the
/// other, within microseconds. When it is over each does what it is told: a way back may be for some of them only.
const ORDERS_WAIT: Duration = Duration::from_millis(1);

/// Never without a member. The first one works on the runner's own task.
pub struct Crew(Vec<Link>);

impl Crew {
    /// Of stages that follow each other; each that is its interceptor's first worker begins a crew.
    pub fn all(stages: impl IntoIterator<Item = Arc<Stage>>) -> Vec<Self> {
        let mut crews: Vec<Self> = Vec::new();
        for stage in stages {
            match crews.last_mut().filter(|_| stage.worker.number > 0) {
                Some(crew) => crew.0.push(Link::new(stage)),
                None => crews.push(Self(vec![Link::new(stage)])),
            }
        }
        crews
    }

    pub async fn open(&mut self) -> Result<(), StageStop> {
        for link in &mut self.0 {
            link.ensure_open().await?;
        }
        Ok(())
    }

    pub fn oldest_kept(&self) -> Option<u64> {
        self.0.iter().filter_map(Link::oldest_kept).min()
    }

    pub fn next_tick(&self) -> Option<Instant> {
        self.0.iter().filter_map(|link| link.next_tick).min()
    }

    pub fn tick_is_due(&self) -> bool {
        self.0.iter().any(Link::tick_is_due)
    }

    pub fn attach(&mut self, bell: &Arc<Bell>) {
        self.0.iter_mut().for_each(|link| link.seat.attach(&link.stage, bell));
    }

    pub fn has_orders(&self) -> bool {
        self.0.iter().any(|link| link.seat.has_order())
    }

    pub fn is_paused(&self) -> bool {
        self.0.iter().any(|link| link.seat.is_paused())
    }

    pub fn reset(&mut self) {
        for link in &mut self.0 {
            link.instance = None;
            link.kept.clear();
        }
    }

    pub async fn close(&mut self) {
        for link in &mut self.0 {
            link.seat.leave();
            link.close().await;
        }
    }

    /// Gives a batch to the instances, a piece to each.
    pub async fn intercept(&mut self, batch: Batch, tag: u64) -> Result<Processed, StageStop> {
        let pieces = self.0.len().min(batch.count() / PIECE_MIN);
        if pieces <= 1 {
            return self.0[0].intercept(batch, tag).await;
        }
        let row = |piece| batch.count() * piece / pieces;
        let cut = (0..pieces).map(|piece| batch.slice(row(piece)..row(piece + 1)));
        let at_work = self.0.iter_mut().zip(cut).map(|(link, piece)| link.intercept(piece, tag)).collect();
        let done = all_of(at_work).await;
        Ok(join(tag, done.into_iter().collect::<Result<_, _>>()?))
    }

    /// Calls `flush` on those whose tick has come, or on all to drain.
    pub async fn flush(&mut self, tag: u64, drain: bool) -> Result<Processed, StageStop> {
        let mut flushed = Vec::new();
        for link in self.0.iter_mut().filter(|link| drain || link.tick_is_due()) {
            flushed.push(link.flush(tag, drain).await?);
        }
        Ok(join(tag, flushed))
    }

    /// Does what swaps have ordered.
    pub async fn take_up_orders(&mut self, tag: u64) -> Processed {
        if !self.0.iter().all(|link| link.seat.has_order()) {
            tokio::time::sleep(ORDERS_WAIT).await;
        }
        let mut let_go = Vec::new();
        for link in &mut self.0 {
            if let Some(order) = link.seat.order() {
                let_go.push(link.take_up(order, tag).await);
            }
        }
        join(tag, let_go)
    }
}

/// One of all, in their order.
fn join(tag: u64, mut processed: Vec<Processed>) -> Processed {
    if processed.len() == 1 {
        return processed.remove(0);
    }
    let mut all = Processed::new(Batch::empty(), tag);
    let mut batches = Vec::with_capacity(processed.len());
    for one in processed {
        all.since = all.since.min(one.since);
        all.rejected.extend(one.rejected);
        if !one.batch.is_empty() {
            batches.push(one.batch);
        }
    }
    all.batch = joined(batches);
    all
}

/// Waits for all of them, and answers in their order. The first one is polled last: it computes right here, and by then the others
/// have been handed to other threads.
async fn all_of<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut under_way: Vec<Option<Pin<Box<F>>>> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut done: Vec<Option<F::Output>> = under_way.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in under_way.iter_mut().zip(&mut done).rev() {
            if let Some(pinned) = future
                && let Poll::Ready(output) = pinned.as_mut().poll(context)
            {
                (*future, *done) = (None, Some(output));
            }
        }
        if under_way.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().map(|output| output.expect("all are done")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_under_way_at_once_and_answer_in_their_order() {
        let (tell, told) = tokio::sync::watch::channel(0);
        // Each waits for the one behind it: one after the other would wait for ever.
        let waits = (0..4).map(|number| {
            let (tell, mut told) = (tell.clone(), told.clone());
            async move {
                told.wait_for(|count| *count >= 3 - number).await.expect("the sender lives");
                tell.send_modify(|count| *count += 1);
                number
            }
        });
        assert_eq!(all_of(waits.collect()).await, [0, 1, 2, 3]);
    }
}
