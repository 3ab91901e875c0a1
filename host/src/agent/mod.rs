//! The agent: starts pipelines, supervises their runners, drains and stops them.

mod build;
mod exactly_once;
pub mod logs;
pub mod reset;
mod state_dir;
pub mod stop;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use crate::channel::ChannelError;
use crate::config::pipeline::{ChannelName, Pipeline};
use crate::control::Control;
use crate::kafka::{KafkaClients, KafkaError};
use crate::plugin::PluginError;
use crate::position_store::PositionError;
use crate::stage::{Stage, StageStop};

use build::{Builder, Runners};
use logs::{LogsError, ReaderRemoval};
use state_dir::StateDir;
pub use state_dir::StateDirError;
use stop::{Phase, Stopper};

/// How long Kafka clients have to commit and leave their groups at the end.
const KAFKA_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an agent could not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    StateDir(StateDirError),
    #[error(transparent)]
    Position(PositionError),
    #[error(transparent)]
    Channel(ChannelError),
    #[error(transparent)]
    Logs(Box<LogsError>),
    #[error(transparent)]
    Kafka(KafkaError),
    #[error(transparent)]
    Plugin(Box<PluginError>),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct RunReport {
    /// The stages that stopped for good, in all pipelines.
    pub stopped: Vec<StageStop>,
    /// Whether everything that was on its way has been settled.
    pub drained: bool,
}

impl RunReport {
    /// Exit code 0.
    pub fn is_success(&self) -> bool {
        self.stopped.is_empty() && self.drained
    }
}

/// Runs pipelines until all have ended or the process is told to stop.
///
/// A pipeline ends when every source of it has finished and every channel is drained. TERM and INT stop the sources and
/// drain; a second one stops at once. A pipeline that fails does not disturb the others.
///
/// # Errors
/// When one of the pipelines cannot be started; then none is.
pub async fn run(pipelines: Vec<Pipeline>, control: &Control, removal: ReaderRemoval) -> Result<RunReport, AgentError> {
    let mut signals = Signals::new().map_err(AgentError::Signals)?;
    let mut running = JoinSet::new();
    let mut stoppers = Vec::new();
    let mut prepared = Vec::new();
    for pipeline in pipelines {
        prepared.push(Running::prepare(pipeline, control, removal).await?);
    }
    for pipeline in prepared {
        let span = info_span!("pipeline", name = %pipeline.pipeline.name);
        stoppers.push(pipeline.stopper.clone());
        running.spawn(pipeline.supervise().instrument(span));
    }
    let mut report = RunReport { drained: true, ..RunReport::default() };
    let mut told = false;
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(ended) => report.add(ended.expect("a pipeline's supervisor does not panic")),
                None => return Ok(report),
            },
            name = signals.next() => {
                if told {
                    error!(signal = name, "stopped at once; what was not settled comes again where its source can replay");
                    report.drained = false;
                    return Ok(report);
                }
                told = true;
                info!(signal = name, "stopping: sources are stopped, channels drained; a second signal stops at once");
                stoppers.iter().for_each(|stopper| stopper.advance(Phase::Stopping));
            }
        }
    }
}

impl RunReport {
    fn add(&mut self, other: Self) {
        self.stopped.extend(other.stopped);
        self.drained &= other.drained;
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "TERM",
            _ = self.int.recv() => "INT",
        }
    }
}

/// One pipeline with everything it owns.
struct Running {
    pipeline: Pipeline,
    runners: Runners,
    control: Control,
    kafka: Arc<KafkaClients>,
    stopper: Arc<Stopper>,
    /// Held until the end: the folder's lock.
    _state: StateDir,
}

impl Running {
    async fn prepare(pipeline: Pipeline, control: &Control, removal: ReaderRemoval) -> Result<Self, AgentError> {
        let state = StateDir::open(&pipeline.state_dir, pipeline.instance.as_deref()).map_err(AgentError::StateDir)?;
        let kafka =
            KafkaClients::new(pipeline.name.as_str(), state.instance(), &pipeline.kafka).map_err(AgentError::Kafka)?;
        let stopper = Arc::new(Stopper::default());
        let place = (control.engine(), control.register(&pipeline));
        let builder = Builder::new(&pipeline, place, &state, kafka.clone(), removal).await?;
        let runners = builder.build(&stopper.signal())?;
        Ok(Self { pipeline, runners, control: control.clone(), kafka, stopper, _state: state })
    }

