//! The computing time of calls: what one may have, and that it keeps nobody else waiting.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline};

use super::apart::Apart;
use super::{Broken, Pace, TrapKind};
use crate::capability::{State, Waited};
use crate::thread;

/// How often the epoch moves: the grain of the CPU limit, and how long a call that computes on end holds a worker thread at most, but for
/// [`IDLE_TICK`].
pub const TICK: Duration = Duration::from_millis(10);

/// A call that a tick finds to have had this much goes on apart from the workers, and so does the stage's next one. Long enough that
/// what only moves a batch of events, into Kafka for one, keeps its thread and its priority.
const LONG: Duration = TICK;

/// How long a call goes on apart before its runner is turned to: its deadline may have passed, or its runner be cut off.
const APART: Duration = Duration::from_millis(100);

/// How often the epoch moves when for [`IDLE_TICKS`] it has found nobody computing: an agent that waits costs less so. A call that computes
/// on end is found so much later then, once.
const IDLE_TICK: Duration = Duration::from_millis(100);
const IDLE_TICKS: u64 = 100;

/// Of all engines of the process.
pub static TICKS: Ticks = Ticks::new();

/// How often the epoch has moved, so that a call can tell a tick that finds it computing from one that passed before.
#[derive(Debug)]
pub struct Ticks {
    count: AtomicU64,
    /// The last of them that found a call computing.
    found: AtomicU64,
}

impl Ticks {
    const fn new() -> Self {
        Self { count: AtomicU64::new(0), found: AtomicU64::new(0) }
    }

