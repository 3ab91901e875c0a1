//! The sink runner: takes events from a channel, sends them through the sink's interceptors, delivers and settles them.

mod crew;
mod deliver;
mod early;
mod pending;
mod swap;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::channel::{ChannelError, Reader, TakeLimits, Taken};
use crate::dead_letter::DeadLetters;
use crate::interceptor::Chain;
use crate::kafka::StageKafka;
use crate::plugin::{SinkInstance, Worn};
use crate::position::Position;
use crate::stage::{Backoff, Piece, Stage, StageStop, TrapGuard};
use crate::swap::{Bell, Seat};
use crate::transaction::Participant;

pub use crew::SinkCrew;
use pending::{Pending, PendingDeliveries};

/// Deliveries that may wait for the broker at once. Enough to keep it busy through a round trip at 1000 events each; the
/// host's own bound on records and bytes in flight is the tighter one for large batches.
const IN_FLIGHT_MAX: usize = 64;

/// What the runner of one sink is made of.
pub struct SinkParts {
    pub stage: Arc<Stage>,
    pub chain: Chain,
    pub reader: Reader,
    pub dead_letters: DeadLetters,
    /// Names the channel's log for the plugin.
    pub log: Arc<str>,
    pub limits: TakeLimits,
    /// In a pipeline with transactions.
    pub transaction: Option<Participant>,
}

/// Drives one sink.
///
/// ```text
/// open -> flowing -> draining -> closed
///          |  ^  ^      |
///          +--+  +------+ rewound: what was not settled is taken again
/// ```
///
/// Invariant: the cursor moves over settled events only, in order; a piece that fails is tried again before anything behind it.
pub struct SinkRunner {
    parts: SinkParts,
    instance: Option<SinkInstance>,
    tag: u64,
    pending: PendingDeliveries,
    /// What is to be delivered of the newest pending delivery, in order.
    work: VecDeque<Piece>,
    /// Not before this: the back-off of the first piece.
    not_before: Option<Instant>,
    /// Woken when a dead letter of ours is settled.
    letters_settled: Arc<Notify>,
    /// Rung when a swap has something for us.
    bell: Arc<Bell>,
    seat: Seat,
    is_paused: bool,
    guard: TrapGuard,
    backoff: Backoff,
    next_tick: Option<Instant>,
    /// The event at which an instance died that held others: from there on the sink holds nothing while a piece is out,
    /// so that the search for the guilty event keeps what it has achieved.
    suspect: Option<u64>,
    /// The cut of what was taken last, in a pipeline with transactions.
    cut: u64,
    ended: bool,
}

impl SinkRunner {
    pub fn new(parts: SinkParts) -> Self {
        let letters_settled = Arc::new(Notify::new());
        let mut runner = Self {
            instance: None,
            tag: 0,
            pending: PendingDeliveries::default(),
            work: VecDeque::new(),
            not_before: None,
            bell: Bell::new(letters_settled.clone()),
            letters_settled,
            seat: Seat::default(),
            is_paused: false,
            guard: TrapGuard::default(),
            backoff: Backoff::new(&parts.stage.retry),
            next_tick: None,
            suspect: None,
            cut: 0,
            ended: false,
            parts,
        };
        runner.seat.attach(&runner.parts.stage, &runner.bell);
        runner.parts.chain.attach(&runner.bell);
        runner
    }

    /// Runs until the channel has ended and all of it is settled.
    ///
    /// Cancel: what was not settled is not; the sources bring it again.
    ///
    /// # Errors
    /// When the sink or one of its interceptors has to stop for good. Its channel is failed then, so that nobody waits for it.
    pub async fn run(mut self) -> Result<(), StageStop> {
        let result = self.run_to_the_end().await;
        if let Err(stop) = &result {
            self.parts.reader.channel().fail(stop.to_string());
        }
        result
    }

