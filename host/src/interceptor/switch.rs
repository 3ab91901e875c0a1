//! How a link goes from one generation to another: at a swap, and back when the new one does worse.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Processed;
use super::link::{Halt, KEEPS_BACK, Link, Output};
use crate::event::Batch;
use crate::plugin::{CallError, InterceptorInstance};
use crate::stage::{Piece, Stage, StageStop};
use crate::swap::{Order, Sample, SwapError, SwapStep, Switch, Switched};

impl Halt {
    /// Of a generation that nothing is compared with.
    pub fn of_no_trial(self) -> StageStop {
        match self {
            Self::Stop(stop) => stop,
            Self::Back(before) => before.stop("a generation that is not on trial was sent back"),
        }
    }
}

impl Link {
    /// Does what a swap has ordered. Answers what the old generation lets go of.
    pub async fn take_up(&mut self, order: Order, tag: u64) -> Processed {
        let mut output = Output::default();
        match order {
            Order::Shadow(tap) => self.tap = Some(tap),
            Order::Switch(switch) => self.switch(*switch, tag, &mut output).await,
            // Of an interceptor one more instance can be opened at any time.
            Order::Try(_) => {}
        }
        self.processed(output, tag)
    }

    async fn switch(&mut self, switch: Switch, tag: u64, output: &mut Output) {
        let boundary = Instant::now();
        if let Err(reason) = self.let_go(tag, output).await {
            // Whoever ordered it may be gone; the old generation serves on in any case.
            let _ = switch.answer.send(Err(SwapError::at(SwapStep::Drain, reason)));
            return;
        }
        let Switch { stage, ready, trial, answer } = switch;
        let before = self.replace(stage, ready);
        self.seat.switched(before.0, trial);
        let _ = answer.send(Ok(Switched { pause: boundary.elapsed(), plugin_time: Duration::ZERO, old: before.1 }));
    }

    /// Takes an order up while the serving generation has no instance, and so nothing to let go of: it may never open.
    pub fn take_up_unopened(&mut self) {
        match self.seat.order() {
            Some(Order::Switch(switch)) => {
                let Switch { stage, ready, trial, answer } = *switch;
                let (before, _) = self.replace(stage, ready);
                self.seat.switched(before, trial);
                let _ = answer.send(Ok(Switched { pause: Duration::ZERO, plugin_time: Duration::ZERO, old: None }));
            }
            Some(Order::Shadow(tap)) => self.tap = Some(tap),
            Some(Order::Try(_)) | None => {}
        }
    }

    /// Has the serving generation let go of everything.
    async fn let_go(&mut self, tag: u64, output: &mut Output) -> Result<(), String> {
        if self.instance.is_none() {
            return Ok(());
        }
        match self.flush_into(tag, true, output).await {
            Ok(()) if self.kept.is_empty() => Ok(()),
            Ok(()) => Err(KEEPS_BACK.into()),
            Err(Halt::Stop(stop)) => Err(stop.cause),
            Err(Halt::Back(before)) => {
                let lost = self.change_to(before);
                let reason = "the serving generation has just been switched back".to_owned();
                // What comes of it shows with the next batch.
                _ = self.work_off(lost, output).await;
                Err(reason)
            }
        }
    }

    fn replace(
        &mut self,
        stage: Arc<Stage>,
        ready: Option<InterceptorInstance>,
    ) -> (Arc<Stage>, Option<InterceptorInstance>) {
        let before = (std::mem::replace(&mut self.stage, stage), std::mem::replace(&mut self.instance, ready));
        self.number = 0;
        self.kept.clear();
        self.guard = Default::default();
        self.set_tick();
        before
    }

    /// Gives a whole batch to a generation on trial: what that made of it counts only if it goes on.
    pub async fn intercept_on_trial(&mut self, batch: Batch, tag: u64, output: &mut Output) -> Result<(), StageStop> {
        let piece = Piece::new(batch.clone(), tag, &self.stage);
        match self.work_off(vec![piece], output).await {
            Ok(()) => Ok(()),
            Err(halt) => {
                *output = Output::default();
                self.go_back(halt, vec![(batch, tag)], output).await
            }
        }
    }

    /// Goes on with the generation before, if this one is on trial: with these batches, and first with those of which this one
    /// had kept something back.
    pub async fn go_back(
        &mut self,
        halt: Halt,
        batches: Vec<(Batch, u64)>,
        output: &mut Output,
    ) -> Result<(), StageStop> {
        let before = match halt {
            Halt::Back(before) => before,
            Halt::Stop(stop) => match self.seat.stops(&stop.cause) {
                Some(before) => before,
                None => return Err(stop),
            },
        };
        let kept = self.change_to(before);
        let mut pieces: Vec<_> =
            batches.into_iter().rev().map(|(batch, tag)| Piece::new(batch, tag, &self.stage)).collect();
        pieces.extend(kept);
        self.work_off(pieces, output).await.map_err(Halt::of_no_trial)
    }

    /// Leaves a generation that is too slow: what it made counts, and it lets go of what it keeps back.
    pub async fn leave(&mut self, before: Arc<Stage>, tag: u64, output: &mut Output) -> Result<(), StageStop> {
        if !self.kept.is_empty() && self.flush_into(tag, true, output).await.is_err() {
            warn!(stage = %self.stage.name, "it did not let go of what it keeps back, which is given again");
        }
        let kept = self.change_to(before);
        self.work_off(kept, output).await.map_err(Halt::of_no_trial)
    }

    /// The generation before, without an instance yet; what the other had kept back is to be given again, the last first.
    fn change_to(&mut self, before: Arc<Stage>) -> Vec<Piece> {
        let lost = self.lose_instance();
        self.replace(before, None);
        lost
    }

    pub fn note_failure(&self, error: &CallError) {
        if let CallError::Trap { kind, text } = error {
            self.stage.counters.trapped(*kind);
            warn!(stage = %self.stage.name, generation = self.stage.generation, %kind, text, "plugin trapped in its watch window");
        }
    }

    pub fn leave_sample(&mut self, given: Batch, made: Batch, took: Duration) {
        if self.tap.as_ref().is_some_and(|tap| !tap.leave(Sample { given, made, took })) {
            self.tap = None;
        }
    }
}
