//! What swaps ask of a sink runner, between two batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::pending::Pending;
use super::{Flushed, SinkRunner, until};
use crate::event::Batch;
use crate::interceptor::Processed;
use crate::plugin::{CallError, Rejected, SinkInstance};
use crate::position::Position;
use crate::stage::{Backoff, Piece, Stage, StageStop};
use crate::swap::{Order, SwapError, SwapStep, Switch, Switched, TryOut, close_in_time, open};

/// Limit: how long a sink may take to let go of what it holds before a swap of it is given up.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

impl SinkRunner {
    /// Does what the bell was rung for.
    pub(super) async fn answer_the_bell(&mut self) -> Result<(), StageStop> {
        self.bell.hush();
        self.is_paused = self.seat.is_paused() || self.parts.chain.is_paused();
        if self.parts.chain.has_orders() {
            match self.work.is_empty() {
                true => {
                    let let_go = self.parts.chain.take_up_orders(self.tag).await?;
                    self.begin_late(let_go).await?;
                }
                // What interceptors let go of belongs behind what is still to be delivered.
                false => self.bell.leave_rung(),
            }
        }
        match self.seat.order() {
            Some(Order::Switch(switch)) => self.switch(*switch).await,
            Some(Order::Try(tried)) => self.try_out(tried).await,
            // Shadows are for interceptors only, which the swap has made sure of.
            Some(Order::Shadow(_)) | None => Ok(()),
        }
    }

    /// Switches while the serving generation does not open: that may be why it is swapped.
    pub(super) async fn switch_unopened(&mut self) -> Result<(), StageStop> {
        match self.seat.order() {
            Some(Order::Switch(switch)) => self.switch(*switch).await,
            Some(Order::Try(tried)) => self.try_out(tried).await,
            Some(Order::Shadow(_)) | None => Ok(()),
        }
    }

    /// Lines up what interceptors let go of that they had kept back.
    pub(super) async fn begin_late(&mut self, processed: Processed) -> Result<(), StageStop> {
        if processed.batch.is_empty() && processed.rejected.is_empty() {
            return Ok(());
        }
        let at = self.pending.newest().map_or_else(|| self.parts.reader.taken_up_to(), |newest| newest.next);
        let mut pending = Pending::new(self.tag, at, at);
        pending.exact = false;
        self.begin(processed, pending, false).await
    }

    /// Has the sink let go of what it holds, closes it and opens it anew, as another generation. Where that does not open, the old
    /// one is opened again. What could not be delivered yet is the new one's to deliver.
    ///
    /// Cancel: the old generation serves, and whoever ordered the switch gets no answer.
    async fn switch(&mut self, switch: Switch) -> Result<(), StageStop> {
        let boundary = Instant::now();
        if let Err(reason) = self.let_go().await? {
            let _ = switch.answer.send(Err(SwapError::at(SwapStep::Drain, reason)));
            return Ok(());
        }
        if let Some(instance) = self.instance.take() {
            close_in_time(&self.parts.stage, instance).await;
        }
        let opened = open::<SinkInstance>(&switch.stage, &Position::default()).await;
        let plugin_time = boundary.elapsed();
        let Switch { stage, trial, answer, .. } = switch;
        // Whoever ordered it may be gone.
        let _ = match opened {
            Ok(instance) => {
                let before = self.replace(stage);
                self.opened(instance);
                self.seat.switched(before, trial);
                answer.send(Ok(Switched { pause: boundary.elapsed(), plugin_time, old: None }))
            }
            Err(error) => {
                warn!(sink = %self.parts.stage.name, reason = error.reason, "opened as it was");
                answer.send(Err(error))
            }
        };
        Ok(())
    }

