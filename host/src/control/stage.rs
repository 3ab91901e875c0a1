//! One stage of a running pipeline: the generation that serves, those before it, and its uses.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::info;

use super::PipelineControl;
use crate::config::pipeline::DeliveryPromise;
use crate::metrics::{Counter, StageCounters};
use crate::plugin::{Engine, Plugin, PluginKind, StageContext};
use crate::stage::Stage;
use crate::swap::{
    Conduct, Generation, Life, StageBounds, SwapError, SwapRecord, SwapReport, SwapRequest, SwapResult, SwapStep,
    Trial, Trigger, Verdict,
};

/// Limit: swaps that a stage remembers.
const HISTORY_MAX: usize = 20;

/// A source, an interceptor or a sink, with whatever runs for it.
pub struct StageControl {
    pipeline: Arc<str>,
    name: Arc<str>,
    kind: PluginKind,
    delivery: DeliveryPromise,
    of: Weak<PipelineControl>,
    /// Of all its uses and all its generations.
    counters: Arc<StageCounters>,
    swaps: SwapCounters,
    /// Held from a swap's beginning until it has switched: a second one is refused, not queued, since it was asked for by
    /// somebody who saw another generation serve.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

/// How swaps of one stage ended.
#[derive(Debug, Default)]
pub struct SwapCounters {
    pub served: Counter,
    pub refused: Counter,
    /// Of those that served: sent back within the watch window.
    pub rolled_back: Counter,
}

struct State {
    /// The stage as its serving generation has it, once for each use.
    uses: Vec<Use>,
    /// Those that are not retired: the one that serves, the one that is prepared, the one that drains.
    generations: Vec<Generation>,
    newest: u64,
    trial: Option<Arc<Trial>>,
    is_paused: bool,
    /// Oldest first.
    history: VecDeque<SwapRecord>,
}

struct Use {
    serving: Arc<Stage>,
    /// What a rollback goes back to.
    before: Option<Arc<Stage>>,
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
    pub(super) fn of(stage: &Stage, pipeline: &Arc<PipelineControl>) -> Self {
        Self {
            pipeline: stage.context.pipeline.clone(),
            name: stage.name.clone(),
            kind: stage.kind(),
            delivery: pipeline.delivery,
            of: Arc::downgrade(pipeline),
            counters: stage.counters.clone(),
            swaps: SwapCounters::default(),
            turn: Arc::default(),
            state: Mutex::new(State {
                uses: Vec::new(),
                generations: vec![Generation::first(stage)],
                newest: stage.generation,
                trial: None,
                is_paused: false,
                history: VecDeque::new(),
            }),
        }
    }

