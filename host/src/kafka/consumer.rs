//! One consumer: a thread that serves the group, and readers that take records from the partitions.
//!
//! The thread polls the client whether records are taken or not, so a full channel never makes the group think that we are
//! gone; librdkafka's prefetch is bounded, so it then stops fetching by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::assignment::{Assignment, NewPartition, part_key, part_offset, part_value};
use super::client::{Client, Code, Event, GroupMetadata, Lifeline, PartitionQueue, TopicOffset, offset};
use super::fetch::Fetch;
use super::stage::{Revocation, Start, Subscription};
use super::transactional::GroupOffsets;
use super::verdict::{self, retry};
use crate::metrics::KafkaCounters;
use crate::plugin::Failure;
use crate::position::{Part, Position};

/// How long the thread sleeps when there is nothing to do. Events and wake-ups end it at once.
const IDLE: Duration = Duration::from_secs(1);

/// Settled offsets are committed no more often than this: a lag repeats events after a lost agent, and loses none.
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

/// Limit: how long a rebalance waits for what was handed out to be settled. Others wait for these partitions.
const REVOKE_WAIT: Duration = Duration::from_secs(10);

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
    client: Client,
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
        position: Position,
        revocation: Option<Arc<dyn Revocation>>,
        counters: &Arc<KafkaCounters>,
    ) -> Result<Self, Failure> {
        let (end, ended) = oneshot::channel();
        let shared = Arc::new(Shared {
            connection: subscription.connection.as_str().into(),
            start: subscription.start,
            group,
            revocation,
            counters: counters.clone(),
            alone: subscription.partitions.is_some(),
            client,
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

    // The reader's side.

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

    // The thread's side.

    fn serve(&self, fixed: Option<Vec<(String, i32)>>) {
        if let Some(partitions) = fixed {
            let partitions: Vec<_> =
                partitions.into_iter().map(|(topic, number)| TopicOffset::new(topic, number, offset::NONE)).collect();
            self.take_over(&partitions);
        }
        let mut last_commit = None;
        let mut reports = Vec::new();
        let mut lifeline = Lifeline::new();
        while self.state().closing.is_none() {
            lifeline.hold(&self.client, self.brought.swap(false, Ordering::Relaxed));
            let wait = self.commit_if_due(&mut last_commit);
            self.make_rewinds();
            self.find_ends();
            match self.client.poll(wait, &mut reports) {
                Some(Event::Assign(partitions)) => {
                    self.counters.rebalances.add(1);
                    self.take_over(&partitions);
                }
                Some(Event::Revoke(partitions)) => {
                    self.counters.rebalances.add(1);
                    self.give_back(&partitions);
                }
                Some(Event::Committed { code, offsets }) => self.committed(code, &offsets),
                Some(Event::Error(error)) => self.error(&error),
                _ => {}
            }
        }
        self.finish();
    }

    /// Commits in the background when the interval has passed; answers how long the thread may sleep.
    fn commit_if_due(&self, last: &mut Option<Instant>) -> Duration {
        let mut state = self.state();
        if !state.unsaid || self.revocation.is_some() {
            return IDLE;
        }
        if let Some(last) = *last
            && let Some(left) = COMMIT_INTERVAL.checked_sub(last.elapsed())
        {
            return left;
        }
        state.unsaid = false;
        let offsets = state.assignment.take_commit(None);
        drop(state);
        *last = Some(Instant::now());
        if !offsets.is_empty()
            && let Err(error) = self.client.commit(&offsets)
        {
            self.committed(error.code, &offsets);
        }
        IDLE
    }

    fn committed(&self, code: Code, offsets: &[TopicOffset]) {
        let failed: Vec<_> = offsets.iter().filter(|one| code != Code::OK || one.code != Code::OK).cloned().collect();
        // Without a coordinator there is no answer at all for a while; librdkafka says `NO_OFFSET` for nothing to commit.
        if failed.is_empty() || code == Code::NO_OFFSET {
            return;
        }
        tracing::warn!(connection = %self.connection, %code, "offsets not committed; tried again");
        let mut state = self.state();
        state.assignment.forget_commit(&failed);
        state.unsaid = true;
    }

    fn error(&self, error: &super::client::ClientError) {
        let missing = matches!(error.code, Code::UNKNOWN_TOPIC | Code::UNKNOWN_TOPIC_OR_PARTITION);
        let mut state = self.state();
        if error.code == Code::FENCED_INSTANCE && state.lost {
            // Our own request to join again, sent once more while a broker hung, fences us like another agent's. If there is another
            // one, it is fenced by the consumer that follows, and says so.
            tracing::warn!(connection = %self.connection, "fenced after the session had ended; joining anew");
            state.dead = true;
            drop(state);
            self.revocation.iter().for_each(|revocation| revocation.void());
            self.reader.notify_one();
            return;
        }
        if missing {
            let text =
                format!("connection `{}`: {}; create the topic, or correct its name", self.connection, error.text);
            tracing::warn!(connection = %self.connection, "{}", error.text);
            state.missing = Some(text);
        } else if let Some(failure) = verdict::of_client(&self.connection, error) {
            state.failure = Some(failure);
        } else {
            return;
        }
        drop(state);
        self.reader.notify_one();
    }

    fn make_rewinds(&self) {
        let seeks = std::mem::take(&mut self.state().rewinds);
        if seeks.is_empty() {
            return;
        }
        let moved = self.client.seek(&seeks, ANSWER_WAIT);
        let mut state = self.state();
        match moved {
            Ok(()) => state.assignment.release(&seeks),
            Err(error) => {
                tracing::warn!(connection = %self.connection, %error, "partitions not rewound; tried again");
                let ours = seeks.into_iter().filter(|seek| state.assignment.holds(seek)).collect();
                state.rewinds = ours;
            }
        }
        drop(state);
        self.reader.notify_one();
    }

    /// Asks again for the ends of partitions whose leader did not say when they were assigned.
    fn find_ends(&self) {
        let endless = self.state().assignment.endless();
        for partition in endless {
            match self.client.watermarks(&partition.topic, partition.partition, IDLE) {
                Ok((low, high)) => self.state().assignment.set_end(&partition, low, high),
                // The others wait for the same broker, most likely.
                Err(_) => return,
            }
            self.reader.notify_one();
        }
    }

    /// Takes over partitions: each starts at the greater of the pipeline's part and the group's offset.
    fn take_over(&self, partitions: &[TopicOffset]) {
        let Some(committed) = self.committed_offsets(partitions) else {
            // Every rebalance wants an answer, also one that came too late.
            let _ = self.client.assign(&[]);
            return;
        };
        let position = self.state().position.clone();
        let mut starts = Vec::new();
        let mut added = Vec::new();
        for group in &committed {
            match self.prepare(group, &position) {
                Ok((start, partition)) => {
                    starts.push(start);
                    added.push(partition);
                }
                Err(error) => tracing::warn!(topic = group.topic, partition = group.partition, %error, "not readable"),
            }
        }
        if let Err(error) = self.client.assign(&starts) {
            tracing::warn!(connection = %self.connection, %error, "partitions not taken over");
            return;
        }
        tracing::info!(connection = %self.connection, partitions = added.len(), "partitions assigned");
        let mut state = self.state();
        added.into_iter().for_each(|partition| state.assignment.add(partition));
        state.assignment.set_given();
        state.lost = false;
        if !partitions.is_empty() {
            state.missing = None;
        }
        drop(state);
        self.reader.notify_one();
    }

    /// The group's offsets; asked until they are known, since starting without them could repeat or skip records. Nothing
    /// when the consumer closes meanwhile, or another member owns the partitions by then.
    fn committed_offsets(&self, partitions: &[TopicOffset]) -> Option<Vec<TopicOffset>> {
        while self.state().closing.is_none() && !self.client.assignment_lost() {
            if partitions.is_empty() {
                return Some(Vec::new());
            }
            match self.client.committed(partitions, ANSWER_WAIT) {
                Ok(committed) => return Some(committed),
                Err(error) => {
                    if let Some(failure) = verdict::of_client(&self.connection, &error) {
                        self.state().failure = Some(failure);
                        self.reader.notify_one();
                    }
                    tracing::warn!(connection = %self.connection, %error, "the group's offsets are not known yet");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        None
    }

    fn prepare(
        &self,
        group: &TopicOffset,
        position: &Position,
    ) -> Result<(TopicOffset, NewPartition), super::client::ClientError> {
        let (topic, number) = (group.topic.as_str(), group.partition);
        let committed = (group.offset >= 0).then_some(group.offset);
        let stored = position.get(&part_key(topic, number)).and_then(|value| part_offset(value));
        let watermarks = self.client.watermarks(topic, number, ANSWER_WAIT);
        if let Err(error) = &watermarks {
            tracing::warn!(topic, partition = number, %error, "the end of the partition is not known yet");
        }
        let (low, end) = watermarks.ok().unzip();
        let start = stored.max(committed).or(match self.start {
            Start::Earliest => low,
            Start::Latest => end,
        });
        if let (Some(start), Some(low)) = (start, low)
            && start < low
        {
            tracing::warn!(
                topic,
                partition = number,
                next = start,
                oldest = low,
                records = low - start,
                "records were not yet read and are gone from the broker"
            );
        }
        let elsewhere = match self.start {
            Start::Earliest => offset::BEGINNING,
            Start::Latest => offset::END,
        };
        let queue = PartitionQueue::split(&self.client, topic, number, &self.reader)?;
        let assigned = start.unwrap_or(elsewhere);
        let partition = NewPartition { topic: topic.into(), number, queue, assigned, start, committed, low, end };
        Ok((TopicOffset::new(topic, number, assigned), partition))
    }

    /// Gives partitions back: nothing more of them is handed out, what was is settled (or the wait is over), its offsets are
    /// committed, and only then may others have them. Nothing is committed of partitions that others may have already.
    fn give_back(&self, partitions: &[TopicOffset]) {
        tracing::info!(connection = %self.connection, partitions = partitions.len(), "partitions revoked");
        let deadline = Instant::now() + REVOKE_WAIT;
        let mut state = self.state();
        state.assignment.hold(partitions);
        while !state.assignment.is_settled(partitions) && state.closing.is_none() && !self.client.assignment_lost() {
            if let Some(revocation) = &self.revocation {
                revocation.hurry();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(connection = %self.connection, "revoked before all was settled: some events will come again");
                break;
            }
            // Short steps, since nobody tells when an assignment is lost.
            let step = left.min(Duration::from_millis(200));
            state = self.settled.wait_timeout(state, step).unwrap_or_else(PoisonError::into_inner).0;
        }
        let offsets = state.assignment.take_commit(Some(partitions));
        let is_settled = state.assignment.is_settled(partitions);
        drop(state);
        match &self.revocation {
            // Before the partitions leave the assignment, so that whoever still finds them there finds out about this as well.
            Some(revocation) if !is_settled => revocation.void(),
            Some(_) => {}
            None if !self.client.assignment_lost() => self.commit_now(&offsets, Instant::now() + ANSWER_WAIT),
            None => {}
        }
        {
            let mut state = self.state();
            state.assignment.remove(partitions);
            state.lost |= self.client.assignment_lost();
        }
        if let Err(error) = self.client.unassign(partitions) {
            tracing::warn!(connection = %self.connection, %error, "partitions not given back");
        }
    }

    fn commit_now(&self, offsets: &[TopicOffset], deadline: Instant) {
        if offsets.is_empty() {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(error) = self.client.commit_within(offsets, left) {
            tracing::warn!(connection = %self.connection, %error, "the last offsets are not committed: some events will come again");
        }
    }

    fn finish(&self) {
        let deadline = self.state().closing.unwrap_or_else(Instant::now);
        // The commit gets half of what is left, so that leaving the group has its share.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let offsets = self.state().assignment.take_commit(None);
        if self.revocation.is_none() {
            self.commit_now(&offsets, Instant::now() + half);
        }
        // Records hold memory of the client: they go before it does.
        self.state().assignment.clear();
        if !self.client.close_group(deadline) {
            tracing::debug!(connection = %self.connection, "the group's coordinator is away");
        }
        self.reader.notify_one();
    }
}
