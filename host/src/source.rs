//! The source runner: polls a source, sends what it brings through its interceptors into its channels, and acks it.

mod disk;
mod handover;
mod put;
mod settle;
mod swap;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::agent::stop::StopSignal;
use crate::channel::{Channel, ChannelError, Receipt, Writer};
use crate::config::pipeline::AckRule;
use crate::dead_letter::DeadLetters;
use crate::interceptor::Chain;
use crate::plugin::{CallError, Failure, Polled, Progress, SourceInstance, TrapKind};
use crate::position::{Part, Position};
use crate::position_store::PositionStore;
use crate::replay;
use crate::resume::Resume;
use crate::selector::Selector;
use crate::stage::{Backoff, Stage, StageStop, TrapGuard};
use crate::swap::{Bell, Seat};
use crate::transaction::Participant;
pub use handover::{Handover, Inheritance};
use settle::Unsettled;

/// How long a source may wait inside `poll`: so seldom that a thousand idle ones cost nothing. A stop or a swap cuts the wait short; a
/// guest that waits by something else than the host's clock hears of them this late.
pub const POLL_WAIT: Duration = Duration::from_secs(10);
/// The host's own waiting between polls while something is unsettled or the channel is full: doubles between these.
const GAP_MIN: Duration = Duration::from_micros(500);
const GAP_MAX: Duration = Duration::from_millis(50);
/// Puts of a source that may be unsettled at once. The channels bound them by events and bytes; this bounds puts that are
/// empty, or that interceptors keep back whole.
const UNSETTLED_MAX: usize = 100_000;
/// Puts of a source that may wait for the disk at once: enough that one sync serves many of them, few enough that little is
/// brought again after a crash.
const UNDER_WAY_MAX: usize = 8;

/// What a source puts before it lets others have its thread. Few enough bytes that the next runner finds them in the processor's
/// cache, and that their memory is used again at once; enough that changing between tasks costs nothing by it.
const BYTES_AHEAD: usize = 512 << 10;

/// What the runner of one source is made of.
pub struct SourceParts {
    pub stage: Arc<Stage>,
    pub chain: Chain,
    pub selector: Selector,
    pub dead_letters: DeadLetters,
    pub store: PositionStore,
    pub resume: Resume,
    /// Of the runner before, in a pipeline that is changed while it runs.
    pub inheritance: Inheritance,
    pub batch_events: u32,
    pub batch_bytes: u32,
    pub ack: AckRule,
    /// In a pipeline with transactions.
    pub transaction: Option<Participant>,
}

/// Drives one source.
///
/// ```text
/// open -> polling -> draining -> settling -> closed
///           |  ^        (flush the interceptors, put the rest, leave the channels)
///           +--+ poll, intercept, put, ack
/// ```
///
/// Invariant: what the source is told as acked is settled, and so is every part of the stored position.
pub struct SourceRunner {
    parts: SourceParts,
    /// Who feeds a channel keeps it open; given back when nothing more will be put.
    writers: Vec<Writer>,
    /// The file channels among them. Each takes part in every put, so each has the whole position.
    durable: Vec<Channel>,
    /// Position parts that no put carries yet, since an interceptor keeps events back from before them.
    withheld: VecDeque<(u64, Vec<Part>)>,
    /// Puts that are not yet on disk.
    under_way: VecDeque<Receipt>,
    instance: Option<SourceInstance>,
    /// Batches that this instance has brought, and how many of them it knows to be settled.
    brought: u64,
    acked: u64,
    /// Rises with each instance, so that an old one's batches are not acked to the next.
    generation: u64,
    /// Where a fresh instance goes on: after the last batch accepted for a put.
    position: Position,
    unsettled: VecDeque<Unsettled>,
    /// Woken when a receipt of ours is settled.
    settled: Arc<Notify>,
    /// Rung when a swap has something for us.
    bell: Arc<Bell>,
    seat: Seat,
    is_paused: bool,
    tag: u64,
    gap: Gap,
    backoff: Backoff,
    guard: TrapGuard,
    /// What the source brought although it was told that the channel is full.
    early: VecDeque<Polled>,
    /// Put since others had the thread.
    ahead_bytes: usize,
    finished: bool,
    /// Whether everything up to `position` has been put, so that another runner can go on there.
    stands: bool,
    /// Up to this tag of those inherited: file channels keep the position once they are settled.
    kept_after: Option<u64>,
    stop: StopSignal,
}

