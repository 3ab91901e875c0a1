//! From a checked pipeline to its runners: loads plugins, opens channels, wires them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::AgentError;
use crate::agent::exactly_once::ExactlyOnce;
use crate::agent::logs::{self, ReaderRemoval};
use crate::agent::state_dir::StateDir;
use crate::agent::stop::Stopper;
use crate::channel::{Capacity, Channel, FileChannel, MemoryChannel, TakeLimits};
use crate::config::StageSpec;
use crate::config::pipeline::{
    ChannelKind, ChannelName, ChannelSpec, Pipeline, SelectorSpec, SinkSpec, SourceSpec, StageName,
};
use crate::control::PipelineControl;
use crate::dead_letter::DeadLetters;
use crate::interceptor::Chain;
use crate::kafka::{KafkaClients, StageKafka};
use crate::metrics::StageCounters;
use crate::plugin::{Engine, InterceptorInstance, Plugin, PluginKind, PluginOrigin, StageContext};
use crate::position::Position;
use crate::position_store::PositionStore;
use crate::replay::Bundles;
use crate::resume::{Resume, kept_in, resume};
use crate::selector::Selector;
use crate::sink::{SinkCrew, SinkParts};
use crate::source::{Handover, Inheritance, SourceParts, SourceRunner};
use crate::stage::{Stage, StageStop, Worker};
use crate::transaction::{Coordinator, Participant};
use wasmflow_log::{LogSet, Note, Recovered};

/// A runner that is ready to be spawned, with the stages it drives: its own first, then its interceptors in their order. An
/// interceptor that two runners name is a stage of each.
pub struct Built {
    pub runner: Runner,
    pub stages: Vec<Arc<Stage>>,
}

pub enum Runner {
    /// Told to stop by a stopper of its own.
    Source(Box<SourceRunner>, Arc<Stopper>),
    /// Ends with its channel.
    Sink(Box<SinkCrew>),
}

impl Built {
    /// The source or sink.
    pub fn stage(&self) -> &Arc<Stage> {
        &self.stages[0]
    }

    /// Opens the plugins before the runner runs, to see whether they open.
    ///
    /// Cancel: what was opening is thrown away; the runner opens it when it runs.
    ///
    /// # Errors
    /// When one of them has to stop for good.
    pub async fn open_early(&mut self) -> Result<(), StageStop> {
        match &mut self.runner {
            Runner::Source(runner, _) => runner.open_early().await,
            Runner::Sink(runner) => runner.open_early().await,
        }
    }

    /// Closes what is not to run after all.
    pub async fn discard(self) {
        match self.runner {
            Runner::Source(runner, _) => runner.discard().await,
            Runner::Sink(runner) => runner.discard().await,
        }
    }
}

/// What a running pipeline's parts are made of, and those that others are made with: its channels.
pub struct Workshop {
    pub(super) state: StateDir,
    pub(super) kafka: Arc<KafkaClients>,
    pub(super) recovered: Recovered,
    pub(super) channels: BTreeMap<ChannelName, Channel>,
    /// Of the next channel.
    pub(super) next_number: usize,
    exactly_once: Option<ExactlyOnce>,
    pub(super) logs: Option<Arc<LogSet>>,
    pub(super) control: Arc<PipelineControl>,
    bundles: Option<Arc<Bundles>>,
}

/// The plugins of a pipeline, by kind and origin.
pub struct Plugins(BTreeMap<String, Arc<Plugin>>);

/// What a runner takes over from the one whose place it takes.
#[derive(Default)]
pub struct Legacy {
    /// Of a source that has left.
    pub handover: Option<Handover>,
    /// Of the stage that had this one's place, if it is granted the same connections.
    pub kafka: Option<Arc<StageKafka>>,
    /// Whether a source feeds other channels than before.
    pub is_rewired: bool,
    /// Of a sink: how far another has come that has left its channel meanwhile.
    pub skip_to: u64,
}

