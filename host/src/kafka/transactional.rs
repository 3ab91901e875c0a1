//! The transactional producer of a pipeline: one client that all its sinks send by, and the transactions it is taken through.
//!
//! librdkafka's transaction calls block, and may block for longer than they are told: they run on a thread of their own, and
//! nobody waits for that longer than our own deadline. After a call without an answer nobody knows what became of the
//! transaction, so the client is not used again (rule 4 of `durability-and-kafka.md` B6).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::client::{Class, Client, Code, GroupMetadata, TopicOffset, TransactionError};
use super::connection::Connection;
use super::in_flight::{Answer, Delivery, Room};
use super::left_out::LeftOut;
use super::outbox::Outbox;
use super::producer::{Packing, Producer};
use super::records::Records;
use crate::metrics::KafkaCounters;

/// Limit: one attempt to take the transactional id. A coordinator that is away is asked again, with a word in the log.
const INIT_WAIT: Duration = Duration::from_secs(15);

/// Our own deadline behind librdkafka's.
const GRACE: Duration = Duration::from_secs(3);

/// Limit: one flush. The next call of the thread waits for it where records are unanswered, which it would do by itself.
const FLUSH_WAIT: Duration = Duration::from_millis(20);

/// Between two flushes: a tenth of a linger.
const FLUSH_GAP: Duration = Duration::from_micros(500);

/// What follows from a transaction that did not go well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionTrouble {
    /// Go on from what is committed, with a new producer.
    #[error("{0}")]
    Again(String),
    /// Another producer has taken our transactional id; or the broker has ended a transaction of ours that took too long, which
    /// no client of this protocol can tell apart.
    #[error("{0}")]
    Fenced(String),
    /// The operator must act.
    #[error("{0}")]
    Stop(String),
}

/// Offsets of one group, to be committed with a transaction.
pub struct GroupOffsets {
    pub(super) offsets: Vec<TopicOffset>,
    pub(super) group: GroupMetadata,
}

/// What a pipeline's transactional producers are made from, one after another.
pub struct TransactionalConnection {
    connection: Arc<Connection>,
    id: String,
    outbox: Arc<Outbox>,
}

impl TransactionalConnection {
    pub(super) fn new(connection: Arc<Connection>, id: String, outbox: Arc<Outbox>) -> Self {
        Self { connection, id, outbox }
    }

    /// A producer that has the transactional id: whoever had it is fenced, and what it had left open is completed or aborted by the
    /// time this answers.
    ///
    /// # Errors
    /// `Again` while the coordinator is away.
    pub async fn start(&self, packing: Packing) -> Result<TransactionalProducer, TransactionTrouble> {
        TransactionalProducer::start(&self.connection, &self.id, packing, &self.outbox.left_out).await
    }

    /// What becomes of the transactions is counted here.
    pub fn counters(&self) -> &KafkaCounters {
        self.connection.counters()
    }

    /// How many records have been refused, and are left out when they come again.
    pub fn left_out(&self) -> u64 {
        self.outbox.left_out.count()
    }
}

/// A producer that has its transactional id, with a transaction open whenever [`begin`](Self::begin) was the last call.
pub struct TransactionalProducer {
    connection: Arc<str>,
    client: Client,
    pub(super) producer: Arc<Producer>,
    calls: Calls,
    /// How long the broker lets a transaction be open.
    timeout: Duration,
}

