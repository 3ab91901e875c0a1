//! Receipts: how whoever put events learns that they are settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Held by whoever put a batch; settled once every channel of the put has had all its events settled by all readers.
#[derive(Debug, Clone)]
pub struct Receipt(Arc<Inner>);

/// Held by one channel for one put. Dropping it without [`settle`](Self::settle) leaves the receipt open for ever, as it must
/// be when a channel goes away with events in it.
#[derive(Debug)]
pub struct ReceiptShare(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open_shares: AtomicUsize,
    owner: Arc<Notify>,
}

impl Receipt {
    /// A receipt in `shares` parts. With none it is settled from the start: a put that filtering has emptied.
    /// `owner` is woken when the last share is settled.
    pub fn new(shares: usize, owner: Arc<Notify>) -> (Self, Vec<ReceiptShare>) {
        let inner = Arc::new(Inner { open_shares: AtomicUsize::new(shares), owner });
        let shares = (0..shares).map(|_| ReceiptShare(inner.clone())).collect();
        (Self(inner), shares)
    }

    pub fn is_settled(&self) -> bool {
        self.0.open_shares.load(Ordering::Acquire) == 0
    }
}

impl ReceiptShare {
    pub fn settle(self) {
        if self.0.open_shares.fetch_sub(1, Ordering::AcqRel) == 1 {
            // One permit is kept when nobody waits yet, so the wake-up cannot be lost.
            self.0.owner.notify_one();
        }
    }
}