    /// Runs the pipeline's runners to their end.
    async fn supervise(self) -> RunReport {
        let Runners { sources, sinks, coordinator, stages, logs } = self.runners;
        info!(sources = sources.len(), sinks = sinks.len(), "pipeline started");
        let mut tasks = HashMap::new();
        let coordinator = coordinator.map(|coordinator| tokio::spawn(coordinator.run().in_current_span()));
        let supervisor = Supervisor {
            sources: spawn(&mut tasks, sources.into_iter().map(|(stage, runner)| (stage, runner.run()))),
            sinks: spawn(&mut tasks, sinks.into_iter().map(|(stage, runner)| (stage, runner.run()))),
            stages: tasks,
            stopper: &self.stopper,
            drain_timeout: self.pipeline.drain_timeout,
            stopped: Vec::new(),
        };
        let channels: Vec<_> = self.pipeline.channels.keys().map(ChannelName::shared).collect();
        let report = match &logs {
            Some(logs) => {
                tokio::select! {
                    report = supervisor.watch() => report,
                    () = logs::watch(logs.clone(), channels.clone()) => unreachable!("watching logs does not end by itself"),
                }
            }
            None => supervisor.watch().await,
        };
        if let Some(mut coordinator) = coordinator
            && tokio::time::timeout(KAFKA_CLOSE_TIMEOUT, &mut coordinator).await.is_err()
        {
            warn!("the last transaction did not end in time; the broker ends it");
            coordinator.abort();
        }
        if let Some(logs) = logs {
            logs::close(logs, channels).await;
        }
        self.kafka.close(KAFKA_CLOSE_TIMEOUT).await;
        self.control.remove(self.pipeline.name.as_str());
        stages.iter().for_each(|stage| summarize(stage));
        match report.is_success() {
            true => info!("pipeline ended; everything is settled"),
            false => error!(failed = report.stopped.len(), drained = report.drained, "pipeline failed"),
        }
        report
    }
}

/// Watches the tasks of one pipeline.
struct Supervisor<'a> {
    sources: JoinSet<Result<(), StageStop>>,
    sinks: JoinSet<Result<(), StageStop>>,
    /// Whose task it is that panicked.
    stages: HashMap<Id, Arc<Stage>>,
    stopper: &'a Stopper,
    drain_timeout: Duration,
    stopped: Vec<StageStop>,
}

impl Supervisor<'_> {
    async fn watch(mut self) -> RunReport {
        let signal = self.stopper.signal();
        let mut deadline = None;
        while !(self.sources.is_empty() && self.sinks.is_empty()) {
            if self.sinks.is_empty() {
                // Nobody is left who could settle anything.
                self.stopper.advance(Phase::Abandoned);
            }
            tokio::select! {
                Some(ended) = self.sources.join_next_with_id() => self.ended(ended),
                Some(ended) = self.sinks.join_next_with_id() => self.ended(ended),
                () = signal.stopping(), if deadline.is_none() => deadline = Some(Instant::now() + self.drain_timeout),
                () = at(deadline) => {
                    error!(timeout_s = self.drain_timeout.as_secs_f64(), "not drained in time; what is not settled comes again");
                    self.sources.shutdown().await;
                    self.sinks.shutdown().await;
                    return RunReport { stopped: self.stopped, drained: false };
                }
            }
        }
        RunReport { drained: self.stopped.is_empty(), stopped: self.stopped }
    }

    /// One task has ended. If it failed, the pipeline has failed: the rest is drained.
    fn ended(&mut self, ended: Result<(Id, Result<(), StageStop>), JoinError>) {
        let stop = match ended {
            Ok((_, Ok(()))) => return,
            Ok((_, Err(stop))) => stop,
            Err(panic) => {
                let stage = &self.stages[&panic.id()];
                stage.stop_with_remedy(
                    format!("internal error: {panic}"),
                    "this is a defect of wasmflow: please report it",
                )
            }
        };
        error!(stage = %stop.stage, kind = %stop.kind, cause = stop.cause, remedy = stop.remedy, "stage stopped; the pipeline stops with it");
        self.stopped.push(stop);
        self.stopper.advance(Phase::Stopping);
    }
}

fn spawn<F>(
    stages: &mut HashMap<Id, Arc<Stage>>,
    runners: impl Iterator<Item = (Arc<Stage>, F)>,
) -> JoinSet<Result<(), StageStop>>
where
    F: Future<Output = Result<(), StageStop>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (stage, runner) in runners {
        let span = info_span!("stage", name = %stage.name, kind = %stage.kind());
        let task = tasks.spawn(runner.instrument(span));
        stages.insert(task.id(), stage);
    }
    tasks
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn summarize(stage: &Stage) {
    let counters = &stage.counters;
    info!(
        stage = %stage.name,
        kind = %stage.kind(),
        in_events = counters.received.get(),
        out_events = counters.accepted.get(),
        filtered = counters.filtered.get(),
        rejected = counters.rejected.get(),
        dead_letters = counters.dead_lettered.get(),
        errors = counters.errors.get(),
        restarts = counters.restarts.get(),
        "totals"
    );
    let lost = counters.rejected.get() - counters.dead_lettered.get();
    if lost > 0 {
        warn!(stage = %stage.name, events = lost, "rejected and not set aside: they come again");
    }
}