    /// One more use. Beside others it takes their generation; where the others have ended it begins one of its own, if its plugin or
    /// configuration is not what they had.
    pub(super) fn enter(&self, stage: Stage) -> Arc<Stage> {
        let mut state = self.state.lock();
        let last = state.uses.first().map(|known| known.serving.clone());
        state.uses.retain(|known| !known.serving.point.is_closed());
        let context = StageContext { counters: self.counters.clone(), ..stage.context };
        let mut stage = Stage { counters: self.counters.clone(), context, ..stage };
        match (state.uses.first(), last) {
            (Some(known), _) => stage.take_generation_of(&known.serving),
            (None, Some(last)) => state.begins_anew(&mut stage, &last),
            (None, None) => {}
        }
        stage.point.set_paused(state.is_paused);
        let stage = Arc::new(stage);
        state.uses.push(Use { serving: stage.clone(), before: None });
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

    /// Whether an event that it rejects has somewhere to go, wherever it works.
    pub fn has_dead_letters(&self) -> bool {
        self.state.lock().uses.iter().all(|known| known.serving.sets_aside)
    }

    /// The stages that get what it makes.
    pub fn behind(&self) -> Vec<Arc<Self>> {
        self.of.upgrade().map(|pipeline| pipeline.behind(&self.name)).unwrap_or_default()
    }

    pub fn counters(&self) -> &Arc<StageCounters> {
        &self.counters
    }

    pub fn swaps(&self) -> &SwapCounters {
        &self.swaps
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
        let state = self.state.lock();
        state.generations.iter().find(|known| known.life() == Life::Serving).expect("one serves").since
    }

    /// Every generation that is not retired.
    pub fn generations(&self) -> Vec<Generation> {
        self.state.lock().generations.clone()
    }

    /// How many sources and sinks it works for: more than one for an interceptor that several name.
    pub fn uses(&self) -> usize {
        self.state.lock().uses.iter().filter(|known| known.serving.worker.is_first).count()
    }

    /// The last swaps, oldest first.
    pub fn history(&self) -> Vec<SwapRecord> {
        self.state.lock().history.iter().cloned().collect()
    }

    /// The stage as its serving generation has it.
    pub fn serving(&self) -> Arc<Stage> {
        self.state
            .lock()
            .uses
            .first()
            .map(|known| known.serving.clone())
            .expect("a stage is entered with its first use")
    }

    /// Has the stage take no batch until [`resume`](Self::resume); what it has begun it ends. Swaps work meanwhile.
    pub fn pause(&self) {
        self.set_paused(true);
        info!(stage = %self.name, "paused");
    }

    pub fn resume(&self) {
        if self.is_paused() {
            self.set_paused(false);
            info!(stage = %self.name, "resumed");
        }
    }

    pub fn is_paused(&self) -> bool {
        self.state.lock().is_paused
    }

    fn set_paused(&self, paused: bool) {
        let mut state = self.state.lock();
        state.is_paused = paused;
        state.uses.iter().for_each(|known| known.serving.point.set_paused(paused));
    }

    /// As [`Control::swap`](super::Control::swap).
    ///
    /// # Errors
    /// The step that failed.
    pub async fn swap(self: &Arc<Self>, engine: &Engine, request: SwapRequest) -> Result<SwapReport, SwapError> {
        let turn = self.turn.clone().try_lock_owned().map_err(|_| {
            let reason = format!("another swap of `{}` is under way", self.name);
            SwapError::at(SwapStep::Turn, reason).with_remedy("wait until it has switched or was refused")
        })?;
        let (answer, answered) = oneshot::channel();
        let conduct = Conduct { stage: self.clone(), engine: engine.clone(), request, turn };
        // Owner: the stage. It ends by itself with the watch window, or within a second of the stage's own end.
        tokio::spawn(conduct.run(answer));
        let gone = || SwapError::at(SwapStep::Turn, "the agent is stopping");
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// As [`Control::rollback`](super::Control::rollback).
    ///
    /// # Errors
    /// The step that failed.
    pub async fn rollback(self: &Arc<Self>, engine: &Engine) -> Result<SwapReport, SwapError> {
        let before = self.state.lock().uses.first().and_then(|known| known.before.clone());
        let Some(before) = before else {
            return Err(SwapError::at(
                SwapStep::Turn,
                format!("`{}` has had no generation before this one", self.name),
            ));
        };
        let bounds =
            StageBounds { grants: before.context.grants.clone(), limits: before.context.limits, retry: before.retry };
        let request = SwapRequest {
            loaded: Some(before.plugin.clone()),
            config: Some(before.config.clone()),
            bounds: Some(bounds),
            trigger: Trigger::Rollback,
            ..SwapRequest::default()
        };
        self.swap(engine, request).await
    }
}

/// What a swap under way tells.
impl StageControl {
    pub(crate) fn turn(&self) -> Arc<tokio::sync::Mutex<()>> {
        self.turn.clone()
    }

    pub(crate) fn next_generation(&self) -> u64 {
        self.state.lock().newest + 1
    }

    /// The stage as each use that has not ended has it.
    pub(crate) fn live_uses(&self) -> Result<Vec<Arc<Stage>>, SwapError> {
        let state = self.state.lock();
        let live = state.uses.iter().filter(|known| !known.serving.point.is_closed());
        let live: Vec<_> = live.map(|known| known.serving.clone()).collect();
        match live.is_empty() {
            true => Err(SwapError::at(SwapStep::Turn, format!("`{}` has come to its end", self.name))),
            false => Ok(live),
        }
    }

    pub(crate) fn becomes_candidate(&self, number: u64, plugin: PluginFacts) {
        let mut state = self.state.lock();
        state.newest = number;
        state.generations.push(Generation::candidate(number, plugin));
    }

    pub(crate) fn becomes(&self, number: u64, life: Life) {
        self.state.lock().becomes(number, life);
    }

    /// Ends the watch window of the swap before.
    pub(crate) fn begin_trial(&self, trial: &Arc<Trial>) -> Result<(), SwapError> {
        let mut state = self.state.lock();
        let before = state.trial.replace(trial.clone());
        if let Some(before) = before
            && !before.decide(Verdict::Superseded)
            && let Some(Verdict::Breach(breach)) = before.state().verdict
            && state.generations.iter().any(|known| known.life() == Life::Draining)
        {
            state.trial = Some(before);
            let reason = format!("the generation that serves is just being switched back: {breach}");
            return Err(SwapError::at(SwapStep::Turn, reason).with_remedy("try again"));
        }
        Ok(())
    }

    /// Every use has switched.
    pub(crate) fn switched(&self, number: u64, stages: &[(Arc<Stage>, Arc<Stage>)], record: SwapRecord) {
        self.swaps.served.add(1);
        let mut state = self.state.lock();
        for known in &mut state.uses {
            if let Some((_, to)) = stages.iter().find(|(from, _)| Arc::ptr_eq(from, &known.serving)) {
                known.before = Some(std::mem::replace(&mut known.serving, to.clone()));
            }
        }
        state.retire(Life::Draining);
        if let Some(serving) = state.generations.iter_mut().find(|known| known.life() == Life::Serving) {
            serving.becomes(Life::Draining);
        }
        state.becomes(number, Life::Serving);
        state.remember(record);
    }

    pub(crate) fn refused(&self, record: SwapRecord) {
        self.swaps.refused.add(1);
        let mut state = self.state.lock();
        if let Some(known) = state.generations.iter_mut().find(|known| known.number == record.generation) {
            known.becomes(Life::Retired);
        }
        state.generations.retain(|known| known.life() != Life::Retired);
        state.remember(record);
    }

    pub(crate) fn had_first_batch(&self, number: u64, gap: Option<Duration>) {
        if let Some(record) = self.state.lock().record(number) {
            record.gap = gap;
        }
    }

    /// The watch window is over, and the generation stays.
    pub(crate) fn confirmed(&self, number: u64, trial: &Arc<Trial>, gap: Option<Duration>) {
        self.had_first_batch(number, gap);
        let mut state = self.state.lock();
        // Else another swap has taken over, and the generation that drains may be its way back.
        if state.trial.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, trial)) {
            state.retire(Life::Draining);
            state.trial = None;
        }
    }

