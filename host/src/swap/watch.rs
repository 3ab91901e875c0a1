//! The watch window: a new generation is compared with the one before, and a worse one goes back.

use std::ops::Sub;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::behind::{Behind, LOOK};
use super::gaps::UsualGap;
use crate::plugin::{CallError, Failure};

/// Calls after which the time they take is compared: fewer, and one stall of the machine decides.
const TIMED_CALLS_MIN: u64 = 50;
/// Slower than this many times the mean before, and then by this much more, is a breach: a quarter more is noise.
const SLOWER: u32 = 3;
const SLOWER_BY: Duration = Duration::from_millis(5);
/// Computing for so long in so few calls is compared at once.
const SLOW_TOTAL: Duration = Duration::from_secs(2);
const SLOW_CALLS_MIN: u64 = 3;
/// More failures a call, or rejections an event, than this many times those before is a breach.
const MORE: u64 = 2;
/// The world outside fails now and then, whoever serves: so many failures that may pass prove nothing.
const RETRIES_FREE: u64 = 2;
/// A few bad events come now and then, whoever serves, where there is a place for them.
pub const REJECTED_FREE: u64 = 10;

/// What one use of a stage did in one generation: plain numbers, kept by its runner.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub calls: u64,
    /// Time in calls. Zero where that says nothing: a source waits in its own.
    pub busy: Duration,
    /// Calls that took longer than those of the generation before allow.
    pub slow: u64,
    pub events: u64,
    pub traps: u64,
    /// Answers that something may go well later.
    pub retries: u64,
    pub rejected: u64,
    /// Answers that the stage cannot go on.
    pub fatal: u64,
}

impl Tally {
    pub fn called(&mut self, took: Duration, events: usize) {
        self.calls += 1;
        self.busy += took;
        self.events += events as u64;
    }

    pub fn failed(&mut self, error: &CallError) {
        self.calls += 1;
        match error {
            CallError::Trap { .. } => self.traps += 1,
            CallError::Failure(Failure::Retry { .. }) => self.retries += 1,
            CallError::Failure(Failure::Reject(_)) => self.rejected += 1,
            CallError::Failure(Failure::Fatal(_)) => self.fatal += 1,
        }
    }

    fn mean(&self) -> Duration {
        self.busy / u32::try_from(self.calls.max(1)).unwrap_or(u32::MAX)
    }

    /// From when on a call of the next generation is slow; nothing where there were too few to tell.
    pub fn slow_from(&self) -> Option<Duration> {
        let tells = self.calls >= TIMED_CALLS_MIN && !self.busy.is_zero();
        tells.then(|| self.mean() * SLOWER + SLOWER_BY)
    }
}

impl Sub for Tally {
    type Output = Self;

    /// What was done since the one that is taken off.
    fn sub(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            busy: self.busy - before.busy,
            slow: self.slow - before.slow,
            events: self.events - before.events,
            traps: self.traps - before.traps,
            retries: self.retries - before.retries,
            rejected: self.rejected - before.rejected,
            fatal: self.fatal - before.fatal,
        }
    }
}

/// Whether a generation does worse than the one before, and in what.
///
/// | what | breach |
/// |---|---|
/// | `fatal` | the first |
/// | traps a call | more than twice those before: the first one where there was none |
/// | failures that may pass, a call | more than two, and more than twice those before |
/// | rejections an event | more than ten (or one, where a rejection stops the stage), and more than twice those before |
/// | time a call | of at least 50 calls, or 2 s, most: more than three times the mean before and 5 ms |
///
/// Most calls, and not their mean: on a busy machine some calls of any plugin wait for a core.
pub fn worse(before: &Tally, now: &Tally, free_rejections: u64) -> Option<String> {
    let more = |new: u64, calls: u64, old: u64, of: u64| {
        u128::from(new) * u128::from(of.max(1)) > u128::from(MORE * old) * u128::from(calls.max(1))
    };
    if now.fatal > 0 {
        return Some("it cannot go on".into());
    }
    if now.traps > 0 && more(now.traps, now.calls, before.traps, before.calls) {
        return Some(compared("traps", now.traps, now.calls, before.traps, before.calls, "calls"));
    }
    if now.retries > RETRIES_FREE && more(now.retries, now.calls, before.retries, before.calls) {
        return Some(compared("failures", now.retries, now.calls, before.retries, before.calls, "calls"));
    }
    if now.rejected > free_rejections && more(now.rejected, now.events, before.rejected, before.events) {
        return Some(compared("rejections", now.rejected, now.events, before.rejected, before.events, "events"));
    }
    let is_timed = now.calls >= TIMED_CALLS_MIN || (now.calls >= SLOW_CALLS_MIN && now.busy >= SLOW_TOTAL);
    if is_timed && now.slow * 2 > now.calls {
        return Some(format!("{:.1?} a call, after {:.1?} before", now.mean(), before.mean()));
    }
    None
}

fn compared(what: &str, new: u64, of_new: u64, old: u64, of_old: u64, unit: &str) -> String {
    format!("{new} {what} in {of_new} {unit}, after {old} in {of_old} before")
}

