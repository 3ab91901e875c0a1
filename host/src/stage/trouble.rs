//! What follows when a plugin fails on a batch: again, in halves, or the events are refused.

use std::time::Duration;

use tracing::warn;

use super::{Backoff, Stage, StageStop};
use crate::config::pipeline::AfterRetries;
use crate::event::Batch;
use crate::plugin::{CallError, Failure, Rejected, TrapKind};
use crate::replay;

/// Traps in a row before each fresh instance has to wait: finding one bad event among 1000 takes eleven.
const FREE_TRAPS: u32 = 12;
/// Traps in a row after which the stage stops: a plugin that fails on a hundred pieces or polls on end fails on everything.
const TRAPS_MAX: u32 = 100;
const TRAP_DELAY_MAX: Duration = Duration::from_secs(1);

/// Events that a plugin is being given, and the history of that.
#[derive(Debug)]
pub struct Piece {
    pub batch: Batch,
    /// The runner's number of the batch that this is a piece of.
    pub tag: u64,
    /// 1 the first time.
    pub attempt: u32,
    /// Whether an instance has trapped on these events before.
    trapped: bool,
    backoff: Backoff,
}

/// What to do with a piece that failed.
#[derive(Debug)]
pub enum Decision {
    /// Give it again, to a fresh instance if this one is dead, not before the wait is over.
    Again(Piece, Duration),
    /// Give the halves, the first one first.
    Halves(Box<[Piece; 2]>, Duration),
    /// Its events can never be accepted.
    Refused(Vec<Rejected>),
}

impl Piece {
    pub fn new(batch: Batch, tag: u64, stage: &Stage) -> Self {
        Self { batch, tag, attempt: 1, trapped: false, backoff: Backoff::new(&stage.retry) }
    }

    /// As [`new`](Self::new), for events on which an instance has trapped already.
    pub fn suspected(batch: Batch, tag: u64, stage: &Stage) -> Self {
        Self { trapped: true, ..Self::new(batch, tag, stage) }
    }

    /// The rows that a sink asks for again.
    ///
    /// # Errors
    /// When the stage's attempts are used up and its policy is to stop.
    pub fn again(mut self, stage: &Stage, reason: String, after: Option<Duration>) -> Result<Decision, StageStop> {
        self.attempt += 1;
        if let Some(wait) = self.backoff.next(after) {
            warn!(stage = %stage.name, reason, attempt = self.attempt, events = self.batch.count(), "trying again");
            return Ok(Decision::Again(self, wait));
        }
        match stage.retry.then {
            AfterRetries::DeadLetter => Ok(Decision::Refused(self.refuse(&reason))),
            AfterRetries::Stop => Err(stage.stop(format!("{reason} (after {} attempts)", self.backoff.tried()))),
        }
    }

    /// Decides what follows on a failed call.
    ///
    /// A trap gets one more try on a fresh instance; then the piece is halved until the guilty event is alone, and that
    /// one is refused. A call that merely took too long is tried again whole and never refused for it.
    ///
    /// # Errors
    /// When the stage has to stop.
    pub fn failed(mut self, stage: &Stage, error: CallError, guard: &mut TrapGuard) -> Result<Decision, StageStop> {
        let (kind, text) = match error {
            CallError::Failure(Failure::Retry { reason, after }) => return self.again(stage, reason, after),
            CallError::Failure(Failure::Reject(reason)) => return Ok(Decision::Refused(self.refuse(&reason))),
            CallError::Failure(Failure::Fatal(reason)) => return Err(stage.stop(reason)),
            CallError::Trap { kind, text } => (kind, text),
        };
        stage.counters.trapped(kind);
        // The whole batch when it first fails, in case it takes more than one event; then the guilty one.
        if self.attempt == 1 || self.batch.count() == 1 {
            replay::keep_batch(stage, &self.batch, kind, &text);
        }
        warn!(stage = %stage.name, %kind, events = self.batch.count(), text, "plugin trapped; it goes on with a fresh instance");
        if kind == TrapKind::CallTimeout {
            return self.again(stage, text, None);
        }
        let wait = guard.trapped(stage, &text)?;
        self.attempt += 1;
        if !self.trapped {
            self.trapped = true;
            return Ok(Decision::Again(self, wait));
        }
        match self.batch.count() {
            0 | 1 => Ok(Decision::Refused(self.refuse(&text))),
            _ => Ok(Decision::Halves(self.halves(), wait)),
        }
    }

    fn halves(self) -> Box<[Piece; 2]> {
        let middle = self.batch.count() / 2;
        let half = |rows| Piece {
            batch: self.batch.slice(rows),
            tag: self.tag,
            attempt: self.attempt,
            trapped: true,
            backoff: self.backoff.clone(),
        };
        Box::new([half(0..middle), half(middle..self.batch.count())])
    }

    fn refuse(&self, reason: &str) -> Vec<Rejected> {
        let rows = 0..self.batch.count();
        rows.map(|row| Rejected { event: self.batch.slice(row..row + 1), reason: reason.into() }).collect()
    }
}

/// Slows a plugin down that traps again and again, and stops it in the end, so that a broken one cannot burn a core.
#[derive(Debug, Default)]
pub struct TrapGuard {
    in_a_row: u32,
}

impl TrapGuard {
    /// Judges a failed call that had no events to give, as a flush: how long to wait before the next one. A refusal refuses nothing.
    ///
    /// # Errors
    /// When the stage has to stop.
    pub fn failed_without_events(&mut self, stage: &Stage, error: CallError) -> Result<Duration, StageStop> {
        let first_wait = || Backoff::new(&stage.retry).delay();
        match error {
            CallError::Failure(Failure::Retry { reason, after }) => {
                warn!(stage = %stage.name, reason, "trying again");
                Ok(first_wait().max(after.unwrap_or_default()))
            }
            CallError::Failure(Failure::Reject(_)) => Ok(Duration::ZERO),
            CallError::Failure(Failure::Fatal(reason)) => Err(stage.stop(reason)),
            CallError::Trap { kind, text } => {
                stage.counters.trapped(kind);
                warn!(stage = %stage.name, %kind, text, "plugin trapped; it goes on with a fresh instance");
                if kind == TrapKind::CallTimeout { Ok(first_wait()) } else { self.trapped(stage, &text) }
            }
        }
    }

    pub fn went_well(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts a trap; how long to wait before a fresh instance.
    ///
    /// # Errors
    /// After a hundred in a row.
    pub fn trapped(&mut self, stage: &Stage, text: &str) -> Result<Duration, StageStop> {
        self.in_a_row += 1;
        if self.in_a_row >= TRAPS_MAX {
            let cause = format!("it trapped {} times in a row, on everything it was asked for: {text}", self.in_a_row);
            return Err(stage.stop_with_remedy(cause, "replace the plugin, or correct its configuration"));
        }
        let over = self.in_a_row.saturating_sub(FREE_TRAPS).min(10);
        Ok(if over == 0 { Duration::ZERO } else { (Duration::from_millis(2) * 2_u32.pow(over)).min(TRAP_DELAY_MAX) })
    }
}
