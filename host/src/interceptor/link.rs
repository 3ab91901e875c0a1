//! One interceptor in a chain: its instance, what that keeps back, and what follows when it fails.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument as _, info};

use super::{Processed, joined};
use crate::event::Batch;
use crate::plugin::{CallError, Intercepted, InterceptorInstance, Rejected, Worn};
use crate::position::Position;
use crate::stage::{Decision, Piece, Stage, StageStop, TrapGuard, wait};
use crate::swap::{Seat, Tap};

/// What no interceptor may do.
pub const KEEPS_BACK: &str = "it keeps events back after `flush` with `drain`, when everything is due";

/// One interceptor in a chain.
pub struct Link {
    /// As the generation that serves has it.
    pub stage: Arc<Stage>,
    pub seat: Seat,
    pub instance: Option<InterceptorInstance>,
    /// Batches given to this instance so far.
    pub number: u64,
    /// The batches of which the instance keeps something back, and all since: given again to a fresh instance.
    pub kept: VecDeque<Kept>,
    pub next_tick: Option<Instant>,
    pub guard: TrapGuard,
    /// Where a shadow wants copies of batches.
    pub tap: Option<Tap>,
}

/// Why a link does not go on with the generation it has.
pub enum Halt {
    Stop(StageStop),
    /// Within its watch window it does worse than the one before, which is this.
    Back(Arc<Stage>),
}

impl From<StageStop> for Halt {
    fn from(stop: StageStop) -> Self {
        Self::Stop(stop)
    }
}

#[derive(Debug)]
pub struct Kept {
    number: u64,
    tag: u64,
    batch: Batch,
}

/// What a link makes of its input, piece by piece.
#[derive(Debug, Default)]
pub struct Output {
    batches: Vec<Batch>,
    rejected: Vec<Rejected>,
    filtered: u64,
}

impl Link {
    pub fn new(stage: Arc<Stage>) -> Self {
        Self {
            stage,
            seat: Seat::default(),
            instance: None,
            number: 0,
            kept: VecDeque::new(),
            next_tick: None,
            guard: TrapGuard::default(),
            tap: None,
        }
    }

    pub fn oldest_kept(&self) -> Option<u64> {
        self.kept.iter().map(|kept| kept.tag).min()
    }

    pub fn tick_is_due(&self) -> bool {
        self.next_tick.is_some_and(|tick| tick <= Instant::now())
    }

    pub async fn intercept(&mut self, batch: Batch, tag: u64) -> Result<Processed, StageStop> {
        self.stage.counters.received.add(batch.count());
        let sampled = self.tap.is_some().then(|| (batch.clone(), Instant::now()));
        let mut output = Output::default();
        if self.seat.is_on_trial() {
            self.intercept_on_trial(batch, tag, &mut output).await?;
        } else {
            let given = self.work_off(vec![Piece::new(batch, tag, &self.stage)], &mut output).await;
            given.map_err(Halt::of_no_trial)?;
        }
        let worn = self.instance.as_ref().and_then(InterceptorInstance::worn);
        if let Some(reason) = worn.filter(|worn| *worn != Worn::Old || self.kept.is_empty()) {
            self.recycle(reason, tag, &mut output).await?;
        }
        if let Some(before) = self.seat.take_back() {
            self.leave(before, tag, &mut output).await?;
        }
        let processed = self.processed(output, tag);
        if let Some((given, began)) = sampled {
            self.leave_sample(given, processed.batch.clone(), began.elapsed());
        }
        Ok(processed)
    }

    pub async fn flush(&mut self, tag: u64, drain: bool) -> Result<Processed, StageStop> {
        let mut output = Output::default();
        if let Err(halt) = self.flush_into(tag, drain, &mut output).await {
            self.go_back(halt, Vec::new(), &mut output).await?;
            if drain {
                self.flush_into(tag, drain, &mut output).await.map_err(Halt::of_no_trial)?;
            }
        }
        if drain && !self.kept.is_empty() {
            return Err(self.stage.stop_with_remedy(KEEPS_BACK, "mend the plugin: see `flush` in wit/plugin.wit"));
        }
        Ok(self.processed(output, tag))
    }

    /// Gives the pieces one after another, the last of the vector first; a piece that fails comes back as `Decision` says.
    pub async fn work_off(&mut self, mut pieces: Vec<Piece>, output: &mut Output) -> Result<(), Halt> {
        while let Some(piece) = pieces.pop() {
            let error = match self.call(&piece).await? {
                Ok(intercepted) => {
                    self.guard.went_well();
                    let rejected = intercepted.rejected.len();
                    output.take(intercepted);
                    match self.seat.rejected(rejected) {
                        Some(before) => return Err(Halt::Back(before)),
                        None => continue,
                    }
                }
                Err(error) => error,
            };
            if let Some(before) = self.seat.failed(&error) {
                self.note_failure(&error);
                return Err(Halt::Back(before));
            }
            let lost = if error.is_trap() { self.lose_instance() } else { Vec::new() };
            match piece.failed(&self.stage, error, &mut self.guard)? {
                Decision::Again(piece, after) => {
                    wait(after).await;
                    pieces.push(piece);
                }
                Decision::Halves(halves, after) => {
                    wait(after).await;
                    let [first, second] = *halves;
                    pieces.extend([second, first]);
                }
                Decision::Refused(rejected) => output.rejected.extend(rejected),
            }
            // What the dead instance had kept back is older than the piece that killed it.
            pieces.extend(lost);
        }
        Ok(())
    }

