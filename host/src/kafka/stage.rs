//! The Kafka side of one stage: its consumer, its producers, and what a delivery has staged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::consumer::Consumer;
use super::fetch::Fetch;
use super::in_flight::{InFlight, Room};
use super::outbox::Outbox;
use super::producer::{Packing, Producer};
use super::records::{Records, SendOptions};
use super::transactional::GroupOffsets;
use crate::event::Batch;
use crate::plugin::Failure;
use crate::position::{Part, Position};

/// What a consumer reads, as a plugin asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub connection: String,
    /// Empty: the pipeline's name.
    pub group: String,
    /// Topic names; one that starts with `^` is a pattern.
    pub topics: Vec<String>,
    /// Fixed partitions in place of the group's assignment.
    pub partitions: Option<Vec<(String, i32)>>,
    /// Where a partition starts that has neither a stored position nor an offset of the group.
    pub start: Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

/// What a consumer in a pipeline with transactions asks of them.
pub trait Revocation: Send + Sync {
    /// Partitions are to be given back: commit soon what was read of them.
    fn hurry(&self);
    /// Partitions go to others although what was read of them is not committed: nothing of it may be.
    fn void(&self);
}

/// How a stage takes part in the transactions of its pipeline.
#[derive(Clone)]
pub struct InTransactions {
    pub outbox: Arc<Outbox>,
    pub revocation: Arc<dyn Revocation>,
}

/// Records behind, by topic.
pub type TopicLags = Vec<(Arc<str>, u64)>;

/// The Kafka side of one stage.
pub struct StageKafka {
    stage: Arc<str>,
    /// Those that the stage is granted.
    connections: BTreeMap<Arc<str>, Arc<Connection>>,
    position: Mutex<Position>,
    consumer: Mutex<Option<Arc<Consumer>>>,
    producers: Mutex<BTreeMap<Arc<str>, Arc<Producer>>>,
    staged: Mutex<Vec<Staged>>,
    room: Arc<Room>,
    transactions: OnceLock<InTransactions>,
    /// Why its partitions must be fixed, if they must.
    fixed: OnceLock<&'static str>,
}

/// The records of one `stage_send`.
struct Staged {
    /// Nothing: they go out by the pipeline's transaction.
    producer: Option<Arc<Producer>>,
    records: Arc<Records>,
}

impl StageKafka {
    pub(super) fn new(stage: &str, connections: BTreeMap<Arc<str>, Arc<Connection>>) -> Self {
        Self {
            stage: stage.into(),
            connections,
            position: Mutex::default(),
            consumer: Mutex::default(),
            producers: Mutex::default(),
            staged: Mutex::default(),
            room: Arc::default(),
            transactions: OnceLock::new(),
            fixed: OnceLock::new(),
        }
    }

    /// Refuses subscriptions whose partitions the group assigns, for this reason.
    pub fn only_fixed_partitions(&self, reason: &'static str) {
        // Once for each stage: the agent builds it once.
        let _ = self.fixed.set(reason);
    }

    /// Makes the stage a part of its pipeline's transactions, before its plugin is opened: its consumer commits nothing by itself,
    /// and its records go out by the pipeline's producer.
    pub fn take_part(&self, transactions: InTransactions) {
        // Once for each stage: the agent builds it once.
        let _ = self.transactions.set(transactions);
    }

    /// Where the next [`subscribe`](Self::subscribe) goes on. Called by the runner before each `open` of the plugin.
    pub fn set_position(&self, position: &Position) {
        *lock(&self.position) = position.clone();
    }

