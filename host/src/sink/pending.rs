//! Deliveries that are not settled yet, in the order in which they will be.

use std::collections::VecDeque;
use std::pin::Pin;

use crate::channel::Receipt;
use crate::kafka::{InFlight, ProducerLost, Refused};

/// What the broker's answer to one delivery will be.
type Landing = Pin<Box<dyn Future<Output = Result<Vec<Refused>, ProducerLost>> + Send>>;

/// Everything taken and not settled, oldest first. Settled strictly in order.
#[derive(Debug, Default)]
pub struct PendingDeliveries(VecDeque<Pending>);

/// One taken batch on its way.
pub struct Pending {
    pub tag: u64,
    /// Sequence numbers of its events, the second one not included.
    pub first: u64,
    pub next: u64,
    /// Whether each event of the batch as taken still stands for `first` plus its row.
    pub exact: bool,
    /// Taken by the sink, not yet safe.
    held: bool,
    /// Given to Kafka, not yet acknowledged.
    landings: VecDeque<Landing>,
    /// Given to Kafka, and not taken: never settled, only taken again.
    lost: bool,
    /// Dead letters of these events.
    letters: Vec<Receipt>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{} ({} in flight, held: {})", self.first, self.next, self.landings.len(), self.held)
    }
}

impl Pending {
    pub fn new(tag: u64, first: u64, next: u64) -> Self {
        Self { tag, first, next, exact: true, held: false, landings: VecDeque::new(), lost: false, letters: Vec::new() }
    }

    /// Ties this delivery to an earlier one whose events go out with it: they are settled together.
    fn absorb(&mut self, earlier: Self) {
        self.first = earlier.first;
        self.exact = false;
        self.held |= earlier.held;
        self.lost |= earlier.lost;
        self.letters.extend(earlier.letters);
        earlier.landings.into_iter().rev().for_each(|landing| self.landings.push_front(landing));
    }

    fn is_done(&self) -> bool {
        !self.held && !self.lost && self.landings.is_empty() && self.letters.iter().all(Receipt::is_settled)
    }
}

impl PendingDeliveries {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds the newest delivery. Earlier ones from `since` on are settled with it.
    pub fn push(&mut self, mut pending: Pending, since: u64) {
        while self.0.back().is_some_and(|earlier| earlier.tag >= since) {
            pending.absorb(self.0.pop_back().expect("there is one"));
        }
        self.0.push_back(pending);
    }

    pub fn newest(&self) -> Option<&Pending> {
        self.0.back()
    }

    /// Whether the sink holds anything.
    pub fn is_holding(&self) -> bool {
        self.0.iter().any(|pending| pending.held)
    }

    pub fn hold_newest(&mut self) {
        if let Some(newest) = self.0.back_mut() {
            newest.held = true;
        }
    }

    pub fn release_all(&mut self) {
        self.0.iter_mut().for_each(|pending| pending.held = false);
    }

    /// Records given to the broker for the newest delivery; for none when there is nothing to settle with them.
    pub fn sent(&mut self, in_flight: InFlight) {
        if let Some(newest) = self.0.back_mut() {
            newest.landings.push_back(Box::pin(in_flight.done()));
        }
    }

    /// Dead letters of the delivery of this tag, or of the one that it was settled with.
    pub fn buried(&mut self, tag: u64, receipt: Receipt) {
        if let Some(pending) = self.0.iter_mut().find(|pending| pending.tag >= tag) {
            pending.letters.push(receipt);
        }
    }

    /// How many deliveries the broker has not answered for.
    pub fn in_flight(&self) -> usize {
        self.0.iter().filter(|pending| !pending.landings.is_empty()).count()
    }

    /// Waits for the broker's next answer, oldest first: the delivery's tag and the answer. For ever when nothing is on
    /// its way.
    ///
    /// Cancel: the answer is kept for the next call.
    pub async fn landed(&mut self) -> (u64, Result<Vec<Refused>, ProducerLost>) {
        let Some(pending) = self.0.iter_mut().find(|pending| !pending.landings.is_empty()) else {
            return std::future::pending().await;
        };
        let landing = pending.landings.front_mut().expect("it is not empty");
        let answer = landing.await;
        pending.landings.pop_front();
        pending.lost |= answer.is_err();
        (pending.tag, answer)
    }

    /// Takes off what is done, up to the first that is not; how far the cursor may move, and how many events that is.
    /// Nothing at or beyond `kept` is settled, and the newest delivery only when `complete`.
    pub fn settle(&mut self, kept: u64, complete: bool) -> Option<u64> {
        let mut next = None;
        while let Some(front) = self.0.front()
            && front.tag < kept
            && front.is_done()
            && (complete || self.0.len() > 1)
        {
            next = Some(front.next);
            self.0.pop_front();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NOTHING_KEPT: u64 = u64::MAX;

    fn three() -> PendingDeliveries {
        let mut pending = PendingDeliveries::default();
        for tag in 1..=3 {
            pending.push(Pending::new(tag, tag * 10, tag * 10 + 10), tag);
        }
        pending
    }

    #[test]
    fn deliveries_are_settled_in_order_and_the_newest_only_when_complete() {
        let mut pending = three();
        assert_eq!(pending.settle(NOTHING_KEPT, false), Some(30));
        assert_eq!(pending.settle(NOTHING_KEPT, false), None);
        assert_eq!(pending.settle(NOTHING_KEPT, true), Some(40));
    }

    #[test]
    fn what_is_held_kept_back_or_buried_stops_everything_behind_it() {
        let mut pending = three();
        pending.hold_newest();
        assert_eq!(pending.settle(2, true), Some(20));
        assert_eq!(pending.settle(NOTHING_KEPT, true), Some(30));
        pending.release_all();
        let (receipt, shares) = Receipt::new(1, false, Arc::default());
        pending.buried(3, receipt);
        assert_eq!(pending.settle(NOTHING_KEPT, true), None);
        shares.into_iter().for_each(crate::channel::ReceiptShare::settle);
        assert_eq!(pending.settle(NOTHING_KEPT, true), Some(40));
    }

    #[test]
    fn a_delivery_that_carries_older_events_is_settled_with_them() {
        let mut pending = three();
        pending.push(Pending::new(4, 40, 50), 2);
        assert_eq!(pending.0.len(), 2);
        assert_eq!(pending.settle(NOTHING_KEPT, false), Some(20));
        assert_eq!(pending.settle(NOTHING_KEPT, true), Some(50));
    }

    #[tokio::test]
    async fn a_delivery_that_the_broker_has_not_taken_is_never_settled() {
        let mut pending = three();
        let lost = ProducerLost { failure: crate::plugin::Failure::Fatal("gone".into()) };
        pending.0[1].landings.push_back(Box::pin(std::future::ready(Err(lost))));
        assert!(matches!(pending.landed().await, (2, Err(_))));
        assert_eq!(pending.settle(NOTHING_KEPT, true), Some(20));
        assert_eq!(pending.settle(NOTHING_KEPT, true), None);
    }
}
