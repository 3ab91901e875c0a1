//! From a request to a candidate: read, hashed, compiled, described and checked, beside the generation that serves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{StageBounds, SwapError, SwapRequest, SwapStep};
use crate::config::pipeline::{DeliveryPromise, StageConfig};
use crate::config::{lacking_grants, misfits};
use crate::plugin::{CallError, CheckError, Engine, Failure, Plugin, PluginError, PluginKind};
use crate::position::Position;
use crate::stage::{Backoff, Instance, Stage};

/// Limit: how long a candidate may take to open, waits between its tries included. A source or a sink is closed meanwhile.
pub const OPEN_WAIT: Duration = Duration::from_secs(10);
/// What Kafka's own interface is called among a plugin's imports.
const KAFKA_IMPORT: &str = "wasmflow:plugin/kafka";

/// What a stage may become: it has passed every check that needs no events.
#[derive(Debug)]
pub struct Candidate {
    pub plugin: Arc<Plugin>,
    pub config: StageConfig,
    pub bounds: StageBounds,
    pub new_imports: Vec<String>,
}

impl Candidate {
    /// # Errors
    /// The step that failed.
    pub async fn prepare(
        engine: &Engine,
        serving: &Stage,
        delivery: DeliveryPromise,
        request: &SwapRequest,
    ) -> Result<Self, SwapError> {
        let plugin = match (&request.loaded, &request.plugin) {
            (Some(plugin), _) => plugin.clone(),
            (None, Some(origin)) => engine.load(origin).await.map_err(not_loaded)?,
            (None, None) => serving.plugin.clone(),
        };
        plugin.expect_kind(serving.kind()).map_err(not_loaded)?;
        let config = request.config.clone().unwrap_or_else(|| serving.config.clone());
        let bounds = request.bounds.clone().unwrap_or_else(|| StageBounds {
            grants: serving.context.grants.clone(),
            limits: serving.context.limits,
            retry: serving.retry,
        });
        check_promise(&plugin, delivery)?;
        check(serving, &plugin, &config, &bounds).await?;
        let had = serving.plugin.imports();
        let new_imports = plugin.imports().iter().filter(|import| !had.contains(import)).cloned().collect();
        Ok(Self { plugin, config, bounds, new_imports })
    }

    /// The stage as this generation has it.
    pub fn stage(&self, serving: &Stage, generation: u64) -> Stage {
        let mut context = serving.context.clone();
        context.grants = self.bounds.grants.clone();
        context.limits = self.bounds.limits;
        context.pace = Arc::default();
        Stage {
            name: serving.name.clone(),
            generation,
            plugin: self.plugin.clone(),
            context,
            config: self.config.clone(),
            retry: self.bounds.retry,
            counters: serving.counters.clone(),
            sets_aside: serving.sets_aside,
            worker: serving.worker,
            point: serving.point.clone(),
        }
    }
}

/// The configuration against the plugin's schema, then its own check, then its needs against the grants.
async fn check(serving: &Stage, plugin: &Plugin, config: &StageConfig, bounds: &StageBounds) -> Result<(), SwapError> {
    if let Some(schema) = &plugin.description().config_schema {
        let problems = misfits(serving.kind(), &serving.name, config, schema);
        if !problems.is_empty() {
            return Err(SwapError::at(SwapStep::Check, problems.join("; "))
                .with_remedy("give the configuration with the plugin: --config FILE"));
        }
    }
    let needs = match plugin.check(config.redacted()).await {
        Ok(needs) => needs,
        Err(CheckError::Plugin(error)) => return Err(SwapError::at(SwapStep::Check, chain(&error))),
        // What it finds wrong with a secret it finds wrong with the placeholder: `open` will see the secret itself.
        Err(CheckError::Problems(problems)) => {
            let is_secret = |pointer: &str| {
                let redacted = serde_json::from_str::<serde_json::Value>(config.redacted()).unwrap_or_default();
                let resolved = serde_json::from_str::<serde_json::Value>(config.json()).unwrap_or_default();
                redacted.pointer(pointer) != resolved.pointer(pointer)
            };
            let own: Vec<_> = problems.into_iter().filter(|problem| !is_secret(&problem.path)).collect();
            if own.is_empty() {
                return Ok(());
            }
            let own: Vec<_> = own.iter().map(|problem| format!("`{}`: {}", problem.path, problem.message)).collect();
            return Err(SwapError::at(SwapStep::Check, own.join("; ")));
        }
    };
    if let Some((names, line)) = lacking_grants(&needs, &bounds.grants) {
        return Err(SwapError::at(SwapStep::Grants, format!("it needs {names}, which the stage is not allowed"))
            .with_remedy(format!("write in the pipeline file, and reload it: {line}")));
    }
    let imports_kafka = plugin.imports().iter().any(|import| import.starts_with(KAFKA_IMPORT));
    if imports_kafka && serving.context.kafka.is_none() {
        let reason = "it imports Kafka, and the stage is allowed no connection";
        return Err(SwapError::at(SwapStep::Grants, reason)
            .with_remedy("write `kafka = [\"…\"]` into the stage's `allow`, and start the pipeline again"));
    }
    Ok(())
}

