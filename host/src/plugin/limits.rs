//! What one instance may use: memory, and computing time for each call.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::{Broken, TrapKind};
use crate::capability::{State, Waited};

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
/// Counted in ticks of the epoch that found guest code running. A tick that passed while the guest waited is found too,
/// when it goes on; it is told apart by how short a while ago that was.
#[derive(Debug)]
pub struct Cpu {
    limit_ticks: u32,
    spent_ticks: AtomicU32,
    /// Nanoseconds from `origin` to when the runtime last turned to the guest.
    resumed: AtomicU64,
    origin: Instant,
    /// Waiting for whoever reads what a sink prints.
    waited: Waited,
}

impl Cpu {
    /// Watches over all calls into this store.
    pub fn watch(store: &mut Store<State>, limit: Duration) -> Arc<Self> {
        let limit_ticks = limit.as_millis().div_ceil(TICK.as_millis()).clamp(1, u32::MAX.into()) as u32;
        let cpu = Arc::new(Self {
            limit_ticks,
            spent_ticks: AtomicU32::new(0),
            resumed: AtomicU64::new(0),
            origin: Instant::now(),
            waited: store.data().output.waited(),
        });
        let watch = cpu.clone();
        store.epoch_deadline_callback(move |_| watch.tick());
        store.set_epoch_deadline(1);
        cpu
    }

    /// Runs one call, counting from zero, and notes each time the runtime turns to it.
    pub async fn meter<F: Future>(&self, call: F) -> F::Output {
        self.spent_ticks.store(0, Ordering::Relaxed);
        let mut call = pin!(call);
        poll_fn(|context| {
            self.resumed.store(self.now(), Ordering::Relaxed);
            call.as_mut().poll(context)
        })
        .await
    }

    /// How long calls have waited for the host so far.
    pub fn waited(&self) -> Duration {
        self.waited.total()
    }

    /// Computing time of the last call, in whole ticks.
    pub fn spent(&self) -> Duration {
        TICK * self.spent_ticks.load(Ordering::Relaxed)
    }

    /// A tick found guest code running: count it, and let others have the thread.
    fn tick(&self) -> wasmtime::Result<UpdateDeadline> {
        let ran = self.now().saturating_sub(self.resumed.load(Ordering::Relaxed));
        if ran < (TICK / 2).as_nanos() as u64 {
            return Ok(UpdateDeadline::Continue(1));
        }
        let spent = self.spent_ticks.fetch_add(1, Ordering::Relaxed) + 1;
        // The first tick counts as a whole one and may be half: the limit is passed by up to a tick, never cut short.
        if spent > self.limit_ticks {
            let text = format!("computed longer than {} ms in one call", (TICK * self.limit_ticks).as_millis());
            return Err(Broken { kind: TrapKind::Cpu, text }.into());
        }
        // Tokio's own yield lets it look for input and timers before this guest goes on. A task that merely wakes itself does not: of those
        // it runs 61 before it looks, and with a tick each, everybody else waited for seconds.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
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
