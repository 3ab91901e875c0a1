//! From a checked pipeline to its runners: loads plugins, opens channels, wires them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::AgentError;
use crate::agent::exactly_once::ExactlyOnce;
use crate::agent::logs::{self, ReaderRemoval};
use crate::agent::state_dir::StateDir;
use crate::agent::stop::Stopper;
use crate::channel::{Capacity, Channel, FileChannel, MemoryChannel, TakeLimits};
use crate::config::pipeline::{
    ChannelKind, ChannelName, ChannelSpec, Grants, Limits, Pipeline, RetryPolicy, SelectorSpec, SinkSpec, SourceSpec,
    StageConfig, StageName,
};
use crate::control::PipelineControl;
use crate::dead_letter::DeadLetters;
use crate::interceptor::Chain;
use crate::kafka::KafkaClients;
use crate::metrics::StageCounters;
use crate::plugin::{Engine, Plugin, PluginKind, PluginOrigin, StageContext};
use crate::position_store::PositionStore;
use crate::replay::Bundles;
use crate::resume::resume;
use crate::selector::Selector;
use crate::sink::{SinkParts, SinkRunner};
use crate::source::{Inheritance, SourceParts, SourceRunner};
use crate::stage::{Pace, Stage};
use crate::transaction::{Coordinator, Participant};
use wasmflow_log::{LogSet, Recovered};

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
    Sink(Box<SinkRunner>),
}

impl Built {
    /// The source or sink.
    pub fn stage(&self) -> &Arc<Stage> {
        &self.stages[0]
    }
}

/// What a running pipeline's parts are made of, and those that others are made with: its channels.
pub struct Workshop {
    state: StateDir,
    kafka: Arc<KafkaClients>,
    recovered: Recovered,
    channels: BTreeMap<ChannelName, Channel>,
    exactly_once: Option<ExactlyOnce>,
    logs: Option<Arc<LogSet>>,
    control: Arc<PipelineControl>,
    bundles: Option<Arc<Bundles>>,
}

/// The plugins of a pipeline, by kind and origin.
pub struct Plugins(BTreeMap<String, Arc<Plugin>>);

