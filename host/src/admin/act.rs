//! The verbs that act: what a request asks for, done in the agent's runtime, and how it went.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::address::{private, runtime_dir};
use super::answer::{Answer, Problem, json};
use super::door::{MAX_BODY_BYTES, MAX_UPLOAD_BYTES, too_large};
use super::{Desk, chain};
use crate::config::pipeline::StageConfig;
use crate::config::{Colour, Severity, stage_config};
use crate::control::StageControl;
use crate::control::status::{PluginStatus, milliseconds};
use crate::metrics::Refusal;
use crate::plugin::{PluginKind, PluginOrigin};
use crate::reload::ReloadError;
use crate::swap::{
    ShadowReport, ShadowRequest, SwapError, SwapReport, SwapRequest, SwapStep, Trigger, WATCH, WaitFor, WatchEnd,
};

/// Limit: from the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit: what a watch window may be; nobody waits longer for an answer.
const WATCH_MAX: Duration = Duration::from_secs(3600);

/// The stage in a path.
type Named = Path<Vec<(String, String)>>;

/// What `POST …/swap` brings. The one mirror of a text beside the pipeline file's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    plugin: Option<String>,
    plugin_base64: Option<String>,
    config_toml: Option<String>,
    config_file: Option<PathBuf>,
    shadow: Option<u64>,
    require_equal: bool,
    watch_ms: Option<u64>,
    wait_for: Option<String>,
}

pub(super) async fn swap(State(desk): State<Arc<Desk>>, name: Named, body: Body) -> Answer {
    let stage = desk.stage(name.0)?;
    let order = order(&desk, body).await?;
    let (request, upload) = order.request(&stage)?;
    let control = desk.control.clone();
    let done = desk.agent.spawn(async move {
        let swapped = stage.swap(control.engine(), request).await;
        // What is loaded is in memory.
        drop(upload);
        swapped
    });
    reported(done.await)
}

pub(super) async fn rollback(State(desk): State<Arc<Desk>>, name: Named) -> Answer {
    let stage = desk.stage(name.0)?;
    let control = desk.control.clone();
    reported(desk.agent.spawn(async move { stage.rollback(control.engine()).await }).await)
}

pub(super) async fn pause(State(desk): State<Arc<Desk>>, name: Named) -> Answer {
    let stage = desk.stage(name.0)?;
    stage.pause();
    desk.detail(&stage)
}

pub(super) async fn resume(State(desk): State<Arc<Desk>>, name: Named) -> Answer {
    let stage = desk.stage(name.0)?;
    stage.resume();
    desk.detail(&stage)
}

/// Reads a pipeline's file anew, as SIGHUP does for all of them.
pub(super) async fn reload(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Answer {
    let starting = || Problem::new(StatusCode::CONFLICT, "reload", format!("pipeline `{name}` is just starting"));
    let reloads = desk.pipeline(&name)?.reloads().cloned().ok_or_else(starting)?;
    // In the agent's runtime: it goes on also when whoever asked has gone.
    let done = desk.agent.spawn(async move { reloads.reload().await }).await;
    let stopping = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "reload", "the pipeline is stopping");
    match done.map_err(|_| stopping())? {
        Ok(report) => {
            let applied = report
                .applied
                .iter()
                .map(|done| serde_json::json!({ "action": done.action, "part": done.part, "name": done.name }));
            Ok(json(StatusCode::OK, &serde_json::json!({ "applied": applied.collect::<Vec<_>>() })))
        }
        Err(ReloadError::Stopping) => Err(stopping()),
        Err(ReloadError::Failed { step, cause }) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, &step, cause)),
        Err(ReloadError::Refused { text, .. }) => {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "validate", text.trim_end());
            Err(problem.with_remedy("mend the file; what ran before runs on"))
        }
    }
}

