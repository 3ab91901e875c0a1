//! What one instance may use: memory, and computing time for each call.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::{Broken, Pace, TrapKind};
use crate::capability::{State, Waited};
use crate::thread;

/// How often the epoch moves: the grain of the CPU limit, and how long a looping guest holds a worker thread.
pub const TICK: Duration = Duration::from_millis(10);

/// Limit: items of all tables. A Rust plugin's function table has some hundred.
const MAX_TABLE_ITEMS: usize = 100_000;
/// Limit: core instances, tables and memories: a component built for WASI 0.2 is three or four modules.
const MAX_PARTS: usize = 64;

/// Watches over what an instance takes for itself.
///
/// A refusal is answered to the guest, not raised: most die of it with words of their own.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    /// Of all memories together.
    used: usize,
    table_items: usize,
    refused: bool,
}

impl Memory {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: 0, table_items: 0, refused: false }
    }

    /// Linear memory never shrinks, so this is the most there ever was.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Past 80 % of the limit: time for a fresh instance.
    pub fn is_nearly_full(&self) -> bool {
        self.used >= self.limit / 5 * 4
    }

    /// Whether something was refused since this was asked last.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.used.saturating_add(desired.saturating_sub(current));
        let fits = after <= self.limit;
        if fits {
            self.used = after;
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.table_items.saturating_add(desired.saturating_sub(current));
        let fits = after <= MAX_TABLE_ITEMS;
        if fits {
            self.table_items = after;
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

/// The computing time of the call that runs.
///
/// A call is looked at from the first tick of the epoch that finds it running, and from then on by its thread's clock: neither what it
/// waits for nor a machine that has no processor for it counts. Most calls are over before that and cost no look at that clock, which
/// is the system's and takes longer than their beginning.
#[derive(Debug)]
pub struct Cpu {
    limit: Duration,
    /// In nanoseconds, without the turn under way.
    spent: AtomicU64,
    /// What the thread's clock showed when the runtime last turned to the guest, in nanoseconds; 0: no tick has found this call.
    turn: AtomicU64,
    /// Nanoseconds from `origin` to when that was.
    resumed: AtomicU64,
    origin: Instant,
    /// Waiting for whoever reads what a sink prints.
    waited: Waited,
    pace: Arc<Pace>,
    /// How long calls were held up by the pace, in nanoseconds.
    held_up: AtomicU64,
}

impl Cpu {
    /// Watches over all calls into this store.
    pub fn watch(store: &mut Store<State>, limit: Duration, pace: Arc<Pace>) -> Arc<Self> {
        let cpu = Arc::new(Self {
            limit,
            spent: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            origin: Instant::now(),
            waited: store.data().output.waited(),
            pace,
            held_up: AtomicU64::new(0),
        });
        let watch = cpu.clone();
        store.epoch_deadline_callback(move |_| watch.tick());
        store.set_epoch_deadline(1);
        cpu
    }

    /// Runs one call, counting from zero, and notes each time the runtime turns to it.
    pub async fn meter<F: Future>(&self, call: F) -> F::Output {
        self.spent.store(0, Ordering::Relaxed);
        self.turn.store(0, Ordering::Relaxed);
        let mut call = pin!(call);
        poll_fn(|context| {
            self.resumed.store(self.now(), Ordering::Relaxed);
            if self.turn.load(Ordering::Relaxed) != 0 {
                self.turn.store(thread_clock(), Ordering::Relaxed);
            }
            let polled = call.as_mut().poll(context);
            // A tick may have come upon it meanwhile.
            match self.turn.load(Ordering::Relaxed) {
                0 => {}
                turn => _ = self.spent.fetch_add(thread_clock().saturating_sub(turn), Ordering::Relaxed),
            }
            polled
        })
        .await
    }

    /// How long calls have waited for the host so far.
    pub fn waited(&self) -> Duration {
        self.waited.total() + Duration::from_nanos(self.held_up.load(Ordering::Relaxed))
    }

    /// Computing time of the call that has just ended; of one that no tick has found the time since it last went on.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(match self.turn.load(Ordering::Relaxed) {
            0 => self.now().saturating_sub(self.resumed.load(Ordering::Relaxed)),
            _ => self.spent.load(Ordering::Relaxed),
        })
    }

    /// A tick found guest code running: look at what it has had, and let others have the thread.
    fn tick(&self) -> wasmtime::Result<UpdateDeadline> {
        let ran = self.now().saturating_sub(self.resumed.load(Ordering::Relaxed));
        let clock = thread_clock();
        if self.turn.load(Ordering::Relaxed) == 0 {
            // When its turn began by the thread's clock is not known: no earlier than the tick before, or that would have found it.
            let known = ran.min(TICK.as_nanos() as u64);
            self.turn.store(clock.saturating_sub(known).max(1), Ordering::Relaxed);
        }
        let turn = clock.saturating_sub(self.turn.load(Ordering::Relaxed));
        // Limit: passed by up to a tick, never cut short.
        if self.spent.load(Ordering::Relaxed) + turn > self.limit.as_nanos() as u64 {
            let text = format!("computed longer than {} ms in one call", self.limit.as_millis());
            return Err(Broken { kind: TrapKind::Cpu, text }.into());
        }
        // The tick passed while it waited, and it has only just gone on.
        if ran < (TICK / 2).as_nanos() as u64 {
            return Ok(UpdateDeadline::Continue(1));
        }
        if let Some(rest) = self.pace.rest_within(Duration::from_nanos(turn)) {
            self.held_up.fetch_add(rest.as_nanos() as u64, Ordering::Relaxed);
            return Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(rest))));
        }
        // Tokio's own yield lets it look for input and timers before this guest goes on. A task that merely wakes itself does not: of those
        // it runs 61 before it looks, and with a tick each, everybody else waited for seconds.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

fn thread_clock() -> u64 {
    thread::computing_time().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_past_the_limit_and_the_refusal_is_remembered_once() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 80, None).unwrap());
        assert!(memory.is_nearly_full());
        assert!(!memory.memory_growing(80, 101, None).unwrap());
        assert_eq!((memory.used(), memory.take_refused(), memory.take_refused()), (80, true, false));
        assert!(memory.memory_growing(0, 20, None).unwrap(), "a second memory counts with the first");
        assert!(!memory.memory_growing(20, 21, None).unwrap());
    }

    #[test]
    fn a_table_has_a_limit_of_its_own() {
        let mut memory = Memory::new(100);
        assert!(memory.table_growing(0, MAX_TABLE_ITEMS, None).unwrap());
        assert!(!memory.table_growing(MAX_TABLE_ITEMS, MAX_TABLE_ITEMS + 1, None).unwrap());
    }
}