impl SourceRunner {
    pub fn new(mut parts: SourceParts, stop: StopSignal) -> Self {
        let channels = parts.selector.channels();
        let Inheritance { unsettled, settled, tag, generation } = std::mem::take(&mut parts.inheritance);
        let mut runner = Self {
            writers: channels.iter().map(Channel::writer).collect(),
            durable: channels.into_iter().filter(Channel::is_durable).collect(),
            withheld: VecDeque::new(),
            under_way: VecDeque::new(),
            instance: None,
            brought: 0,
            acked: 0,
            generation,
            position: parts.resume.position.clone(),
            unsettled,
            bell: Bell::new(settled.clone()),
            settled,
            seat: Seat::default(),
            is_paused: false,
            tag,
            gap: Gap::default(),
            backoff: Backoff::new(&parts.stage.retry),
            guard: TrapGuard::default(),
            early: VecDeque::new(),
            ahead_bytes: 0,
            finished: false,
            stands: false,
            kept_after: None,
            stop,
            parts,
        };
        runner.seat.attach(&runner.parts.stage, &runner.bell);
        runner.parts.chain.attach(&runner.bell);
        runner
    }

    /// Runs until the source has finished or a stop is asked for, and everything that it brought is settled; or until it is asked
    /// to leave, and everything is put: then it answers what the next runner goes on from.
    ///
    /// Cancel: nothing is acked that was not settled; the source brings the rest again.
    ///
    /// # Errors
    /// When the source or one of its interceptors has to stop for good.
    pub async fn run(mut self) -> Result<Option<Handover>, StageStop> {
        let result = self.run_to_the_end().await;
        if result.is_ok() && self.stands && self.stop.is_leaving() {
            return Ok(Some(self.into_handover()));
        }
        self.parts.store.close().await;
        result.map(|()| None)
    }

    async fn run_to_the_end(&mut self) -> Result<(), StageStop> {
        self.parts.chain.open().await?;
        while self.parts.transaction.is_some() {
            // No round any more: the sinks say why.
            let Some(over) = self.next_round().await else { return Ok(()) };
            tokio::select! {
                biased;
                () = over => {}
                result = self.flow_to_the_end() => return result,
            }
        }
        self.flow_to_the_end().await
    }