async fn order(desk: &Desk, body: Body) -> Result<Order, Problem> {
    let reading = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES));
    let Ok(read) = reading.await else {
        desk.control.agent_counters().refuse(Refusal::Slow);
        let message = format!("the request did not arrive within {} s", BODY_TIMEOUT.as_secs());
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", message));
    };
    let Ok(bytes) = read else {
        desk.control.agent_counters().refuse(Refusal::Size);
        return Err(too_large());
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "request", format!("the request is not as it should be: {error}"));
        problem.with_remedy("`/openapi.json` describes it as `SwapRequest`")
    })
}

impl Order {
    fn request(self, stage: &StageControl) -> Result<(SwapRequest, Option<Upload>), Problem> {
        let wrong = |message: String| Problem::new(StatusCode::BAD_REQUEST, "request", message);
        let upload = self.plugin_base64.as_deref().map(Upload::new).transpose()?;
        let plugin = match (&self.plugin, &upload) {
            (Some(_), Some(_)) => return Err(wrong("`plugin` and `plugin_base64` exclude each other".into())),
            (Some(plugin), None) => Some(origin(plugin, stage.kind())?),
            (None, Some(upload)) => Some(PluginOrigin::File(upload.0.clone())),
            (None, None) => None,
        };
        let config = self.config_toml.as_deref().map(|text| config(text, self.config_file.as_deref())).transpose()?;
        if plugin.is_none() && config.is_none() {
            return Err(wrong("neither a plugin nor a configuration is given: nothing would change".into()));
        }
        let watch = self.watch_ms.map_or(WATCH, Duration::from_millis);
        if watch > WATCH_MAX {
            return Err(wrong(format!("`watch_ms` is more than {}", WATCH_MAX.as_millis())));
        }
        let shadow = self.shadow.map(|batches| ShadowRequest { batches, require_equal: self.require_equal });
        if shadow.is_none() && self.require_equal {
            return Err(wrong("`require_equal` needs `shadow`: how many batches to compare".into()));
        }
        let wait_for = match self.wait_for.as_deref() {
            None | Some("watch") => WaitFor::Watch,
            Some("first-batch") => WaitFor::FirstBatch,
            Some("switch") => WaitFor::Switch,
            Some(other) => {
                return Err(wrong(format!("`wait_for` is `{other}`; it takes switch, first-batch and watch")));
            }
        };
        if watch.is_zero() && wait_for == WaitFor::FirstBatch {
            let message =
                "`wait_for` is first-batch, which needs a watch window, and `watch_ms` is 0; `switch` needs none";
            return Err(wrong(message.into()));
        }
        let trigger = Trigger::Operator;
        let request = SwapRequest { plugin, config, shadow, watch, wait_for, trigger, ..SwapRequest::default() };
        Ok((request, upload))
    }
}

/// As in a pipeline file; but a path is absolute, since the request has no folder.
fn origin(plugin: &str, kind: PluginKind) -> Result<PluginOrigin, Problem> {
    if !plugin.contains('/') && !plugin.ends_with(".wasm") {
        return Ok(PluginOrigin::Standard { name: plugin.into(), kind });
    }
    let path = PathBuf::from(plugin);
    match path.is_absolute() {
        true => Ok(PluginOrigin::File(path)),
        false => Err(Problem::new(StatusCode::BAD_REQUEST, "request", format!("the path `{plugin}` is not absolute"))),
    }
}

fn config(text: &str, file: Option<&FilePath>) -> Result<StageConfig, Problem> {
    let file = file.unwrap_or(FilePath::new("/config_toml"));
    let folder = file.parent().unwrap_or(FilePath::new("/"));
    let environment = |name: &str| std::env::var_os(name);
    stage_config(file, text, folder, &environment).map_err(|report| {
        let report = report.text(Severity::Error, Colour::Plain);
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, SwapStep::Check.word(), report.trim_end())
    })
}

/// A plugin that was sent, in a file of ours until it is loaded.
struct Upload(PathBuf);

