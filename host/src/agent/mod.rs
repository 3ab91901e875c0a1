//! The agent: starts pipelines, supervises their runners, drains and stops them.

mod build;
mod change;
mod exactly_once;
mod exchange;
mod generations;
pub mod logs;
pub mod reset;
mod running;
mod state_dir;
pub mod stop;
mod tasks;

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{Instrument, error, info, info_span};

use crate::channel::ChannelError;
use crate::config::{FileText, LoadedFile, LoadedPlugins, Pipeline};
use crate::control::Control;
use crate::kafka::KafkaError;
use crate::plugin::PluginError;
use crate::position_store::PositionError;
use crate::reload::{Places, ReloadHandle, Reloader};
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

/// A valid pipeline file, to be run.
pub struct RunFile {
    path: PathBuf,
    pipeline: Pipeline,
    places: Places,
    named_files: Vec<(PathBuf, Option<String>)>,
    /// Kept until the pipeline has been made, so that they are not compiled again.
    _plugins: LoadedPlugins,
}

impl RunFile {
    /// Nothing for a file with errors.
    pub fn of(file: LoadedFile) -> Option<Self> {
        let LoadedFile { report, pipeline, plugins, named_files, .. } = file;
        let places = Places::of(&report.file);
        Some(Self { path: report.file.path, pipeline: pipeline?, places, named_files, _plugins: plugins })
    }
}

impl RunFile {
    /// A pipeline that is in no file, so that a reload finds none.
    pub fn unwritten(pipeline: Pipeline) -> Self {
        let path = pipeline.base_dir.join(format!("{}.toml", pipeline.name));
        let places = Places::of(&FileText::new(&path, ""));
        Self { path, pipeline, places, named_files: Vec::new(), _plugins: Vec::new() }
    }
}

/// How pipelines are run beyond their files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    pub removal: ReaderRemoval,
    /// Whether a file that changes is reloaded by itself. SIGHUP reloads in any case.
    pub watch: bool,
}

/// Runs pipelines until all have ended or the process is told to stop.
///
/// A pipeline ends when every source of it has finished and every channel is drained. TERM and INT stop the sources and
/// drain; a second one stops at once. A pipeline that fails does not disturb the others.
///
/// # Errors
/// When one of the pipelines cannot be started; then none is.
pub async fn run(files: Vec<RunFile>, control: &Control, options: RunOptions) -> Result<RunReport, AgentError> {
    let mut signals = Signals::new().map_err(AgentError::Signals)?;
    let mut running = JoinSet::new();
    let (mut reloaders, mut reloads) = (Vec::new(), Vec::new());
    let mut stoppers = Vec::new();
    let mut prepared = Vec::new();
    for file in files {
        let name = file.pipeline.name.clone();
        let (reloader, handle, changes) = Reloader::new(&file.path, control);
        prepared.push(Running::prepare(file.pipeline, file.places, control, options.removal, changes).await?);
        control.pipeline(name.as_str()).iter().for_each(|pipeline| pipeline.reloads_by(handle.clone()));
        reloads.push(handle);
        reloaders.push((name, if options.watch { reloader.watching(&file.named_files) } else { reloader }));
    }
    let mut reloading = JoinSet::new();
    for (name, reloader) in reloaders {
        reloading.spawn(reloader.run().instrument(info_span!("pipeline", %name)));
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
                None => {
                    // Each ends with its pipeline.
                    while reloading.join_next().await.is_some() {}
                    return Ok(report);
                }
            },
            _ = signals.hup.recv() => {
                info!(signal = "HUP", "reading the pipeline files anew");
                reloads.iter().for_each(ReloadHandle::request);
            }
            name = stop_signal(&mut signals.term, &mut signals.int) => {
                if told {
                    error!(signal = name, "stopped at once; what was not settled comes again where its source can replay");
                    report.drained = false;
                    return Ok(report);
                }
                told = true;
                info!(signal = name, "stopping: sources are stopped, channels drained within `drain_timeout`; a second signal stops at once");
                stoppers.iter().for_each(|stopper| stopper.advance(Phase::Stopping));
            }
        }
    }
}

async fn stop_signal(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "TERM",
        _ = int.recv() => "INT",
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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
    hup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, int, hup: signal(SignalKind::hangup())? })
    }
}
