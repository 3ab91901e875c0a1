//! A stage as one runner uses it: where its orders come, and how its generation does beside the one before.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gaps::{Gaps, UsualGap};
use super::point::{Attached, Bell, Order};
use super::watch::{Tally, Trial, Verdict};
use crate::plugin::{CallError, PluginKind};
use crate::stage::Stage;

/// Kept by the runner, or the link of a chain, that calls the plugin.
#[derive(Debug, Default)]
pub struct Seat {
    /// Nothing until the runner has a bell.
    attached: Option<Attached>,
    /// One of several that have a piece of each batch: the first one speaks for all.
    is_further: bool,
    tally: Tally,
    /// When this generation's last call began.
    began: Option<Instant>,
    /// When the last call ended, whoever's it was.
    ended: Option<Instant>,
    /// Between the calls of this generation.
    gaps: Gaps,
    trial: Option<OnTrial>,
    /// The generation to go back to before the next batch: this one is too slow.
    back: Option<Arc<Stage>>,
}

#[derive(Debug)]
struct OnTrial {
    trial: Arc<Trial>,
    before: Arc<Stage>,
    was: Tally,
    slow_from: Option<Duration>,
    usual_gap: Option<UsualGap>,
    had_first_batch: bool,
}

impl Seat {
    pub fn attach(&mut self, stage: &Stage, bell: &Arc<Bell>) {
        self.attached = Some(stage.point.attach(bell));
        self.is_further = stage.worker.number > 0 && stage.kind() == PluginKind::Interceptor;
    }

    /// What is to be done before the next batch.
    pub fn order(&self) -> Option<Order> {
        self.attached.as_ref()?.take()
    }

    pub fn has_order(&self) -> bool {
        self.attached.as_ref().is_some_and(Attached::has_order)
    }

    /// As [`Attached::ordered`].
    pub async fn ordered(&self) {
        match &self.attached {
            Some(attached) => attached.ordered().await,
            None => std::future::pending().await,
        }
    }

    /// Takes no more orders: the runner is at its end.
    pub fn leave(&mut self) {
        self.attached = None;
    }

    pub fn is_paused(&self) -> bool {
        self.attached.as_ref().is_some_and(Attached::is_paused)
    }

    /// Notes that a call begins; for a new generation's first batch, how long events have waited for it.
    pub fn begins(&mut self) -> Instant {
        let now = Instant::now();
        let gap = self.ended.map(|ended| now - ended);
        if let (Some(gap), Some(began)) = (gap, self.began.replace(now)) {
            self.gaps.add(gap, now - began);
        }
        if let Some(on) = self.trial.as_mut().filter(|on| !on.had_first_batch) {
            on.had_first_batch = true;
            if !self.is_further {
                on.trial.had_first_batch(gap, on.usual_gap);
            }
        }
        now
    }

    /// Notes a call that went well.
    pub fn called(&mut self, began: Instant, events: usize) {
        let now = Instant::now();
        self.ended = Some(now);
        self.tally.called(now - began, events);
        if let Some(on) = &self.trial {
            self.tally.slow += u64::from(on.slow_from.is_some_and(|slow| now - began > slow));
            self.back = self.judge();
        }
    }

    /// To which generation to go back before the next batch, if calls of this one take too long.
    pub fn take_back(&mut self) -> Option<Arc<Stage>> {
        self.back.take()
    }

    /// Notes a call of which the time says nothing.
    pub fn waited(&mut self, events: usize) {
        self.ended = Some(Instant::now());
        self.tally.called(Duration::ZERO, events);
    }

    /// Notes events that were refused.
    pub fn rejected(&mut self, events: usize) -> Option<Arc<Stage>> {
        self.tally.rejected += events as u64;
        if events > 0 { self.judge() } else { None }
    }

    /// Notes a call that failed. To which generation to go back, if that is worse than the one before.
    pub fn failed(&mut self, error: &CallError) -> Option<Arc<Stage>> {
        self.ended = Some(Instant::now());
        self.tally.failed(error);
        let reason = self.worse()?;
        self.back(&format!("{reason}: {error}"))
    }

    /// Whether a generation is being compared with the one before.
    pub fn is_on_trial(&mut self) -> bool {
        self.on_trial().is_some()
    }

    /// The stage would stop. To which generation to go back instead, if this one is on trial.
    pub fn stops(&mut self, cause: &str) -> Option<Arc<Stage>> {
        self.on_trial()?;
        self.back(&format!("it would stop the stage: {cause}"))
    }

    /// Another generation has taken over here.
    pub fn switched(&mut self, before: Arc<Stage>, trial: Option<Arc<Trial>>) {
        let was = std::mem::take(&mut self.tally);
        let (slow_from, usual_gap) = (was.slow_from(), std::mem::take(&mut self.gaps).usual());
        self.began = None;
        self.trial = trial.map(|trial| OnTrial { trial, before, was, slow_from, usual_gap, had_first_batch: false });
    }

    fn judge(&mut self) -> Option<Arc<Stage>> {
        let reason = self.worse()?;
        self.back(&reason)
    }

    fn worse(&mut self) -> Option<String> {
        let tally = self.tally;
        let on = self.on_trial()?;
        on.trial.worse(&on.was, &tally)
    }

    fn on_trial(&mut self) -> Option<&OnTrial> {
        if self.trial.as_ref()?.trial.is_over() {
            self.trial = None;
        }
        self.trial.as_ref()
    }

    /// The generation before; nothing when the window has been closed meanwhile.
    fn back(&mut self, reason: &str) -> Option<Arc<Stage>> {
        let on = self.trial.take()?;
        if !on.trial.decide(Verdict::Breach(reason.into())) {
            return None;
        }
        self.tally = on.was;
        Some(on.before)
    }
}