impl Upload {
    fn new(text: &str) -> Result<Self, Problem> {
        let fetch = |status, message: String| Problem::new(status, SwapStep::Fetch.word(), message);
        let bytes = BASE64_STANDARD.decode(text);
        let bytes =
            bytes.map_err(|error| fetch(StatusCode::BAD_REQUEST, format!("`plugin_base64` is not base64: {error}")))?;
        if bytes.len() > MAX_UPLOAD_BYTES {
            let message =
                format!("the plugin has {} bytes, more than the {MAX_UPLOAD_BYTES} that are taken", bytes.len());
            return Err(fetch(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        let folder = runtime_dir().join("uploads");
        let failed = |error: &dyn std::error::Error| fetch(StatusCode::INTERNAL_SERVER_ERROR, chain(error));
        private(&runtime_dir()).and_then(|()| private(&folder)).map_err(|error| failed(&error))?;
        // Named by its contents, and by whoever sends it: two may send the same at once.
        let name = format!("{:x}-{:08x}.wasm", Sha256::digest(&bytes), rand::random::<u32>());
        let upload = Self(folder.join(name));
        std::fs::write(&upload.0, bytes).map_err(|error| failed(&error))?;
        Ok(upload)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

fn reported(done: Result<Result<SwapReport, SwapError>, tokio::task::JoinError>) -> Answer {
    match done {
        Ok(Ok(report)) => Ok(json(StatusCode::OK, &Report::of(&report))),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, SwapStep::Turn.word(), "the agent is stopping")),
    }
}

fn refused(error: &SwapError) -> Problem {
    let status = if error.step == SwapStep::Turn { StatusCode::CONFLICT } else { StatusCode::UNPROCESSABLE_ENTITY };
    let problem = Problem::new(status, error.step.word(), &*error.reason);
    match &error.remedy {
        Some(remedy) => problem.with_remedy(&**remedy),
        None => problem,
    }
}

#[derive(Debug, Serialize)]
struct Report {
    stage: String,
    generation: u64,
    before: PluginStatus,
    after: PluginStatus,
    new_imports: Vec<String>,
    shadow: Option<Shadow>,
    pause_ms: f64,
    plugin_time_ms: f64,
    gap_ms: Option<f64>,
    usual_gap_ms: Option<f64>,
    usual_gap_p99_ms: Option<f64>,
    watch: &'static str,
}

#[derive(Debug, Serialize)]
struct Shadow {
    batches: u64,
    events: u64,
    changed: u64,
    dropped: u64,
    added: u64,
    headers: serde_json::Map<String, serde_json::Value>,
    serving_mean_ms: f64,
    candidate_mean_ms: f64,
}

impl Report {
    fn of(report: &SwapReport) -> Self {
        Self {
            stage: report.stage.to_string(),
            generation: report.generation,
            before: PluginStatus::of(&report.before),
            after: PluginStatus::of(&report.after),
            new_imports: report.new_imports.clone(),
            shadow: report.shadow.as_ref().map(Shadow::of),
            pause_ms: milliseconds(report.pause),
            plugin_time_ms: milliseconds(report.plugin_time),
            gap_ms: report.gap.map(milliseconds),
            usual_gap_ms: report.usual_gap.map(|gap| milliseconds(gap.half)),
            usual_gap_p99_ms: report.usual_gap.map(|gap| milliseconds(gap.most)),
            watch: match report.watch {
                WatchEnd::Running => "running",
                WatchEnd::Passed => "passed",
                WatchEnd::Superseded => "superseded",
                WatchEnd::StageEnded => "stage-ended",
            },
        }
    }
}

impl Shadow {
    fn of(report: &ShadowReport) -> Self {
        Self {
            batches: report.batches,
            events: report.events,
            changed: report.changed,
            dropped: report.dropped,
            added: report.added,
            headers: report.headers.iter().map(|(name, count)| (name.clone(), (*count).into())).collect(),
            serving_mean_ms: milliseconds(report.serving_mean),
            candidate_mean_ms: milliseconds(report.candidate_mean),
        }
    }
}
