//! What goes wrong with plugins, by whose fault it is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::contract::Problem;
use super::{Digest, PluginKind, PluginOrigin};

/// A call that a plugin answered with an error of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The outside world: may go well later. Rolled back, then tried again with back-off, not before `after`.
    Retry { reason: String, after: Option<Duration> },
    /// The events: this batch can never be accepted.
    Reject(String),
    /// The operator: the stage cannot go on with this configuration, and stops.
    Fatal(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { reason, .. } | Self::Reject(reason) | Self::Fatal(reason) => f.write_str(reason),
        }
    }
}

/// How an instance came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrapKind {
    /// The guest did what WebAssembly forbids, or gave up itself (a panic).
    Trap,
    /// It computed longer than `limits.cpu` in one call.
    Cpu,
    /// A call took longer than `limits.call`, waiting included: a retry, never a dead letter.
    CallTimeout,
    /// It asked for more than `limits.memory`.
    Memory,
    /// It broke the plugin contract: columns that do not fit, a flood of output, a host function at a wrong time.
    Contract,
}

impl TrapKind {
    pub const ALL: [Self; 5] = [Self::Trap, Self::Cpu, Self::CallTimeout, Self::Memory, Self::Contract];

    /// Whether it came of taking too long.
    pub fn is_timeout(self) -> bool {
        matches!(self, Self::Cpu | Self::CallTimeout)
    }

    /// For metrics labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::CallTimeout => "call-timeout",
            Self::Memory => "memory",
            Self::Contract => "contract",
        }
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Why a call into an instance failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin answered so; the instance lives on and the call's changes are undone.
    #[error("{0}")]
    Failure(Failure),
    /// The plugin's fault: the instance is dead and every later call answers the same. Drop it and make a new one.
    #[error("{text}")]
    Trap { kind: TrapKind, text: String },
}

impl CallError {
    pub fn is_trap(&self) -> bool {
        matches!(self, Self::Trap { .. })
    }
}

/// What a host function raises when a guest breaks a rule: it becomes a trap of this kind.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Broken {
    pub kind: TrapKind,
    pub text: String,
}

impl Broken {
    pub fn contract(text: String) -> Self {
        Self { kind: TrapKind::Contract, text }
    }

    pub fn memory(text: String) -> Self {
        Self { kind: TrapKind::Memory, text }
    }

    /// For a capability without an error to answer with. `line` is what the pipeline file lacks.
    pub fn not_granted(what: &str, line: &str) -> Self {
        Self { kind: TrapKind::Trap, text: format!("{what} is not granted; the stage needs `{line}`") }
    }
}

