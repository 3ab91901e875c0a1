//! The task that takes cuts through their transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::cut::{Cut, Positions};
use super::{Progress, Round, Transactions};
use crate::channel::CutLog;
use crate::config::pipeline::RetryPolicy;
use crate::kafka::{
    GroupOffsets, Outbox, Packing, Prepared, StageKafka, TransactionTrouble, TransactionalConnection,
    TransactionalProducer,
};
use crate::stage::Backoff;

/// Limit: what ending the last transaction may take. What is left of it then ends by its timeout.
const ABORT_WAIT: Duration = Duration::from_secs(5);

/// How long a fenced producer waits before it takes its id back: if another agent has it, its consumer hears of that too, and stops.
const FENCED_WAIT: Duration = Duration::from_secs(2);

/// Rounds in a row that came to nothing after which the pipeline stops: enough to find a thousand records that are refused one after
/// another, and, with the back-off between rounds that find nothing, to wait for hours.
const RESTARTS_MAX: u32 = 1000;

/// What a coordinator is made of.
pub struct Parts {
    pub transactions: Arc<Transactions>,
    pub connection: TransactionalConnection,
    pub outbox: Arc<Outbox>,
    /// All channels of the transactions, or a file channel's one reader; dead letters last: whoever has settled an event has put its
    /// dead letter before.
    pub logs: Vec<Arc<dyn CutLog>>,
    /// The sources that may read Kafka.
    pub sources: BTreeMap<Arc<str>, Arc<StageKafka>>,
    pub progress: Progress,
}

/// Takes cut after cut through its transaction.
pub struct Coordinator {
    parts: Parts,
    backoff: Backoff,
    /// In a row, without a commit between them.
    restarts: u32,
    /// Records left out by then.
    left_out: u64,
    /// Where the reader of a file channel was found to be, the last time that was asked.
    read_back: Option<u64>,
    /// The open cut that readers know of.
    told: u64,
}

/// Why a round is over.
enum End {
    /// Nobody takes part any more.
    Nobody,
    Again(Arc<str>),
    Stop(Arc<str>),
}

/// What is to be done next.
enum Step {
    Commit(Cut),
    /// Until then, or until something happens; for a cut that has been closed and is not settled, its number.
    Wait(Option<Instant>, Option<u64>),
}

/// What a closed cut's transaction needs besides its records.
struct Ready {
    cut: u64,
    has_progress: bool,
    prepared: Prepared,
}

impl From<TransactionTrouble> for End {
    fn from(trouble: TransactionTrouble) -> Self {
        match trouble {
            TransactionTrouble::Again(reason) => Self::Again(reason.into()),
            TransactionTrouble::Fenced(reason) | TransactionTrouble::Stop(reason) => Self::Stop(reason.into()),
        }
    }
}