/// What one build looks at.
#[derive(Clone, Copy)]
pub struct Plan<'p> {
    pub pipeline: &'p Pipeline,
    pub plugins: &'p Plugins,
}

impl Plugins {
    /// Loads every plugin of the pipeline, each once.
    ///
    /// # Errors
    /// When one cannot be loaded, or is of another kind.
    pub async fn load(pipeline: &Pipeline, engine: &Engine) -> Result<Self, AgentError> {
        let mut plugins = BTreeMap::new();
        for (kind, origin) in origins(pipeline) {
            let key = key(kind, origin);
            if let std::collections::btree_map::Entry::Vacant(entry) = plugins.entry(key) {
                let plugin = engine.load(origin).await.map_err(|error| AgentError::Plugin(Box::new(error)))?;
                plugin.expect_kind(kind).map_err(|error| AgentError::Plugin(Box::new(error)))?;
                entry.insert(plugin);
            }
        }
        Ok(Self(plugins))
    }

    /// Those that a file's check has loaded.
    pub fn loaded(plugins: Vec<Arc<Plugin>>) -> Self {
        Self(plugins.into_iter().map(|plugin| (key(plugin.kind(), plugin.origin()), plugin)).collect())
    }

    pub fn of(&self, kind: PluginKind, origin: &PluginOrigin) -> &Arc<Plugin> {
        &self.0[&key(kind, origin)]
    }

    /// Nothing for a plugin that no stage has.
    pub fn digest(&self, kind: PluginKind, origin: &PluginOrigin) -> String {
        self.0.get(&key(kind, origin)).map(|plugin| plugin.digest().to_owned()).unwrap_or_default()
    }
}

impl Workshop {
    /// Opens the pipeline's channels.
    ///
    /// # Errors
    /// When the folder of the file channels cannot be used.
    pub async fn new(
        pipeline: &Pipeline,
        state: StateDir,
        kafka: Arc<KafkaClients>,
        removal: ReaderRemoval,
        control: Arc<PipelineControl>,
    ) -> Result<Self, AgentError> {
        let exactly_once = ExactlyOnce::of(pipeline, &kafka, &state).map_err(AgentError::StateDir)?;
        let (logs, recovered) =
            logs::open(pipeline, state.path(), removal).await.map_err(|error| AgentError::Logs(Box::new(error)))?;
        control.built(kafka.clone());
        let bundles = Some(Arc::new(Bundles::new(state.path())));
        let (channels, next_number) = (BTreeMap::new(), 0);
        let mut workshop =
            Self { state, recovered, kafka, channels, next_number, logs, exactly_once, control, bundles };
        for (name, spec) in &pipeline.channels {
            workshop.add_channel(pipeline, name, spec);
        }
        for note in &workshop.recovered.notes {
            if let Note::TailCut { channel, bytes } = note
                && let Some(Channel::File(channel)) = workshop.channels.values().find(|known| known.name() == channel)
            {
                channel.note_torn(*bytes);
            }
        }
        Ok(workshop)
    }

    /// Makes a channel; the log of a file channel is open by now.
    pub(super) fn add_channel(&mut self, pipeline: &Pipeline, name: &ChannelName, spec: &ChannelSpec) {
        let channel = self.channel(pipeline, name, spec, self.next_number);
        self.next_number += 1;
        self.control.enter_channel(channel.clone());
        self.channels.insert(name.clone(), channel);
    }

    fn channel(&self, pipeline: &Pipeline, name: &ChannelName, spec: &ChannelSpec, number: usize) -> Channel {
        let capacity = capacity(spec);
        match (spec.kind, &self.logs, &self.exactly_once) {
            (ChannelKind::File(_), Some(logs), _) => {
                Channel::File(FileChannel::new(logs, name.as_str(), number, capacity))
            }
            (_, _, None) => Channel::Memory(MemoryChannel::new(name.shared(), number, capacity)),
            (_, _, Some(exactly_once)) => Channel::Memory(exactly_once.channel(pipeline, name, number, capacity)),
        }
    }

