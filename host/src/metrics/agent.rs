//! What concerns the agent and no single pipeline.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Counter;

/// Why the admin endpoint refuses a request, or a whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A name that is not ours, as a web page would bring that has rebound its own to this machine.
    Host,
    /// A web page wants to act.
    Origin,
    Token,
    /// Its body is too large.
    Size,
    /// It took too long to ask.
    Slow,
    /// Others have all connections.
    Connections,
}

impl Refusal {
    pub const ALL: [Self; 6] = [Self::Host, Self::Origin, Self::Token, Self::Size, Self::Slow, Self::Connections];

    pub fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Token => "token",
            Self::Size => "size",
            Self::Slow => "slow",
            Self::Connections => "connections",
        }
    }
}

/// Counters of the agent.
#[derive(Debug, Default)]
pub struct AgentCounters {
    refused: [Counter; Refusal::ALL.len()],
    /// In milliseconds since 1970; 0: nothing was ever loaded again.
    reloaded_at: AtomicU64,
    /// Of the last reload.
    has_reloaded: AtomicBool,
}

/// How the last reload went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastReload {
    pub is_success: bool,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl AgentCounters {
    pub fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].add(1);
    }

    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].get()
    }

    /// A pipeline file was applied, or refused.
    pub fn reloaded(&self, is_success: bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
        self.has_reloaded.store(is_success, Ordering::Relaxed);
        self.reloaded_at.store(now, Ordering::Release);
    }

    /// Nothing before the first one: the start itself has gone well then.
    pub fn last_reload(&self) -> Option<LastReload> {
        let at_ms = self.reloaded_at.load(Ordering::Acquire);
        let is_success = self.has_reloaded.load(Ordering::Relaxed);
        (at_ms > 0).then_some(LastReload { is_success, at_ms })
    }
}