    async fn run_to_the_end(&mut self) -> Result<(), StageStop> {
        while self.parts.transaction.is_some() {
            let Some(over) = self.next_round().await? else { return Ok(()) };
            tokio::select! {
                biased;
                () = over => {}
                result = self.flow_to_the_end() => return result,
            }
        }
        self.flow_to_the_end().await
    }

    /// Waits for the next round of the transactions, with everything forgotten that was taken in the last one: its sources bring
    /// it again. Resolves to the end of the round; nothing when nobody puts any more.
    async fn next_round(&mut self) -> Result<Option<impl Future<Output = ()> + Send + 'static + use<>>, StageStop> {
        self.instance = None;
        self.forget();
        let transaction = self.parts.transaction.as_mut().expect("only with transactions");
        tokio::select! {
            biased;
            begun = transaction.next_round() => begun.map_err(|cause| self.parts.stage.stop(cause.to_string()))?,
            () = self.parts.reader.closed() => return Ok(None),
        }
        let over = transaction.over();
        self.parts.reader.restart();
        Ok(Some(over))
    }

    async fn flow_to_the_end(&mut self) -> Result<(), StageStop> {
        if self.instance.is_none() && !self.open_first().await? {
            return Ok(());
        }
        loop {
            let drained = match self.flow().await {
                Ok(()) => self.drain().await,
                Err(stop) => Err(stop),
            };
            match drained {
                Ok(true) => break,
                Ok(false) => {}
                Err(stop) if self.survives(&stop).await => {}
                Err(stop) => return Err(stop),
            }
        }
        self.seat.leave();
        self.parts.chain.close().await;
        if let Some(mut instance) = self.instance.take() {
            self.parts.stage.closed(instance.close().await);
        }
        debug!(sink = %self.parts.stage.name, "closed");
        Ok(())
    }

    /// Opens everything at the start. False: the channel ended first, with nothing in it.
    async fn open_first(&mut self) -> Result<bool, StageStop> {
        tokio::select! {
            opened = self.parts.chain.open() => opened?,
            () = self.parts.reader.ended() => return Ok(false),
        }
        while self.instance.is_none() {
            let (stage, start) = (self.parts.stage.clone(), Position::default());
            tokio::select! {
                instance = stage.opened(&start) => self.opened(instance?),
                () = self.seat.ordered() => self.switch_unopened().await?,
                () = self.parts.reader.ended() => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes and delivers until the channel has ended and nothing is left to deliver.
    async fn flow(&mut self) -> Result<(), StageStop> {
        let pressure = self.parts.reader.pressure();
        loop {
            tokio::task::consume_budget().await;
            self.settle();
            if self.bell.is_rung() {
                self.answer_the_bell().await?;
            }
            if self.is_due() && self.has_room() {
                self.deliver_next().await?;
                continue;
            }
            if self.ended && self.work.is_empty() {
                return Ok(());
            }
            let idle = self.work.is_empty();
            let (due, room) = (self.is_due(), self.room());
            let keeps_back = idle && (self.pending.is_holding() || self.parts.chain.oldest_kept().is_some());
            let tick = [self.next_tick, self.parts.chain.next_tick()].into_iter().flatten().min();
            tokio::select! {
                biased;
                (tag, answer) = self.pending.landed() => self.landed(tag, answer).await?,
                () = self.letters_settled.notified() => {}
                () = until(tick), if idle => self.tick().await?,
                () = until(self.not_before), if !idle && !due && !self.is_paused => {}
                () = room, if due => {}
                taken = self.parts.reader.take(&self.parts.limits),
                    if idle && !self.ended && !self.is_paused && self.pending.in_flight() < IN_FLIGHT_MAX => self.take_over(taken).await?,
                // Behind the take: only what nobody else can take away is let go of under pressure.
                () = pressure.rises(), if keeps_back => self.release().await?,
            }
        }
    }

    /// Lets everything go that is kept back, and waits for all answers. False: something has to be delivered again.
    async fn drain(&mut self) -> Result<bool, StageStop> {
        self.release().await?;
        while self.ended && !self.pending.is_empty() {
            self.settle();
            if self.bell.is_rung() {
                self.answer_the_bell().await?;
            }
            if self.is_due() && self.has_room() {
                self.deliver_next().await?;
                continue;
            }
            let (due, room) = (self.is_due(), self.room());
            if self.work.is_empty() && self.pending.in_flight() == 0 {
                // Only dead letters are open: their sink must not wait for more of them.
                self.parts.dead_letters = DeadLetters::None;
            }
            if self.pending.is_empty() {
                break;
            }
            tokio::select! {
                (tag, answer) = self.pending.landed() => self.landed(tag, answer).await?,
                () = self.letters_settled.notified() => {}
                () = until(self.not_before), if !self.work.is_empty() && !due && !self.is_paused => {}
                () = room, if due => {}
            }
        }
        Ok(self.ended)
    }

    async fn take_over(&mut self, taken: Result<Option<Taken>, ChannelError>) -> Result<(), StageStop> {
        let taken = taken.map_err(|error| self.channel_failed(&error))?;
        let Some(taken) = taken else {
            self.ended = true;
            return Ok(());
        };
        if taken.batch.is_empty() {
            // The end of a cut: nothing of it may be kept back.
            return self.release().await;
        }
        self.cut = self.parts.reader.cut();
        self.tag += 1;
        self.recycle().await?;
        let suspected = self.suspect.is_some_and(|suspect| suspect < taken.next);
        self.suspect = self.suspect.filter(|_| suspected);
        if suspected && self.pending.is_holding() {
            self.flush(true).await?;
        }
        let processed = self.parts.chain.process(taken.batch, self.tag).await?;
        self.begin(processed, Pending::new(self.tag, taken.first, taken.next), suspected).await
    }

    /// A channel that we read, or put dead letters into, cannot go on.
    fn channel_failed(&self, error: &ChannelError) -> StageStop {
        match error.remedy() {
            Some(remedy) => self.parts.stage.stop_with_remedy(error.to_string(), remedy),
            None => self.parts.stage.stop(error.to_string()),
        }
    }

    fn settle(&mut self) {
        let kept = self.parts.chain.oldest_kept().unwrap_or(u64::MAX);
        if let Some(next) = self.pending.settle(kept, self.work.is_empty()) {
            self.parts.reader.settle(next);
        }
    }

    /// Everything that is not settled is taken again: an instance died that held events, or the producer was lost. The
    /// newest delivery is suspected from now on.
    async fn rewind(&mut self) {
        if self.parts.transaction.is_some() {
            // Numbers mean nothing in the next round: all of it is suspected.
            self.suspect = Some(0);
            return self.give_up("a sink has lost what it held").await;
        }
        self.suspect = self.pending.newest().map(|newest| newest.first);
        self.parts.reader.rollback();
        self.forget();
    }

    /// Ends the round of the transactions, with whoever waits here.
    fn give_up<T>(&self, reason: &str) -> std::future::Pending<T> {
        self.parts.transaction.as_ref().expect("only with transactions").restart(reason);
        std::future::pending()
    }

    fn forget(&mut self) {
        self.parts.chain.reset();
        self.pending.clear();
        self.work.clear();
        self.not_before = None;
        self.ended = false;
        if let Some(kafka) = self.kafka() {
            kafka.discard_staged();
        }
    }

    async fn tick(&mut self) -> Result<(), StageStop> {
        let now = Instant::now();
        if self.parts.chain.next_tick().is_some_and(|tick| tick <= now) {
            self.flush_chain(false).await?;
        }
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.flush(false).await?;
        }
        Ok(())
    }

    /// Lets go of all that interceptors keep back and the sink holds: before the end, and when the channel is full of it.
    async fn release(&mut self) -> Result<(), StageStop> {
        self.flush_chain(true).await?;
        while !self.work.is_empty() {
            if self.not_before.is_some() {
                until(self.not_before).await;
            }
            self.room().await;
            self.deliver_next().await?;
        }
        self.flush(true).await
    }

    async fn flush_chain(&mut self, drain: bool) -> Result<(), StageStop> {
        let processed = self.parts.chain.flush(self.tag, drain).await?;
        self.begin_late(processed).await
    }

    /// Calls the sink's `flush`; with `drain` until it holds nothing any more.
    async fn flush(&mut self, drain: bool) -> Result<(), StageStop> {
        let mut backoff = Backoff::new(&self.parts.stage.retry);
        loop {
            let reason = match self.flush_once(drain).await? {
                Flushed::Holding(reason) if drain => reason,
                Flushed::Clear | Flushed::Rewound | Flushed::Holding(_) => return Ok(()),
            };
            let Some(after) = backoff.next(None) else { return Err(self.parts.stage.stop(reason)) };
            tokio::time::sleep(after).await;
        }
    }

    async fn flush_once(&mut self, drain: bool) -> Result<Flushed, StageStop> {
        self.ensure_open().await?;
        self.set_tick();
        if let Some(kafka) = self.kafka() {
            kafka.discard_staged();
        }
        let instance = self.instance.as_mut().expect("it has just been opened");
        match instance.flush(drain).await {
            Ok(clear) => {
                self.send_staged();
                if clear {
                    self.pending.release_all();
                }
                let is_clear = clear || !self.pending.is_holding();
                let holding = || Flushed::Holding("it still holds events after `flush` with `drain`".into());
                Ok(if is_clear { Flushed::Clear } else { holding() })
            }
            Err(error) => {
                self.parts.stage.counters.errors.add(1);
                if let Some(before) = self.seat.failed(&error) {
                    self.go_back_from_flush(before, &error).await;
                    return Ok(Flushed::Rewound);
                }
                let (trapped, reason) = (error.is_trap(), error.to_string());
                // The waiting is done by the caller, with the attempts counted.
                self.guard.failed_without_events(&self.parts.stage, error)?;
                if trapped {
                    self.instance = None;
                    if self.pending.is_holding() {
                        self.rewind().await;
                    }
                    return Ok(Flushed::Rewound);
                }
                Ok(Flushed::Holding(reason))
            }
        }
    }

    async fn ensure_open(&mut self) -> Result<(), StageStop> {
        while self.instance.is_none() {
            let (stage, start) = (self.parts.stage.clone(), Position::default());
            tokio::select! {
                biased;
                instance = stage.opened(&start) => self.opened(instance?),
                () = self.seat.ordered() => Box::pin(self.switch_unopened()).await?,
            }
        }
        Ok(())
    }

    fn opened(&mut self, instance: SinkInstance) {
        self.instance = Some(instance);
        self.set_tick();
    }

    fn set_tick(&mut self) {
        self.next_tick = self.parts.stage.plugin.description().tick.map(|tick| Instant::now() + tick);
    }

    /// Replaces an instance that has grown too large or too old, once it holds nothing.
    async fn recycle(&mut self) -> Result<(), StageStop> {
        let Some(reason) = self.instance.as_ref().and_then(SinkInstance::worn) else { return Ok(()) };
        if reason == Worn::Old && self.pending.is_holding() {
            return Ok(());
        }
        if self.pending.is_holding() {
            self.flush(true).await?;
        }
        info!(stage = %self.parts.stage.name, %reason, "instance replaced");
        self.parts.stage.counters.restarts.add(1);
        if let Some(mut instance) = self.instance.take() {
            self.parts.stage.closed(instance.close().await);
        }
        Ok(())
    }

    fn kafka(&self) -> Option<&Arc<StageKafka>> {
        self.parts.stage.context.kafka.as_ref()
    }
}

/// What a sink answered to `flush`.
enum Flushed {
    /// Nothing is held.
    Clear,
    /// The instance has died; if it held anything, that is taken again.
    Rewound,
    /// Why something is still held, or may be.
    Holding(String),
}

/// Waits until then; for ever when there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