    /// Makes all runners. Readers are there before the first put, and every writer before the first reader looks for the end.
    ///
    /// # Errors
    /// When a stored position cannot be read.
    pub fn build(&mut self, plan: Plan<'_>) -> Result<(Vec<Built>, Vec<Coordinator>), AgentError> {
        let Plan { pipeline, .. } = plan;
        let mut built = Vec::new();
        for (name, spec) in &pipeline.sinks {
            built.push(self.sink(plan, name, spec, Legacy::default())?);
        }
        let mut sources = Vec::new();
        for (name, spec) in &pipeline.sources {
            let source = self.source(plan, name, spec, Legacy::default())?;
            sources.push(source.stage().clone());
            built.push(source);
        }
        let exactly_once = self.exactly_once.take();
        let coordinators = exactly_once.map(|once| once.coordinators(pipeline, &self.channels, &sources));
        Ok((built, coordinators.unwrap_or_default()))
    }

    /// A source's runner, in place of another where there is one.
    ///
    /// # Errors
    /// When its stored position cannot be read.
    pub fn source(
        &self,
        plan: Plan<'_>,
        name: &StageName,
        spec: &SourceSpec,
        legacy: Legacy,
    ) -> Result<Built, AgentError> {
        let transaction = self.participant(plan, PluginKind::Source, name);
        let dead_letters = match &plan.pipeline.dead_letters {
            Some(_) if self.exactly_once.is_some() && transaction.is_none() => DeadLetters::NotInTransaction,
            _ => self.dead_letters(plan, None),
        };
        let stage = self.stage_of(plan, PluginKind::Source, name, legacy.kafka);
        let stage = self.control.enter(Stage { sets_aside: dead_letters.are_kept(), ..stage });
        let selector = self.selector(&spec.selector);
        let channels = selector.channels();
        let (store, resume, inheritance) = match legacy.handover {
            Some(Handover { position, store, inheritance }) => {
                let kept_in = kept_in(&channels);
                let is_to_be_carried = legacy.is_rewired && !kept_in.is_empty();
                (store, Resume { position, is_to_be_carried, kept_in }, inheritance)
            }
            None => {
                let store = PositionStore::open(self.state.path(), name.as_str()).map_err(AgentError::Position)?;
                let recovered = self.recovered_now(name);
                let resume = resume(name.as_str(), &channels, &store, &recovered).map_err(AgentError::Position)?;
                (store, resume, Inheritance::default())
            }
        };
        let interceptors = self.interceptors(plan, &spec.interceptors, &dead_letters, Worker::ALONE);
        let parts = SourceParts {
            stage: stage.clone(),
            chain: Chain::new(interceptors.clone()),
            selector,
            dead_letters,
            store,
            resume,
            inheritance,
            batch_events: spec.batch_events,
            batch_bytes: spec.batch_bytes,
            ack: spec.ack,
            transaction,
        };
        let stopper = Arc::new(Stopper::default());
        let runner = Box::new(SourceRunner::new(parts, stopper.signal()));
        Ok(Built { runner: Runner::Source(runner, stopper), stages: with(stage, interceptors) })
    }

