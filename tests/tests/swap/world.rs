//! An agent in this process that runs one pipeline, and what it delivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use wasmflow::agent::{self, AgentError, RunFile, RunReport};
use wasmflow::config::{Colour, Severity, StageConfig, load};
use wasmflow::control::{Control, StageControl};
use wasmflow::plugin::{Engine, EngineOptions, PluginOrigin};
use wasmflow::swap::{SwapError, SwapReport, SwapRequest, WaitFor};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::component::stamp_version;
pub use wasmflow_tests::stamped::*;

/// Agents stop at a signal to the process, so one runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A pipeline that runs in this process. Its folder goes with it.
pub struct Running {
    _alone: MutexGuard<'static, ()>,
    pub control: Control,
    file: PipelineFile,
    agent: JoinHandle<Result<RunReport, AgentError>>,
}

impl Running {
    /// Starts the stages, which do not end by themselves; with lines for the `[pipeline]` table.
    pub async fn start(name: &str, promise: &str, stages: &str) -> Self {
        let alone = ALONE.lock().await;
        let file = PipelineFile::new(name, stages);
        file.promise(promise);
        let engine = Engine::new(EngineOptions { cache_dir: Some(cache()), ..EngineOptions::default() }).unwrap();
        let mut loaded = load(&[file.path().to_owned()], &|name| std::env::var_os(name), &engine).await;
        let loaded = loaded.remove(0);
        let report = loaded.report.text(Severity::Note, Colour::Plain);
        let stages = loaded.pipeline.as_ref().map_or(0, |p| p.sources.len() + p.interceptors.len() + p.sinks.len());
        let pipeline = RunFile::of(loaded).unwrap_or_else(|| panic!("{report}"));
        let control = Control::new(engine);
        let agent = tokio::spawn({
            let control = control.clone();
            async move { agent::run(vec![pipeline], &control, Default::default()).await }
        });
        let name = name.to_owned();
        while control.pipeline(&name).is_none_or(|pipeline| pipeline.stages().len() < stages) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { _alone: alone, control, file, agent }
    }

    pub fn folder(&self) -> &Path {
        self.file.folder().path()
    }

    pub fn stage(&self, name: &str) -> Arc<StageControl> {
        self.control.stage(&name.parse().unwrap()).unwrap()
    }

    pub async fn swap(&self, stage: &str, request: SwapRequest) -> Result<SwapReport, SwapError> {
        self.control.swap(&stage.parse().unwrap(), request).await
    }

    /// Stops it, and waits until what is on its way is delivered.
    pub async fn stop(self) -> PipelineFile {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        let report = tokio::time::timeout(Duration::from_secs(120), self.agent).await.expect("it ends");
        let report = report.unwrap().unwrap();
        assert!(report.is_success(), "{report:?}");
        self.file
    }

    /// Waits until that many events have gone through a stage.
    pub async fn until_accepted(&self, stage: &str, events: u64) {
        let counters = self.stage(stage).counters().clone();
        while counters.accepted.get() < events {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn cache() -> PathBuf {
    wasmflow_tests::binary::target_folder().join("swap-test-cache")
}

/// The version of `stamp-interceptor` that stamps these two letters.
pub fn stamp(folder: &Path, version: &str) -> PluginOrigin {
    PluginOrigin::File(stamp_version(folder, version))
}

/// A swap to this plugin that answers when the stage has switched.
pub fn to(plugin: &PluginOrigin) -> SwapRequest {
    SwapRequest { plugin: Some(plugin.clone()), wait_for: WaitFor::Switch, ..SwapRequest::default() }
}

/// The same, with a configuration.
pub fn with(plugin: &PluginOrigin, config: &str) -> SwapRequest {
    SwapRequest { config: Some(StageConfig::plain(config)), ..to(plugin) }
}