    async fn call(&mut self, piece: &Piece) -> Result<Result<Intercepted, CallError>, StageStop> {
        self.ensure_open().await?;
        self.number += 1;
        let number = self.number;
        let began = self.seat.begins();
        let result = match self.stage.worker.number {
            0 => self.instance.as_mut().expect("it has just been opened").intercept(&piece.batch, number).await,
            _ => self.call_apart(piece.batch.clone(), number).await,
        };
        if let Ok(intercepted) = &result {
            self.seat.called(began, piece.batch.count());
            if intercepted.oldest_kept.is_some() {
                self.kept.push_back(Kept { number, tag: piece.tag, batch: piece.batch.clone() });
            }
            self.keep_from(intercepted.oldest_kept);
        }
        Ok(result)
    }

    /// Calls the instance on a task of its own, beside its neighbours.
    ///
    /// Cancel: the instance is gone, as any that is given up in the middle of a call.
    async fn call_apart(&mut self, batch: Batch, number: u64) -> Result<Intercepted, CallError> {
        let mut instance = self.instance.take().expect("it has just been opened");
        let call = async move { (instance.intercept(&batch, number).await, instance) };
        // Dropped with this future, and then it ends the task.
        let mut task = JoinSet::new();
        task.spawn(call.in_current_span());
        let called = task.join_next().await.expect("there is one");
        let (result, instance) = called.expect("a call does not panic, and only its owner ends it");
        self.instance = Some(instance);
        result
    }

    pub async fn flush_into(&mut self, tag: u64, drain: bool, output: &mut Output) -> Result<(), Halt> {
        self.ensure_open().await?;
        let instance = self.instance.as_mut().expect("it has just been opened");
        let result = instance.flush(drain).await;
        self.set_tick();
        match result {
            Ok(flushed) => {
                self.keep_from(flushed.oldest_kept);
                output.take(flushed);
                Ok(())
            }
            Err(error) => {
                if let Some(before) = self.seat.failed(&error) {
                    self.note_failure(&error);
                    return Err(Halt::Back(before));
                }
                let lost = if error.is_trap() { self.lose_instance() } else { Vec::new() };
                wait(self.guard.failed_without_events(&self.stage, error)?).await;
                self.work_off(lost, output).await?;
                match drain {
                    true => Box::pin(self.flush_into(tag, drain, output)).await,
                    false => Ok(()),
                }
            }
        }
    }

    /// The batches that the dead instance kept something of, the newest first, to be given again.
    pub fn lose_instance(&mut self) -> Vec<Piece> {
        self.instance = None;
        let kept = std::mem::take(&mut self.kept);
        kept.into_iter().rev().map(|kept| Piece::new(kept.batch, kept.tag, &self.stage)).collect()
    }

    fn keep_from(&mut self, oldest: Option<u64>) {
        match oldest {
            None => self.kept.clear(),
            Some(oldest) => self.kept.retain(|kept| kept.number >= oldest),
        }
    }

    pub async fn ensure_open(&mut self) -> Result<(), StageStop> {
        while self.instance.is_none() {
            let (stage, start) = (self.stage.clone(), Position::default());
            tokio::select! {
                biased;
                opened = stage.opened(&start) => {
                    self.instance = Some(opened?);
                    self.number = 0;
                    self.set_tick();
                }
                () = self.seat.ordered() => self.take_up_unopened(),
            }
        }
        Ok(())
    }

    pub fn set_tick(&mut self) {
        self.next_tick = self.stage.plugin.description().tick.map(|tick| Instant::now() + tick);
    }

    /// Replaces an instance that has grown too large or too old, once it has let go of what it keeps back.
    async fn recycle(&mut self, reason: Worn, tag: u64, output: &mut Output) -> Result<(), StageStop> {
        if !self.kept.is_empty()
            && let Err(halt) = self.flush_into(tag, true, output).await
        {
            return self.go_back(halt, Vec::new(), output).await;
        }
        info!(stage = %self.stage.name, %reason, "instance replaced");
        self.stage.counters.restarts.add(1);
        self.close().await;
        Ok(())
    }

    pub async fn close(&mut self) {
        if let Some(mut instance) = self.instance.take() {
            self.stage.closed(instance.close().await);
        }
    }

    pub fn processed(&self, output: Output, tag: u64) -> Processed {
        let batch = joined(output.batches);
        self.stage.counters.filtered.add(output.filtered as usize);
        self.stage.counters.accepted.add(batch.count());
        let rejected = output.rejected.into_iter().map(|rejected| (self.stage.clone(), rejected)).collect();
        Processed { batch, rejected, since: tag }
    }
}

impl Output {
    fn take(&mut self, intercepted: Intercepted) {
        // What is kept back is gone from the batch, but not filtered: it comes with a later one.
        if intercepted.oldest_kept.is_none() {
            self.filtered += intercepted.filtered;
        }
        self.rejected.extend(intercepted.rejected);
        if !intercepted.batch.is_empty() {
            self.batches.push(intercepted.batch);
        }
    }
}
