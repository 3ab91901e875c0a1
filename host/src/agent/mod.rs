//! The agent: starts pipelines, supervises their runners, drains and stops them.

mod build;
mod exactly_once;
pub mod logs;
pub mod reset;
mod running;
mod state_dir;
pub mod stop;
mod tasks;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{Instrument, error, info, info_span};

use crate::channel::ChannelError;
use crate::config::pipeline::Pipeline;
use crate::control::Control;
use crate::kafka::KafkaError;
use crate::plugin::PluginError;
use crate::position_store::PositionError;
use crate::stage::StageStop;

use logs::{LogsError, ReaderRemoval};
use running::Running;
pub use state_dir::StateDirError;
use stop::Phase;

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
        let span = info_span!("pipeline", name = %pipeline.name());
        stoppers.push(pipeline.stopper());
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
    /// What went wrong, if anything did.
    fn failure(&self) -> Option<String> {
        let stopped = self.stopped.first().map(ToString::to_string);
        stopped.or_else(|| (!self.drained).then(|| "it was not drained in time".into()))
    }

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
