//! One live instance of a plugin, and how every call into it goes.
//!
//! A call takes the instance out of its holder and puts it back when it has ended well. So whatever ends it otherwise, a trap, a
//! deadline or a future that is dropped, leaves nothing behind that could be entered again.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::Store;
use wasmtime::component::{Instance as WasmInstance, InstancePre};

use super::apart::Apart;
use super::bindings::wasmflow::plugin::errors;
use super::cpu::Cpu;
use super::{CallError, Failure, Pace, StageContext, TrapKind, trap};
use crate::capability::clock::Clock;
use crate::capability::events::OutputBound;
use crate::capability::wasi::Output;
use crate::capability::{Export, Printing, State};
use crate::config::Limits;
use crate::metrics::{Running, StageCounters};
use crate::thread;

/// What a guest may copy into the host in one host call, in terms of what a call may bring.
const COPIES: usize = 4;

/// An instance: `G` has the functions of its kind.
pub struct Instance<G> {
    live: Option<Live<G>>,
    /// How it ended.
    end: Option<CallError>,
    born: Instant,
    clock: Clock,
    limits: Limits,
    counters: Arc<StageCounters>,
    pace: Arc<Pace>,
    /// Computing time of making and opening it, until a call after that has gone well.
    unearned: Duration,
    /// Calls that went well, up to [`EARNED`].
    went_well: u8,
}

/// `open`, and one call at work: what an instance costs is no loss any more when it has done something.
const EARNED: u8 = 2;

/// An instance that can be called.
pub struct Live<G> {
    pub store: Store<State>,
    pub guest: G,
    cpu: Arc<Cpu>,
    /// The call it is out for.
    running: Option<Running>,
}

/// Why an instance should be replaced between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worn {
    /// It has come to its end, or was given up in the middle of a call.
    Dead,
    /// Linear memory never shrinks, and the next batch may be the one that hits the limit.
    Full,
    /// Older than `limits.age`: whatever leaks, in the guest or in the engine, leaks no longer than that. Nothing is lost by
    /// waiting until the instance holds no events.
    Old,
}

impl fmt::Display for Worn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "it is dead",
            Self::Full => "its memory passed 80 % of its limit",
            Self::Old => "it reached the age of limits.age",
        })
    }
}

/// What a guest answers, inside what wasmtime answers.
pub type Answer<T> = wasmtime::Result<Result<T, errors::Failure>>;

impl<G> Instance<G> {
    /// Makes an instance; nothing of the plugin but its initialization runs.
    ///
    /// # Errors
    /// A retry when a granted folder cannot be opened; a trap when the initialization fails.
    pub async fn new(
        pre: &InstancePre<State>,
        stage: &StageContext,
        printing: Printing,
        load: impl FnOnce(&mut Store<State>, &WasmInstance) -> wasmtime::Result<G>,
    ) -> Result<Self, CallError> {
        let state =
            State::new(stage, printing).map_err(|reason| CallError::Failure(Failure::Retry { reason, after: None }))?;
        let mut store = Store::new(pre.engine(), state);
        // What the initialization hands to the host is bounded as any call's.
        store.set_hostcall_fuel(OutputBound::for_input(0, 0).bytes.saturating_mul(COPIES));
        store.limiter(|state| &mut state.memory);
        let cpu = Cpu::watch(&mut store, stage.limits.cpu, stage.pace.clone());
        let running = stage.counters.call();
        let made = within(&cpu, stage.limits.call, pre.instantiate_async(&mut store)).await;
        let guest = made.and_then(|instance| load(&mut store, &instance));
        match guest {
            Ok(guest) => {
                let clock = store.data().clock.clone();
                let unearned = cpu.spent();
                let live = Some(Live { store, guest, cpu, running: None });
                let (counters, pace, limits) = (stage.counters.clone(), stage.pace.clone(), stage.limits);
                let born = Instant::now();
                Ok(Self { live, end: None, born, clock, limits, counters, pace, unearned, went_well: 0 })
            }
            Err(error) => {
                let spent = cpu.spent();
                let (end, giving_back) = trapped(&error, store);
                stage.pace.lost(spent + giving_back, stage.limits.cpu);
                running.end(Some(&end), 0);
                Err(end)
            }
        }
    }

    /// Takes the instance out for a call that may make so much.
    ///
    /// # Errors
    /// When it has come to its end.
    pub fn begin(&mut self, export: Export, bound: OutputBound) -> Result<Live<G>, CallError> {
        let Some(mut live) = self.live.take() else {
            return Err(self.end.clone().unwrap_or_else(|| CallError::Trap {
                kind: TrapKind::CallTimeout,
                text: "the instance was given up in the middle of a call".into(),
            }));
        };
        live.store.set_hostcall_fuel(bound.bytes.saturating_mul(COPIES));
        let state = live.store.data_mut();
        state.export = export;
        state.granted.call_begins();
        state.batches.bound = bound;
        live.running = Some(self.counters.call());
        Ok(live)
    }

