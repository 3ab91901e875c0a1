//! The life of a plugin generation.

use std::time::SystemTime;

use crate::control::PluginFacts;
use crate::stage::Stage;

/// Where a generation is in its life.
///
/// ```text
///                                  switch at every use          a newer one has switched       watch window over
/// candidate ───▶ shadow ─────────▶ serving ───────────────────▶ draining ────────────────────▶ retired
///     │             │              │    ▲                        │                                ▲
///     │ (no shadow) └──▶ (differs) │    └── breach of the newer ─┘                                │
///     └─────────▶ serving    │     │                                                              │
///     └─ a step failed ──────┴─────┴─ breach, or the swap failed half-way ────────────────────────┘
/// ```
///
/// Invariant: each use of a stage works with one generation at a time, and goes from one to the next between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// Loaded and checked beside what serves; sees no events.
    Candidate,
    /// Sees copies of live batches; what it makes of them is compared and thrown away.
    Shadow,
    /// Has the events.
    Serving,
    /// Has let go of everything and is closed; its code is kept, for the way back.
    Draining,
    /// Gone.
    Retired,
}

impl Life {
    /// Whether a generation may go from here to there.
    pub fn may_become(self, next: Self) -> bool {
        use Life::{Candidate, Draining, Retired, Serving, Shadow};
        matches!(
            (self, next),
            (Candidate, Shadow | Serving | Retired)
                | (Shadow, Serving | Retired)
                | (Serving, Draining | Retired)
                | (Draining, Serving | Retired)
        )
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Shadow => "shadow",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Retired => "retired",
        }
    }
}

/// One generation of a stage.
#[derive(Debug, Clone)]
pub struct Generation {
    /// 1 is what the pipeline file names; each candidate has one more.
    pub number: u64,
    pub plugin: PluginFacts,
    /// Since when it is what it is.
    pub since: SystemTime,
    life: Life,
}

impl Generation {
    /// The one that a pipeline starts with.
    pub fn first(stage: &Stage) -> Self {
        let Stage { generation: number, plugin, .. } = stage;
        Self { number: *number, plugin: PluginFacts::of(plugin), since: SystemTime::now(), life: Life::Serving }
    }

    pub fn candidate(number: u64, plugin: PluginFacts) -> Self {
        Self { number, plugin, since: SystemTime::now(), life: Life::Candidate }
    }

    pub fn life(&self) -> Life {
        self.life
    }

    pub fn becomes(&mut self, next: Life) {
        assert!(self.life.may_become(next), "generation {} is {:?} and cannot be {next:?}", self.number, self.life);
        (self.life, self.since) = (next, SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::Life::{Candidate, Draining, Retired, Serving, Shadow};

    #[test]
    fn no_generation_serves_after_it_was_retired_and_none_drains_that_never_served() {
        for next in [Candidate, Shadow, Serving, Draining, Retired] {
            assert!(!Retired.may_become(next));
        }
        assert!(!Candidate.may_become(Draining) && !Shadow.may_become(Draining));
        assert!(Draining.may_become(Serving), "the way back");
    }
}