/// A new generation within its watch window: shared by the swap and every use of the stage.
#[derive(Debug)]
pub struct Trial {
    until: Instant,
    free_rejections: u64,
    behind: Behind,
    state: watch::Sender<TrialState>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrialState {
    /// Decided once.
    pub verdict: Option<Verdict>,
    /// Uses that have given the new generation a batch.
    pub first_batches: usize,
    /// The longest time between a use's last batch of the old generation and its first of the new.
    pub gap: Option<Duration>,
    /// The same of the generation before, between any two batches.
    pub usual_gap: Option<UsualGap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Worse than the one before, and in what.
    Breach(Arc<str>),
    /// Another swap has taken over.
    Superseded,
    StageEnded,
}

impl Trial {
    /// `has_dead_letters`: whether a rejected event has somewhere to go.
    pub fn new(window: Duration, has_dead_letters: bool, behind: Behind) -> Arc<Self> {
        Arc::new(Self {
            until: Instant::now() + window,
            free_rejections: if has_dead_letters { REJECTED_FREE } else { 0 },
            behind,
            state: watch::Sender::default(),
        })
    }

    pub fn until(&self) -> Instant {
        self.until
    }

    pub fn subscribe(&self) -> watch::Receiver<TrialState> {
        self.state.subscribe()
    }

    pub fn state(&self) -> TrialState {
        self.state.borrow().clone()
    }

    pub fn is_over(&self) -> bool {
        self.until <= Instant::now() || self.state.borrow().verdict.is_some()
    }

    /// Decides. False: it was decided before.
    pub fn decide(&self, verdict: Verdict) -> bool {
        self.state.send_if_modified(|state| {
            let decides = state.verdict.is_none();
            if decides {
                state.verdict = Some(verdict);
            }
            decides
        })
    }

    pub fn worse(&self, before: &Tally, now: &Tally) -> Option<String> {
        worse(before, now, self.free_rejections)
    }

    /// Resolves when a stage behind does worse than before, to which one and in what.
    pub async fn worse_behind(&self) -> String {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(reason) = self.behind.worse() {
                return reason;
            }
        }
    }

    pub fn had_first_batch(&self, gap: Option<Duration>, usual: Option<UsualGap>) {
        self.state.send_modify(|state| {
            state.first_batches += 1;
            state.gap = state.gap.max(gap);
            state.usual_gap = state.usual_gap.max(usual);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn calls(calls: u64, mean: Duration) -> Tally {
        Tally { calls, busy: mean * calls as u32, events: calls * 100, ..Tally::default() }
    }

    fn reason(before: Tally, now: Tally) -> Option<String> {
        worse(&before, &now, REJECTED_FREE)
    }

    #[test]
    fn the_first_trap_is_a_breach_unless_the_one_before_trapped_as_often() {
        let trapped = Tally { traps: 1, ..calls(1, MS) };
        assert_eq!(reason(calls(900, MS), trapped).unwrap(), "1 traps in 1 calls, after 0 in 900 before");
        let bad = Tally { traps: 60, ..calls(100, MS) };
        assert_eq!(reason(bad, Tally { traps: 1, ..calls(1, MS) }), None);
    }

    #[test]
    fn failures_of_the_world_need_to_be_many_and_more_than_before() {
        let failed = |retries| Tally { retries, ..calls(10, MS) };
        assert_eq!(reason(calls(900, MS), failed(2)), None);
        assert!(reason(calls(900, MS), failed(3)).is_some());
        assert_eq!(reason(Tally { retries: 200, ..calls(1000, MS) }, failed(3)), None);
    }

    #[test]
    fn a_rejection_is_a_breach_at_once_where_it_would_stop_the_stage() {
        let rejected = Tally { rejected: 1, ..calls(1, MS) };
        assert_eq!(worse(&calls(900, MS), &rejected, REJECTED_FREE), None);
        assert!(worse(&calls(900, MS), &rejected, 0).is_some());
    }

    #[test]
    fn time_is_compared_over_enough_calls_and_by_most_of_them() {
        let slow = |calls_made, slow, mean| Tally { slow, ..calls(calls_made, mean) };
        assert_eq!(reason(calls(900, MS), slow(49, 49, 20 * MS)), None);
        assert!(reason(calls(900, MS), slow(50, 26, 20 * MS)).is_some());
        assert_eq!(reason(calls(900, MS), slow(50, 25, 20 * MS)), None, "half of them waited for a core");
        assert!(reason(calls(900, MS), slow(3, 3, 900 * MS)).is_some());
    }

    #[test]
    fn a_call_is_slow_with_allowance_and_where_there_is_something_to_compare_with() {
        assert_eq!(calls(50, MS).slow_from(), Some(8 * MS));
        assert_eq!(calls(49, MS).slow_from(), None, "too few");
        assert_eq!(calls(900, Duration::ZERO).slow_from(), None, "a source waits in its calls");
    }

    #[tokio::test]
    async fn a_trial_is_decided_once() {
        let trial = Trial::new(Duration::from_secs(3600), true, Behind::default());
        assert!(!trial.is_over());
        assert!(trial.decide(Verdict::Superseded));
        assert!(!trial.decide(Verdict::Breach("late".into())));
        assert!(trial.is_over());
    }
}
