//! The source runner: polls a source, sends what it brings through its interceptors into its channels, and acks it.

mod disk;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::agent::stop::StopSignal;
use crate::channel::{
    Amount, Channel, ChannelError, PutNote, PutTransaction, Receipt, Writer, begin_puts, commit_puts,
};
use crate::config::pipeline::AckRule;
use crate::dead_letter::DeadLetters;
use crate::event::Batch;
use crate::interceptor::{Chain, Processed};
use crate::plugin::{CallError, Failure, Polled, Progress, SourceInstance};
use crate::position::{Part, Position};
use crate::position_store::PositionStore;
use crate::resume::Resume;
use crate::selector::Selector;
use crate::stage::{Backoff, Stage, StageStop};
use crate::transaction::Participant;

/// How long a source may wait inside `poll`. Nothing can be said to it meanwhile, so this is how late a stop may reach it.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// The host's own waiting between polls while something is unsettled or the channel is full: doubles between these.
const GAP_MIN: Duration = Duration::from_micros(500);
const GAP_MAX: Duration = Duration::from_millis(50);
/// Puts of a source that may be unsettled at once. The channels bound them by events and bytes; this bounds puts that are
/// empty, or that interceptors keep back whole.
const UNSETTLED_MAX: usize = 100_000;
/// Puts of a source that may wait for the disk at once: enough that one sync serves many of them, few enough that little is
/// brought again after a crash.
const UNDER_WAY_MAX: usize = 8;

/// What the runner of one source is made of.
pub struct SourceParts {
    pub stage: Arc<Stage>,
    pub chain: Chain,
    pub selector: Selector,
    pub dead_letters: DeadLetters,
    pub store: PositionStore,
    pub resume: Resume,
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
    tag: u64,
    gap: Gap,
    backoff: Backoff,
    /// What the source brought although it was told that the channel is full.
    early: VecDeque<Polled>,
    finished: bool,
    stop: StopSignal,
}

/// A put whose events are not settled yet.
#[derive(Debug)]
struct Unsettled {
    tag: u64,
    receipts: Vec<Receipt>,
    parts: Vec<Part>,
    generation: u64,
    /// The batch's number of that instance.
    brought: u64,
}

impl SourceRunner {
    pub fn new(parts: SourceParts, stop: StopSignal) -> Self {
        let channels = parts.selector.channels();
        Self {
            writers: channels.iter().map(Channel::writer).collect(),
            durable: channels.into_iter().filter(Channel::is_durable).collect(),
            withheld: VecDeque::new(),
            under_way: VecDeque::new(),
            instance: None,
            brought: 0,
            acked: 0,
            generation: 0,
            position: parts.resume.position.clone(),
            unsettled: VecDeque::new(),
            settled: Arc::new(Notify::new()),
            tag: 0,
            gap: Gap::default(),
            backoff: Backoff::new(&parts.stage.retry),
            early: VecDeque::new(),
            finished: false,
            stop,
            parts,
        }
    }

    /// Runs until the source has finished or a stop is asked for, and everything that it brought is settled.
    ///
    /// Cancel: nothing is acked that was not settled; the source brings the rest again.
    ///
    /// # Errors
    /// When the source or one of its interceptors has to stop for good.
    pub async fn run(mut self) -> Result<(), StageStop> {
        let result = self.run_to_the_end().await;
        self.parts.store.close().await;
        result
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
        if flowed.is_ok() {
            match self.drain().await {
                Err(Halt::Stop(stop)) => return Err(stop),
                Err(Halt::ChannelFailed) | Ok(()) => {}
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
            tokio::task::consume_budget().await;
            self.settle().await?;
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
                Some(Progress::Finished) => {
                    info!(source = %self.parts.stage.name, "finished");
                    self.finished = true;
                }
                None => {}
            }
        }
        Ok(())
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
        let result = self.interruptible_poll(max_events, wait).await;
        let error = match result {
            Ok(progress) => {
                self.backoff.reset();
                return Ok(Some(progress));
            }
            Err(error) => error,
        };
        let after = self.failed(error, "poll")?;
        self.back_off(after).await?;
        Ok(None)
    }

