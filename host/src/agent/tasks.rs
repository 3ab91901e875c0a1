//! The tasks of one pipeline: a runner each, known by its stage.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{Instrument, info_span};

use super::build::{Built, Runner};
use super::stop::{Phase, Stopper};
use crate::plugin::PluginKind;
use crate::source::Handover;
use crate::stage::{Stage, StageStop};

/// Every runner of a pipeline that has not ended.
///
/// Invariant: whoever has this awaits every task in it, or cuts it off.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<Result<Option<Handover>, StageStop>>,
    running: HashMap<Id, Task>,
}

/// A task that has ended.
pub struct Ended {
    pub stage: Arc<Stage>,
    /// Of a source that was asked to leave: what the next runner goes on from. A task that was cut off ended with nothing.
    pub result: Result<Option<Handover>, StageStop>,
}

struct Task {
    stage: Arc<Stage>,
    /// Of a source: a sink ends with its channel.
    stopper: Option<Arc<Stopper>>,
    handle: AbortHandle,
}

impl Tasks {
    pub fn spawn(&mut self, built: Built) {
        let stage = built.stage().clone();
        let span = info_span!("stage", name = %stage.name, kind = %stage.kind());
        let (task, stopper) = match built.runner {
            Runner::Source(runner, stopper) => (self.set.spawn(runner.run().instrument(span)), Some(stopper)),
            Runner::Sink(runner) => {
                let run = async move { runner.run().await.map(|()| None) };
                (self.set.spawn(run.instrument(span)), None)
            }
        };
        self.running.insert(task.id(), Task { stage, stopper, handle: task });
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub fn count(&self, kind: PluginKind) -> usize {
        self.running.values().filter(|task| task.stage.kind() == kind).count()
    }

    /// Moves the stop of every source on.
    pub fn advance(&self, phase: Phase) {
        self.running.values().filter_map(|task| task.stopper.as_ref()).for_each(|stopper| stopper.advance(phase));
    }

    /// Waits for the next task to end; nothing when there is none.
    ///
    /// Cancel: no end is missed.
    pub async fn next_ended(&mut self) -> Option<Ended> {
        let ended = self.set.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Task { stage, .. } = self.running.remove(&id).expect("a task is known from its start to its end");
        let result = match ended {
            Ok((_, result)) => result,
            Err(cut_off) if cut_off.is_cancelled() => Ok(None),
            Err(panic) => {
                let cause = format!("internal error: {panic}");
                Err(stage.stop_with_remedy(cause, "this is a defect of wasmflow: please report it"))
            }
        };
        Some(Ended { stage, result })
    }

    /// The sources and sinks that run.
    pub fn names(&self) -> BTreeSet<Arc<str>> {
        self.running.values().map(|task| task.stage.name.clone()).collect()
    }

    /// Whether the source or sink of this name runs.
    pub fn has(&self, name: &str) -> bool {
        self.running.values().any(|task| &*task.stage.name == name)
    }

    /// Moves the stop of one source on.
    pub fn advance_one(&self, name: &str, phase: Phase) {
        let of_name = self.running.values().filter(|task| &*task.stage.name == name);
        of_name.filter_map(|task| task.stopper.as_ref()).for_each(|stopper| stopper.advance(phase));
    }

    /// Cuts one task off; it ends soon.
    pub fn cut_off(&self, name: &str) {
        let of_name = self.running.values().filter(|task| &*task.stage.name == name);
        of_name.for_each(|task| task.handle.abort());
    }

    /// Cuts every task off.
    pub async fn shutdown(&mut self) {
        self.set.shutdown().await;
        self.running.clear();
    }
}
