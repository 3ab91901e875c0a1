//! What a new generation does to the stages behind it: what it makes may be what they refuse.

use std::sync::Arc;
use std::time::Duration;

use super::watch::{REJECTED_FREE, Tally, worse};
use crate::control::StageControl;
use crate::metrics::{Call, StageCounters};

/// How often they are looked at: soon enough that little more of what they refuse is made, and seldom enough to cost nothing.
pub const LOOK: Duration = Duration::from_millis(50);

/// The stages that get what a stage makes, as they did until it switched.
#[derive(Debug, Default)]
pub struct Behind(Vec<Known>);

struct Known {
    stage: Arc<StageControl>,
    before: Tally,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.stage.kind(), self.stage.name())
    }
}

impl Behind {
    /// Of the stages behind this one. One that fails already is left out: that is nobody's doing who comes now.
    pub fn of(stage: &StageControl) -> Self {
        let healthy = stage.behind().into_iter().filter(|behind| behind.counters().failing_for().is_none());
        Self(healthy.map(|stage| Known { before: tally(stage.counters()), stage }).collect())
    }

    /// Which of them does worse than before, and in what.
    pub fn worse(&self) -> Option<String> {
        self.0.iter().find_map(|Known { stage, before }| {
            let free = if stage.has_dead_letters() { REJECTED_FREE } else { 0 };
            let reason = worse(before, &(tally(stage.counters()) - *before), free)?;
            let error = stage.counters().last_error().map_or_else(String::new, |error| format!(": {}", error.text));
            Some(format!("{} `{}` behind it: {reason}{error}", stage.kind(), stage.name()))
        })
    }
}

/// All that a stage has done. Its time says nothing here: batches come as they come.
fn tally(counters: &StageCounters) -> Tally {
    Tally {
        calls: Call::ALL.iter().map(|call| counters.result(*call)).sum(),
        busy: Duration::ZERO,
        slow: 0,
        events: counters.received.get(),
        traps: counters.result(Call::Trap),
        retries: counters.result(Call::Retry),
        rejected: counters.rejected.get(),
        fatal: counters.result(Call::Fatal),
    }
}