/// Why a plugin cannot be loaded. All of them stop a start; none of them goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("there is no standard {kind} `{name}`")]
    UnknownStandard { kind: PluginKind, name: String, known: Vec<&'static str> },
    #[error("cannot read plugin `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Limit: compiling is paid before a stage starts, and its time grows with the file.
    #[error("plugin `{plugin}` has {bytes} bytes, more than the {limit} that are compiled")]
    TooLarge { plugin: PluginOrigin, bytes: u64, limit: u64 },
    /// It was changed, or is another one: nothing of it was compiled.
    #[error("`{plugin}` is not the plugin that is pinned: its digest is {found}")]
    OtherDigest { plugin: PluginOrigin, found: Digest },
    #[error("`{plugin}` is not a WebAssembly file")]
    NotWasm { plugin: PluginOrigin },
    #[error("`{plugin}` is a WebAssembly text file, not a component")]
    Text { plugin: PluginOrigin },
    #[error("`{plugin}` is a core WebAssembly module, not a component")]
    CoreModule { plugin: PluginOrigin },
    #[error("`{plugin}` is cut short or damaged: {detail}")]
    Damaged { plugin: PluginOrigin, detail: String },
    #[error("`{plugin}` uses a part of WebAssembly that is switched off here: {detail}")]
    Unsupported { plugin: PluginOrigin, detail: String },
    #[error("compiling `{plugin}` took longer than {} s", limit.as_secs())]
    CompileTimeout { plugin: PluginOrigin, limit: Duration },
    /// The compiler's process ended before it had an answer.
    #[error("`{plugin}` cannot be compiled: {detail}")]
    TooCostly { plugin: PluginOrigin, detail: String },
    #[error("`{plugin}` is not a wasmflow plugin of this version: {missing}")]
    WrongWorld { plugin: PluginOrigin, missing: String },
    #[error("`{plugin}` is a plugin for {found}, and a {expected} is asked for")]
    WrongKind { plugin: PluginOrigin, found: PluginKind, expected: PluginKind },
    #[error("`{plugin}` imports `{import}`, which no {kind} is given")]
    Import { plugin: PluginOrigin, kind: PluginKind, import: String },
    #[error("`{plugin}` failed in `{call}`: {text}")]
    Call { plugin: PluginOrigin, call: &'static str, kind: TrapKind, text: String },
    #[error("`{plugin}` describes itself wrongly: {detail}")]
    Description { plugin: PluginOrigin, detail: String },
    /// The host's fault, or the machine's.
    #[error("cannot start the plugin engine: {0}")]
    Engine(String),
}

impl PluginError {
    /// What the operator, or the plugin's author, can do about it.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::UnknownStandard { known, .. } if known.is_empty() => return None,
            Self::UnknownStandard { known, .. } => format!("known are {}", quoted(known)),
            Self::Read { .. } => "paths are relative to the pipeline file".into(),
            Self::TooLarge { .. } => "build it in release mode and strip its debug information".into(),
            Self::OtherDigest { found, .. } => {
                format!(
                    "if the change is meant, look at it with `wasmflow plugin inspect`, and write `digest = \"{found}\"`"
                )
            }
            Self::NotWasm { .. } => "name a component: the `.wasm` file of a plugin built for wasm32-wasip2".into(),
            Self::Text { .. } => "turn it into a binary with `wasm-tools parse`".into(),
            Self::CoreModule { .. } => "build it for wasm32-wasip2, or wrap it with `wasm-tools component new`".into(),
            Self::Damaged { .. } => "build or copy it again".into(),
            Self::Unsupported { .. } => {
                "compile it without threads, exceptions, garbage collection and relaxed SIMD".into()
            }
            Self::CompileTimeout { .. } | Self::TooCostly { .. } => {
                "cut the plugin's large functions, or leave out what it does not need".into()
            }
            Self::WrongWorld { .. } => {
                "build it against wit/plugin.wit of this version, package wasmflow:plugin@0.1.0".into()
            }
            Self::WrongKind { found, .. } => format!("use it under [{found}s.NAME]"),
            Self::Import { .. } => {
                "a plugin may import wasmflow:plugin's events, log and (not an interceptor) kafka, and WASI 0.2".into()
            }
            Self::Call { .. } => {
                "a plugin is described and checked without any grant: it must touch nothing before `open`".into()
            }
            Self::Description { .. } => "mend the plugin's `describe`".into(),
            Self::Engine(_) => return None,
        })
    }
}

/// Why a stage's configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The operator: all that is wrong with the configuration.
    #[error("the configuration has {} problem(s)", .0.len())]
    Problems(Vec<Problem>),
    /// The plugin: `check` trapped or never ended.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error =
            PluginError::UnknownStandard { kind: PluginKind::Sink, name: "logr".into(), known: vec!["logger", "null"] };
        assert_eq!(error.to_string(), "there is no standard sink `logr`");
        assert_eq!(error.remedy().as_deref(), Some("known are `logger`, `null`"));
    }

    #[test]
    fn a_failure_reads_as_its_reason() {
        let failure = Failure::Retry { reason: "connection refused".into(), after: None };
        assert_eq!(CallError::Failure(failure).to_string(), "connection refused");
    }
}