impl Coordinator {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            backoff: Backoff::new(&RetryPolicy::default()),
            restarts: 0,
            left_out: 0,
            read_back: None,
            told: 1,
        }
    }

    /// Runs until every participant has ended, or until there can be no transaction any more: participants are told why.
    ///
    /// Cancel: what is not committed is left to the transaction's timeout.
    pub async fn run(mut self) {
        let mut packing = Packing::Together;
        for round in 1.. {
            let mut producer = match self.start(packing).await {
                Ok(producer) => producer,
                Err(end) => return self.ended(end),
            };
            let end = self.round(round, &mut producer).await;
            self.parts.outbox.close();
            match end {
                End::Again(reason) => {
                    warn!(reason = %reason, "transaction given up; everything not committed is done again");
                    packing = producer.next_packing();
                    // Before the next one takes its id, so that nothing of it is on its way any more.
                    drop(producer);
                    self.park(round).await;
                }
                end => {
                    self.ended(end);
                    self.parts.outbox.void();
                    return producer.abort(ABORT_WAIT).await;
                }
            }
        }
    }

    fn ended(&self, end: End) {
        if let End::Stop(cause) = end {
            self.parts.transactions.round.send_replace(Round::Stopped(cause));
        }
        debug!("transactions ended");
    }

    /// A producer that has the transactional id. Waits for the coordinator as long as somebody takes part.
    async fn start(&mut self, packing: Packing) -> Result<TransactionalProducer, End> {
        loop {
            if self.parts.transactions.state.lock().participants.flowing.is_empty() {
                return Err(End::Nobody);
            }
            match self.try_start(packing).await {
                Ok(producer) => return Ok(producer),
                Err(TransactionTrouble::Again(reason)) => {
                    let wait = self.backoff.delay();
                    warn!(reason, "transactions cannot begin yet");
                    // Everybody may have ended by then.
                    _ = tokio::time::timeout(wait, self.parts.transactions.wake.notified()).await;
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    async fn try_start(&mut self, packing: Packing) -> Result<TransactionalProducer, TransactionTrouble> {
        let producer = self.parts.connection.start(packing).await?;
        // After the id was taken: what the producer before had left open is decided now.
        let moved = match &mut self.parts.progress {
            Progress::None => false,
            Progress::Sources(progress) => {
                let positions = progress.positions().await?;
                let mut state = self.parts.transactions.state.lock();
                let moved = state.positions != positions;
                state.positions = positions;
                moved
            }
            Progress::Reader(progress, cuts) => {
                let next = progress.next().await?;
                if let Some(next) = next {
                    cuts.go_on_from(next);
                    cuts.raise_epoch(progress.epoch());
                }
                std::mem::replace(&mut self.read_back, next) != next
            }
        };
        if moved {
            // A commit without an answer came through after all.
            self.parts.progress.committed().await;
            self.has_come_through();
        }
        Ok(producer)
    }

    /// Something is committed: what failed before counts no more.
    fn has_come_through(&mut self) {
        self.backoff.reset();
        self.restarts = 0;
    }

    /// Lets events flow, and commits them cut by cut.
    async fn round(&mut self, round: u64, producer: &mut TransactionalProducer) -> End {
        if let Err(trouble) = producer.begin() {
            return trouble.into();
        }
        let transactions = self.parts.transactions.clone();
        self.parts.outbox.open(transactions.clock.done() + 1, producer);
        transactions.round.send_replace(Round::Flowing(round));
        if round > 1 {
            info!(round, "transactions go on");
        }
        let mut ready: Option<Ready> = None;
        loop {
            let step = self.next_step().and_then(|step| {
                if let Step::Wait(_, Some(cut)) = step
                    && ready.as_ref().is_none_or(|ready| ready.cut != cut)
                {
                    let positions = transactions.state.lock().cuts.closed.front().map(|cut| cut.positions.clone());
                    ready = Some(self.prepare(producer, cut, &positions.unwrap_or_default())?);
                }
                Ok(step)
            });
            match step {
                Err(End::Again(reason)) => return self.judged(producer, reason, None).await,
                Err(end) => return end,
                Ok(Step::Wait(until, _)) => {
                    tokio::select! {
                        () = transactions.wake.notified() => {}
                        () = transactions.clock.delivered.notified() => {}
                        () = at(until) => {}
                    }
                }
                Ok(Step::Commit(cut)) => {
                    let opened = cut.opened;
                    let ready = ready.take().filter(|ready| ready.cut == cut.number);
                    if let Err(end) = self.commit(producer, cut, ready).await {
                        return match end {
                            End::Again(reason) => self.judged(producer, reason, opened).await,
                            end => end,
                        };
                    }
                    if producer.next_packing() != Packing::Together {
                        // What was suspected has been dealt with.
                        match self.start(Packing::Together).await {
                            Ok(next) => *producer = next,
                            Err(end) => return end,
                        }
                    }
                    if let Err(trouble) = producer.begin() {
                        return trouble.into();
                    }
                    self.parts.outbox.open(transactions.clock.done() + 1, producer);
                }
            }
        }
    }

    fn next_step(&mut self) -> Result<Step, End> {
        let transactions = &self.parts.transactions;
        let mut state = transactions.state.lock();
        if state.participants.flowing.is_empty() {
            return Err(End::Nobody);
        }
        if let Some(reason) = state.restart.clone() {
            return Err(End::Again(reason));
        }
        let is_old = state.cuts.due().is_some_and(|due| due <= Instant::now());
        let is_wanted = state.hurry && state.cuts.open.opened.is_some() && state.cuts.closed.is_empty();
        if is_old || is_wanted {
            state.hurry = false;
            state.cuts.close(&transactions.clock);
        }
        if std::mem::replace(&mut self.told, transactions.clock.open()) != transactions.clock.open() {
            self.parts.logs.iter().for_each(|log| log.wake_readers());
        }
        let Some(oldest) = state.cuts.closed.front() else { return Ok(Step::Wait(state.cuts.due(), None)) };
        // In this order: a dead letter is put before the event that it stands for is settled.
        if !self.parts.logs.iter().all(|log| log.is_settled(oldest.number)) {
            return Ok(Step::Wait(None, Some(oldest.number)));
        }
        let cut = state.cuts.closed.pop_front().expect("it has just been looked at");
        Ok(Step::Commit(cut))
    }

    /// Says to the brokers what is committed with a cut that has been closed, while its last records are on their way.
    fn prepare(&mut self, producer: &TransactionalProducer, cut: u64, positions: &Positions) -> Result<Ready, End> {
        let groups = self.group_offsets(positions)?;
        let has_progress = self.send_progress(producer, cut, positions)?;
        Ok(Ready { cut, has_progress, prepared: producer.prepare(groups) })
    }

    async fn commit(&mut self, producer: &TransactionalProducer, cut: Cut, ready: Option<Ready>) -> Result<(), End> {
        self.parts.outbox.close();
        let ready = match ready {
            Some(ready) => ready,
            None => self.prepare(producer, cut.number, &cut.positions)?,
        };
        // Asked again after the offsets: whoever gives a partition away says so before it leaves the assignment.
        if let Some(reason) = self.parts.transactions.state.lock().restart.clone() {
            return Err(End::Again(reason));
        }
        let started = Instant::now();
        match producer.commit(ready.prepared).await {
            Ok(()) => self.parts.connection.counters().committed(started.elapsed()),
            Err(TransactionTrouble::Fenced(reason)) => return Err(self.fenced(producer, cut.opened, &reason).await),
            Err(trouble) => return Err(trouble.into()),
        }
        debug!(
            cut = cut.number,
            events = cut.amount.events,
            took_ms = started.elapsed().as_millis() as u64,
            "transaction committed"
        );
        self.parts.transactions.clock.set_done(cut.number);
        self.parts.logs.iter().for_each(|log| log.commit(cut.number));
        cut.settle();
        if ready.has_progress {
            self.parts.progress.committed().await;
        }
        self.has_come_through();
        Ok(())
    }

    fn group_offsets(&self, positions: &Positions) -> Result<Vec<GroupOffsets>, End> {
        let mut groups = Vec::new();
        for (source, parts) in positions {
            let kafka = self.parts.sources.get(source).filter(|kafka| kafka.has_consumer());
            let Some(kafka) = kafka else { continue };
            match kafka.group_offsets(parts) {
                Some(offsets) => groups.push(offsets),
                None => return Err(End::Again("partitions of the transaction are not ours any more".into())),
            }
        }
        Ok(groups)
    }

    /// Adds to the transaction what Kafka's groups do not count. True when there is any.
    fn send_progress(
        &mut self,
        producer: &TransactionalProducer,
        cut: u64,
        positions: &Positions,
    ) -> Result<bool, End> {
        if let Progress::Reader(progress, cuts) = &mut self.parts.progress {
            let Some(end) = cuts.end(cut) else { return Ok(false) };
            progress.send(producer, end)?;
            return Ok(true);
        }
        let mut sent = false;
        for (source, parts) in positions {
            if self.parts.sources.get(source).is_some_and(|kafka| kafka.has_consumer()) {
                continue;
            }
            let Progress::Sources(progress) = &self.parts.progress else {
                let cause =
                    format!("source `{source}` is granted Kafka and brings positions that are not its consumer's");
                return Err(End::Stop(cause.into()));
            };
            progress.send(producer, source, parts)?;
            sent = true;
        }
        Ok(sent)
    }

    /// The producer knows better than who noticed that the round is over. `committing` is since when the cut was open that was
    /// being committed then, if one was: it is no longer among the others.
    async fn judged(&mut self, producer: &TransactionalProducer, reason: Arc<str>, committing: Option<Instant>) -> End {
        let left_out = self.parts.connection.left_out();
        let found_more = std::mem::replace(&mut self.left_out, left_out) != left_out;
        self.restarts += 1;
        self.parts.connection.counters().aborted();
        if !found_more && self.restarts > 1 {
            tokio::time::sleep(self.backoff.delay()).await;
        }
        if self.restarts > RESTARTS_MAX {
            return End::Stop(format!("{} transactions in a row came to nothing: {reason}", self.restarts).into());
        }
        match producer.cause() {
            Some(TransactionTrouble::Stop(cause)) => End::Stop(cause.into()),
            Some(TransactionTrouble::Fenced(cause)) => {
                let oldest = committing.or_else(|| self.parts.transactions.state.lock().cuts.oldest());
                self.fenced(producer, oldest, &cause).await
            }
            Some(TransactionTrouble::Again(cause)) => End::Again(format!("{reason}; {cause}").into()),
            None => End::Again(reason),
        }
    }

    /// A broker that has ended a transaction for its age says the same as one where another producer has our id; the age tells them
    /// apart, as far as anything does.
    async fn fenced(&self, producer: &TransactionalProducer, opened: Option<Instant>, reason: &str) -> End {
        if opened.is_some_and(|opened| opened.elapsed() >= producer.timeout() * 9 / 10) {
            tokio::time::sleep(FENCED_WAIT).await;
            return End::Again(
                format!("the transaction was open for longer than \"transaction.timeout.ms\": {reason}").into(),
            );
        }
        let cause = format!(
            "another agent of this pipeline with the same `instance` has taken over its transactions ({reason}); give each agent an \
             `instance` of its own"
        );
        End::Stop(cause.into())
    }

    /// Parks every participant and empties the channels.
    async fn park(&mut self, round: u64) {
        let transactions = self.parts.transactions.clone();
        {
            let _state = transactions.state.lock();
            transactions.round.send_replace(Round::Parked(round));
        }
        self.parts.outbox.void();
        loop {
            let woken = transactions.wake.notified();
            let all = transactions.state.lock().participants.flowing.values().all(|flowing| !flowing);
            if all {
                break;
            }
            woken.await;
        }
        self.parts.logs.iter().for_each(|log| log.void());
        {
            let mut state = transactions.state.lock();
            state.cuts.void(&transactions.clock);
            state.restart = None;
            state.hurry = false;
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
