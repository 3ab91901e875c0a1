//! Hot swap: another plugin, or another configuration, for a stage through which events flow.

mod behind;
mod conduct;
mod gaps;
mod generation;
mod point;
mod prepare;
mod seat;
mod shadow;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::pipeline::{Grants, Limits, RetryPolicy, StageConfig};
use crate::control::{PluginFacts, UnknownStage};
use crate::plugin::{Plugin, PluginOrigin};

pub(crate) use conduct::{Conduct, try_out};
pub use gaps::UsualGap;
pub use generation::{Generation, Life};
pub use point::{Bell, Order, Switch, SwitchPoint, Switched, TryOut};
pub use prepare::{close_in_time, open};
pub use seat::Seat;
pub use shadow::{Sample, Tap};
pub use watch::{Trial, Verdict};

/// How long a new generation is compared with the one before, unless the request says otherwise.
pub const WATCH: Duration = Duration::from_secs(10);

/// What a stage is to become. What is left out stays as it is.
#[derive(Debug, Clone)]
pub struct SwapRequest {
    /// Where the new plugin is. A file is read once: what is hashed is what is compiled.
    pub plugin: Option<PluginOrigin>,
    /// Instead: one that is loaded already, as that of the generation before.
    pub loaded: Option<Arc<Plugin>>,
    pub config: Option<StageConfig>,
    /// What a changed pipeline file grants and bounds. A swap by hand leaves it out: its plugin may use what the stage has.
    pub bounds: Option<StageBounds>,
    /// For an interceptor: compare before switching.
    pub shadow: Option<ShadowRequest>,
    /// The watch window after the switch; zero for none.
    pub watch: Duration,
    pub wait_for: WaitFor,
    pub trigger: Trigger,
}

/// What the host gives a stage: changed by the pipeline file only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageBounds {
    pub grants: Grants,
    pub limits: Limits,
    pub retry: RetryPolicy,
}

/// A candidate beside the serving generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowRequest {
    /// Live batches to compare.
    pub batches: u64,
    /// Refuse the swap when any of them comes out otherwise.
    pub require_equal: bool,
}

/// When a swap answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// When the stage has switched.
    Switch,
    /// When the new generation has had its first batch, or the watch window is over: then the report has the whole pause.
    FirstBatch,
    /// When the watch window is over.
    Watch,
}

/// Who wants a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// `wasmflow swap`, or the admin endpoint.
    Operator,
    /// `wasmflow rollback`.
    Rollback,
    /// A pipeline file or a plugin that has changed.
    File,
}

impl Default for SwapRequest {
    fn default() -> Self {
        Self {
            plugin: None,
            loaded: None,
            config: None,
            bounds: None,
            shadow: None,
            watch: WATCH,
            wait_for: WaitFor::Watch,
            trigger: Trigger::Operator,
        }
    }
}

/// A swap that went well.
#[derive(Debug, Clone)]
pub struct SwapReport {
    pub stage: Arc<str>,
    /// The new generation's number.
    pub generation: u64,
    pub before: PluginFacts,
    pub after: PluginFacts,
    /// Interfaces that the new plugin imports and the one before did not: no grant is checked by them alone.
    pub new_imports: Vec<String>,
    pub shadow: Option<ShadowReport>,
    /// From the boundary between two batches to the new generation being ready; of several uses the longest.
    pub pause: Duration,
    /// How much of that a source's or sink's own drain, close and open took.
    pub plugin_time: Duration,
    /// From the end of the last batch of the old generation to the beginning of the first of the new; nothing while that has not
    /// come. Of this only `pause` is the swap's own: the rest are waits for room and for events, as there are without swaps.
    pub gap: Option<Duration>,
    /// Such gaps in the generation before; known when `gap` is.
    pub usual_gap: Option<UsualGap>,
    pub watch: WatchEnd,
}

/// How the watch window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEnd {
    /// It goes on; its end is in the history.
    Running,
    Passed,
    /// Another swap has begun.
    Superseded,
    /// The stage has come to its end.
    StageEnded,
}

/// What a shadow made of live batches, beside the generation that served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShadowReport {
    pub batches: u64,
    pub events: u64,
    /// Events whose body or headers came out otherwise.
    pub changed: u64,
    /// Events that only the serving generation let through.
    pub dropped: u64,
    /// Events that only the candidate let through.
    pub added: u64,
    /// Names of headers that differ, and on how many events.
    pub headers: Vec<(String, u64)>,
    pub serving_mean: Duration,
    pub candidate_mean: Duration,
}

/// Where a swap has failed. What served before serves on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("swap refused at step `{}`: {reason}", .step.word())]
pub struct SwapError {
    pub step: SwapStep,
    pub reason: String,
    /// What the operator can do.
    pub remedy: Option<String>,
}

/// The steps of a swap, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SwapStep {
    /// The stage is known, and no other swap of it is under way.
    Turn,
    /// The plugin is read and hashed.
    Fetch,
    Compile,
    /// It is a plugin of the stage's kind, of this version.
    World,
    Describe,
    /// The configuration fits its schema, and its own check.
    Check,
    /// It needs no capability that the stage has not been granted.
    Grants,
    /// An interceptor is opened beside the serving one; a source or sink when that has been closed.
    Open,
    Shadow,
    /// The old generation lets go of what it keeps back or holds.
    Drain,
    /// The runner takes up the new one between two batches.
    Switch,
    /// The new one serves and is compared with the one before.
    Watch,
}

impl SwapStep {
    /// As reports and metrics name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Fetch => "fetch",
            Self::Compile => "compile",
            Self::World => "world",
            Self::Describe => "describe",
            Self::Check => "check",
            Self::Grants => "grants",
            Self::Open => "open",
            Self::Shadow => "shadow",
            Self::Drain => "drain",
            Self::Switch => "switch",
            Self::Watch => "watch",
        }
    }
}

impl SwapError {
    pub fn at(step: SwapStep, reason: impl Into<String>) -> Self {
        Self { step, reason: reason.into(), remedy: None }
    }

    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    pub fn of_name(unknown: UnknownStage) -> Self {
        Self::at(SwapStep::Turn, unknown.to_string())
    }
}

/// One swap in a stage's history.
#[derive(Debug, Clone)]
pub struct SwapRecord {
    pub at: SystemTime,
    pub trigger: Trigger,
    /// The number that the candidate had, or would have had.
    pub generation: u64,
    /// Nothing when it could not even be loaded.
    pub plugin: Option<PluginFacts>,
    pub result: SwapResult,
    pub pause: Option<Duration>,
    pub gap: Option<Duration>,
}

/// How a swap has ended, as far as it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapResult {
    /// The generation serves, or did until the next one.
    Serving,
    Refused(SwapError),
    /// Switched back within the watch window.
    RolledBack(String),
}