    /// Reads what a call came to, and puts the instance back unless it died.
    ///
    /// # Errors
    /// The guest's own failure, or its end.
    pub fn end<T>(&mut self, mut live: Live<G>, answer: Answer<T>) -> Result<T, CallError> {
        live.store.data().log.tell_dropped();
        let running = live.running.take();
        let answer = match answer {
            Ok(answer) => {
                if self.went_well < EARNED {
                    self.earned(live.cpu.spent());
                }
                live.store.data().granted.call_ended();
                let answer = answer.map_err(|failure| CallError::Failure(told(failure, live.store.data())));
                self.live = Some(live);
                answer
            }
            Err(error) => {
                let spent = live.cpu.spent() + self.unearned;
                let (end, giving_back) = trapped(&error, live.store);
                self.pace.lost(spent + giving_back, self.limits.cpu);
                self.end = Some(end.clone());
                Err(end)
            }
        };
        if let Some(running) = running {
            running.end(answer.as_ref().err(), self.memory_bytes());
        }
        answer
    }

    /// One of the first calls went well.
    fn earned(&mut self, spent: Duration) {
        self.went_well += 1;
        self.unearned = if self.went_well < EARNED { self.unearned + spent } else { Duration::ZERO };
    }

    /// Bytes of linear memory.
    fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.store.data().memory.used())
    }

    /// What the stage has done.
    pub fn counters(&self) -> &StageCounters {
        &self.counters
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Why a fresh instance should take its place, if one should.
    pub fn worn(&self) -> Option<Worn> {
        match &self.live {
            None => Some(Worn::Dead),
            Some(live) if live.store.data().memory.is_nearly_full() => {
                self.counters.note_error(&Worn::Full);
                Some(Worn::Full)
            }
            Some(_) if self.limits.age.is_some_and(|age| self.born.elapsed() >= age) => Some(Worn::Old),
            Some(_) => None,
        }
    }
}

impl<G> Live<G> {
    /// The parts of a call: `within(cpu, …, guest.call_x(store, …))`.
    pub fn parts(&mut self) -> (&mut Store<State>, &G, &Cpu) {
        (&mut self.store, &self.guest, &self.cpu)
    }
}

/// Runs a call within its computing time and its deadline.
///
/// Limit: the deadline holds where the epoch does not reach, in host functions that wait, and it counts from the first of them on: most
/// calls never wait, and cost no timer. Waiting for a console that nobody reads is not counted: it is back-pressure, and a fresh
/// instance would only wait there too.
pub async fn within<T: Send>(
    cpu: &Cpu,
    deadline: Duration,
    call: impl Future<Output = wasmtime::Result<T>> + Send,
) -> wasmtime::Result<T> {
    let waited_before = cpu.waited();
    let mut call = pin!(cpu.meter(call));
    if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
        return answer;
    }
    let end = Instant::now() + deadline;
    let mut excused = Duration::ZERO;
    loop {
        if let Ok(answer) = tokio::time::timeout_at(end + excused, &mut call).await {
            return answer;
        }
        let waited = cpu.waited() - waited_before;
        // Less than a millisecond more is the timer's own lateness.
        if waited < excused + Duration::from_millis(1) {
            let text = format!("a call took longer than {} ms", deadline.as_millis());
            return Err(super::Broken { kind: TrapKind::CallTimeout, text }.into());
        }
        excused = waited;
    }
}

/// Waits until the system has what the instance printed: part of the call that printed it.
pub fn printed<T: Send>(store: &Store<State>, answer: Answer<T>) -> impl Future<Output = Answer<T>> + Send + use<T> {
    // Taken out first: a store can be sent between threads, but not shared by two.
    let output = match &store.data().output {
        Output::Print(output) if !output.is_done() => Some(output.clone()),
        Output::Print(_) | Output::Log(_) => None,
    };
    async move {
        if let Some(output) = output {
            output.finish().await;
        }
        answer
    }
}

/// Reads how a call ended, and gives back what the instance had. Answers how long that took: megabytes of memory take a while.
fn trapped(error: &wasmtime::Error, mut store: Store<State>) -> (CallError, Duration) {
    let bury = || {
        let before = thread::computing_time();
        let (kind, text) = trap::read(error, store.data_mut());
        drop(store);
        (CallError::Trap { kind, text }, thread::computing_time().saturating_sub(before))
    };
    match Apart::ask() {
        Some(apart) => apart.run(bury),
        None => bury(),
    }
}

/// The guest's failure, with the grant that was missing, if one was.
fn told(failure: errors::Failure, state: &State) -> Failure {
    let with_denial = |reason: String| match state.granted.take_reason(&reason) {
        Some(denial) => format!("{reason}; {denial}"),
        None => reason,
    };
    match failure {
        errors::Failure::Retry(retry) => Failure::Retry {
            reason: with_denial(retry.reason),
            after: retry.after_ms.map(|ms| Duration::from_millis(ms.into())),
        },
        errors::Failure::Reject(reason) => Failure::Reject(with_denial(reason)),
        errors::Failure::Fatal(reason) => Failure::Fatal(with_denial(reason)),
    }
}