    /// A use has found the generation worse than the one before. The stage as each use is to have it again.
    pub(crate) fn went_back(&self, number: u64, reason: &str) -> Vec<Arc<Stage>> {
        self.swaps.rolled_back.add(1);
        let mut state = self.state.lock();
        state.trial = None;
        for known in &mut state.uses {
            // A rollback by hand must not lead into what has just failed, and what served before that is gone.
            if let Some(before) = known.before.take() {
                known.serving = before;
            }
        }
        state.becomes(number, Life::Retired);
        if let Some(draining) = state.generations.iter_mut().find(|known| known.life() == Life::Draining) {
            draining.becomes(Life::Serving);
        }
        state.generations.retain(|known| known.life() != Life::Retired);
        if let Some(record) = state.record(number) {
            record.result = SwapResult::RolledBack(reason.into());
        }
        state.uses.iter().map(|known| known.serving.clone()).collect()
    }
}

impl State {
    /// All uses have ended, and a new one begins.
    fn begins_anew(&mut self, stage: &mut Stage, last: &Stage) {
        stage.generation = last.generation;
        if last.plugin.digest() != stage.plugin.digest() || last.config != stage.config {
            self.newest += 1;
            stage.generation = self.newest;
        }
        self.trial = None;
        self.generations = vec![Generation::first(stage)];
    }

    fn becomes(&mut self, number: u64, life: Life) {
        if let Some(known) = self.generations.iter_mut().find(|known| known.number == number) {
            known.becomes(life);
        }
    }

    fn retire(&mut self, life: Life) {
        self.generations.iter_mut().filter(|known| known.life() == life).for_each(|known| known.becomes(Life::Retired));
        self.generations.retain(|known| known.life() != Life::Retired);
    }

    fn record(&mut self, number: u64) -> Option<&mut SwapRecord> {
        self.history.iter_mut().rev().find(|record| record.generation == number)
    }

    fn remember(&mut self, record: SwapRecord) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(record);
    }
}
