//! The plugin under measurement: a fresh instance for each run, and how a batch goes through it.

use std::sync::Arc;
use std::time::Duration;

use rustix::fd::OwnedFd;
use wasmflow::config::{Grants, Limits, StageConfig};
use wasmflow::event::Batch;
use wasmflow::metrics::StageCounters;
use wasmflow::plugin::{
    CallError, Delivery, InterceptorInstance, Outcome, Plugin, PluginKind, Progress, SinkInstance, SourceInstance,
    StageContext,
};
use wasmflow::position::Position;

/// As `max_event_bytes` is where nothing else is said.
const MAX_EVENT_BYTES: usize = 16 << 20;
/// Limit: bytes asked of a source at once, as `batch_bytes` is where nothing else is said.
const BATCH_BYTES: u32 = 1 << 20;
/// How long a source may wait for its first event in one poll.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Limit: polls in a row that bring nothing, before a source is taken to have no more.
const IDLE_POLLS: u32 = 20;
/// Limit: what a sink may hold before it is asked to let go.
const HELD_BATCHES: u64 = 64;

pub struct Subject {
    pub plugin: Arc<Plugin>,
    config: StageConfig,
    grants: Grants,
}

/// What went through an instance in one run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Passed {
    pub events: u64,
    pub bytes: u64,
    pub calls: u64,
    pub rejected: u64,
    /// Bytes of linear memory in the end.
    pub memory_bytes: u64,
    /// A source has no more to bring.
    pub is_at_end: bool,
}

/// An instance that is open.
pub enum Opened {
    Source(SourceInstance),
    Interceptor(InterceptorInstance),
    Sink(SinkInstance),
}

impl Subject {
    pub fn new(plugin: Arc<Plugin>, config: StageConfig, grants: Grants) -> Self {
        Self { plugin, config, grants }
    }

    /// A fresh instance, open, and where its calls are counted.
    ///
    /// # Errors
    /// The plugin's failure.
    pub async fn open(&self) -> Result<(Opened, Arc<StageCounters>), CallError> {
        let counters = Arc::<StageCounters>::default();
        let stage = self.stage(counters.clone());
        let config = self.config.json();
        let opened = match self.plugin.kind() {
            PluginKind::Source => {
                let mut instance = self.plugin.source(&stage).await?;
                instance.open(config, &Position::default()).await?;
                Opened::Source(instance)
            }
            PluginKind::Interceptor => {
                let mut instance = self.plugin.interceptor(&stage).await?;
                instance.open(config).await?;
                Opened::Interceptor(instance)
            }
            PluginKind::Sink => {
                let mut instance = self.plugin.sink(&stage).await?;
                instance.open(config).await?;
                Opened::Sink(instance)
            }
        };
        Ok((opened, counters))
    }

    fn stage(&self, counters: Arc<StageCounters>) -> StageContext {
        StageContext {
            pipeline: "bench".into(),
            stage: self.plugin.description().name.as_str().into(),
            plugin_kind: self.plugin.kind(),
            grants: self.grants.clone(),
            limits: Limits { age: None, ..Limits::default() },
            max_event_bytes: MAX_EVENT_BYTES,
            counters,
            kafka: None,
            log: Arc::default(),
            pace: Arc::default(),
            bundles: None,
        }
    }
}

impl Opened {
    /// Lets so many events through, a batch a call; a source brings fewer when it has no more.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn run(&mut self, batch: &Batch, events: u64) -> Result<Passed, CallError> {
        match self {
            Self::Source(instance) => brought(instance, batch.count() as u32, events).await,
            Self::Interceptor(instance) => intercepted(instance, batch, events).await,
            Self::Sink(instance) => delivered(instance, batch, events).await,
        }
    }

    /// # Errors
    /// The instance's end.
    pub async fn close(&mut self) -> Result<(), CallError> {
        match self {
            Self::Source(instance) => instance.close().await,
            Self::Interceptor(instance) => instance.close().await,
            Self::Sink(instance) => instance.close().await,
        }
    }
}

async fn intercepted(instance: &mut InterceptorInstance, batch: &Batch, events: u64) -> Result<Passed, CallError> {
    let mut passed = Passed::default();
    while passed.events < events {
        passed.calls += 1;
        let answer = instance.intercept(batch, passed.calls).await?;
        passed.count(batch, answer.rejected.len());
        std::hint::black_box(answer);
    }
    Ok(passed)
}

async fn delivered(instance: &mut SinkInstance, batch: &Batch, events: u64) -> Result<Passed, CallError> {
    let (mut passed, mut held) = (Passed::default(), 0);
    while passed.events < events {
        let (first, count) = (passed.events, batch.count() as u64);
        let delivery = Delivery { log: "bench".into(), first, next: first + count, attempt: 1 };
        passed.calls += 1;
        let answer = instance.deliver(batch, &delivery).await?;
        passed.count(batch, answer.rejected.len());
        held = if matches!(answer.outcome, Outcome::Held) { held + 1 } else { 0 };
        if held >= HELD_BATCHES {
            instance.flush(true).await?;
            held = 0;
        }
    }
    if held > 0 {
        instance.flush(true).await?;
    }
    Ok(passed)
}

async fn brought(instance: &mut SourceInstance, max_events: u32, events: u64) -> Result<Passed, CallError> {
    let (mut passed, mut idle, mut batches) = (Passed::default(), 0, 0);
    while passed.events < events {
        passed.calls += 1;
        match instance.poll(max_events, BATCH_BYTES, POLL_WAIT).await? {
            Progress::Events(polled) => {
                (idle, batches) = (0, batches + 1);
                passed.count(&polled.batch, polled.rejected.len());
                instance.acked(batches).await?;
            }
            Progress::Idle if idle < IDLE_POLLS => idle += 1,
            Progress::Idle | Progress::Finished => {
                passed.is_at_end = true;
                break;
            }
        }
    }
    Ok(passed)
}

impl Passed {
    fn count(&mut self, batch: &Batch, rejected: usize) {
        self.events += batch.count() as u64;
        self.bytes += batch.bodies().data().len() as u64;
        self.rejected += rejected as u64;
    }
}

/// Sends what is printed to nowhere as long as it lives: figures come to where a sink's lines would.
pub struct Silence(OwnedFd);

impl Silence {
    /// # Errors
    /// When there is no standard output.
    pub fn begin() -> std::io::Result<Self> {
        let kept = rustix::io::dup(rustix::stdio::stdout())?;
        let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&nowhere)?;
        Ok(Self(kept))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The descriptor is one that was standard output.
        let _ = rustix::stdio::dup2_stdout(&self.0);
    }
}
