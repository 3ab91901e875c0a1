//! What can be asked: paths, and the answers to mere questions.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};

use super::answer::{Answer, Problem, json, text};
use super::{Desk, act, openapi};
use crate::control::status::{AgentStatus, PipelineStatus, StageDetail};
use crate::control::{PipelineControl, StageControl, StageRef, UnknownStage, health};
use crate::metrics::{Format, Snapshot, encode};

/// Limit: a runtime that does not come to a trivial task within this is stuck.
const RUNTIME_ANSWERS: Duration = Duration::from_secs(5);
const PLAIN: &str = "text/plain; charset=utf-8";

/// Every path, with what it answers.
pub(super) fn paths() -> Vec<(&'static str, MethodRouter<Arc<Desk>>)> {
    vec![
        ("/healthz", get(healthz)),
        ("/readyz", get(readyz)),
        ("/metrics", get(metrics)),
        ("/openapi.json", get(openapi::serve)),
        ("/v1/status", get(status)),
        ("/v1/pipelines/{pipeline}", get(pipeline)),
        ("/v1/pipelines/{pipeline}/reload", post(act::reload)),
        ("/v1/stages/{stage}", get(stage)),
        ("/v1/stages/{stage}/swap", post(act::swap)),
        ("/v1/stages/{stage}/rollback", post(act::rollback)),
        ("/v1/stages/{stage}/pause", post(act::pause)),
        ("/v1/stages/{stage}/resume", post(act::resume)),
        ("/v1/pipelines/{pipeline}/stages/{stage}", get(stage)),
        ("/v1/pipelines/{pipeline}/stages/{stage}/swap", post(act::swap)),
        ("/v1/pipelines/{pipeline}/stages/{stage}/rollback", post(act::rollback)),
        ("/v1/pipelines/{pipeline}/stages/{stage}/pause", post(act::pause)),
        ("/v1/pipelines/{pipeline}/stages/{stage}/resume", post(act::resume)),
    ]
}

pub(super) fn router(desk: Arc<Desk>) -> Router {
    let router = paths().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(desk)
}

async fn no_such_path() -> Problem {
    let problem = Problem::new(StatusCode::NOT_FOUND, "path", "there is no such path");
    problem.with_remedy("`/openapi.json` lists them all")
}

async fn no_such_method() -> Problem {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this path does not take that method");
    problem.with_remedy("`/openapi.json` lists what it takes")
}

/// Whether the agent's runtime comes to its tasks. Says nothing about what runs in it.
async fn healthz(State(desk): State<Arc<Desk>>) -> Response<Body> {
    let task = desk.agent.spawn(async {});
    match tokio::time::timeout(RUNTIME_ANSWERS, task).await {
        Ok(Ok(())) => text(StatusCode::OK, PLAIN, "ok\n".into()),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the agent's runtime does not answer\n".into()),
    }
}

async fn readyz(State(desk): State<Arc<Desk>>) -> Response<Body> {
    let problems: Vec<_> = health::problems(&desk.control, desk.patience).iter().map(ToString::to_string).collect();
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({ "is_ready": problems.is_empty(), "problems": problems }))
}

async fn metrics(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    text(StatusCode::OK, format.content_type(), encode(Snapshot::of(&desk.control), format))
}

async fn status(State(desk): State<Arc<Desk>>) -> Response<Body> {
    json(StatusCode::OK, &AgentStatus::of(&desk.control, &desk.rates.lock(), desk.patience))
}

async fn pipeline(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Answer {
    let pipeline = desk.pipeline(&name)?;
    Ok(json(StatusCode::OK, &PipelineStatus::of(&pipeline, &desk.rates.lock(), desk.patience)))
}

async fn stage(State(desk): State<Arc<Desk>>, Path(path): Path<Vec<(String, String)>>) -> Answer {
    let stage = desk.stage(path)?;
    desk.detail(&stage)
}

impl Desk {
    /// The stage that a path names.
    ///
    /// # Errors
    /// When no stage is meant, or several may be.
    pub(super) fn stage(&self, path: Vec<(String, String)>) -> Result<Arc<StageControl>, Problem> {
        let mut name = StageRef { pipeline: None, stage: String::new() };
        for (part, value) in path {
            match &*part {
                "pipeline" => name.pipeline = Some(value),
                _ => name.stage = value,
            }
        }
        let unknown = |error: UnknownStage| match error {
            UnknownStage::Ambiguous { .. } => Problem::new(StatusCode::CONFLICT, "stage", error.to_string()),
            _ => Problem::new(StatusCode::NOT_FOUND, "stage", error.to_string()),
        };
        self.control.stage(&name).map_err(unknown)
    }

    /// How a stage is.
    ///
    /// # Errors
    /// When its pipeline has just ended.
    pub(super) fn detail(&self, stage: &StageControl) -> Answer {
        let pipeline = self.pipeline(stage.pipeline())?;
        Ok(json(StatusCode::OK, &StageDetail::of(&pipeline, stage, &self.rates.lock(), self.patience)))
    }

    /// # Errors
    /// When no such pipeline runs.
    pub(super) fn pipeline(&self, name: &str) -> Result<Arc<PipelineControl>, Problem> {
        self.control.pipeline(name).ok_or_else(|| {
            let known: Vec<_> = self.control.pipelines().iter().map(|known| format!("`{}`", known.name)).collect();
            let message = format!("there is no pipeline `{name}`; running: {}", known.join(", "));
            Problem::new(StatusCode::NOT_FOUND, "pipeline", message)
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        self.answer()
    }
}
