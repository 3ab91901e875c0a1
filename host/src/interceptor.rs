//! The interceptor chain of a source or a sink: each batch through each plugin in turn.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use crate::dead_letter::RejectedBy;
use crate::event::Batch;
use crate::plugin::{CallError, Intercepted, InterceptorInstance, Rejected, Worn};
use crate::position::Position;
use crate::stage::{Decision, Piece, Stage, StageStop, TrapGuard, wait};

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

    /// Throws every instance away with what it keeps back: the events come again.
    pub fn reset(&mut self) {
        for link in &mut self.links {
            link.instance = None;
            link.kept.clear();
        }
    }

    pub async fn close(&mut self) {
        for link in &mut self.links {
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

/// One interceptor in a chain.
struct Link {
    stage: Arc<Stage>,
    instance: Option<InterceptorInstance>,
    /// Batches given to this instance so far.
    number: u64,
    /// The batches of which the instance keeps something back, and all since: given again to a fresh instance.
    kept: VecDeque<Kept>,
    next_tick: Option<Instant>,
    guard: TrapGuard,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    tag: u64,
    batch: Batch,
}

/// What a link makes of its input, piece by piece.
#[derive(Debug, Default)]
struct Output {
    batches: Vec<Batch>,
    rejected: Vec<Rejected>,
}

impl Link {
    fn new(stage: Arc<Stage>) -> Self {
        Self { stage, instance: None, number: 0, kept: VecDeque::new(), next_tick: None, guard: TrapGuard::default() }
    }

    fn oldest_kept(&self) -> Option<u64> {
        self.kept.iter().map(|kept| kept.tag).min()
    }

    fn tick_is_due(&self) -> bool {
        self.next_tick.is_some_and(|tick| tick <= Instant::now())
    }

    async fn intercept(&mut self, batch: Batch, tag: u64) -> Result<Processed, StageStop> {
        self.stage.counters.received.add(batch.count());
        let piece = Piece::new(batch, tag, &self.stage);
        let mut output = Output::default();
        self.work_off(vec![piece], &mut output).await?;
        let worn = self.instance.as_ref().and_then(InterceptorInstance::worn);
        if let Some(reason) = worn.filter(|worn| *worn != Worn::Old || self.kept.is_empty()) {
            self.recycle(reason, tag, &mut output).await?;
        }
        Ok(self.processed(output, tag))
    }

    async fn flush(&mut self, tag: u64, drain: bool) -> Result<Processed, StageStop> {
        let mut output = Output::default();
        self.flush_into(tag, drain, &mut output).await?;
        if drain && !self.kept.is_empty() {
            let cause = "it keeps events back after `flush` with `drain`, when everything is due";
            return Err(self.stage.stop_with_remedy(cause, "mend the plugin: see `flush` in wit/plugin.wit"));
        }
        Ok(self.processed(output, tag))
    }

    /// Gives the pieces one after another, the last of the vector first; a piece that fails comes back as `Decision` says.
    async fn work_off(&mut self, mut pieces: Vec<Piece>, output: &mut Output) -> Result<(), StageStop> {
        while let Some(piece) = pieces.pop() {
            let error = match self.call(&piece).await? {
                Ok(intercepted) => {
                    self.guard.went_well();
                    output.take(&self.stage, intercepted);
                    continue;
                }
                Err(error) => error,
            };
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
        let instance = self.instance.as_mut().expect("it has just been opened");
        let result = instance.intercept(&piece.batch, number).await;
        if let Ok(intercepted) = &result {
            if intercepted.oldest_kept.is_some() {
                self.kept.push_back(Kept { number, tag: piece.tag, batch: piece.batch.clone() });
            }
            self.keep_from(intercepted.oldest_kept);
        }
        Ok(result)
    }

    async fn flush_into(&mut self, tag: u64, drain: bool, output: &mut Output) -> Result<(), StageStop> {
        self.ensure_open().await?;
        let instance = self.instance.as_mut().expect("it has just been opened");
        let result = instance.flush(drain).await;
        self.set_tick();
        match result {
            Ok(flushed) => {
                self.keep_from(flushed.oldest_kept);
                output.take(&self.stage, flushed);
                Ok(())
            }
            Err(error) => {
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
    fn lose_instance(&mut self) -> Vec<Piece> {
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

    async fn ensure_open(&mut self) -> Result<(), StageStop> {
        if self.instance.is_none() {
            self.instance = Some(self.stage.opened(&Position::default()).await?);
            self.number = 0;
            self.set_tick();
        }
        Ok(())
    }

    fn set_tick(&mut self) {
        self.next_tick = self.stage.plugin.description().tick.map(|tick| Instant::now() + tick);
    }

    /// Replaces an instance that has grown too large or too old, once it has let go of what it keeps back.
    async fn recycle(&mut self, reason: Worn, tag: u64, output: &mut Output) -> Result<(), StageStop> {
        if !self.kept.is_empty() {
            self.flush_into(tag, true, output).await?;
        }
        info!(stage = %self.stage.name, %reason, "instance replaced");
        self.stage.counters.restarts.add(1);
        self.close().await;
        Ok(())
    }

    async fn close(&mut self) {
        if let Some(mut instance) = self.instance.take() {
            self.stage.closed(instance.close().await);
        }
    }

    fn processed(&self, output: Output, tag: u64) -> Processed {
        let batch = joined(output.batches);
        self.stage.counters.accepted.add(batch.count());
        let rejected = output.rejected.into_iter().map(|rejected| (self.stage.clone(), rejected)).collect();
        Processed { batch, rejected, since: tag }
    }
}

impl Output {
    fn take(&mut self, stage: &Stage, intercepted: Intercepted) {
        // What is kept back is gone from the batch, but not filtered: it comes with a later one.
        if intercepted.oldest_kept.is_none() {
            stage.counters.filtered.add(intercepted.filtered as usize);
        }
        self.rejected.extend(intercepted.rejected);
        if !intercepted.batch.is_empty() {
            self.batches.push(intercepted.batch);
        }
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
