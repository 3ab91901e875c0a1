//! Cuts on their way: the open one, and those that are closed and not committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::channel::{Amount, CutClock, ReceiptShare};
use crate::position::Part;

/// When a cut is closed.
#[derive(Debug, Clone, Copy)]
pub struct TransactionLimits {
    pub max_events: u64,
    pub max_bytes: u64,
    /// From its first put.
    pub interval: Duration,
}

/// The parts of sources' positions, by source.
pub(super) type Positions = BTreeMap<Arc<str>, Vec<Part>>;

/// One cut: what goes into one transaction.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) number: u64,
    pub(super) amount: Amount,
    /// When the first put came.
    pub(super) opened: Option<Instant>,
    /// The parts of each source's position that changed, as they stand after the cut.
    pub(super) positions: Positions,
    /// Settled when the cut is committed.
    shares: Vec<ReceiptShare>,
}

impl Cut {
    fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(super) fn settle(self) {
        self.shares.into_iter().for_each(ReceiptShare::settle);
    }
}

/// All cuts that are not committed.
#[derive(Debug)]
pub(super) struct OpenCuts {
    limits: TransactionLimits,
    pub(super) open: Cut,
    /// Oldest first.
    pub(super) closed: VecDeque<Cut>,
}

impl OpenCuts {
    pub(super) fn new(limits: TransactionLimits) -> Self {
        Self { limits, open: Cut::new(1), closed: VecDeque::new() }
    }

    /// Adds a put to the open cut. True when it is its first.
    pub(super) fn add(
        &mut self,
        source: &Arc<str>,
        parts: &[Part],
        amount: Amount,
        share: Option<ReceiptShare>,
    ) -> bool {
        let first = self.add_amount(amount);
        let cut = &mut self.open;
        cut.shares.extend(share);
        if !parts.is_empty() {
            let changed = cut.positions.entry(source.clone()).or_default();
            for part in parts {
                match changed.iter_mut().find(|known| known.key == part.key) {
                    Some(known) => *known = part.clone(),
                    None => changed.push(part.clone()),
                }
            }
        }
        first
    }

    /// Adds so much to the open cut. True when it is its first.
    pub(super) fn add_amount(&mut self, amount: Amount) -> bool {
        let cut = &mut self.open;
        cut.amount += amount;
        let first = cut.opened.is_none();
        cut.opened.get_or_insert_with(Instant::now);
        first
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.amount.events >= self.limits.max_events || self.open.amount.bytes >= self.limits.max_bytes
    }

    /// When the open cut is to be closed: at its age, but not while an earlier one is not committed, since it could not follow.
    pub(super) fn due(&self) -> Option<Instant> {
        self.open.opened.filter(|_| self.closed.is_empty()).map(|opened| opened + self.limits.interval)
    }

    pub(super) fn close(&mut self, clock: &CutClock) {
        clock.close();
        let next = Cut::new(clock.open());
        self.closed.push_back(std::mem::replace(&mut self.open, next));
    }

    /// Since when something is on its way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.closed.front().unwrap_or(&self.open).opened
    }

    /// Throws all of them away; what comes belongs to a new one.
    pub(super) fn void(&mut self, clock: &CutClock) {
        self.closed.clear();
        clock.set_done(clock.open());
        clock.close();
        self.open = Cut::new(clock.open());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransactionLimits =
        TransactionLimits { max_events: 10, max_bytes: 100, interval: Duration::from_millis(50) };

    fn part(key: &'static str, value: &'static str) -> Part {
        Part { key: key.into(), value: Some(value.into()) }
    }

    fn events(events: u64) -> Amount {
        Amount { events, bytes: events }
    }

    #[tokio::test]
    async fn a_cut_has_the_newest_value_of_each_part() {
        let mut cuts = OpenCuts::new(LIMITS);
        let source: Arc<str> = "logs".into();
        assert!(cuts.add(&source, &[part("a", "1"), part("b", "1")], events(1), None));
        assert!(!cuts.add(&source, &[part("a", "2")], events(1), None));
        assert_eq!(cuts.open.positions[&source], [part("a", "2"), part("b", "1")]);
        assert_eq!(cuts.open.amount, events(2));
    }

    #[tokio::test]
    async fn a_cut_is_full_at_its_limits_and_due_at_its_age_once_it_can_follow() {
        let (mut cuts, clock) = (OpenCuts::new(LIMITS), CutClock::default());
        assert_eq!(cuts.due(), None);
        cuts.add(&"logs".into(), &[], events(9), None);
        assert!(!cuts.is_full() && cuts.due().is_some());
        cuts.add(&"logs".into(), &[], events(1), None);
        assert!(cuts.is_full());
        cuts.close(&clock);
        assert_eq!((cuts.open.number, clock.open(), cuts.closed.len()), (2, 2, 1));
        cuts.add(&"logs".into(), &[], events(1), None);
        assert_eq!(cuts.due(), None);
        cuts.void(&clock);
        assert_eq!((cuts.open.number, clock.done(), cuts.closed.len()), (3, 2, 0));
    }
}
