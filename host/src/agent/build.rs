//! From a checked pipeline to its runners: loads plugins, opens channels, wires them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::AgentError;
use crate::agent::exactly_once::ExactlyOnce;
use crate::agent::logs::{self, ReaderRemoval};
use crate::agent::state_dir::StateDir;
use crate::agent::stop::StopSignal;
use crate::channel::{Capacity, Channel, FileChannel, MemoryChannel, TakeLimits};
use crate::config::pipeline::{
    ChannelKind, ChannelName, Grants, Limits, Pipeline, RetryPolicy, SelectorSpec, SinkSpec, SourceSpec, StageConfig,
    StageName,
};
use crate::control::PipelineControl;
use crate::dead_letter::DeadLetters;
use crate::interceptor::Chain;
use crate::kafka::KafkaClients;
use crate::metrics::StageCounters;
use crate::plugin::{Engine, Plugin, PluginKind, PluginOrigin, StageContext};
use crate::position_store::PositionStore;
use crate::resume::resume;
use crate::selector::Selector;
use crate::sink::{SinkParts, SinkRunner};
use crate::source::{SourceParts, SourceRunner};
use crate::stage::Stage;
use crate::transaction::Coordinator;
use wasmflow_log::{LogSet, Recovered};

/// The runners of one pipeline, ready to be spawned.
pub struct Runners {
    pub sources: Vec<(Arc<Stage>, SourceRunner)>,
    pub sinks: Vec<(Arc<Stage>, SinkRunner)>,
    /// With exactly-once.
    pub coordinator: Option<Coordinator>,
    /// Every stage once, for the closing summary.
    pub stages: Vec<Arc<Stage>>,
    /// The logs of the file channels, if there are any.
    pub logs: Option<Arc<LogSet>>,
}

/// What the parts of a pipeline are built from.
pub struct Builder<'p> {
    pipeline: &'p Pipeline,
    state: &'p StateDir,
    recovered: Recovered,
    kafka: Arc<KafkaClients>,
    plugins: BTreeMap<String, Arc<Plugin>>,
    channels: BTreeMap<ChannelName, Channel>,
    exactly_once: Option<ExactlyOnce>,
    logs: Option<Arc<LogSet>>,
    control: Arc<PipelineControl>,
    stages: Vec<Arc<Stage>>,
}

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

impl<'p> Builder<'p> {
    /// Loads every plugin of the pipeline, each once, and makes its channels.
    ///
    /// # Errors
    /// When a plugin cannot be loaded, or the folder of the file channels cannot be used.
    pub async fn new(
        pipeline: &'p Pipeline,
        (engine, control): (&Engine, Arc<PipelineControl>),
        state: &'p StateDir,
        kafka: Arc<KafkaClients>,
        removal: ReaderRemoval,
    ) -> Result<Self, AgentError> {
        let mut plugins = BTreeMap::new();
        for (kind, origin) in origins(pipeline) {
            let key = key(kind, origin);
            if let std::collections::btree_map::Entry::Vacant(entry) = plugins.entry(key) {
                let plugin = engine.load(origin).await.map_err(|error| AgentError::Plugin(Box::new(error)))?;
                plugin.expect_kind(kind).map_err(|error| AgentError::Plugin(Box::new(error)))?;
                entry.insert(plugin);
            }
        }
        let exactly_once = ExactlyOnce::of(pipeline, &kafka, state).map_err(AgentError::StateDir)?;
        let (logs, recovered) =
            logs::open(pipeline, state.path(), removal).await.map_err(|error| AgentError::Logs(Box::new(error)))?;
        let channels = pipeline.channels.iter().enumerate().map(|(number, (name, spec))| {
            let capacity = Capacity { events: spec.capacity_events as u64, bytes: spec.capacity_bytes as u64 };
            let channel = match (spec.kind, &logs, &exactly_once) {
                (ChannelKind::File(_), Some(logs), _) => {
                    Channel::File(FileChannel::new(logs, name.as_str(), number, capacity))
                }
                (_, _, None) => Channel::Memory(MemoryChannel::new(name.shared(), number, capacity)),
                (_, _, Some(exactly_once)) => Channel::Memory(exactly_once.channel(pipeline, name, number, capacity)),
            };
            (name.clone(), channel)
        });
        let channels = channels.collect();
        Ok(Self {
            pipeline,
            state,
            recovered,
            kafka,
            plugins,
            channels,
            logs,
            exactly_once,
            control,
            stages: Vec::new(),
        })
    }

