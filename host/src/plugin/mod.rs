//! Plugins: where they come from, what kinds there are, and how the host runs them in a sandbox.
//!
//! Only this module and `capability` name wasmtime. The runners see batches, positions and the types of [`contract`].

pub mod bindings;
mod cache;
mod compile;
pub mod compiler;
pub mod contract;
mod engine;
pub mod error;
mod instance;
mod interceptor;
pub mod limits;
mod loaded;
mod output;
mod sink;
mod source;
mod standard;
mod trap;
mod world;

use std::fmt;
use std::path::PathBuf;
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
pub use sink::SinkInstance;
pub use source::SourceInstance;

/// The three kinds of plugin, one world each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PluginKind {
    Source,
    Interceptor,
    Sink,
}

impl PluginKind {
    pub const ALL: [Self; 3] = [Self::Source, Self::Interceptor, Self::Sink];

    /// The kind's own interface in the plugin contract.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Interceptor => "interceptor",
            Self::Sink => "sink",
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface())
    }
}

/// Where a plugin's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PluginOrigin {
    /// Embedded in the binary.
    Standard { name: String, kind: PluginKind },
    /// A component on disk; absolute.
    File(PathBuf),
}

impl fmt::Display for PluginOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginOrigin::Standard { name, .. } => f.write_str(name),
            PluginOrigin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

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
    /// Where the calls are kept that the plugin died in; nothing where none are.
    pub bundles: Option<Arc<Bundles>>,
}

#[cfg(test)]
mod tests;