    /// A poll that waits in the host returns at once when a settlement or a stop is due.
    async fn interruptible_poll(&mut self, max_events: u32, wait: Duration) -> Result<Progress, CallError> {
        let max_bytes = if max_events == 0 { 0 } else { self.parts.batch_bytes };
        let instance = self.instance.as_mut().expect("it is open");
        let poll = instance.poll(max_events, max_bytes, wait);
        let kafka = self.parts.stage.context.kafka.as_ref().filter(|kafka| kafka.has_consumer() && !wait.is_zero());
        let Some(kafka) = kafka else { return poll.await };
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
            interrupted = true;
            kafka.interrupt();
        }
    }

    /// Sends what was polled through the interceptors and puts it.
    async fn take_over(&mut self, polled: Polled) -> Result<(), Halt> {
        self.tag += 1;
        self.brought += 1;
        let (generation, brought) = (self.generation, self.brought);
        let stage = self.parts.stage.clone();
        stage.counters.received.add(polled.batch.count() + polled.rejected.len());
        let mut processed = self.parts.chain.process(polled.batch, self.tag).await?;
        if self.parts.transaction.is_some() && self.parts.chain.oldest_kept().is_some() {
            // A position stands for whole batches: none may go into a transaction while a part of its batch stays behind.
            let rest = self.parts.chain.flush(self.tag, true).await?;
            processed.batch = Batch::concat(&[processed.batch, rest.batch]);
            processed.rejected.extend(rest.rejected);
        }
        processed.rejected.extend(polled.rejected.into_iter().map(|rejected| (stage.clone(), rejected)));
        self.position.apply(&polled.position);
        if !self.durable.is_empty() {
            self.withheld.push_back((self.tag, polled.position.clone()));
        }
        let unsettled = Unsettled { tag: self.tag, receipts: Vec::new(), parts: polled.position, generation, brought };
        self.put(processed, unsettled).await
    }

    /// Puts events into their channels as one transaction, and remembers them until they are settled.
    async fn put(&mut self, processed: Processed, mut unsettled: Unsettled) -> Result<(), Halt> {
        let routed = self.parts.selector.route(&processed.batch);
        self.parts.stage.counters.filtered.add(routed.dropped);
        let mut batches = routed.batches;
        let number = unsettled.tag;
        let name = &self.parts.stage.name;
        let letters = self
            .parts
            .dead_letters
            .collect(&processed.rejected, |event| format!("{name}#{number}:{}", event.origin(0)))?;
        match letters {
            // A letter on its way in memory must not be lost by a position that is on disk already.
            Some(letters) if !self.durable.is_empty() => self.bury(letters).await?,
            letters => batches.extend(letters),
        }
        let parts = self.freed_parts();
        // A put without events and without a position need not be.
        if !(batches.is_empty() && parts.is_empty()) {
            self.add_durable(&mut batches);
        }
        let mut amount = Amount::default();
        batches.iter().for_each(|(_, batch)| amount += Amount::of(batch));
        let puts = if batches.is_empty() { Vec::new() } else { self.begin(batches).await? };
        self.parts.stage.counters.accepted.add(processed.batch.count() - routed.dropped);
        let receipt = match &self.parts.transaction {
            None => {
                let note = PutNote { source: &self.parts.stage.name, parts: &parts, is_whole: false };
                commit_puts(puts, note, &self.settled).map_err(|error| self.channel_failed(&error))?
            }
            Some(transaction) => {
                let commit = || puts.into_iter().for_each(PutTransaction::commit_in_transaction);
                transaction.put(&self.parts.stage.name, &unsettled.parts, amount, &self.settled, commit)
            }
        };
        if !receipt.is_durable() {
            self.under_way.push_back(receipt.clone());
        }
        unsettled.receipts.push(receipt);
        // Events that an interceptor had kept back went out with this put: their batches wait for it.
        while self.unsettled.back().is_some_and(|earlier| earlier.tag >= processed.since) {
            let earlier = self.unsettled.pop_back().expect("there is one");
            unsettled.receipts.extend(earlier.receipts);
            unsettled.parts.splice(0..0, earlier.parts);
        }
        self.unsettled.push_back(unsettled);
        Ok(())
    }

    /// Waits for room in the channels, and meanwhile serves the source: clients are answered, nothing new is brought.
    async fn begin(&mut self, batches: Vec<(Channel, Batch)>) -> Result<Vec<PutTransaction>, Halt> {
        let reserving = begin_puts(batches);
        tokio::pin!(reserving);
        let mut gap = Gap::default();
        let mut waits = false;
        loop {
            tokio::select! {
                biased;
                puts = &mut reserving => return puts.map_err(|error| self.channel_failed(&error)),
                () = self.settled.notified() => self.settle().await?,
                () = tokio::time::sleep(gap.next()) => {
                    // Room comes with the end of the transaction.
                    if !std::mem::replace(&mut waits, true)
                        && let Some(transaction) = &self.parts.transaction
                    {
                        transaction.hurry();
                    }
                    self.serve().await?;
                }
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Halt> {
        if self.finished || !self.early.is_empty() || self.stop.is_stopping() {
            return Ok(());
        }
        match self.poll(0, Duration::ZERO).await? {
            Some(Progress::Events(polled)) => self.early.push_back(polled),
            Some(Progress::Finished) => self.finished = true,
            Some(Progress::Idle) | None => {}
        }
        Ok(())
    }

    /// Lets the interceptors let go of what is due.
    async fn flush_due(&mut self, drain: bool) -> Result<(), Halt> {
        if !drain && self.parts.chain.next_tick().is_none_or(|tick| tick > Instant::now()) {
            return Ok(());
        }
        let processed = self.parts.chain.flush(self.tag, drain).await?;
        let frees_nothing = !self.is_freed(self.withheld.front());
        if processed.batch.is_empty() && processed.rejected.is_empty() && frees_nothing {
            return Ok(());
        }
        let (tag, generation, brought) = (self.tag, self.generation, self.brought);
        self.put(processed, Unsettled { tag, receipts: Vec::new(), parts: Vec::new(), generation, brought }).await
    }

    async fn drain(&mut self) -> Result<(), Halt> {
        while let Some(polled) = self.early.pop_front() {
            self.take_over(polled).await?;
        }
        self.flush_due(true).await
    }

    /// Takes note of what is settled now: stores its position and tells the source.
    async fn settle(&mut self) -> Result<(), Halt> {
        let oldest_kept = self.parts.chain.oldest_kept().unwrap_or(u64::MAX);
        while self.under_way.front().is_some_and(Receipt::is_durable) {
            self.under_way.pop_front();
        }
        let mut acked = None;
        while let Some(front) = self.unsettled.front()
            && front.tag < oldest_kept
            && front.receipts.iter().all(|receipt| is_safe(self.parts.ack, receipt))
        {
            let front = self.unsettled.pop_front().expect("there is one");
            self.parts.store.settle(&front.parts);
            if let Some(kafka) = &self.parts.stage.context.kafka {
                kafka.settled(&front.parts);
            }
            if front.generation == self.generation {
                acked = Some(front.brought);
            }
        }
        match acked {
            Some(batches) if batches > self.acked => self.tell(batches).await,
            _ => Ok(()),
        }
    }

    async fn tell(&mut self, batches: u64) -> Result<(), Halt> {
        self.acked = batches;
        self.gap.reset();
        let Some(instance) = self.instance.as_mut() else { return Ok(()) };
        match instance.acked(batches).await {
            Ok(()) => Ok(()),
            // The next ack covers this one too.
            Err(CallError::Failure(Failure::Retry { reason, .. })) => {
                warn!(source = %self.parts.stage.name, reason, "ack not taken");
                Ok(())
            }
            Err(error) => self.failed(error, "acked").map(drop),
        }
    }

    /// Waits for the settlement of what was put, unless the agent gives up on it.
    async fn settle_the_rest(&mut self) {
        let mut abandoned = false;
        while self.settle().await.is_ok() && !self.unsettled.is_empty() && !abandoned {
            tokio::select! {
                () = self.settled.notified() => {}
                // The last settlements may have come just before: they are looked for once more.
                () = self.stop.abandoned() => abandoned = true,
            }
        }
        if !self.unsettled.is_empty() {
            let puts = self.unsettled.len();
            warn!(source = %self.parts.stage.name, puts, "not settled; the source brings them again");
        }
    }

    /// A fresh instance where there is none. False: a stop was asked for before it opened.
    async fn ensure_open(&mut self) -> Result<bool, Halt> {
        if self.instance.as_ref().is_some_and(SourceInstance::needs_recycling) {
            info!(source = %self.parts.stage.name, "instance replaced: its memory passed 80 % of its limit");
            self.parts.stage.counters.restarts.add(1);
            if let Some(mut instance) = self.instance.take() {
                self.parts.stage.closed(instance.close().await);
            }
        }
        if self.instance.is_some() {
            return Ok(true);
        }
        self.generation += 1;
        (self.brought, self.acked) = (0, 0);
        let stage = self.parts.stage.clone();
        tokio::select! {
            instance = stage.opened(&self.position) => self.instance = Some(instance?),
            () = self.stop.stopping() => return Ok(false),
        }
        Ok(true)
    }

    /// What follows on a failed call: how long to wait, or the end of the stage.
    fn failed(&mut self, error: CallError, call: &str) -> Result<Duration, Halt> {
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
                warn!(source = %stage.name, call, %kind, text, "plugin trapped; it goes on with a fresh instance");
                self.instance = None;
                (text, None)
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

    /// Waits out a back-off, unless a stop is asked for; acks meanwhile what is settled.
    async fn back_off(&mut self, duration: Duration) -> Result<(), Halt> {
        let until = Instant::now() + duration;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.settled.notified() => self.settle().await?,
                () = self.stop.stopping() => return Ok(()),
            }
        }
    }

    fn channel_failed(&self, error: &ChannelError) -> Halt {
        if let Some(remedy) = error.remedy().filter(|_| error.is_own_fault()) {
            return Halt::Stop(self.parts.stage.stop_with_remedy(error.to_string(), remedy));
        }
        warn!(source = %self.parts.stage.name, %error, "nothing more is put");
        Halt::ChannelFailed
    }
}

/// Whether a source may be told of a put.
fn is_safe(ack: AckRule, receipt: &Receipt) -> bool {
    match ack {
        AckRule::Settled => receipt.is_settled(),
        AckRule::Put => receipt.is_durable(),
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