impl TransactionalProducer {
    async fn start(
        connection: &Connection,
        id: &str,
        packing: Packing,
        left_out: &Arc<LeftOut>,
    ) -> Result<Self, TransactionTrouble> {
        let name = connection.name();
        let client = connection.transactional_producer(id, packing);
        let client = client.map_err(|failure| TransactionTrouble::Stop(failure.to_string()))?;
        let no_thread = |error| TransactionTrouble::Again(format!("no thread for a Kafka producer: {error}"));
        let calls = Calls::start(client.clone()).map_err(no_thread)?;
        let producer =
            Producer::start_transactional(name, client.clone(), packing, left_out.clone()).map_err(no_thread)?;
        let producer = Arc::new(producer);
        let this =
            Self { connection: name.clone(), client, producer, calls, timeout: connection.transaction_timeout() };
        this.call("take its transactional id", INIT_WAIT, |client, wait| client.init_transactions(wait)).await?;
        Ok(this)
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// When the client is of no more use.
    pub fn begin(&self) -> Result<(), TransactionTrouble> {
        self.client.begin_transaction().map_err(|error| self.trouble("begin a transaction", &error))
    }

    /// How long the broker lets a transaction be open.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Hands records of the host's own to the open transaction; they are not counted against anybody's room.
    pub(super) fn send(&self, records: Arc<Records>) -> oneshot::Receiver<Answer> {
        let (delivery, answer) = Delivery::new(records, &Arc::<Room>::default());
        self.producer.send_delivery(delivery);
        answer
    }

    /// Adds the offsets of these groups to the open transaction, and then sends records as soon as they come until it is committed or
    /// what is returned is dropped: nothing more will come behind them that a fuller request could be waited for.
    ///
    /// A partition whose offset is in an open transaction may change hands: whoever has it next waits for the transaction's end.
    pub fn prepare(&self, groups: Vec<GroupOffsets>) -> Prepared {
        let (haste, wait) = (Haste(Arc::new(AtomicBool::new(true))), self.timeout);
        let goes_on = haste.0.clone();
        let (answer, sent) = oneshot::channel();
        self.calls.start_call(move |client| {
            let mut send = |GroupOffsets { offsets, group }: GroupOffsets| client.send_offsets(&offsets, &group, wait);
            // Nobody waits for it when the transaction has come to nothing meanwhile.
            drop(answer.send(groups.into_iter().try_for_each(&mut send)));
            while goes_on.load(Ordering::Acquire) {
                client.flush(FLUSH_WAIT);
                // All that has come by now is answered for.
                std::thread::sleep(FLUSH_GAP);
            }
        });
        Prepared { sent, _haste: haste, closed: self.client.closed_connections() }
    }

    /// Commits the open transaction.
    ///
    /// librdkafka asks again by itself when a connection ends before the answer. What was on its way there may arrive late, and would
    /// then end the *next* transaction, which has the same epoch (KIP-890, which librdkafka does not speak). So after that this
    /// producer is not used again either: the next one has an epoch of its own.
    ///
    /// # Errors
    /// After `Again` it may be committed all the same: only a new producer, and then the committed positions, tell.
    pub async fn commit(&self, prepared: Prepared) -> Result<(), TransactionTrouble> {
        let Prepared { sent, _haste: haste, closed } = prepared;
        drop(haste);
        self.answered("add offsets to the transaction", self.timeout, async { sent.await.ok() }).await?;
        self.call("commit the transaction", self.timeout, |client, wait| client.commit_transaction(wait)).await?;
        match self.client.closed_connections() == closed {
            true => Ok(()),
            false => Err(TransactionTrouble::Again(format!(
                "connection `{}`: a broker's connection ended during the commit, and requests of it may still be on their way",
                self.connection
            ))),
        }
    }

    /// Ends the open transaction for those who wait behind it, as far as that is possible within `wait`.
    pub async fn abort(&self, wait: Duration) {
        let aborted = self.call("abort the transaction", wait, |client, wait| client.abort_transaction(wait)).await;
        if let Err(trouble) = aborted {
            tracing::debug!(connection = %self.connection, reason = %trouble, "left to its timeout");
        }
    }

    /// How the producer after this one should pack: as this one does, or as its loss asks for.
    pub fn next_packing(&self) -> Packing {
        self.producer.lost().map_or(self.producer.packing, |loss| loss.packing)
    }

    /// Why the transaction is lost, in librdkafka's words.
    pub fn cause(&self) -> Option<TransactionTrouble> {
        if let Some(error) = self.client.fatal_error() {
            let class = Class::Fatal;
            return Some(self.trouble("go on", &TransactionError { error, class }));
        }
        // In a failed transaction this answers why it failed; in one that is open it does nothing.
        match self.client.begin_transaction() {
            Err(error) if error.class == Class::Abortable => Some(self.trouble("go on with the transaction", &error)),
            _ => None,
        }
    }

    async fn call(
        &self,
        what: &str,
        wait: Duration,
        call: impl FnOnce(&Client, Duration) -> Result<(), TransactionError> + Send + 'static,
    ) -> Result<(), TransactionTrouble> {
        self.answered(what, wait, self.calls.call(move |client| call(client, wait))).await
    }

    async fn answered(
        &self,
        what: &str,
        wait: Duration,
        answer: impl Future<Output = Option<Result<(), TransactionError>>>,
    ) -> Result<(), TransactionTrouble> {
        match tokio::time::timeout(wait + GRACE, answer).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(error))) => Err(self.trouble(what, &error)),
            Ok(None) | Err(_) => {
                Err(TransactionTrouble::Again(format!("connection `{}`: no answer to: {what}", self.connection)))
            }
        }
    }

    fn trouble(&self, what: &str, error: &TransactionError) -> TransactionTrouble {
        trouble(&self.connection, what, error)
    }
}