    /// Counts a tick; the epoch moves after it. Gives how long it is to the next.
    pub fn add(&self) -> Duration {
        let tick = self.count.fetch_add(1, Ordering::Relaxed);
        match tick.saturating_sub(self.found.load(Ordering::Relaxed)) {
            ..IDLE_TICKS => TICK,
            _ => IDLE_TICK,
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn found(&self, tick: u64) {
        self.found.store(tick, Ordering::Relaxed);
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
    /// The ticks until then.
    ticks: AtomicU64,
    origin: Instant,
    /// Waiting for whoever reads what a sink prints.
    waited: Waited,
    pace: Arc<Pace>,
    /// How long calls were held up by the pace, in nanoseconds.
    held_up: AtomicU64,
    /// The turn under way is in no worker's way.
    is_apart: AtomicBool,
}

impl Cpu {
    /// Watches over all calls into this store.
    pub fn watch(store: &mut Store<State>, limit: Duration, pace: Arc<Pace>) -> Arc<Self> {
        let cpu = Arc::new(Self {
            limit,
            spent: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            origin: Instant::now(),
            waited: store.data().output.waited(),
            pace,
            held_up: AtomicU64::new(0),
            is_apart: AtomicBool::new(false),
        });
        let watch = cpu.clone();
        store.epoch_deadline_callback(move |_| watch.tick());
        store.set_epoch_deadline(1);
        cpu
    }

    /// Runs one call, counting from zero, and notes each time the runtime turns to it.
    pub async fn meter<F>(&self, call: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        self.spent.store(0, Ordering::Relaxed);
        self.turn.store(0, Ordering::Relaxed);
        let mut call = pin!(call);
        poll_fn(|context| match self.pace.is_long().then(Apart::ask).flatten() {
            Some(apart) => self.turn_apart(apart, call.as_mut(), context),
            None => self.turn_to(call.as_mut(), context),
        })
        .await
    }

    /// One turn of a call that takes long, or probably does since the one before did.
    fn turn_apart<F>(&self, apart: Apart, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output>
    where
        F: Future + Send,
        F::Output: Send,
    {
        let waker = context.waker();
        self.is_apart.store(true, Ordering::Relaxed);
        let (polled, took) = apart.run(|| {
            let began = thread::computing_time();
            let polled = self.turn_to(call, &mut Context::from_waker(waker));
            (polled, thread::computing_time().saturating_sub(began))
        });
        self.is_apart.store(false, Ordering::Relaxed);
        self.pace.took_long(took >= LONG);
        polled
    }

    fn turn_to<F: Future>(&self, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.resumed.store(self.now(), Ordering::Relaxed);
        self.ticks.store(TICKS.count(), Ordering::Relaxed);
        if self.turn.load(Ordering::Relaxed) != 0 {
            self.turn.store(thread_clock(), Ordering::Relaxed);
        }
        let polled = call.poll(context);
        // A tick may have come upon it meanwhile.
        match self.turn.load(Ordering::Relaxed) {
            0 => {}
            turn => _ = self.spent.fetch_add(thread_clock().saturating_sub(turn), Ordering::Relaxed),
        }
        polled
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
        // Limit: passed by up to a tick, by up to `IDLE_TICK` where nobody had computed before, never cut short.
        if self.spent.load(Ordering::Relaxed) + turn > self.limit.as_nanos() as u64 {
            let text = format!("computed longer than {} ms in one call", self.limit.as_millis());
            return Err(Broken { kind: TrapKind::Cpu, text }.into());
        }
        let ticks = TICKS.count();
        if self.ticks.load(Ordering::Relaxed) == ticks {
            // It passed while the call waited, or before.
            return Ok(UpdateDeadline::Continue(1));
        }
        TICKS.found(ticks);
        if let Some(rest) = self.pace.rest_within(Duration::from_nanos(turn)) {
            self.held_up.fetch_add(rest.as_nanos() as u64, Ordering::Relaxed);
            return Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(rest))));
        }
        match self.is_apart.load(Ordering::Relaxed) {
            true if ran < APART.as_nanos() as u64 => return Ok(UpdateDeadline::Continue(1)),
            // Its next turn is apart.
            false if ran >= LONG.as_nanos() as u64 => self.pace.took_long(true),
            _ => {}
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
    use wasmtime::{Linker, Module};

    use super::*;
    use crate::capability::Printing;
    use crate::plugin::{PluginKind, apart, tests};

    /// `(module (func (export "f") (loop (br 0))))`
    const ENDLESS: &[u8] =
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x05\x01\x01f\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";
    const LIMIT: Duration = Duration::from_millis(200);
    const LONG_ENOUGH: Duration = Duration::from_secs(60);

    #[test]
    fn a_call_for_which_no_leave_is_left_goes_on_among_the_workers() {
        let _others_wait = apart::LEAVES.lock();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("it starts");
        let _runtime = runtime.enter();
        let _leaves: Vec<Apart> = std::iter::from_fn(Apart::ask).collect();

        let engine = tests::engine();
        let module = Module::new(engine.wasm(), ENDLESS).expect("it is one");
        let state = State::new(&tests::stage(PluginKind::Interceptor), Printing::Log).expect("nothing is granted");
        let mut store = Store::new(engine.wasm(), state);
        let cpu = Cpu::watch(&mut store, LIMIT, Arc::default());
        let looping = runtime.spawn(async move {
            let instance =
                Linker::new(store.engine()).instantiate_async(&mut store, &module).await.expect("no imports");
            let endless = instance.get_typed_func::<(), ()>(&mut store, "f").expect("it is exported");
            cpu.meter(endless.call_async(&mut store, ())).await.expect_err("nothing else ends it")
        });
        let ended = runtime.block_on(async { tokio::time::timeout(LONG_ENOUGH, looping).await });
        let error = ended.expect("it came to its limit").expect("it did not panic");
        let broken: &Broken = error.downcast_ref().expect("the limit ended it");
        assert_eq!(broken.kind, TrapKind::Cpu);
    }

    #[test]
    fn the_epoch_slows_down_when_nobody_computes_and_is_as_quick_as_before_at_the_first_that_does() {
        let ticks = Ticks::new();
        for _ in 0..IDLE_TICKS {
            assert_eq!(ticks.add(), TICK);
        }
        assert_eq!(ticks.add(), IDLE_TICK);
        ticks.found(ticks.count());
        assert_eq!(ticks.add(), TICK);
    }
}
