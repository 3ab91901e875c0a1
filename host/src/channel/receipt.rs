//! Receipts: how whoever put events learns that they are safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Held by whoever put a batch.
///
/// Durable once it is on disk in every file channel of the put; settled once, besides, every reader of every memory channel
/// of the put has settled all its events there.
#[derive(Debug, Clone)]
pub struct Receipt(Arc<Inner>);

/// Held by one memory channel for one put, or by all file channels of a put together. Dropping it without
/// [`settle`](Self::settle) leaves the receipt open for ever, as it must be when a channel goes away with events in it.
#[derive(Debug)]
pub struct ReceiptShare {
    receipt: Arc<Inner>,
    is_durable: bool,
}

#[derive(Debug)]
struct Inner {
    /// Of memory channels.
    open_shares: AtomicUsize,
    /// Of the file channels: 0 or 1, since a put is durable in all of them or in none.
    open_durable: AtomicUsize,
    owner: Arc<Notify>,
}

impl Receipt {
    /// A receipt in `memory` shares, and one more, the first, for the disk. With none it is settled from the start: a put that
    /// filtering has emptied. `owner` is woken when the put is durable and when it is settled.
    pub fn new(memory: usize, is_durable: bool, owner: Arc<Notify>) -> (Self, Vec<ReceiptShare>) {
        let (open_shares, open_durable) = (AtomicUsize::new(memory), AtomicUsize::new(usize::from(is_durable)));
        let inner = Arc::new(Inner { open_shares, open_durable, owner });
        let share = |is_durable| ReceiptShare { receipt: inner.clone(), is_durable };
        let shares = is_durable.then(|| share(true)).into_iter().chain((0..memory).map(|_| share(false))).collect();
        (Self(inner), shares)
    }

    pub fn is_durable(&self) -> bool {
        self.0.open_durable.load(Ordering::Acquire) == 0
    }

    pub fn is_settled(&self) -> bool {
        self.is_durable() && self.0.open_shares.load(Ordering::Acquire) == 0
    }
}

impl ReceiptShare {
    pub fn settle(self) {
        let open = if self.is_durable { &self.receipt.open_durable } else { &self.receipt.open_shares };
        if open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // One permit is kept when nobody waits yet, so the wake-up cannot be lost.
            self.receipt.owner.notify_one();
        }
    }
}
