//! One consumer: a thread that serves the group, and readers that take records from the partitions.
//!
//! The thread polls the client whether records are taken or not, so a full channel never makes the group think that we are
//! gone; librdkafka's prefetch is bounded, so it then stops fetching by itself.

mod place;
mod rebalance;
mod serve;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::assignment::{Assignment, part_key, part_value};
use super::client::{Client, GroupMetadata, TopicOffset};
use super::fetch::Fetch;
use super::reach::Reach;
use super::stage::{Revocation, Start, Subscription};
use super::transactional::GroupOffsets;
use super::verdict::{self, retry};
use crate::metrics::KafkaCounters;
use crate::plugin::Failure;
use crate::position::{Part, Position};
use place::StaticMember;

/// Limit: one question to a broker while partitions are taken over or given back.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A group's member, or the reader of fixed partitions.
pub(super) struct Consumer {
    shared: Arc<Shared>,
    pub(super) subscription: Subscription,
    /// Answers when the thread has ended; taken by whoever closes.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

struct Shared {
    connection: Arc<str>,
    start: Start,
    group: String,
    /// In a pipeline with transactions these commit; the consumer never does.
    revocation: Option<Arc<dyn Revocation>>,
    counters: Arc<KafkaCounters>,
    /// No member of the group: its partitions are fixed.
    alone: bool,
    /// Nothing: a new member of the group each time.
    member: Option<StaticMember>,
    client: Client,
    reach: Reach,
    state: Mutex<State>,
    /// Something was settled.
    settled: Condvar,
    /// Records, an error or an end may be there for the reader.
    reader: Arc<Notify>,
    interrupted: AtomicBool,
    /// Records were handed out since this was last looked at.
    brought: AtomicBool,
}

#[derive(Default)]
struct State {
    assignment: Assignment,
    /// Where the pipeline says that partitions go on.
    position: Position,
    /// To be told to the reader, once.
    failure: Option<Failure>,
    /// A topic of the subscription that does not exist, in words.
    missing: Option<String>,
    /// Seeks that the thread is to make.
    rewinds: Vec<TopicOffset>,
    /// There may be something to commit.
    unsaid: bool,
    /// The group has gone on without us, and has given us nothing since.
    lost: bool,
    /// The client is of no more use, and a new one would be.
    dead: bool,
    closing: Option<Instant>,
}

impl Consumer {
    /// Starts reading: `position` has the pipeline's parts.
    ///
    /// # Errors
    /// For a subscription that librdkafka does not take.
    pub(super) fn start(
        client: Client,
        subscription: Subscription,
        group: String,
        member: Option<String>,
        position: Position,
        revocation: Option<Arc<dyn Revocation>>,
        counters: &Arc<KafkaCounters>,
    ) -> Result<Self, Failure> {
        let (end, ended) = oneshot::channel();
        let member = member.filter(|_| subscription.partitions.is_none());
        let member =
            member.map(|name| StaticMember { group: group.clone(), name, topics: subscription.topics.clone() });
        let shared = Arc::new(Shared {
            connection: subscription.connection.as_str().into(),
            start: subscription.start,
            group,
            revocation,
            counters: counters.clone(),
            alone: subscription.partitions.is_some(),
            member,
            client,
            reach: Reach::default(),
            state: Mutex::new(State { position, ..State::default() }),
            settled: Condvar::new(),
            reader: Arc::default(),
            interrupted: AtomicBool::new(false),
            brought: AtomicBool::new(false),
        });
        let fixed = subscription.partitions.clone();
        if fixed.is_none() {
            let subscribed = shared.client.subscribe(&subscription.topics);
            subscribed
                .map_err(|error| Failure::Fatal(format!("cannot subscribe to {:?}: {error}", subscription.topics)))?;
        }
        let server = shared.clone();
        let serve = move || {
            server.serve(fixed);
            drop(server);
            let _ = end.send(());
        };
        let started = crate::thread::spawn("kafka-consumer", serve);
        started.map_err(|error| retry(format!("no thread for a Kafka consumer: {error}")))?;
        Ok(Self { shared, subscription, ended: Mutex::new(Some(ended)) })
    }

    /// Whether a new consumer has to take this one's place.
    pub(super) fn is_dead(&self) -> bool {
        self.shared.state().dead
    }

    /// Where a consumer in this one's place goes on.
    pub(super) fn position(&self) -> Position {
        self.shared.state().position.clone()
    }

    /// Records that were not handed out, by topic, as far as the brokers have told: asks nobody.
    pub(super) fn lag(&self) -> Vec<(Arc<str>, u64)> {
        self.shared.state().assignment.lag(&self.shared.client)
    }

    /// As [`Reach::lost_for`].
    pub(super) fn unreachable_for(&self) -> Option<Duration> {
        self.shared.reach.lost_for()
    }