    /// Waits for the next round of the transactions, and goes on from what is committed then. Resolves to the end of the round;
    /// nothing when there will be none, or a stop came first.
    async fn next_round(&mut self) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        self.forget();
        let transaction = self.parts.transaction.as_mut().expect("only with transactions");
        tokio::select! {
            begun = transaction.next_round() => begun.ok()?,
            () = self.stop.stopping() => return None,
        }
        self.position = match self.parts.stage.context.kafka.as_ref() {
            // The group's offsets are all that counts, so that the operator can move them with Kafka's own tools.
            Some(kafka) => kafka.restart().await,
            None => transaction.position(&self.parts.stage.name).unwrap_or_else(|| self.parts.store.position()),
        };
        Some(transaction.over())
    }

    /// Forgets everything that is not committed: it comes again.
    fn forget(&mut self) {
        self.instance = None;
        self.parts.chain.reset();
        self.early.clear();
        self.unsettled.clear();
        self.finished = false;
        self.gap.reset();
    }

    async fn flow_to_the_end(&mut self) -> Result<(), StageStop> {
        let flowed = match self.carry_over().await {
            Ok(()) => self.flow().await,
            halt => halt,
        };
        let flowed = match flowed {
            Err(Halt::Stop(stop)) => return Err(stop),
            other => other,
        };
        self.seat.leave();
        if flowed.is_ok() {
            match self.drain().await {
                Err(Halt::Stop(stop)) => return Err(stop),
                Err(Halt::ChannelFailed) => {}
                Ok(()) => self.stands = true,
            }
        }
        match &self.parts.transaction {
            // Nothing more is committed: a reader has stopped.
            Some(_) if flowed.is_err() => self.unsettled.clear(),
            // Channels end only when no transaction can come to nothing any more.
            Some(transaction) => {
                transaction.hurry();
                self.settle_the_rest().await;
            }
            None => {}
        }
        self.writers.clear();
        self.parts.dead_letters = DeadLetters::None;
        self.settle_the_rest().await;
        self.parts.chain.close().await;
        if let Some(mut instance) = self.instance.take() {
            self.parts.stage.closed(instance.close().await);
        }
        debug!(source = %self.parts.stage.name, "closed");
        Ok(())
    }

    /// Polls and puts until the source has finished or a stop is asked for.
    async fn flow(&mut self) -> Result<(), Halt> {
        while !self.stop.is_stopping() {
            self.let_others_run().await;
            self.settle().await?;
            if self.bell.is_rung() {
                self.answer_the_bell().await?;
            }
            if self.is_paused {
                self.wait_for_the_bell().await;
                continue;
            }
            self.flush_due(false).await?;
            if let Some(polled) = self.early.pop_front() {
                self.take_over(polled).await?;
                continue;
            }
            if self.finished {
                return Ok(());
            }
            if self.unsettled.len() >= UNSETTLED_MAX {
                self.rest().await;
                continue;
            }
            if self.under_way.len() >= UNDER_WAY_MAX {
                self.wait_for_the_disk().await?;
                continue;
            }
            let wait = self.poll_wait();
            match self.poll(self.parts.batch_events, wait).await? {
                Some(Progress::Events(polled)) => {
                    self.gap.reset();
                    self.take_over(polled).await?;
                }
                Some(Progress::Idle) if wait.is_zero() => self.rest().await,
                Some(Progress::Idle) => {}
                Some(Progress::Finished) => self.finish(),
                None => {}
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        info!(source = %self.parts.stage.name, "finished");
        self.finished = true;
    }

    async fn let_others_run(&mut self) {
        if self.ahead_bytes < BYTES_AHEAD {
            return tokio::task::consume_budget().await;
        }
        self.ahead_bytes = 0;
        tokio::task::yield_now().await;
    }

    /// How long the source may wait: not while something is unsettled, unless it waits in the host, where it can be
    /// interrupted.
    fn poll_wait(&self) -> Duration {
        let interruptible = self.parts.stage.context.kafka.as_ref().is_some_and(|kafka| kafka.has_consumer());
        if !interruptible && !self.unsettled.is_empty() {
            return Duration::ZERO;
        }
        match self.parts.chain.next_tick() {
            Some(tick) => POLL_WAIT.min(tick.saturating_duration_since(Instant::now())),
            None => POLL_WAIT,
        }
    }

    /// Polls once. Nothing: the call failed, and the back-off after it is over.
    async fn poll(&mut self, max_events: u32, wait: Duration) -> Result<Option<Progress>, Halt> {
        if !self.ensure_open().await? {
            return Ok(Some(Progress::Idle));
        }
        self.seat.begins();
        let result = self.interruptible_poll(max_events, wait).await;
        let error = match result {
            Ok(progress) => {
                self.seat.waited(brought(&progress));
                self.backoff.reset();
                self.guard.went_well();
                return Ok(Some(progress));
            }
            Err(error) => error,
        };
        let after = self.failed(error, "poll")?;
        self.back_off(after).await?;
        Ok(None)
    }

    /// A poll that waits in the host returns at once when a settlement, a swap or a stop is due; one that waits in the guest does so
    /// for a swap or a stop, with its clock leaping there. Settlements are none of its business, as nothing of it is unsettled.
    async fn interruptible_poll(&mut self, max_events: u32, wait: Duration) -> Result<Progress, CallError> {
        let max_bytes = if max_events == 0 { 0 } else { self.parts.batch_bytes };
        let instance = self.instance.as_mut().expect("it is open");
        let clock = instance.clock();
        let poll = instance.poll(max_events, max_bytes, wait);
        if wait.is_zero() {
            return poll.await;
        }
        let consumer = self.parts.stage.context.kafka.as_ref().filter(|kafka| kafka.has_consumer());
        tokio::pin!(poll);
        let mut interrupted = false;
        loop {
            tokio::select! {
                biased;
                result = &mut poll => return result,
                () = self.settled.notified(), if !interrupted => {}
                () = self.stop.stopping(), if !interrupted => {}
            }
            // The settlement that woke us is looked for before the next poll.
            interrupted = consumer.is_some() || self.bell.is_rung() || self.stop.is_stopping();
            match consumer {
                Some(kafka) => kafka.interrupt(),
                None if interrupted => clock.hurry(),
                None => {}
            }
        }
    }

    /// A fresh instance where there is none. False: a stop or a swap was asked for before it opened.
    async fn ensure_open(&mut self) -> Result<bool, Halt> {
        if let Some(reason) = self.instance.as_ref().and_then(SourceInstance::worn) {
            info!(source = %self.parts.stage.name, %reason, "instance replaced");
            self.parts.stage.counters.restarts.add(1);
            if let Some(mut instance) = self.instance.take() {
                self.parts.stage.closed(instance.close().await);
            }
        }
        if self.instance.is_some() {
            return Ok(true);
        }
        self.begin_instance();
        self.open().await
    }

    /// What follows on a failed call: how long to wait, or the end of the stage.
    fn failed(&mut self, error: CallError, call: &str) -> Result<Duration, Halt> {
        if self.goes_back(&error) {
            return Ok(Duration::ZERO);
        }
        let stage = &self.parts.stage;
        stage.counters.errors.add(1);
        let (reason, after) = match error {
            CallError::Failure(Failure::Retry { reason, after }) => {
                warn!(source = %stage.name, call, reason, "trying again");
                (reason, after)
            }
            CallError::Failure(failure) => return Err(stage.stop(failure.to_string()).into()),
            CallError::Trap { kind, text } => {
                stage.counters.trapped(kind);
                replay::keep_position(stage, &self.position, kind, &text);
                warn!(source = %stage.name, call, %kind, text, "plugin trapped; it goes on with a fresh instance");
                self.instance = None;
                // What takes too long waits for the world outside, and may do so for ever.
                let slower = kind != TrapKind::CallTimeout;
                let after = if slower { Some(self.guard.trapped(stage, &text)?) } else { None };
                (text, after)
            }
        };
        let stop = stage.stop(format!("{reason} (after {} attempts)", self.backoff.tried() + 1));
        self.backoff.next(after).ok_or(Halt::Stop(stop))
    }

    /// Waits for the next gap, but no longer than until a settlement or a stop.
    async fn rest(&mut self) {
        let gap = self.gap.next();
        tokio::select! {
            () = tokio::time::sleep(gap) => {}
            () = self.settled.notified() => {}
            () = self.stop.stopping() => {}
        }
    }

    /// Waits out a back-off, unless a stop or a swap is asked for; acks meanwhile what is settled.
    async fn back_off(&mut self, duration: Duration) -> Result<(), Halt> {
        let until = Instant::now() + duration;
        while !self.bell.is_rung() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.settled.notified() => self.settle().await?,
                () = self.stop.stopping() => return Ok(()),
            }
        }
        Ok(())
    }

    fn channel_failed(&self, error: &ChannelError) -> Halt {
        if let Some(remedy) = error.remedy().filter(|_| error.is_own_fault()) {
            return Halt::Stop(self.parts.stage.stop_with_remedy(error.to_string(), remedy));
        }
        warn!(source = %self.parts.stage.name, %error, "nothing more is put");
        Halt::ChannelFailed
    }
}

/// How many events a poll brought.
fn brought(progress: &Progress) -> usize {
    match progress {
        Progress::Events(polled) => polled.batch.count(),
        Progress::Idle | Progress::Finished => 0,
    }
}

/// Why a runner leaves its loop before the end.
#[derive(Debug)]
enum Halt {
    Stop(StageStop),
    /// A sink that we feed has stopped: the pipeline is failing, what was polled last is brought again next time.
    ChannelFailed,
}

impl From<StageStop> for Halt {
    fn from(stop: StageStop) -> Self {
        Self::Stop(stop)
    }
}

/// A wait that doubles from half a millisecond to fifty.
#[derive(Debug, Default)]
struct Gap(Option<Duration>);

impl Gap {
    fn next(&mut self) -> Duration {
        let gap = self.0.map_or(GAP_MIN, |gap| (2 * gap).min(GAP_MAX));
        self.0 = Some(gap);
        gap
    }

    fn reset(&mut self) {
        self.0 = None;
    }
}