    /// Opens another generation in the place of this one, to see whether it opens. This one goes on with the next batch.
    async fn try_out(&mut self, tried: TryOut) -> Result<(), StageStop> {
        let answer = match self.let_go().await? {
            Err(reason) => Err(SwapError::at(SwapStep::Drain, reason)),
            Ok(()) => {
                if let Some(instance) = self.instance.take() {
                    close_in_time(&self.parts.stage, instance).await;
                }
                match open::<SinkInstance>(&tried.stage, &Position::default()).await {
                    Ok(instance) => {
                        close_in_time(&tried.stage, instance).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        // Whoever ordered it may be gone.
        let _ = tried.answer.send(answer);
        Ok(())
    }

    /// Drains the sink. Answers why it still holds something, if it does.
    async fn let_go(&mut self) -> Result<Result<(), String>, StageStop> {
        let deadline = Instant::now() + DRAIN_WAIT;
        let mut backoff = Backoff::new(&self.parts.stage.retry);
        while self.instance.is_some() {
            let reason = match self.flush_once(true).await? {
                Flushed::Clear | Flushed::Rewound => break,
                Flushed::Holding(reason) => reason,
            };
            if !self.pending.is_holding() {
                // It failed, and owes nothing: that may be why it is swapped.
                break;
            }
            let next = Instant::now() + backoff.delay();
            if next > deadline {
                return Ok(Err(reason));
            }
            until(Some(next)).await;
        }
        Ok(Ok(()))
    }

    /// Another generation, without an instance yet. What waits to be tried again need not wait for this one.
    fn replace(&mut self, stage: Arc<Stage>) -> Arc<Stage> {
        self.instance = None;
        self.guard = Default::default();
        self.not_before = None;
        std::mem::replace(&mut self.parts.stage, stage)
    }

    /// A delivery failed, and the generation on trial goes back to the one before, which gets it.
    pub(super) async fn go_back(&mut self, before: Arc<Stage>, error: &CallError, piece: Piece) {
        if let CallError::Trap { kind, .. } = error {
            self.parts.stage.counters.trapped(*kind);
            self.instance = None;
        }
        let again = Piece::new(piece.batch, piece.tag, &before);
        match self.leave(before).await {
            true => self.work.push_front(again),
            // It is taken again with everything else.
            false => self.rewind().await,
        }
    }

    /// A flush failed, and the generation on trial goes back to the one before. What it held is taken again.
    pub(super) async fn go_back_from_flush(&mut self, before: Arc<Stage>, error: &CallError) {
        match error {
            CallError::Trap { kind, .. } => self.parts.stage.counters.trapped(*kind),
            CallError::Failure(_) => {
                if let Some(instance) = self.instance.take() {
                    close_in_time(&self.parts.stage, instance).await;
                }
            }
        }
        let held = self.pending.is_holding();
        self.replace(before);
        if held {
            self.rewind().await;
        }
    }

    /// Leaves a generation that did worse than the one before. False: it died with what it held.
    async fn leave(&mut self, before: Arc<Stage>) -> bool {
        if self.pending.is_holding() && self.instance.is_some() {
            // Asked once: it is known to be worse.
            _ = self.flush_once(true).await;
        }
        if let Some(instance) = self.instance.take() {
            close_in_time(&self.parts.stage, instance).await;
        }
        self.replace(before);
        !self.pending.is_holding()
    }

    /// Before the next batch: a generation on trial whose calls take too long goes back.
    pub(super) async fn leave_if_slow(&mut self) {
        if let Some(before) = self.seat.take_back()
            && !self.leave(before).await
        {
            self.rewind().await;
        }
    }

    /// Events that a generation on trial refused, and that one is the worse for: the one before gets them.
    pub(super) async fn give_again(&mut self, before: Arc<Stage>, refused: Vec<Rejected>, tag: u64) {
        let events: Vec<Batch> = refused.into_iter().map(|refused| refused.event).collect();
        let piece = Piece::new(Batch::join(&events), tag, &before);
        match self.leave(before).await {
            true => self.work.push_front(piece),
            false => self.rewind().await,
        }
    }

    /// The stage would stop. Whether the generation before goes on instead, with everything that is not settled.
    pub(super) async fn survives(&mut self, stop: &StageStop) -> bool {
        if stop.stage != self.parts.stage.name {
            return false;
        }
        let Some(before) = self.seat.stops(&stop.cause) else { return false };
        self.replace(before);
        self.rewind().await;
        true
    }
}
