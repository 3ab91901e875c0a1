//! The monotonic clock of an instance. Where its stage has something else for it to do, the clock leaps over what it waits for.
//!
//! Nothing can be said to a guest that waits in a call. So that an idle source may wait for seconds all the same, and need not be woken
//! only to be asked to wait again, a wait of it can be cut short: its timers are due at once, and the clock stands where they were to be
//! due. To the guest that is a time that has passed: whatever it sees is in order, whichever language it is written in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::clocks::HostMonotonicClock;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::State;

/// Limit: a guest counts its wait from when it has begun, on a busy machine that much behind us.
const BEGINNING: Duration = Duration::from_secs(1);

/// One instance's clock. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    /// Nanoseconds that were leapt over.
    leapt: AtomicU64,
    hurried: AtomicBool,
    /// What is due behind this is not what the call waits for.
    call_ends: AtomicU64,
    hurry: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Shared {
            origin: Instant::now(),
            leapt: AtomicU64::new(0),
            hurried: AtomicBool::new(false),
            call_ends: AtomicU64::new(0),
            hurry: Notify::new(),
        }))
    }
}

impl Clock {
    /// Cuts the waits of the call short that is under way, those that it has not begun yet among them.
    pub fn hurry(&self) {
        self.0.hurried.store(true, Ordering::SeqCst);
        self.0.hurry.notify_waiters();
    }

    /// A call begins that may wait so long.
    pub fn begin(&self, wait: Duration) {
        let end = self.now().saturating_add((wait + BEGINNING).as_nanos() as u64);
        self.0.call_ends.store(end, Ordering::SeqCst);
        self.0.hurried.store(false, Ordering::SeqCst);
    }

    fn is_hurried(&self) -> bool {
        self.0.hurried.load(Ordering::SeqCst)
    }

    /// Waits until the clock shows so much.
    async fn reaches(&self, nanoseconds: u64) {
        loop {
            // Listens before it looks, so that no hurry is missed.
            let hurry = self.0.hurry.notified();
            let left = nanoseconds.saturating_sub(self.now());
            if left == 0 {
                return;
            }
            if self.is_hurried() && nanoseconds <= self.0.call_ends.load(Ordering::SeqCst) {
                self.0.leapt.fetch_add(left, Ordering::SeqCst);
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_nanos(left)) => {}
                () = hurry => {}
            }
        }
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        (self.0.origin.elapsed().as_nanos() as u64).saturating_add(self.0.leapt.load(Ordering::SeqCst))
    }
}

/// Offers `wasi:clocks/monotonic-clock`.
///
/// # Errors
/// When somebody else offers it.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    monotonic_clock::add_to_linker::<State, HasTimers>(linker, |state| Timers {
        clock: &state.clock,
        table: &mut state.table,
    })
}

struct HasTimers;
impl HasData for HasTimers {
    type Data<'a> = Timers<'a>;
}

struct Timers<'a> {
    clock: &'a Clock,
    table: &'a mut ResourceTable,
}

impl monotonic_clock::Host for Timers<'_> {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        Ok(self.clock.now())
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        Ok(self.clock.resolution())
    }

    fn subscribe_instant(&mut self, when: monotonic_clock::Instant) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = Timer { clock: self.clock.clone(), due: when, has_yielded: false };
        let timer = self.table.push(timer)?;
        subscribe(self.table, timer)
    }

    fn subscribe_duration(&mut self, duration: monotonic_clock::Duration) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.clock.now();
        self.subscribe_instant(now.saturating_add(duration))
    }
}

struct Timer {
    clock: Clock,
    due: u64,
    has_yielded: bool,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        if self.due > self.clock.now() {
            return self.clock.reaches(self.due).await;
        }
        // Without this a guest that asks for its sockets without waiting would never be told of them: the runtime has to have a turn.
        if !std::mem::replace(&mut self.has_yielded, true) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn later(clock: &Clock, wait: Duration) -> u64 {
        clock.now() + wait.as_nanos() as u64
    }

    #[tokio::test]
    async fn a_hurried_wait_ends_at_once_with_the_clock_behind_it() {
        let clock = Clock::default();
        clock.begin(HOUR);
        let due = later(&clock, HOUR);
        tokio::join!(clock.reaches(due), async { clock.hurry() });
        assert!(clock.now() >= due);
        // What else it waits for in the same call has its time too.
        clock.begin(HOUR);
        clock.hurry();
        clock.reaches(later(&clock, HOUR / 2)).await;
        clock.reaches(later(&clock, HOUR / 3)).await;
        assert!(clock.now() >= due + HOUR.as_nanos() as u64 / 6 * 5);
    }

    #[tokio::test]
    async fn a_hurry_ends_with_its_call_and_reaches_no_further() {
        let clock = Clock::default();
        clock.begin(HOUR);
        clock.hurry();
        let far = later(&clock, HOUR * 2);
        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, clock.reaches(far)).await.is_err(), "the call itself would end before");
        clock.begin(HOUR);
        let begun = Instant::now();
        clock.reaches(later(&clock, wait)).await;
        assert!(begun.elapsed() >= wait);
        assert!(clock.now() < far);
    }
}
