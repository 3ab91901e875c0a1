//! What runs in this agent, by name: the one thing that the admin endpoint and the file watcher speak to.

pub mod health;
mod parts;
mod roads;
mod stage;
pub mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

pub use parts::Ended;
use parts::Parts;
use roads::Roads;
pub use stage::{PluginFacts, StageControl, SwapCounters};

use crate::config::pipeline::{DeliveryPromise, Pipeline};
use crate::metrics::AgentCounters;
use crate::plugin::Engine;
use crate::reload::ReloadHandle;
use crate::stage::Stage;
use crate::swap::{SwapError, SwapReport, SwapRequest};

/// The running pipelines of an agent. A clone is the same registry.
#[derive(Clone)]
pub struct Control(Arc<Registry>);

struct Registry {
    engine: Engine,
    pipelines: RwLock<BTreeMap<Arc<str>, Arc<PipelineControl>>>,
    counters: Arc<AgentCounters>,
    ended: RwLock<Vec<Ended>>,
}

/// A stage as people name it: `stage`, or `pipeline/stage` where several pipelines have one of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRef {
    pub pipeline: Option<String>,
    pub stage: String,
}

/// The caller's fault: nothing has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownStage {
    #[error("there is no pipeline `{name}`; running: {}", listed(.known))]
    Pipeline { name: String, known: Vec<String> },
    #[error("there is no stage `{name}`; running: {}", listed(.known))]
    Stage { name: String, known: Vec<String> },
    #[error("pipelines {} each have a stage `{name}`: write PIPELINE/{name}", listed(.pipelines))]
    Ambiguous { name: String, pipelines: Vec<String> },
}

impl Control {
    pub fn new(engine: Engine) -> Self {
        Self(Arc::new(Registry {
            engine,
            pipelines: RwLock::default(),
            counters: Arc::default(),
            ended: RwLock::default(),
        }))
    }

    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// What concerns the agent and no single pipeline.
    pub fn agent_counters(&self) -> &Arc<AgentCounters> {
        &self.0.counters
    }

    /// Makes a pipeline's place, before its stages are built.
    pub fn register(&self, pipeline: &Pipeline) -> Arc<PipelineControl> {
        let control = Arc::new(PipelineControl {
            name: pipeline.name.shared(),
            delivery: pipeline.delivery,
            stages: RwLock::default(),
            roads: RwLock::new(Roads::of(pipeline)),
            parts: Parts::default(),
            reloads: OnceLock::new(),
        });
        self.0.pipelines.write().insert(control.name.clone(), control.clone());
        control
    }

    /// Takes out a pipeline that has ended.
    pub fn remove(&self, pipeline: &str) {
        self.0.pipelines.write().remove(pipeline);
    }

    /// Takes note of how a pipeline has ended while others may go on.
    pub fn note_end(&self, pipeline: &Arc<str>, failure: Option<String>) {
        let mut ended = self.0.ended.write();
        ended.retain(|ended| ended.pipeline != *pipeline);
        ended.push(Ended { pipeline: pipeline.clone(), failure });
    }

    /// Pipelines that have ended.
    pub fn ended(&self) -> Vec<Ended> {
        self.0.ended.read().clone()
    }

    /// In the order of their names.
    pub fn pipelines(&self) -> Vec<Arc<PipelineControl>> {
        self.0.pipelines.read().values().cloned().collect()
    }

    pub fn pipeline(&self, name: &str) -> Option<Arc<PipelineControl>> {
        self.0.pipelines.read().get(name).cloned()
    }

