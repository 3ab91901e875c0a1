//! A stage: one source, interceptor or sink of a running pipeline, and what all three have in common.

mod backoff;
mod trouble;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

pub use backoff::Backoff;
pub use trouble::{Decision, Piece, TrapGuard};

use crate::config::pipeline::{RetryPolicy, StageConfig};
use crate::metrics::StageCounters;
use crate::plugin::{
    CallError, Failure, InterceptorInstance, Plugin, PluginKind, SinkInstance, SourceInstance, StageContext,
};
use crate::position::Position;
use crate::swap::SwitchPoint;

/// How often a plugin may trap in `open` before its stage stops: a trap there does not depend on events, so it will not
/// go away, but a memory limit hit by an unlucky neighbour may.
const OPEN_TRAPS_MAX: u32 = 3;

/// A stage's part of the pipeline in one generation: a swap makes a new one, with the same counters and Kafka clients.
pub struct Stage {
    pub name: Arc<str>,
    /// 1: what the pipeline file names; each swap adds one.
    pub generation: u64,
    pub plugin: Arc<Plugin>,
    pub context: StageContext,
    pub config: StageConfig,
    pub retry: RetryPolicy,
    pub counters: Arc<StageCounters>,
    /// Whether an event that it rejects has somewhere to go; else a rejection stops it.
    pub sets_aside: bool,
    /// Which of the instances that share this use's work it is.
    pub worker: Worker,
    /// Where swaps reach this use of the stage.
    pub point: Arc<SwitchPoint>,
}

/// One of the instances that work side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// 0: the first, or the only one.
    pub number: u32,
    /// Whether it stands for its use of the stage: of an interceptor before a sink with workers, one of all.
    pub is_first: bool,
}

impl Worker {
    pub const ALONE: Self = Self { number: 0, is_first: true };
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind(), self.name)
    }
}

/// Why a stage has stopped for good. Its pipeline fails with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{stage}` stopped: {cause}")]
pub struct StageStop {
    pub kind: PluginKind,
    pub stage: Arc<str>,
    pub cause: String,
    /// What the operator can do about it.
    pub remedy: Option<String>,
}

impl Stage {
    pub fn kind(&self) -> PluginKind {
        self.context.plugin_kind
    }

    /// Becomes what another use of the stage is.
    pub fn take_generation_of(&mut self, other: &Self) {
        (self.generation, self.plugin) = (other.generation, other.plugin.clone());
        (self.config, self.retry) = (other.config.clone(), other.retry);
        (self.context.grants, self.context.limits) = (other.context.grants.clone(), other.context.limits);
    }

    pub fn stop(&self, cause: impl Into<String>) -> StageStop {
        StageStop { kind: self.kind(), stage: self.name.clone(), cause: cause.into(), remedy: None }
    }

    pub fn stop_with_remedy(&self, cause: impl Into<String>, remedy: impl Into<String>) -> StageStop {
        StageStop { remedy: Some(remedy.into()), ..self.stop(cause) }
    }

    /// Notes how an instance was closed: whatever it answers, it is gone.
    pub fn closed(&self, answer: Result<(), CallError>) {
        if let Err(error) = answer {
            warn!(stage = %self.name, %error, "not closed in order");
        }
    }

    /// A fresh, open instance. Waits and tries again, by the stage's retry policy, while the plugin answers `retry`.
    ///
    /// # Errors
    /// When the plugin answers `fatal`, traps again and again, or the attempts are used up.
    pub async fn opened<I: Instance>(&self, position: &Position) -> Result<I, StageStop> {
        let mut backoff = Backoff::new(&self.retry);
        let mut traps = 0;
        loop {
            let rest = self.context.pace.left();
            if !rest.is_zero() {
                info!(stage = %self.name, seconds = rest.as_secs_f64(), "rests for the computing time that it lost in failed calls");
            }
            self.context.pace.rest().await;
            let after = match I::open(self, position).await {
                Ok(instance) => {
                    if backoff.tried() > 0 {
                        info!(stage = %self.name, attempts = backoff.tried() + 1, "opened after all");
                    }
                    return Ok(instance);
                }
                Err(CallError::Failure(Failure::Retry { reason, after })) => {
                    warn!(stage = %self.name, reason, "cannot open yet");
                    backoff.next(after).ok_or_else(|| self.stop(reason))?
                }
                Err(CallError::Failure(failure)) => return Err(self.stop(failure.to_string())),
                Err(CallError::Trap { kind, text }) => {
                    self.counters.trapped(kind);
                    traps += 1;
                    warn!(stage = %self.name, %kind, text, traps, "trapped in `open`");
                    match traps < OPEN_TRAPS_MAX {
                        true => backoff.delay(),
                        false => return Err(self.stop(format!("it trapped in `open` {traps} times: {text}"))),
                    }
                }
            };
            tokio::time::sleep(after).await;
        }
    }
}

/// What the three kinds of instance have in common.
pub trait Instance: Sized + Send {
    fn open(stage: &Stage, position: &Position) -> impl Future<Output = Result<Self, CallError>> + Send;
    /// Lets it end in order.
    fn close(&mut self) -> impl Future<Output = Result<(), CallError>> + Send;
}

impl Instance for SourceInstance {
    async fn open(stage: &Stage, position: &Position) -> Result<Self, CallError> {
        if let Some(kafka) = &stage.context.kafka {
            kafka.set_position(position);
        }
        let mut instance = stage.plugin.source(&stage.context).await?;
        instance.open(stage.config.json(), position).await?;
        Ok(instance)
    }

    async fn close(&mut self) -> Result<(), CallError> {
        SourceInstance::close(self).await
    }
}

impl Instance for InterceptorInstance {
    async fn open(stage: &Stage, _: &Position) -> Result<Self, CallError> {
        let mut instance = stage.plugin.interceptor(&stage.context).await?;
        instance.open(stage.config.json()).await?;
        Ok(instance)
    }

    async fn close(&mut self) -> Result<(), CallError> {
        InterceptorInstance::close(self).await
    }
}

impl Instance for SinkInstance {
    async fn open(stage: &Stage, _: &Position) -> Result<Self, CallError> {
        let mut instance = stage.plugin.sink(&stage.context).await?;
        instance.open(stage.config.json()).await?;
        Ok(instance)
    }

    async fn close(&mut self) -> Result<(), CallError> {
        SinkInstance::close(self).await
    }
}

/// Sleeps for a back-off; a zero wait costs no timer.
pub async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