    /// Subscribes. With the subscription it has, the consumer goes on from the position set: partitions that were read
    /// further are rewound to it. A new subscription closes the consumer of the old one first.
    ///
    /// # Errors
    /// `Fatal` for a connection that is not granted or an option that is wrong.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<(), Failure> {
        let connection = self.connection(&subscription.connection)?.clone();
        if let Some(reason) = self.fixed.get().filter(|_| subscription.partitions.is_none()) {
            return Err(Failure::Fatal((*reason).into()));
        }
        let position = lock(&self.position).clone();
        let before = lock(&self.consumer).take();
        if let Some(consumer) = before {
            if consumer.subscription == subscription {
                consumer.rewind(&position);
                *lock(&self.consumer) = Some(consumer);
                return Ok(());
            }
            consumer.close(Instant::now() + RESUBSCRIBE).await;
        }
        connection.make_topics(&subscription.topics);
        self.start_consumer(subscription, position).map(drop)
    }

    fn start_consumer(&self, subscription: Subscription, position: Position) -> Result<Arc<Consumer>, Failure> {
        let connection = self.connection(&subscription.connection)?;
        let client = connection.consumer(&self.stage, &subscription.group)?;
        let group = connection.group(&subscription.group).to_owned();
        let member = connection.kept_member(&self.stage);
        let revocation = self.transactions.get().map(|transactions| transactions.revocation.clone());
        let consumer = Arc::new(Consumer::start(
            client,
            subscription,
            group,
            member,
            position,
            revocation,
            connection.counters(),
        )?);
        *lock(&self.consumer) = Some(consumer.clone());
        Ok(consumer)
    }

    /// A consumer in the place of one whose client is of no more use; that one ends by itself.
    fn replace(&self, dead: &Consumer, position: Position) -> Result<Arc<Consumer>, Failure> {
        self.start_consumer(dead.subscription.clone(), position)
    }

    /// Brings up to `max_events` records and about `max_bytes` bytes, waiting at most `wait` for the first of them.
    ///
    /// Cancel: nothing is lost; a batch is handed out only when the future is done.
    ///
    /// # Errors
    /// `Retry` for what may pass, `Fatal` for refused credentials and the like.
    pub async fn poll(&self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Fetch, Failure> {
        let consumer = lock(&self.consumer).clone();
        let mut consumer = consumer.ok_or_else(|| Failure::Fatal("poll without a subscription".into()))?;
        if consumer.is_dead() {
            if self.transactions.get().is_some() {
                // The round ends; the next one begins with a new consumer.
                tokio::time::sleep(wait).await;
                return Ok(Fetch::Idle);
            }
            consumer = self.replace(&consumer, consumer.position())?;
        }
        consumer.poll(max_events as usize, max_bytes as usize, wait).await
    }

    pub fn has_consumer(&self) -> bool {
        lock(&self.consumer).is_some()
    }

    /// Records of the consumer's partitions that were not polled yet, by topic, and on which connection.
    pub(super) fn lag(&self) -> Option<(String, TopicLags)> {
        let consumer = lock(&self.consumer).clone()?;
        Some((consumer.subscription.connection.clone(), consumer.lag()))
    }

    /// How many records that is, of all topics; nothing for a stage that does not read Kafka.
    pub fn lag_records(&self) -> Option<u64> {
        Some(self.lag()?.1.iter().map(|(_, records)| records).sum())
    }

    /// The connection of which no broker has answered for so long, while records were to be read from it.
    pub fn unreachable_for(&self) -> Option<(String, Duration)> {
        let consumer = lock(&self.consumer).clone()?;
        Some((consumer.subscription.connection.clone(), consumer.unreachable_for()?))
    }

    pub(super) fn is_in_transactions(&self) -> bool {
        self.transactions.get().is_some()
    }

    /// Makes a waiting `poll`, or else the next one, answer `Idle` at once.
    pub fn interrupt(&self) {
        if let Some(consumer) = &*lock(&self.consumer) {
            consumer.interrupt();
        }
    }

    /// These positions are settled: their offsets are committed to the group within a quarter of a second, in bulk.
    pub fn settled(&self, parts: &[Part]) {
        if let Some(consumer) = &*lock(&self.consumer) {
            consumer.settled(parts);
        }
    }

    /// The offsets of these positions, for the transaction that they are committed with. Nothing when one of the partitions has
    /// gone to others: then nothing of this may be committed.
    pub fn group_offsets(&self, parts: &[Part]) -> Option<GroupOffsets> {
        lock(&self.consumer).as_ref()?.group_offsets(parts)
    }

    /// Goes back to what the group has committed, and answers where that is. Waits for as long as it takes to learn it.
    ///
    /// Cancel: nothing has changed.
    pub async fn restart(&self) -> Position {
        let consumer = lock(&self.consumer).clone();
        match consumer {
            Some(dead) if dead.is_dead() => {
                // Whoever opens the source next finds out what is wrong with the options.
                if self.replace(&dead, Position::default()).is_err() {
                    lock(&self.consumer).take();
                }
                Position::default()
            }
            Some(consumer) => consumer.restart().await,
            None => Position::default(),
        }
    }

    /// Starts the stage's producer on a connection, where it has none or has lost it.
    ///
    /// # Errors
    /// `Fatal` for a connection that is not granted or an option that is wrong.
    pub fn open_producer(&self, connection: &str) -> Result<(), Failure> {
        match self.transactions.get() {
            Some(_) => self.connection(connection).map(|_| ()),
            None => self.producer(connection).map(|_| ()),
        }
    }

    /// Adds every event to the current delivery, but for the rows it answers: those can never become records. Nothing
    /// leaves before [`send_staged`](Self::send_staged).
    ///
    /// # Errors
    /// `Fatal` for a connection that is not granted or an option that is wrong.
    pub fn stage_send(
        &self,
        connection: &str,
        batch: &Batch,
        options: &SendOptions,
    ) -> Result<Vec<(u32, String)>, Failure> {
        let transactions = self.transactions.get();
        let producer = if transactions.is_some() { None } else { Some(self.producer(connection)?) };
        let max_bytes = self.connection(connection)?.record_bytes();
        let (mut records, mut refused) = Records::new(batch, options, max_bytes);
        if let Some(transactions) = transactions {
            refused.extend(transactions.outbox.left_out.take_out(&mut records));
            refused.sort_unstable_by_key(|(row, _)| *row);
        }
        lock(&self.staged).push(Staged { producer, records: Arc::new(records) });
        Ok(refused)
    }

    /// Forgets what is staged: the call that staged it has failed.
    pub fn discard_staged(&self) {
        lock(&self.staged).clear();
    }

    pub fn has_staged(&self) -> bool {
        !lock(&self.staged).is_empty()
    }

    /// Hands all staged records to the producers, in order. In a pipeline with transactions they belong to the one of this cut.
    pub fn send_staged(&self, cut: u64) -> InFlight {
        let staged = std::mem::take(&mut *lock(&self.staged));
        let send = |Staged { producer, records }| match (producer, self.transactions.get()) {
            (Some(producer), _) => producer.send(records, &self.room),
            (None, Some(transactions)) => transactions.outbox.send(cut, records, &self.room),
            (None, None) => unreachable!("what is staged has a producer, or the pipeline has transactions"),
        };
        InFlight::new(staged.into_iter().map(send).collect())
    }

    /// Whether more records may be in flight.
    pub fn has_room(&self) -> bool {
        self.room.is_free()
    }

    /// Waits until there is room for more records in flight. Awaited before more is taken from the channel.
    pub async fn room(&self) {
        self.room.wait().await;
    }

    /// Commits, leaves the group and gives up the producers; what is in flight has been awaited before.
    pub async fn close(&self, deadline: Instant) {
        self.discard_staged();
        lock(&self.producers).clear();
        let consumer = lock(&self.consumer).take();
        if let Some(consumer) = consumer {
            consumer.close(deadline).await;
        }
    }

    fn connection(&self, name: &str) -> Result<&Arc<Connection>, Failure> {
        self.connections.get(name).ok_or_else(|| {
            Failure::Fatal(format!(
                "connection `{name}` is not granted: add allow = {{ kafka = [\"{name}\"] }} to stage `{}`",
                self.stage
            ))
        })
    }

    /// The stage's producer: the one it has, or a new one where that is lost or through with its suspects.
    fn producer(&self, name: &str) -> Result<Arc<Producer>, Failure> {
        let connection = self.connection(name)?;
        let mut producers = lock(&self.producers);
        let packing = match producers.get(name) {
            Some(producer) => match producer.lost() {
                Some(loss) => loss.packing,
                // Not in the middle of a delivery: what is staged goes out by the producer it was staged for.
                None if producer.is_through() && !self.has_staged() => Packing::Together,
                None => return Ok(producer.clone()),
            },
            None => Packing::Together,
        };
        let client = connection.producer(&self.stage, packing)?;
        let producer = Producer::start(name, client, packing);
        let producer =
            producer.map_err(|error| super::verdict::retry(format!("no thread for a Kafka producer: {error}")))?;
        let producer = Arc::new(producer);
        producers.insert(connection.name().clone(), producer.clone());
        Ok(producer)
    }
}

/// Limit: what leaving a group for another subscription may take.
const RESUBSCRIBE: Duration = Duration::from_secs(10);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
