//! The consumer's thread: it serves the group's events, commits what is settled, and makes the seeks that others ask for.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::client::{ClientError, Code, Event, TopicOffset, offset};
use super::super::verdict;
use super::place::Place;
use super::{ANSWER_WAIT, Shared};

/// How long the thread sleeps when there is nothing to do. Events and wake-ups end it at once.
const IDLE: Duration = Duration::from_secs(1);

/// Settled offsets are committed no more often than this: a lag repeats events after a lost agent, and loses none.
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

impl Shared {
    pub(super) fn serve(&self, fixed: Option<Vec<(String, i32)>>) {
        if let Some(partitions) = fixed {
            let partitions: Vec<_> =
                partitions.into_iter().map(|(topic, number)| TopicOffset::new(topic, number, offset::NONE)).collect();
            self.take_over(&partitions);
        }
        let mut place = Place::begin(&self.client, self.member.as_ref());
        let mut last_commit = None;
        let mut reports = Vec::new();
        while self.state().closing.is_none() {
            self.join_anew(&mut place);
            let wait = self.commit_if_due(&mut last_commit).min(place.wait());
            self.make_rewinds();
            self.find_ends();
            self.reach.look(&self.client, self.brought.swap(false, Ordering::Relaxed));
            match self.client.poll(wait, &mut reports) {
                Some(Event::Assign(partitions)) => {
                    self.counters.rebalances.add(1);
                    match place.fits(&self.client, self.member.as_ref(), &partitions) {
                        true => self.take_over(&partitions),
                        false => self.leave(&mut place),
                    }
                }
                Some(Event::Revoke(partitions)) => {
                    self.counters.rebalances.add(1);
                    self.give_back(&partitions);
                }
                Some(Event::Committed { code, offsets }) => self.committed(code, &offsets),
                Some(Event::Error(error)) => {
                    self.reach.heard(&error);
                    self.error(&error);
                }
                _ => {}
            }
        }
        self.finish();
    }

    /// Takes nothing over of what the group has kept for this member.
    fn leave(&self, place: &mut Place) {
        // Every rebalance wants an answer.
        if let Err(error) = self.client.assign(&[]) {
            tracing::warn!(connection = %self.connection, %error, "partitions not refused");
        }
        tracing::info!(
            connection = %self.connection, group = self.group,
            "what the group has kept for this member is not what it would get now; joining anew"
        );
        place.leave(&self.client);
    }

    fn join_anew(&self, place: &mut Place) {
        let Some(member) = self.member.as_ref().filter(|_| place.has_left(&self.client)) else { return };
        if let Err(error) = self.client.subscribe(&member.topics) {
            // It was taken before: the client is of no more use.
            self.error(&error);
        }
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

    fn error(&self, error: &ClientError) {
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

    pub(super) fn commit_now(&self, offsets: &[TopicOffset], deadline: Instant) {
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