    /// # Errors
    /// When no stage is meant, or several may be.
    pub fn stage(&self, name: &StageRef) -> Result<Arc<StageControl>, UnknownStage> {
        let mut pipelines = self.pipelines();
        if let Some(wanted) = &name.pipeline {
            let known = pipelines.iter().map(|pipeline| pipeline.name.to_string()).collect();
            pipelines.retain(|pipeline| *pipeline.name == **wanted);
            if pipelines.is_empty() {
                return Err(UnknownStage::Pipeline { name: wanted.clone(), known });
            }
        }
        let mut found: Vec<_> = pipelines.iter().filter_map(|pipeline| pipeline.stage(&name.stage)).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                let stages = pipelines.iter().flat_map(|pipeline| pipeline.stages());
                let known = stages.map(|stage| stage.name().to_string()).collect();
                Err(UnknownStage::Stage { name: name.stage.clone(), known })
            }
            _ => {
                let pipelines = found.iter().map(|stage| stage.pipeline().to_string()).collect();
                Err(UnknownStage::Ambiguous { name: name.stage.clone(), pipelines })
            }
        }
    }

    /// Gives a stage another plugin, another configuration, or both. Answers when that has been done and watched, as far as the
    /// request asks to wait for it, or has failed.
    ///
    /// Cancel: the swap goes on to its end; the stage's history says how it ended.
    ///
    /// # Errors
    /// The step that failed; the generation that served before serves on.
    pub async fn swap(&self, stage: &StageRef, request: SwapRequest) -> Result<SwapReport, SwapError> {
        let stage = self.stage(stage).map_err(SwapError::of_name)?;
        stage.swap(self.engine(), request).await
    }

    /// Goes back to the generation that served before. As [`swap`](Self::swap).
    ///
    /// # Errors
    /// The step that failed; also when there was no generation before.
    pub async fn rollback(&self, stage: &StageRef) -> Result<SwapReport, SwapError> {
        let stage = self.stage(stage).map_err(SwapError::of_name)?;
        stage.rollback(self.engine()).await
    }
}

impl std::str::FromStr for StageRef {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('/') {
            Some((pipeline, stage)) => Self { pipeline: Some(pipeline.into()), stage: stage.into() },
            None => Self { pipeline: None, stage: text.into() },
        })
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// One running pipeline.
pub struct PipelineControl {
    pub name: Arc<str>,
    pub delivery: DeliveryPromise,
    stages: RwLock<BTreeMap<Arc<str>, Arc<StageControl>>>,
    roads: RwLock<Roads>,
    parts: Parts,
    reloads: OnceLock<ReloadHandle>,
}

impl PipelineControl {
    /// Who reads the pipeline's file anew; nothing before it runs.
    pub fn reloads(&self) -> Option<&ReloadHandle> {
        self.reloads.get()
    }

    pub fn reloads_by(&self, handle: ReloadHandle) {
        // Once for each pipeline: the agent starts it once.
        _ = self.reloads.set(handle);
    }

    /// In the order of their names.
    pub fn stages(&self) -> Vec<Arc<StageControl>> {
        self.stages.read().values().cloned().collect()
    }

    pub fn stage(&self, name: &str) -> Option<Arc<StageControl>> {
        self.stages.read().get(name).cloned()
    }

    /// Enters a use of a stage: a source, a sink, or an interceptor in one chain. Where the stage is there already, the use takes
    /// its counters, and the generation that serves now.
    pub fn enter(self: &Arc<Self>, stage: Stage) -> Arc<Stage> {
        let mut stages = self.stages.write();
        let name = stage.name.clone();
        let control = stages.entry(name);
        let control = control.or_insert_with(|| Arc::new(StageControl::of(&stage, self)));
        control.enter(stage)
    }

    /// Ends every pause: what is on its way is to be delivered.
    pub fn resume(&self) {
        self.stages().iter().for_each(|stage| stage.resume());
    }

    /// The pipeline's file has changed.
    pub fn runs(&self, pipeline: &Pipeline) {
        *self.roads.write() = Roads::of(pipeline);
    }

    /// The stages that get what this one makes.
    pub fn behind(&self, stage: &str) -> Vec<Arc<StageControl>> {
        let behind = self.roads.read().behind(stage);
        behind.iter().filter_map(|name| self.stage(name)).collect()
    }

    /// Takes out a stage that is in the pipeline no more.
    pub fn remove(&self, stage: &str) {
        self.stages.write().remove(stage);
    }
}
