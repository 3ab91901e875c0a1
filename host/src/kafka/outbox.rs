//! What the sinks of a pipeline with transactions send: now, where its transaction is open, or as soon as it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::in_flight::{Answer, Delivery, Room};
use super::left_out::LeftOut;
use super::producer::Producer;
use super::records::Records;
use super::transactional::TransactionalProducer;
use super::verdict::retry;

/// The way from the sinks to the transactional producer.
///
/// librdkafka takes no record while a transaction commits: what belongs to the next one waits here meanwhile (rule 15 of
/// `durability-and-kafka.md` B6). Limit: what waits counts as in flight, so each sink's own bound holds for it.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    pub(super) left_out: Arc<LeftOut>,
}

#[derive(Default)]
struct State {
    /// The open transaction, by the number of its cut.
    open: Option<(u64, Arc<Producer>)>,
    /// Of later cuts, in order.
    waiting: VecDeque<(u64, Delivery)>,
}

impl Outbox {
    /// The transaction of this cut is open: what waited for it goes out, and then whatever comes. What waited for an earlier one was sent
    /// by a sink that had not heard yet that its transaction was given up; its events come again.
    pub fn open(&self, cut: u64, producer: &TransactionalProducer) {
        // Not all under one lock: sinks line up behind meanwhile.
        while let Some((waiting, delivery)) = self.next_waiting(cut, producer) {
            match waiting == cut {
                true => producer.producer.send_delivery(delivery),
                false => aborted(delivery),
            }
        }
    }

    /// The oldest delivery that waits for a cut up to this one; where there is none its transaction takes what comes from now on.
    fn next_waiting(&self, cut: u64, producer: &TransactionalProducer) -> Option<(u64, Delivery)> {
        let mut state = self.state();
        let next = state.waiting.pop_front_if(|(waiting, _)| *waiting <= cut);
        if next.is_none() {
            state.open = Some((cut, producer.producer.clone()));
        }
        next
    }

    /// The open transaction takes nothing more.
    pub fn close(&self) {
        self.state().open = None;
    }

    /// Nothing of what was sent is committed, and nothing of what waits will be.
    pub fn void(&self) {
        let waiting = {
            let mut state = self.state();
            state.open = None;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, delivery)| aborted(delivery));
    }

    /// Sends records of a cut, or keeps them for when its transaction is open.
    pub(super) fn send(&self, cut: u64, records: Arc<Records>, room: &Arc<Room>) -> oneshot::Receiver<Answer> {
        let (delivery, answer) = Delivery::new(records, room);
        let mut state = self.state();
        match &state.open {
            Some((open, producer)) if *open == cut => producer.send_delivery(delivery),
            Some((open, _)) if *open > cut => aborted(delivery),
            _ => state.waiting.push_back((cut, delivery)),
        }
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn aborted(delivery: Delivery) {
    drop(delivery.lose(retry("the transaction was aborted".into())));
}
