//! The tasks of one pipeline: a runner each, known by its stage.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::{Instrument, info_span};

use super::build::{Built, Runner};
use super::stop::{Phase, Stopper};
use crate::plugin::PluginKind;
use crate::stage::{Stage, StageStop};

/// Every runner of a pipeline that has not ended.
///
/// Invariant: whoever has this awaits every task in it, or cuts it off.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<Result<(), StageStop>>,
    running: HashMap<Id, Task>,
}

struct Task {
    stage: Arc<Stage>,
    /// Of a source: a sink ends with its channel.
    stopper: Option<Arc<Stopper>>,
}

impl Tasks {
    pub fn spawn(&mut self, built: Built) {
        let stage = built.stage().clone();
        let span = info_span!("stage", name = %stage.name, kind = %stage.kind());
        let (task, stopper) = match built.runner {
            Runner::Source(runner, stopper) => (self.set.spawn(runner.run().instrument(span)), Some(stopper)),
            Runner::Sink(runner) => (self.set.spawn(runner.run().instrument(span)), None),
        };
        self.running.insert(task.id(), Task { stage, stopper });
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
    pub async fn next_ended(&mut self) -> Option<Result<(), StageStop>> {
        let ended = self.set.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let task = self.running.remove(&id).expect("a task is known from its start to its end");
        Some(match ended {
            Ok((_, result)) => result,
            Err(panic) => Err(task.stage.stop_with_remedy(
                format!("internal error: {panic}"),
                "this is a defect of wasmflow: please report it",
            )),
        })
    }

    /// Cuts every task off.
    pub async fn shutdown(&mut self) {
        self.set.shutdown().await;
        self.running.clear();
    }
}