    /// Goes on from `position` where partitions were read further.
    pub(super) fn rewind(&self, position: &Position) {
        let mut state = self.shared.state();
        state.position = position.clone();
        let seeks = state.assignment.rewind(position);
        state.rewinds.extend(seeks);
        drop(state);
        self.shared.client.wake();
    }

    /// See `StageKafka::group_offsets`.
    pub(super) fn group_offsets(&self, parts: &[Part]) -> Option<GroupOffsets> {
        // Under the lock: a partition that is ours here is so in the group's generation that is asked for here.
        let state = self.shared.state();
        let offsets = state.assignment.offsets(parts)?;
        if self.shared.client.assignment_lost() {
            return None;
        }
        let group = match self.shared.alone {
            true => GroupMetadata::without_members(&self.shared.group),
            false => self.shared.client.group_metadata()?,
        };
        Some(GroupOffsets { offsets, group })
    }

    /// See `StageKafka::restart`.
    pub(super) async fn restart(&self) -> Position {
        loop {
            let shared = self.shared.clone();
            let asked = tokio::task::spawn_blocking(move || {
                let ours = shared.state().assignment.all();
                if ours.is_empty() { Ok(Vec::new()) } else { shared.client.committed(&ours, ANSWER_WAIT) }
            });
            match asked.await.expect("asking for offsets does not panic") {
                Ok(committed) => {
                    let committed = committed.iter().filter(|one| one.offset >= 0);
                    let committed: Position =
                        committed.map(|one| (part_key(&one.topic, one.partition), part_value(one.offset))).collect();
                    let mut state = self.shared.state();
                    let seeks = state.assignment.restart(&committed);
                    state.position = committed.clone();
                    state.rewinds.extend(seeks);
                    drop(state);
                    self.shared.settled.notify_all();
                    self.shared.client.wake();
                    return committed;
                }
                Err(error) => {
                    tracing::warn!(connection = %self.shared.connection, %error, "the group's offsets are not known yet");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// See `StageKafka::poll`.
    pub(super) async fn poll(&self, max_records: usize, max_bytes: usize, wait: Duration) -> Result<Fetch, Failure> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let news = self.shared.reader.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(fetch) = self.shared.fetch(max_records, max_bytes)? {
                return Ok(fetch);
            }
            if self.shared.interrupted.swap(false, Ordering::AcqRel) {
                return Ok(Fetch::Idle);
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return self.shared.nothing();
            }
        }
    }

    pub(super) fn interrupt(&self) {
        self.shared.interrupted.store(true, Ordering::Release);
        self.shared.reader.notify_one();
    }

    /// Takes note of what is settled; the thread commits it.
    pub(super) fn settled(&self, parts: &[Part]) {
        let mut state = self.shared.state();
        if state.assignment.settle(parts) {
            // A partition that is lost and comes back goes on from here, whether or not the group was told.
            state.position.apply(parts);
            let first = !std::mem::replace(&mut state.unsaid, true);
            drop(state);
            self.shared.settled.notify_all();
            if first {
                self.shared.client.wake();
            }
        }
    }

    /// Commits what is settled and leaves, within the deadline or without the group's answer.
    pub(super) async fn close(&self, deadline: Instant) {
        self.begin_closing(deadline);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended
            && tokio::time::timeout_at(deadline.into(), ended).await.is_err()
        {
            tracing::warn!(connection = %self.shared.connection, "the consumer group did not answer in time; left without");
        }
    }

    fn begin_closing(&self, deadline: Instant) {
        self.shared.state().closing.get_or_insert(deadline);
        self.shared.settled.notify_all();
        self.shared.client.wake();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.begin_closing(Instant::now() + ANSWER_WAIT);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, max_records: usize, max_bytes: usize) -> Result<Option<Fetch>, Failure> {
        let mut state = self.state();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        if max_records == 0 {
            return Ok(Some(Fetch::Idle));
        }
        match state.assignment.gather(max_records, max_bytes) {
            Ok(Some(gathered)) => {
                self.brought.store(true, Ordering::Relaxed);
                Ok(Some(Fetch::Records { batch: gathered.batch, position: gathered.position }))
            }
            Ok(None) if state.missing.is_none() && state.assignment.reaches_end(&self.client) => Ok(Some(Fetch::AtEnd)),
            Ok(None) => Ok(None),
            Err(error) => {
                let failure = verdict::of_partition(&self.connection, &error);
                state.rewinds.push(error.resume);
                drop(state);
                self.client.wake();
                Err(failure)
            }
        }
    }

    /// The wait is over. A topic that is missing is worth a word then, and not while others bring records.
    fn nothing(&self) -> Result<Fetch, Failure> {
        let state = self.state();
        match &state.missing {
            Some(missing) if state.assignment.is_empty() => Err(retry(missing.clone())),
            _ => Ok(Fetch::Idle),
        }
    }
}