    /// A sink's runner, in place of another where there is one.
    ///
    /// # Errors
    /// When its channel has no reader of its name that is free.
    pub fn sink(&self, plan: Plan<'_>, name: &StageName, spec: &SinkSpec, legacy: Legacy) -> Result<Built, AgentError> {
        let channel = &self.channels[&spec.channel];
        let (mut reader, log) = (channel.reader(name.as_str()).map_err(AgentError::Channel)?, channel.log_name());
        reader.skip_to(legacy.skip_to);
        if let Some(exactly_once) = &self.exactly_once {
            let followed = exactly_once.follow(plan.pipeline, name, &mut reader, &self.recovered);
            followed.map_err(AgentError::StateDir)?;
        }
        let (mut kafka, mut parts, mut stages) = (legacy.kafka, Vec::new(), Vec::new());
        for (reader, number) in reader.shared_by(spec.workers).into_iter().zip(0..) {
            let dead_letters = self.dead_letters(plan, Some(&spec.channel));
            let worker = Worker { number, is_first: number == 0 };
            // Each has clients of its own: what one gives to Kafka is no other's to send.
            let stage = self.stage_of(plan, PluginKind::Sink, name, kafka.take());
            let sets_aside = dead_letters.are_kept();
            let stage = self.control.enter(Stage { worker, sets_aside, ..stage });
            let interceptors = self.interceptors(plan, &spec.interceptors, &dead_letters, worker);
            parts.push(SinkParts {
                stage: stage.clone(),
                chain: Chain::new(interceptors.clone()),
                reader,
                dead_letters,
                log: log.clone(),
                limits: TakeLimits {
                    events: spec.batch_events as usize,
                    bytes: spec.batch_bytes as usize,
                    wait: spec.batch_wait,
                },
                transaction: self.participant(plan, PluginKind::Sink, name),
            });
            stages.extend(with(stage, interceptors));
        }
        Ok(Built { runner: Runner::Sink(Box::new(SinkCrew::new(parts))), stages })
    }

    fn participant(&self, plan: Plan<'_>, kind: PluginKind, name: &StageName) -> Option<Participant> {
        self.exactly_once.as_ref()?.participant(plan.pipeline, kind, name)
    }

    /// A stage for this use of each, or one for each of its workers.
    fn interceptors(
        &self,
        plan: Plan<'_>,
        names: &[StageName],
        letters: &DeadLetters,
        runner: Worker,
    ) -> Vec<Arc<Stage>> {
        let workers = |name: &StageName| plan.pipeline.interceptors[name].workers;
        let each = names.iter().flat_map(|name| {
            let worker = move |number| Worker { number, is_first: runner.is_first && number == 0 };
            (0..workers(name)).map(move |number| (name, worker(number)))
        });
        let stage = |(name, worker): (&StageName, Worker)| {
            let stage = self.stage_of(plan, PluginKind::Interceptor, name, None);
            self.control.enter(Stage { worker, sets_aside: letters.are_kept(), ..stage })
        };
        each.map(stage).collect()
    }

    /// What a running stage is to become in another place, with its clients where it has the same connections. Nobody knows of it.
    pub fn candidate(&self, plan: Plan<'_>, kind: PluginKind, name: &StageName, running: &Stage) -> Stage {
        let spec = plan.pipeline.stage(kind, name).expect("only what is in both files is tried");
        let is_same = spec.grants.kafka == running.context.grants.kafka;
        self.stage_of(plan, kind, name, running.context.kafka.clone().filter(|_| is_same))
    }

    /// Opens an interceptor that nothing is given, to see whether it opens, and closes it.
    ///
    /// # Errors
    /// When it has to stop for good.
    pub async fn try_interceptor(&self, plan: Plan<'_>, name: &StageName) -> Result<(), StageStop> {
        let stage = self.stage_of(plan, PluginKind::Interceptor, name, None);
        let mut instance: InterceptorInstance = stage.opened(&Position::default()).await?;
        stage.closed(instance.close().await);
        Ok(())
    }