/// What a stage's table says, whatever its kind.
struct StageSpec<'p> {
    name: &'p StageName,
    kind: PluginKind,
    origin: &'p PluginOrigin,
    config: &'p StageConfig,
    grants: &'p Grants,
    limits: Limits,
    retry: RetryPolicy,
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

    fn of(&self, kind: PluginKind, origin: &PluginOrigin) -> &Arc<Plugin> {
        &self.0[&key(kind, origin)]
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
        let bundles = Bundles::open(state.path()).map(Arc::new);
        let bundles = bundles.inspect_err(|error| tracing::warn!(%error, "what plugins fail on is not kept")).ok();
        let channels = BTreeMap::new();
        let mut workshop = Self { state, recovered, kafka, channels, logs, exactly_once, control, bundles };
        for (number, (name, spec)) in pipeline.channels.iter().enumerate() {
            let channel = workshop.channel(pipeline, name, spec, number);
            workshop.control.enter_channel(channel.clone());
            workshop.channels.insert(name.clone(), channel);
        }
        Ok(workshop)
    }

    fn channel(&self, pipeline: &Pipeline, name: &ChannelName, spec: &ChannelSpec, number: usize) -> Channel {
        let capacity = Capacity { events: spec.capacity_events as u64, bytes: spec.capacity_bytes as u64 };
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
            built.push(self.sink(plan, name, spec)?);
        }
        let mut sources = Vec::new();
        for (name, spec) in &pipeline.sources {
            let source = self.source(plan, name, spec)?;
            sources.push(source.stage().clone());
            built.push(source);
        }
        let exactly_once = self.exactly_once.take();
        let coordinators = exactly_once.map(|once| once.coordinators(pipeline, &self.channels, &sources));
        Ok((built, coordinators.unwrap_or_default()))
    }

    fn source(&self, plan: Plan<'_>, name: &StageName, spec: &SourceSpec) -> Result<Built, AgentError> {
        let stage = self.stage(
            plan,
            StageSpec {
                name,
                kind: PluginKind::Source,
                origin: &spec.plugin,
                config: &spec.config,
                grants: &spec.grants,
                limits: spec.limits,
                retry: spec.retry,
            },
        );
        let store = PositionStore::open(self.state.path(), name.as_str()).map_err(AgentError::Position)?;
        let selector = self.selector(&spec.selector);
        let resume =
            resume(name.as_str(), &selector.channels(), &store, &self.recovered).map_err(AgentError::Position)?;
        let interceptors = self.interceptors(plan, &spec.interceptors);
        let parts = SourceParts {
            stage: stage.clone(),
            chain: Chain::new(interceptors.clone()),
            selector,
            dead_letters: self.dead_letters(plan, None),
            store,
            resume,
            inheritance: Inheritance::default(),
            batch_events: spec.batch_events,
            batch_bytes: spec.batch_bytes,
            ack: spec.ack,
            transaction: self.participant(plan, PluginKind::Source, name),
        };
        let stopper = Arc::new(Stopper::default());
        let runner = Box::new(SourceRunner::new(parts, stopper.signal()));
        Ok(Built { runner: Runner::Source(runner, stopper), stages: with(stage, interceptors) })
    }

    fn sink(&self, plan: Plan<'_>, name: &StageName, spec: &SinkSpec) -> Result<Built, AgentError> {
        let stage = self.stage(
            plan,
            StageSpec {
                name,
                kind: PluginKind::Sink,
                origin: &spec.plugin,
                config: &spec.config,
                grants: &spec.grants,
                limits: spec.limits,
                retry: spec.retry,
            },
        );
        let channel = &self.channels[&spec.channel];
        let (mut reader, log) = (channel.reader(name.as_str()).map_err(AgentError::Channel)?, channel.log_name());
        if let Some(exactly_once) = &self.exactly_once {
            let followed = exactly_once.follow(plan.pipeline, name, &mut reader, &self.recovered);
            followed.map_err(AgentError::StateDir)?;
        }
        let interceptors = self.interceptors(plan, &spec.interceptors);
        let parts = SinkParts {
            stage: stage.clone(),
            chain: Chain::new(interceptors.clone()),
            reader,
            dead_letters: self.dead_letters(plan, Some(&spec.channel)),
            log,
            limits: TakeLimits {
                events: spec.batch_events as usize,
                bytes: spec.batch_bytes as usize,
                wait: spec.batch_wait,
            },
            transaction: self.participant(plan, PluginKind::Sink, name),
        };
        Ok(Built { runner: Runner::Sink(Box::new(SinkRunner::new(parts))), stages: with(stage, interceptors) })
    }

    fn participant(&self, plan: Plan<'_>, kind: PluginKind, name: &StageName) -> Option<Participant> {
        self.exactly_once.as_ref()?.participant(plan.pipeline, kind, name)
    }

    /// A stage for this use of each.
    fn interceptors(&self, plan: Plan<'_>, names: &[StageName]) -> Vec<Arc<Stage>> {
        let stage = |name: &StageName| {
            let spec = &plan.pipeline.interceptors[name];
            self.stage(
                plan,
                StageSpec {
                    name,
                    kind: PluginKind::Interceptor,
                    origin: &spec.plugin,
                    config: &spec.config,
                    grants: &spec.grants,
                    limits: spec.limits,
                    retry: spec.retry,
                },
            )
        };
        names.iter().map(stage).collect()
    }

    fn stage(&self, plan: Plan<'_>, spec: StageSpec<'_>) -> Arc<Stage> {
        let kafka = (!spec.grants.kafka.is_empty()).then(|| self.kafka.stage(spec.name.as_str(), &spec.grants.kafka));
        if let (Some(kafka), Some(exactly_once)) = (&kafka, &self.exactly_once) {
            exactly_once.prepare(plan.pipeline, spec.kind, spec.name, kafka);
        }
        let counters = Arc::new(StageCounters::default());
        let context = StageContext {
            pipeline: plan.pipeline.name.shared(),
            stage: spec.name.shared(),
            plugin_kind: spec.kind,
            grants: spec.grants.clone(),
            limits: spec.limits,
            max_event_bytes: plan.pipeline.max_event_bytes,
            counters: counters.clone(),
            kafka,
            log: Arc::default(),
            bundles: self.bundles.clone(),
        };
        self.control.enter(Stage {
            name: spec.name.shared(),
            generation: 1,
            plugin: plan.plugins.of(spec.kind, spec.origin).clone(),
            context,
            config: spec.config.clone(),
            retry: spec.retry,
            counters,
            pace: Pace::default(),
            point: Arc::default(),
        })
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