/// What `validate` refuses in an exactly-once pipeline a swap refuses too.
fn check_promise(plugin: &Plugin, delivery: DeliveryPromise) -> Result<(), SwapError> {
    if delivery == DeliveryPromise::AtLeastOnce {
        return Ok(());
    }
    let description = plugin.description();
    let reason = match plugin.kind() {
        PluginKind::Source if !description.replays => {
            "it cannot bring again what a transaction that came to nothing had"
        }
        PluginKind::Sink if !description.only_kafka => {
            "it delivers to something that is no part of a Kafka transaction"
        }
        _ => return Ok(()),
    };
    Err(SwapError::at(SwapStep::Check, reason).with_remedy("the pipeline promises exactly-once: use another plugin"))
}

/// Opens an instance of a candidate within a bounded time: what answers `retry` is asked again as long as that lasts.
///
/// # Errors
/// Why it does not open.
pub async fn open<I: Instance>(stage: &Stage, position: &Position) -> Result<I, SwapError> {
    let deadline = Instant::now() + OPEN_WAIT;
    let mut backoff = Backoff::new(&stage.retry);
    let refused = |reason: String| SwapError::at(SwapStep::Open, reason);
    let mut last = format!("it did not open within {} s", OPEN_WAIT.as_secs());
    loop {
        let opened = tokio::time::timeout_at(deadline, I::open(stage, position)).await;
        let after = match opened {
            Ok(Ok(instance)) => return Ok(instance),
            Ok(Err(CallError::Failure(Failure::Retry { reason, after }))) => {
                last = format!("{reason} ({} tries)", backoff.tried() + 1);
                backoff.delay().max(after.unwrap_or_default())
            }
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(last)),
        };
        if Instant::now() + after >= deadline {
            return Err(refused(last));
        }
        tokio::time::sleep(after).await;
    }
}

/// Limit: how long an instance that is being replaced may take to close. What it then leaves undone it was free to do before, in
/// `flush`; it is dropped with its sockets and files.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Closes an instance, within a bounded time.
pub async fn close_in_time<I: Instance>(stage: &Stage, mut instance: I) {
    match tokio::time::timeout(CLOSE_WAIT, instance.close()).await {
        Ok(answer) => stage.closed(answer),
        Err(_) => warn!(stage = %stage.name, "not closed within {} s; dropped", CLOSE_WAIT.as_secs()),
    }
}

fn not_loaded(error: PluginError) -> SwapError {
    let step = match &error {
        PluginError::UnknownStandard { .. } | PluginError::Read { .. } | PluginError::TooLarge { .. } => {
            SwapStep::Fetch
        }
        PluginError::WrongWorld { .. } | PluginError::WrongKind { .. } | PluginError::Import { .. } => SwapStep::World,
        PluginError::Call { .. } | PluginError::Description { .. } => SwapStep::Describe,
        _ => SwapStep::Compile,
    };
    SwapError { step, reason: chain(&error), remedy: error.remedy() }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
