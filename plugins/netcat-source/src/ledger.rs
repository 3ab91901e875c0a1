//! Which client is owed how many answers for which batch.

use std::collections::VecDeque;

pub type ClientId = u64;

/// How many events of one batch came from one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub client: ClientId,
    pub events: usize,
}

/// The batches that were brought and are not settled, oldest first.
///
/// Limit: one entry for each client of each batch in the channel, so the channel's capacity bounds it.
#[derive(Debug, Default)]
pub struct Ledger {
    unsettled: VecDeque<Vec<Share>>,
    settled: u64,
}

impl Ledger {
    /// The next batch was brought, made of these shares.
    pub fn brought(&mut self, shares: Vec<Share>) {
        self.unsettled.push_back(shares);
    }

    /// The first `batches` batches are settled: the shares that were not settled before, in order.
    pub fn settle(&mut self, batches: u64) -> impl Iterator<Item = Share> + '_ {
        let new = batches.saturating_sub(self.settled).min(self.unsettled.len() as u64);
        self.settled += new;
        self.unsettled.drain(..new as usize).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(client: ClientId, events: usize) -> Share {
        Share { client, events }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.brought(vec![share(1, 2), share(2, 1)]);
        ledger.brought(vec![share(2, 5)]);
        ledger.brought(vec![share(1, 1)]);
        ledger
    }

    #[test]
    fn each_batch_is_answered_once_to_the_clients_it_came_from() {
        let mut ledger = ledger();
        assert_eq!(ledger.settle(1).collect::<Vec<_>>(), [share(1, 2), share(2, 1)]);
        assert_eq!(ledger.settle(1).count(), 0);
        assert_eq!(ledger.settle(2).collect::<Vec<_>>(), [share(2, 5)]);
    }

    #[test]
    fn an_ack_covers_all_earlier_batches() {
        assert_eq!(ledger().settle(3).collect::<Vec<_>>(), [share(1, 2), share(2, 1), share(2, 5), share(1, 1)]);
    }

    #[test]
    fn an_ack_beyond_what_was_brought_settles_no_later_batch() {
        let mut ledger = ledger();
        assert_eq!(ledger.settle(9).count(), 4);
        ledger.brought(vec![share(7, 1)]);
        assert_eq!(ledger.settle(3).count(), 0);
        assert_eq!(ledger.settle(4).collect::<Vec<_>>(), [share(7, 1)]);
    }
}
