//! Rates: what counters did in the last seconds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StageCounters;
use crate::control::Control;

/// How often counters are looked at, and how many looks are kept: rates are those of the last ten seconds.
pub const INTERVAL: Duration = Duration::from_secs(1);
const KEPT: usize = 11;

/// Counters of the stages as they were, the newest last.
#[derive(Debug, Default)]
pub struct Rates(VecDeque<Look>);

#[derive(Debug)]
struct Look {
    at: Instant,
    /// Events in and out, by pipeline and stage.
    counts: HashMap<(Arc<str>, Arc<str>), (u64, u64)>,
}

impl Rates {
    /// Takes note of the counters, once every [`INTERVAL`].
    pub fn look(&mut self, control: &Control) {
        let pipelines = control.pipelines();
        let stages = pipelines.iter().flat_map(|pipeline| pipeline.stages());
        let counts = stages.map(|stage| {
            let counters = stage.counters();
            ((stage.pipeline().clone(), stage.name().clone()), (counters.received.get(), counters.accepted.get()))
        });
        self.0.push_back(Look { at: Instant::now(), counts: counts.collect() });
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Events in and out a second. A stage that has come since counts from its first look.
    pub fn of(&self, pipeline: &Arc<str>, stage: &Arc<str>, counters: &StageCounters) -> (f64, f64) {
        let key = (pipeline.clone(), stage.clone());
        let oldest = self.0.iter().find_map(|look| Some((look.at, *look.counts.get(&key)?)));
        let Some((at, (received, accepted))) = oldest else { return (0.0, 0.0) };
        // Counted over less than this, one batch would look like a flood.
        let seconds = at.elapsed().max(INTERVAL).as_secs_f64();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (rate(counters.received.get(), received), rate(counters.accepted.get(), accepted))
    }
}
