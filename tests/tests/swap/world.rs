//! An agent in this process that runs one pipeline, and what it delivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::JoinHandle;
use wasmflow::agent::{self, AgentError, RunReport};
use wasmflow::config::{Colour, Severity, StageConfig, load};
use wasmflow::control::{Control, StageControl};
use wasmflow::plugin::{Engine, EngineOptions, PluginOrigin};
use wasmflow::swap::{SwapError, SwapReport, SwapRequest, WaitFor};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::component::component;

/// Agents stop at a signal to the process: one that is to be stopped runs alone, those that end by themselves run together.
static ALONE: RwLock<()> = RwLock::const_new(());

enum Place {
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
    AmongOthers(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
}

/// A pipeline that runs in this process. Its folder goes with it.
pub struct Running {
    place: Place,
    pub control: Control,
    file: PipelineFile,
    agent: JoinHandle<Result<RunReport, AgentError>>,
}

impl Running {
    /// Starts the stages.
    pub async fn start(name: &str, stages: &str) -> Self {
        Self::at(Place::AmongOthers(ALONE.read().await), name, "", stages).await
    }

    /// Starts stages that do not end by themselves; with lines for the `[pipeline]` table.
    pub async fn endless(name: &str, promise: &str, stages: &str) -> Self {
        Self::at(Place::Alone(ALONE.write().await), name, promise, stages).await
    }

    async fn at(place: Place, name: &str, promise: &str, stages: &str) -> Self {
        let file = PipelineFile::new(name, stages);
        file.promise(promise);
        let engine = Engine::new(EngineOptions { cache_dir: Some(cache()), ..EngineOptions::default() }).unwrap();
        let mut loaded = load(&[file.path().to_owned()], &|name| std::env::var_os(name), &engine).await;
        let loaded = loaded.remove(0);
        let pipeline = loaded.pipeline.unwrap_or_else(|| {
            panic!("{}", loaded.report.text(Severity::Note, Colour::Plain));
        });
        let control = Control::new(engine);
        let agent = tokio::spawn({
            let control = control.clone();
            async move { agent::run(vec![pipeline], &control, Default::default()).await }
        });
        let name = name.to_owned();
        while control.pipeline(&name).is_none_or(|pipeline| pipeline.stages().is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { place, control, file, agent }
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

    /// Stops an endless pipeline, and waits until what is on its way is delivered.
    pub async fn stop(self) -> PipelineFile {
        assert!(matches!(self.place, Place::Alone(_)), "others would stop too");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        self.end().await
    }

    /// Waits for the end of a finite pipeline.
    pub async fn end(self) -> PipelineFile {
        let report =
            tokio::time::timeout(Duration::from_secs(120), self.agent).await.expect("it ends").unwrap().unwrap();
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
    let mut bytes = std::fs::read(component("stamp-interceptor")).unwrap();
    let start = b"stamp-version=";
    let at = bytes.windows(start.len()).position(|window| window == start).expect("the version is in the component");
    bytes[at + start.len()..at + start.len() + 2].copy_from_slice(version.as_bytes());
    let path = folder.join(format!("stamp-{version}.wasm"));
    std::fs::write(&path, bytes).unwrap();
    PluginOrigin::File(path)
}

/// A swap to this plugin that answers when the stage has switched.
pub fn to(plugin: &PluginOrigin) -> SwapRequest {
    SwapRequest { plugin: Some(plugin.clone()), wait_for: WaitFor::Switch, ..SwapRequest::default() }
}

/// The same, with a configuration.
pub fn with(plugin: &PluginOrigin, config: &str) -> SwapRequest {
    SwapRequest { config: Some(StageConfig::plain(config)), ..to(plugin) }
}

/// The numbers without end, as [`numbers_to_files`].
pub fn all_numbers_to_files(more: &str) -> String {
    numbers_to_files(0, more).replace("config = { total = 0 }", "config = {}")
}

/// `total` numbers, through the interceptor `stamp`, as lines into the folder `out`: a batch of 100 for each sync of the disk.
pub fn numbers_to_files(total: u64, more: &str) -> String {
    format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = {total} }}
    batch_events = 100
    interceptors = ["stamp"]

    [interceptors.stamp]
    plugin = "{}"
    {more}

    [channels.events]
    type = "memory"
    capacity_events = 1000

    [sinks.files]
    plugin = "file-roll"
    channel = "events"
    batch_events = 100
    config = {{ dir = "out", format = "json", roll_interval = "0" }}
    allow = {{ dirs = [{{ path = "out", write = true }}] }}
"#,
        component("stamp-interceptor").display()
    )
}

/// One line of the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    pub version: String,
    /// The batch's number in its instance, and how many events it had.
    pub batch: String,
}

/// The files in the folder `out`, in the order of their names' numbers.
pub fn files(file: &PipelineFile) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(file.folder().path().join("out")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut parts = name.rsplit('-').map(|part| part.parse::<u64>().unwrap_or(0));
        let number = parts.next().unwrap();
        (parts.next(), number)
    });
    files
}

/// What the sink has written, in order.
pub fn lines(file: &PipelineFile) -> Vec<Line> {
    let text: String = files(file).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let header = |name: &str| line["headers"][name].as_str().unwrap_or_default().to_owned();
            let number = line["body"].as_str().unwrap().parse().unwrap();
            Line { number, version: header("version"), batch: header("batch") }
        })
        .collect()
}

/// Every number once and in order, and each batch by one version. Gives the versions in their order.
pub fn check(lines: &[Line], total: u64) -> Vec<String> {
    assert_eq!(lines.len() as u64, total, "events lost or repeated");
    check_all(lines)
}

/// The same, however many there are.
pub fn check_all(lines: &[Line]) -> Vec<String> {
    let misplaced = lines.iter().zip(0..).find(|(line, number)| line.number != *number);
    assert_eq!(misplaced, None, "out of order");
    let mut versions: Vec<String> = Vec::new();
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let (_, count) = first.batch.split_once('/').unwrap();
        let (batch, others) = rest.split_at(count.parse().unwrap());
        assert!(batch.iter().all(|line| line.version == first.version && line.batch == first.batch), "{batch:?}");
        if versions.last() != Some(&first.version) {
            versions.push(first.version.clone());
        }
        rest = others;
    }
    versions
}