/// A transaction on its way to its end: see [`TransactionalProducer::prepare`].
#[must_use = "dropped, it no longer hastens"]
pub struct Prepared {
    sent: oneshot::Receiver<Result<(), TransactionError>>,
    _haste: Haste,
    /// Connections that had ended by then.
    closed: u64,
}

/// As long as it lives, records do not wait for the linger.
struct Haste(Arc<AtomicBool>);

impl Drop for Haste {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What follows from an error of a transaction call.
fn trouble(connection: &str, what: &str, TransactionError { error, .. }: &TransactionError) -> TransactionTrouble {
    let text = &error.text;
    match error.code {
        Code::FENCED | Code::PRODUCER_FENCED | Code::INVALID_PRODUCER_EPOCH => {
            TransactionTrouble::Fenced(format!("connection `{connection}`: {text}"))
        }
        Code::TRANSACTIONAL_ID_AUTHORIZATION => TransactionTrouble::Stop(format!(
            "connection `{connection}`: the broker does not allow this transactional id: grant the user Write and Describe on \
             it, or use delivery = \"at-least-once\" ({text})"
        )),
        Code::INVALID_TRANSACTION_TIMEOUT => TransactionTrouble::Stop(format!(
            "connection `{connection}`: \"transaction.timeout.ms\" is larger than the broker's \"transaction.max.timeout.ms\": make \
             it smaller ({text})"
        )),
        Code::TOPIC_AUTHORIZATION | Code::GROUP_AUTHORIZATION | Code::CLUSTER_AUTHORIZATION => {
            TransactionTrouble::Stop(format!("connection `{connection}`: the broker does not allow it: {text}"))
        }
        Code::AUTHENTICATION | Code::SASL_FAILED | Code::SSL => {
            TransactionTrouble::Stop(format!("connection `{connection}`: {text}"))
        }
        _ => TransactionTrouble::Again(format!("connection `{connection}`: cannot {what}: {text}")),
    }
}

type Job = Box<dyn FnOnce(&Client) + Send>;

/// A thread for calls that block, one after another. It ends with its last call once this is dropped.
struct Calls(mpsc::Sender<Job>);

impl Calls {
    fn start(client: Client) -> std::io::Result<Self> {
        let (jobs, received) = mpsc::channel::<Job>();
        let work = move || received.into_iter().for_each(|job| job(&client));
        std::thread::Builder::new().name("kafka-transaction".into()).spawn(work)?;
        Ok(Self(jobs))
    }

    /// Nobody waits for it.
    fn start_call(&self, job: impl FnOnce(&Client) + Send + 'static) {
        // A thread that is gone has said so to whoever waited.
        _ = self.0.send(Box::new(job));
    }

    /// Nothing when the thread is gone.
    async fn call<R: Send + 'static>(&self, job: impl FnOnce(&Client) -> R + Send + 'static) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Box::new(move |client| drop(answer.send(job(client))))).ok()?;
        answered.await.ok()
    }
}