    /// Makes all runners. Readers are there before the first put, and every writer before the first reader looks for the end.
    ///
    /// # Errors
    /// When a stored position cannot be read.
    pub fn build(mut self, stop: &StopSignal) -> Result<Runners, AgentError> {
        let pipeline = self.pipeline;
        let sinks: Result<Vec<_>, AgentError> =
            pipeline.sinks.iter().map(|(name, spec)| self.sink(name, spec)).collect();
        let sources: Result<Vec<_>, AgentError> =
            pipeline.sources.iter().map(|(name, spec)| self.source(name, spec, stop)).collect();
        let sources = sources?;
        let coordinator =
            self.exactly_once.map(|exactly_once| exactly_once.coordinator(pipeline, &self.channels, &sources));
        Ok(Runners { sources, sinks: sinks?, coordinator, stages: self.stages, logs: self.logs })
    }

    fn source(
        &mut self,
        name: &'p StageName,
        spec: &'p SourceSpec,
        stop: &StopSignal,
    ) -> Result<(Arc<Stage>, SourceRunner), AgentError> {
        let stage = self.stage(StageSpec {
            name,
            kind: PluginKind::Source,
            origin: &spec.plugin,
            config: &spec.config,
            grants: &spec.grants,
            limits: spec.limits,
            retry: spec.retry,
        });
        let store = PositionStore::open(self.state.path(), name.as_str()).map_err(AgentError::Position)?;
        let selector = self.selector(&spec.selector);
        let resume =
            resume(name.as_str(), &selector.channels(), &store, &self.recovered).map_err(AgentError::Position)?;
        let parts = SourceParts {
            stage: stage.clone(),
            chain: self.chain(&spec.interceptors),
            selector,
            dead_letters: self.dead_letters(None),
            store,
            resume,
            batch_events: spec.batch_events,
            batch_bytes: spec.batch_bytes,
            ack: spec.ack,
            transaction: self.exactly_once.as_ref().map(ExactlyOnce::participant),
        };
        Ok((stage, SourceRunner::new(parts, stop.clone())))
    }

    fn sink(&mut self, name: &'p StageName, spec: &'p SinkSpec) -> Result<(Arc<Stage>, SinkRunner), AgentError> {
        let stage = self.stage(StageSpec {
            name,
            kind: PluginKind::Sink,
            origin: &spec.plugin,
            config: &spec.config,
            grants: &spec.grants,
            limits: spec.limits,
            retry: spec.retry,
        });
        let channel = &self.channels[&spec.channel];
        let (reader, log) = (channel.reader(name.as_str()).map_err(AgentError::Channel)?, channel.log_name());
        let parts = SinkParts {
            stage: stage.clone(),
            chain: self.chain(&spec.interceptors),
            reader,
            dead_letters: self.dead_letters(Some(&spec.channel)),
            log,
            limits: TakeLimits {
                events: spec.batch_events as usize,
                bytes: spec.batch_bytes as usize,
                wait: spec.batch_wait,
            },
            transaction: self.exactly_once.as_ref().map(ExactlyOnce::participant),
        };
        Ok((stage, SinkRunner::new(parts)))
    }

    fn chain(&mut self, names: &'p [StageName]) -> Chain {
        let stages: Vec<_> = names
            .iter()
            .map(|name| {
                let spec = &self.pipeline.interceptors[name];
                self.stage(StageSpec {
                    name,
                    kind: PluginKind::Interceptor,
                    origin: &spec.plugin,
                    config: &spec.config,
                    grants: &spec.grants,
                    limits: spec.limits,
                    retry: spec.retry,
                })
            })
            .collect();
        Chain::new(stages)
    }

    fn stage(&mut self, spec: StageSpec<'p>) -> Arc<Stage> {
        let kafka = (!spec.grants.kafka.is_empty()).then(|| self.kafka.stage(spec.name.as_str(), &spec.grants.kafka));
        if let (Some(kafka), Some(exactly_once)) = (&kafka, &self.exactly_once) {
            kafka.take_part(exactly_once.for_stage());
        }
        let context = StageContext {
            pipeline: self.pipeline.name.shared(),
            stage: spec.name.shared(),
            plugin_kind: spec.kind,
            grants: spec.grants.clone(),
            limits: spec.limits,
            max_event_bytes: self.pipeline.max_event_bytes,
            kafka,
        };
        let stage = self.control.enter(Stage {
            name: spec.name.shared(),
            generation: 1,
            plugin: self.plugins[&key(spec.kind, spec.origin)].clone(),
            context,
            config: spec.config.clone(),
            retry: spec.retry,
            counters: Arc::new(StageCounters::default()),
        });
        if self.stages.iter().all(|known| known.name != stage.name) {
            self.stages.push(stage.clone());
        }
        stage
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

    fn dead_letters(&self, read: Option<&ChannelName>) -> DeadLetters {
        match &self.pipeline.dead_letters {
            None => DeadLetters::None,
            Some(name) if Some(name) == read => DeadLetters::OwnRoad,
            Some(name) => DeadLetters::Channel(self.channels[name].writer()),
        }
    }
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
