//! One stage of a running pipeline: the generation that serves, those before it, and its uses.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::config::pipeline::DeliveryPromise;
use crate::metrics::StageCounters;
use crate::plugin::{Engine, Plugin, PluginKind};
use crate::stage::Stage;
use crate::swap::{SwapError, SwapRecord, SwapReport, SwapRequest, SwapStep};

/// A source, an interceptor or a sink, with whatever runs for it.
pub struct StageControl {
    pipeline: Arc<str>,
    name: Arc<str>,
    kind: PluginKind,
    delivery: DeliveryPromise,
    /// Of all its uses and all its generations.
    counters: Arc<StageCounters>,
    state: Mutex<State>,
}

struct State {
    /// The stage as its serving generation has it, once for each use.
    uses: Vec<Arc<Stage>>,
    since: SystemTime,
    /// Oldest first.
    history: VecDeque<SwapRecord>,
}

/// Which plugin a generation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFacts {
    pub name: String,
    pub version: String,
    /// SHA-256, in hexadecimal.
    pub digest: String,
    /// The standard plugin's name, or the file's path.
    pub origin: String,
}

impl PluginFacts {
    pub fn of(plugin: &Plugin) -> Self {
        let description = plugin.description();
        Self {
            name: description.name.clone(),
            version: description.version.clone(),
            digest: plugin.digest().into(),
            origin: plugin.origin().to_string(),
        }
    }
}

impl StageControl {
    pub(super) fn of(stage: &Stage, delivery: DeliveryPromise) -> Self {
        Self {
            pipeline: stage.context.pipeline.clone(),
            name: stage.name.clone(),
            kind: stage.kind(),
            delivery,
            counters: stage.counters.clone(),
            state: Mutex::new(State { uses: Vec::new(), since: SystemTime::now(), history: VecDeque::new() }),
        }
    }

    pub(super) fn enter(&self, stage: Stage) -> Arc<Stage> {
        let mut state = self.state.lock();
        let stage = Arc::new(Stage { counters: self.counters.clone(), ..stage });
        state.uses.push(stage.clone());
        stage
    }

    pub fn pipeline(&self) -> &Arc<str> {
        &self.pipeline
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn kind(&self) -> PluginKind {
        self.kind
    }

    pub fn delivery(&self) -> DeliveryPromise {
        self.delivery
    }

    pub fn counters(&self) -> &Arc<StageCounters> {
        &self.counters
    }

    /// Which plugin serves.
    pub fn plugin(&self) -> PluginFacts {
        PluginFacts::of(&self.serving().plugin)
    }

    /// The number of the generation that serves: 1 is what the pipeline file names.
    pub fn generation(&self) -> u64 {
        self.serving().generation
    }

    /// Since when this generation serves.
    pub fn since(&self) -> SystemTime {
        self.state.lock().since
    }

    /// How many sources and sinks it works for: more than one for an interceptor that several name.
    pub fn uses(&self) -> usize {
        self.state.lock().uses.len()
    }

    /// The last swaps, oldest first.
    pub fn history(&self) -> Vec<SwapRecord> {
        self.state.lock().history.iter().cloned().collect()
    }

    /// The stage as its serving generation has it.
    pub fn serving(&self) -> Arc<Stage> {
        self.state.lock().uses.first().cloned().expect("a stage is entered with its first use")
    }

    /// As [`Control::swap`](super::Control::swap).
    ///
    /// # Errors
    /// The step that failed.
    pub async fn swap(self: &Arc<Self>, _engine: &Engine, _request: SwapRequest) -> Result<SwapReport, SwapError> {
        Err(SwapError::at(SwapStep::Turn, "this version of the host does not swap yet"))
    }

    /// As [`Control::rollback`](super::Control::rollback).
    ///
    /// # Errors
    /// The step that failed.
    pub async fn rollback(self: &Arc<Self>, _engine: &Engine) -> Result<SwapReport, SwapError> {
        Err(SwapError::at(SwapStep::Turn, "this version of the host does not swap yet"))
    }
}
