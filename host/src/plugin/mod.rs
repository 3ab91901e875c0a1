//! Plugins: where they come from, what kinds there are, and how the host runs them in a sandbox.
//!
//! Only this module and `capability` name wasmtime. The runners see batches, positions and the types of [`contract`].

pub mod contract;
pub mod error;

use std::fmt;
use std::path::PathBuf;

pub use contract::{Delivered, Delivery, Description, Intercepted, Need, Outcome, Polled, Problem, Progress, Rejected};
pub use error::{CallError, CheckError, Failure, PluginError, TrapKind};

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
