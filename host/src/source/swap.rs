//! What swaps ask of a source runner, between two batches.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::settle::Unsettled;
use super::{Halt, SourceRunner};
use crate::interceptor::Processed;
use crate::plugin::{CallError, SourceInstance};
use crate::stage::TrapGuard;
use crate::swap::{Bell, Order, Switch, Switched, TryOut, close_in_time, open};

/// Limit: how long a source that cannot bring events again is kept for the answers that its clients wait for.
const SETTLE_WAIT: Duration = Duration::from_secs(10);

impl SourceRunner {
    /// Does what the bell was rung for.
    pub(super) async fn answer_the_bell(&mut self) -> Result<(), Halt> {
        self.bell.hush();
        self.is_paused = self.seat.is_paused() || self.parts.chain.is_paused();
        if self.parts.chain.has_orders() {
            let let_go = self.parts.chain.take_up_orders(self.tag).await?;
            self.put_late(let_go).await?;
        }
        match self.seat.order() {
            Some(Order::Switch(switch)) => self.switch(*switch).await,
            Some(Order::Try(tried)) => self.try_out(tried).await,
            // Shadows are for interceptors only, which the swap has made sure of.
            Some(Order::Shadow(_)) | None => Ok(()),
        }
    }

    /// Paused: only what was put goes on to be settled.
    pub(super) async fn wait_for_the_bell(&mut self) {
        tokio::select! {
            () = self.settled.notified() => {}
            () = self.stop.stopping() => {}
        }
    }

    /// Puts what interceptors let go of that they had kept back.
    pub(super) async fn put_late(&mut self, processed: Processed) -> Result<(), Halt> {
        let frees_nothing = !self.is_freed(self.withheld.front());
        if processed.batch.is_empty() && processed.rejected.is_empty() && frees_nothing {
            return Ok(());
        }
        let (tag, generation, brought) = (self.tag, self.generation, self.brought);
        self.put(processed, Unsettled { tag, receipts: Vec::new(), parts: Vec::new(), generation, brought }).await
    }

    /// Closes the source and opens it anew, as another generation, at the position of the last put. Where that does not open, the
    /// old one is opened again.
    ///
    /// Cancel: the old generation serves, and whoever ordered the switch gets no answer.
    async fn switch(&mut self, switch: Switch) -> Result<(), Halt> {
        let boundary = Instant::now();
        let closing = self.make_way().await?;
        let opened = open::<SourceInstance>(&switch.stage, &self.position).await;
        let plugin_time = closing.elapsed();
        let Switch { stage, trial, answer, .. } = switch;
        // Whoever ordered it may be gone.
        let _ = match opened {
            Ok(instance) => {
                self.instance = Some(instance);
                self.begin_instance();
                self.guard = TrapGuard::default();
                let before = std::mem::replace(&mut self.parts.stage, stage);
                self.seat.switched(before, trial);
                answer.send(Ok(Switched { pause: boundary.elapsed(), plugin_time, old: None }))
            }
            Err(error) => {
                warn!(source = %self.parts.stage.name, reason = error.reason, "opened as it was");
                answer.send(Err(error))
            }
        };
        Ok(())
    }

    /// Opens another generation in the place of this one, to see whether it opens. This one goes on with the next poll.
    async fn try_out(&mut self, tried: TryOut) -> Result<(), Halt> {
        self.make_way().await?;
        let opened = match open::<SourceInstance>(&tried.stage, &self.position).await {
            Ok(instance) => {
                close_in_time(&tried.stage, instance).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        // Whoever ordered it may be gone.
        let _ = tried.answer.send(opened);
        Ok(())
    }

    /// Puts what was brought and closes the source. Answers when closing began.
    async fn make_way(&mut self) -> Result<Instant, Halt> {
        while let Some(polled) = self.early.pop_front() {
            self.take_over(polled).await?;
        }
        if !self.parts.stage.plugin.description().replays {
            self.answer_clients().await?;
        }
        let closing = Instant::now();
        if let Some(instance) = self.instance.take() {
            close_in_time(&self.parts.stage, instance).await;
        }
        Ok(closing)
    }

    /// Waits until what was brought is settled, and tells the source: it cannot bring it again, so its clients would.
    async fn answer_clients(&mut self) -> Result<(), Halt> {
        let deadline = Instant::now() + SETTLE_WAIT;
        self.settle().await?;
        while !self.unsettled.is_empty() && Instant::now() < deadline && !self.stop.is_stopping() {
            tokio::select! {
                () = self.settled.notified() => self.settle().await?,
                () = tokio::time::sleep_until(deadline) => {}
                () = self.stop.stopping() => {}
            }
        }
        Ok(())
    }

    /// A new instance counts its batches from the first.
    pub(super) fn begin_instance(&mut self) {
        self.generation += 1;
        (self.brought, self.acked) = (0, 0);
    }

    /// Opens an instance of the generation that serves, or of the one before if this one is on trial and would stop the stage.
    /// False: a stop or a swap was asked for first.
    pub(super) async fn open(&mut self) -> Result<bool, Halt> {
        loop {
            let stage = self.parts.stage.clone();
            let opened = tokio::select! {
                opened = stage.opened(&self.position) => opened,
                () = self.stop.stopping() => return Ok(false),
                () = rung(&self.bell, &self.settled) => return Ok(false),
            };
            // What was settled meanwhile is looked for before the next wait.
            self.settled.notify_one();
            match opened {
                Ok(instance) => {
                    self.instance = Some(instance);
                    return Ok(true);
                }
                Err(stop) => match self.seat.stops(&stop.cause) {
                    Some(before) => self.parts.stage = before,
                    None => return Err(stop.into()),
                },
            }
        }
    }

    /// Whether a failed call sends a generation on trial back to the one before.
    pub(super) fn goes_back(&mut self, error: &CallError) -> bool {
        let Some(before) = self.seat.failed(error) else { return false };
        if let CallError::Trap { kind, .. } = error {
            self.parts.stage.counters.trapped(*kind);
        }
        self.parts.stage.counters.errors.add(1);
        self.parts.stage = before;
        self.guard = TrapGuard::default();
        self.instance = None;
        true
    }
}

async fn rung(bell: &Bell, wake: &Notify) {
    while !bell.is_rung() {
        wake.notified().await;
    }
}
