//! Plugins: where they come from, what kinds there are, and how the host runs them in a sandbox.
//!
//! Only this module and `capability` name wasmtime. The runners see batches, positions and the types of [`contract`].

mod apart;
pub mod bindings;
mod cache;
mod compile;
pub mod compiler;
pub mod contract;
mod cpu;
mod engine;
pub mod error;
mod instance;
mod interceptor;
pub mod limits;
mod loaded;
mod origin;
mod output;
mod pace;
mod sink;
mod source;
mod standard;
mod trap;
mod world;

use std::sync::Arc;

pub use crate::capability::log::LogAllowance;
use crate::config::{Grants, Limits};
use crate::kafka::StageKafka;
use crate::metrics::StageCounters;
use crate::replay::Bundles;

pub use compiler::Compiler;
pub use contract::{Delivered, Delivery, Description, Intercepted, Need, Outcome, Polled, Problem, Progress, Rejected};
pub use engine::{Engine, EngineOptions};
pub use error::{Broken, CallError, CheckError, Failure, PluginError, TrapKind};

pub use instance::Worn;
pub use interceptor::InterceptorInstance;
pub use loaded::Plugin;
pub use origin::{Digest, PluginKind, PluginOrigin};
pub use pace::Pace;
pub use sink::SinkInstance;
pub use source::SourceInstance;

/// The stage that an instance works for: what it is called, and what it may use.
#[derive(Clone)]
pub struct StageContext {
    pub pipeline: Arc<str>,
    pub stage: Arc<str>,
    pub plugin_kind: PluginKind,
    pub grants: Grants,
    pub limits: Limits,
    /// An event that is larger is refused for good.
    pub max_event_bytes: usize,
    /// Every call of the stage's instances is counted and timed here.
    pub counters: Arc<StageCounters>,
    /// The stage's Kafka clients, which outlive its instances; nothing where none is granted.
    pub kafka: Option<Arc<StageKafka>>,
    /// What the stage may still log: shared by its instances, so that a fresh one is not a fresh allowance.
    pub log: Arc<LogAllowance>,
    /// Slows the stage's instances down when they fail and fail.
    pub pace: Arc<Pace>,
    /// Where the calls are kept that the plugin died in; nothing where none are.
    pub bundles: Option<Arc<Bundles>>,
}

#[cfg(test)]
mod tests;
