//! Slows a stage down that loses computing time in calls that end in a trap or at a limit, so that a plugin that fails for ever cannot keep
//! a core to itself, nor a dozen of them the machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Calls at their limit that a stage may lose before it has to rest, in halves: a batch and its second try are innocent, the third is not,
/// and what instances cost beside it is. The search for one bad event is far shorter.
const FREE_HALVES: u32 = 5;
/// A rest, in computing times that went before: what fails has a fifth of a core then.
const REST: u32 = 4;
/// A rest within a call, in the same: nobody has to wait behind such a stage for longer than for a tick, and can make up for it in the rest.
const REST_WITHIN: u32 = 3;
/// A stage that went so long without is as good as new.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Where all stages of the process stand that have to rest.
static LINE: Line = Line::new();

/// When a stage may have its next instance.
#[derive(Debug)]
pub struct Pace {
    line: &'static Line,
    state: Mutex<State>,
    /// Its last call computed for long in one turn.
    is_long: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Since it was as good as new.
    lost: Duration,
    /// Whether that was too much.
    rests: bool,
    /// When its last rest is over, or when it last lost something that cost it none.
    not_before: Option<Instant>,
}

impl State {
    fn is_forgiven(&self) -> bool {
        self.not_before.is_some_and(|rested| rested.elapsed() > FORGIVEN_AFTER)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::in_line(&LINE)
    }
}

impl Pace {
    fn in_line(line: &'static Line) -> Self {
        Self { line, state: Mutex::default(), is_long: AtomicBool::new(false) }
    }

    /// Notes that a call was lost and this computing time with it. `limit` is what one call may have.
    ///
    /// Calls that went well in between change nothing: a plugin that loops on every second batch burns as much as one that always does.
    pub fn lost(&self, time: Duration, limit: Duration) {
        let mut state = self.state.lock();
        if state.is_forgiven() {
            state.lost = Duration::ZERO;
        }
        state.lost = state.lost.saturating_add(time);
        state.rests = state.lost > limit.saturating_mul(FREE_HALVES) / 2;
        state.not_before = Some(if state.rests { self.line.place(time.saturating_mul(REST)) } else { Instant::now() });
    }

    /// Notes whether a call computes for long in one turn: the next probably does as well, also that of a fresh instance.
    pub fn took_long(&self, is_long: bool) {
        self.is_long.store(is_long, Ordering::Relaxed);
    }

    pub fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }

    /// How long a call rests that has computed for `turn` without one. Nothing: the stage may compute on end.
    pub fn rest_within(&self, turn: Duration) -> Option<Duration> {
        let state = self.state.lock();
        (state.rests && !state.is_forgiven()).then(|| turn.saturating_mul(REST_WITHIN))
    }

    /// Waits until the stage may have its next instance; at once where it never lost much.
    ///
    /// Cancel: the rest goes on, and whoever waits next waits for what is left of it.
    pub async fn rest(&self) {
        let left = self.left();
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
    }

    /// How long the stage still has to rest.
    pub fn left(&self) -> Duration {
        self.state.lock().not_before.map_or(Duration::ZERO, |rested| rested.saturating_duration_since(Instant::now()))
    }
}

/// One rest after another: whoever comes to the line has its own behind all that are in it. So together those that fail have no more of a
/// core than one alone would, however many they are, and they seldom compute side by side: what keeps its promises beside them finds a
/// processor.
#[derive(Debug)]
struct Line(Mutex<Option<Instant>>);

impl Line {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// When a rest of this length is over.
    fn place(&self, length: Duration) -> Instant {
        let mut last = self.0.lock();
        let now = Instant::now();
        let end = last.map_or(now, |last| last.max(now)) + length;
        *last = Some(end);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Duration = Duration::from_secs(1);

    fn line() -> &'static Line {
        Box::leak(Box::new(Line::new()))
    }

    #[test]
    fn the_third_call_at_its_limit_costs_four_times_what_it_burnt() {
        let pace = Pace::in_line(line());
        assert_eq!(pace.left(), Duration::ZERO);
        pace.lost(CPU, CPU);
        pace.lost(CPU, CPU);
        assert_eq!(pace.left(), Duration::ZERO);
        assert_eq!(pace.rest_within(CPU), None);
        pace.lost(CPU, CPU);
        assert!(pace.left() > CPU * 3 && pace.left() <= CPU * 4, "{:?}", pace.left());
        assert_eq!(pace.rest_within(CPU), Some(CPU * 3), "the next one has its rests in between");
    }

    #[test]
    fn what_costs_little_is_free_for_long_and_then_is_slowed_down_as_well() {
        let pace = Pace::in_line(line());
        (0..250).for_each(|_| pace.lost(CPU / 100, CPU));
        assert_eq!(pace.left(), Duration::ZERO);
        pace.lost(CPU / 100, CPU);
        assert!(pace.left() > CPU / 100 * 3 && pace.left() <= CPU / 100 * 4, "{:?}", pace.left());
    }

    #[test]
    fn stages_rest_one_behind_another() {
        let line = line();
        let paces: Vec<Pace> = (0..10).map(|_| Pace::in_line(line)).collect();
        paces.iter().for_each(|pace| pace.lost(CPU * 3, CPU));
        for (place, pace) in (1..).zip(&paces) {
            let rest = CPU * 3 * REST * place;
            assert!(pace.left() > rest - CPU && pace.left() <= rest, "{place}: {:?}", pace.left());
        }
    }

    #[test]
    fn a_minute_after_its_rest_a_stage_is_as_good_as_new() {
        let pace = Pace::in_line(line());
        let long_ago =
            Instant::now().checked_sub(FORGIVEN_AFTER + CPU).expect("the machine runs for longer than a minute");
        *pace.state.lock() = State { lost: CPU * 9, rests: true, not_before: Some(long_ago) };
        assert_eq!(pace.rest_within(CPU), None, "also where nothing is lost any more");
        pace.lost(CPU, CPU);
        assert_eq!((pace.left(), pace.rest_within(CPU)), (Duration::ZERO, None));
    }
}