    fn stage_of(&self, plan: Plan<'_>, kind: PluginKind, name: &StageName, kafka: Option<Arc<StageKafka>>) -> Stage {
        let spec = plan.pipeline.stage(kind, name);
        let StageSpec { plugin, config, grants, limits, retry } = spec.expect("only the pipeline's stages are made");
        let clients = || kafka.unwrap_or_else(|| self.kafka.stage(name.as_str(), &grants.kafka));
        let kafka = (!grants.kafka.is_empty()).then(clients);
        if let (Some(kafka), Some(exactly_once)) = (&kafka, &self.exactly_once) {
            exactly_once.prepare(plan.pipeline, kind, name, kafka);
        }
        let counters = Arc::new(StageCounters::default());
        let context = StageContext {
            pipeline: plan.pipeline.name.shared(),
            stage: name.shared(),
            plugin_kind: kind,
            grants: grants.clone(),
            limits,
            max_event_bytes: plan.pipeline.max_event_bytes,
            counters: counters.clone(),
            kafka,
            log: Arc::default(),
            pace: Arc::default(),
            bundles: self.bundles.clone(),
        };
        Stage {
            name: name.shared(),
            generation: 1,
            plugin: plan.plugins.of(kind, plugin).clone(),
            context,
            config: config.clone(),
            retry,
            counters,
            sets_aside: false,
            worker: Worker::ALONE,
            point: Arc::default(),
        }
    }

    fn selector(&self, spec: &SelectorSpec) -> Selector {
        let channels = |names: &[ChannelName]| names.iter().map(|name| self.channels[name].clone()).collect();
        match spec {
            SelectorSpec::Replicating(names) => Selector::Replicating(channels(names)),
            SelectorSpec::Multiplexing { header, routes, default } => Selector::Multiplexing {
                header: header.clone(),
                routes: routes.iter().map(|(value, names)| (value.clone().into_bytes(), channels(names))).collect(),
                default: channels(default),
            },
        }
    }

    fn dead_letters(&self, plan: Plan<'_>, read: Option<&ChannelName>) -> DeadLetters {
        match &plan.pipeline.dead_letters {
            None => DeadLetters::None,
            Some(name) if Some(name) == read => DeadLetters::OwnRoad,
            Some(name) => DeadLetters::Channel(self.channels[name].writer()),
        }
    }

    /// What the file channels know of a source by now: what was found at the start is long past.
    fn recovered_now(&self, source: &StageName) -> Recovered {
        let mut recovered = self.recovered.clone();
        if let Some(now) = self.logs.as_ref().and_then(|logs| logs.source_now(source.as_str())) {
            recovered.sources.retain(|known| known.name != now.name);
            recovered.sources.push(now);
        }
        recovered
    }

    pub fn logs(&self) -> Option<&Arc<LogSet>> {
        self.logs.as_ref()
    }

    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.values()
    }

    /// Closes what was opened, once no runner is left: file channels and Kafka clients. Gives the state folder free.
    pub async fn close(self) {
        let names: Vec<_> = self.channels.keys().map(ChannelName::shared).collect();
        drop(self.channels);
        self.control.ended();
        if let Some(logs) = self.logs {
            logs::close(logs, names).await;
        }
        self.kafka.close(super::KAFKA_CLOSE_TIMEOUT).await;
    }
}

pub(super) fn capacity(spec: &ChannelSpec) -> Capacity {
    Capacity { events: spec.capacity_events as u64, bytes: spec.capacity_bytes as u64 }
}

fn with(stage: Arc<Stage>, interceptors: Vec<Arc<Stage>>) -> Vec<Arc<Stage>> {
    std::iter::once(stage).chain(interceptors).collect()
}

fn origins(pipeline: &Pipeline) -> impl Iterator<Item = (PluginKind, &PluginOrigin)> {
    let sources = pipeline.sources.values().map(|spec| (PluginKind::Source, &spec.plugin));
    let interceptors = pipeline.interceptors.values().map(|spec| (PluginKind::Interceptor, &spec.plugin));
    let sinks = pipeline.sinks.values().map(|spec| (PluginKind::Sink, &spec.plugin));
    sources.chain(interceptors).chain(sinks)
}

fn key(kind: PluginKind, origin: &PluginOrigin) -> String {
    format!("{kind} {origin}")
}
