//! Rebalances: partitions are taken over where the pipeline or the group goes on, and given back once what was read of them is settled.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::super::assignment::{NewPartition, part_key, part_offset};
use super::super::client::{ClientError, PartitionQueue, TopicOffset, offset};
use super::super::stage::Start;
use super::super::verdict;
use super::{ANSWER_WAIT, Shared, State};
use crate::position::Position;

/// Limit: how long a rebalance waits for what was handed out to be settled. Others wait for these partitions.
const REVOKE_WAIT: Duration = Duration::from_secs(10);

impl Shared {
    /// Takes over partitions: each starts at the greater of the pipeline's part and the group's offset.
    pub(super) fn take_over(&self, partitions: &[TopicOffset]) {
        let Some(committed) = self.committed_offsets(partitions) else {
            // Every rebalance wants an answer, also one that came too late.
            let _ = self.client.assign(&[]);
            return;
        };
        // In a pipeline with transactions the group's offsets are all that counts: a swap leaves the position of what was put last, which
        // may have come to nothing since.
        let position = if self.revocation.is_some() { Position::default() } else { self.state().position.clone() };
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

    fn prepare(&self, group: &TopicOffset, position: &Position) -> Result<(TopicOffset, NewPartition), ClientError> {
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
    pub(super) fn give_back(&self, partitions: &[TopicOffset]) {
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
        let taken: Vec<_> = {
            let mut state = self.state();
            let State { assignment, rewinds, .. } = &mut *state;
            // Of what was not taken over librdkafka knows nothing, and would refuse all of it.
            let taken = partitions.iter().filter(|one| assignment.holds(one)).cloned().collect();
            assignment.remove(partitions);
            // A seek of one time with a partition must not move it in the next.
            rewinds.retain(|seek| assignment.holds(seek));
            state.lost |= self.client.assignment_lost();
            taken
        };
        if let Err(error) = self.client.unassign(&taken) {
            tracing::warn!(connection = %self.connection, %error, "partitions not given back");
        }
    }
}
