//! Deliveries on their way to the brokers, and the bound on how much may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, oneshot};

use super::records::Records;
use super::verdict::retry;
use crate::event::Batch;
use crate::plugin::Failure;

/// Limit: at 1.8 million records a second this is a tenth of a second, several times what a broker with `acks=all` takes to
/// answer; below it librdkafka would wait for us.
const RECORDS: usize = 200_000;

/// Limit: the same for large records. The bodies are shared with the channel, which holds them until they are settled.
const BYTES: usize = 64 << 20;

/// A record that the broker will never take.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The event as it was given to `stage_send`: a batch of one row.
    pub event: Batch,
    pub reason: String,
}

/// Records of a delivery may not have reached the broker, and nothing more of this producer will: send everything from this
/// delivery on again, in order, after what `failure` says (`Retry`, or `Fatal` where the operator must act). Every later
/// delivery of the producer answers the same; the next `stage_send` builds a new client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct ProducerLost {
    pub failure: Failure,
}

pub(super) type Answer = Result<Vec<Refused>, ProducerLost>;

/// A delivery on its way to the brokers.
///
/// Cancel: dropping it, or its `done`, forgets the answer; the records go out all the same.
#[derive(Debug)]
#[must_use = "the delivery is settled once `done` has answered"]
pub struct InFlight {
    parts: Vec<oneshot::Receiver<Answer>>,
}

impl InFlight {
    pub(super) fn new(parts: Vec<oneshot::Receiver<Answer>>) -> Self {
        Self { parts }
    }

    /// Waits until the brokers have acknowledged or refused every record of the delivery.
    ///
    /// # Errors
    /// [`ProducerLost`], at once when the producer is.
    pub async fn done(self) -> Result<Vec<Refused>, ProducerLost> {
        let mut refused = Vec::new();
        for part in self.parts {
            match part.await {
                Ok(answer) => refused.extend(answer?),
                Err(_) => return Err(ProducerLost { failure: retry("the producer was closed".into()) }),
            }
        }
        Ok(refused)
    }
}

/// The records of one `stage_send` as they were handed over.
///
/// Invariant: librdkafka reads the bodies in `records` until all are reported or the client is gone, so it is dropped after
/// either and not before.
pub(super) struct Delivery {
    pub(super) records: Arc<Records>,
    remaining: usize,
    refused: Vec<(usize, String)>,
    answer: oneshot::Sender<Answer>,
    room: Arc<Room>,
}

impl Delivery {
    pub(super) fn new(records: Arc<Records>, room: &Arc<Room>) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, part) = oneshot::channel();
        let remaining = records.rows.len();
        room.enter(remaining, records.bytes);
        (Self { records, remaining, refused: Vec::new(), answer, room: room.clone() }, part)
    }

    /// Counts acknowledged records. True when none is outstanding.
    pub(super) fn acknowledged(&mut self, records: usize) -> bool {
        self.remaining = self.remaining.checked_sub(records).expect("a record is reported once");
        self.remaining == 0
    }

    /// One record was refused for good. `index` counts the records of this delivery. True when none is outstanding.
    pub(super) fn refuse(&mut self, index: usize, reason: String) -> bool {
        self.refused.push((index, reason));
        self.acknowledged(1)
    }

    pub(super) fn is_done(&self) -> bool {
        self.remaining == 0
    }

    /// The topic of one record.
    pub(super) fn topic(&self, index: usize) -> &str {
        let number = self.records.topic_of.as_ref().map_or(0, |topic_of| topic_of[index]);
        &self.records.topics[number as usize]
    }

    pub(super) fn finish(mut self) {
        let mut refused = std::mem::take(&mut self.refused);
        // Reports come in the order of partitions; rows are refused in theirs.
        refused.sort_by_key(|(index, _)| *index);
        let refused = refused.into_iter().map(|(index, reason)| {
            let row = self.records.rows[index] as usize;
            Refused { event: self.records.batch.slice(row..row + 1), reason }
        });
        let refused = refused.collect();
        self.end(Ok(refused));
    }

    /// Answers without waiting for the rest; what librdkafka may still read is handed back.
    pub(super) fn lose(self, failure: Failure) -> Arc<Records> {
        let records = self.records.clone();
        self.end(Err(ProducerLost { failure }));
        records
    }

    fn end(self, answer: Answer) {
        self.room.leave(self.records.rows.len(), self.records.bytes);
        // Nobody waits when the runner has gone.
        let _ = self.answer.send(answer);
    }
}

/// How much of a stage is in flight.
#[derive(Debug, Default)]
pub(super) struct Room {
    records: AtomicUsize,
    bytes: AtomicUsize,
    freed: Notify,
}

impl Room {
    /// Waits until there is room. A delivery that is larger than what is left still goes, so one of any size can.
    pub(super) async fn wait(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Enabled before looking, so that room freed in between is not missed.
            freed.as_mut().enable();
            if self.is_free() {
                return;
            }
            freed.await;
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.records.load(Ordering::Acquire) < RECORDS && self.bytes.load(Ordering::Acquire) < BYTES
    }

    fn enter(&self, records: usize, bytes: usize) {
        self.records.fetch_add(records, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn leave(&self, records: usize, bytes: usize) {
        self.records.fetch_sub(records, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_room_again_when_a_delivery_is_done() {
        let room = Room::default();
        room.wait().await;
        room.enter(RECORDS, 0);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), room.wait()).await.is_err());
        let waiting = room.wait();
        tokio::pin!(waiting);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
        room.leave(1, 0);
        waiting.await;
    }
}
