//! Channels: ordered logs with a cursor for each reader, and the transactions on them.
//!
//! Every channel keeps the same promises, proven by one suite (`contract.rs`):
//!
//! - A put is all or nothing: readers see its events once [`PutTransaction::commit`] returns, and a put that is dropped
//!   before that leaves no trace. A put into several channels reserves its room in all of them first, always in the order of
//!   the channels' numbers, so that two sources cannot wait for each other.
//! - Every reader gets every event, in order. What a reader has taken but not settled comes again after a rollback.
//! - A full channel lets puts wait, first come, first served; it never drops.
//! - A put's [`Receipt`] is settled once every reader has settled all of its events: that is what a source is acked for.

#[cfg(test)]
mod contract;
mod memory;
mod receipt;

pub use memory::{Capacity, MemoryChannel, Pressure, PutTransaction, Reader, TakeLimits, Taken, Writer};
pub use receipt::{Receipt, ReceiptShare};

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Back off and try again: room appears as readers settle events.
    #[error("channel `{channel}` is full ({held} of {capacity} events)")]
    Full { channel: Arc<str>, held: usize, capacity: usize },
    /// Give up: a reader of this channel has stopped for good, so nothing put here would ever be settled.
    #[error("channel `{channel}` has lost a reader: {reason}")]
    Failed { channel: Arc<str>, reason: Arc<str> },
}

/// Reserves room for `batches` in their channels and returns the open transactions: all of them or none.
///
/// Cancel: dropping the future gives every reservation back.
///
/// # Errors
/// When one of the channels has failed.
pub async fn begin_puts(
    mut batches: Vec<(Arc<MemoryChannel>, crate::event::Batch)>,
) -> Result<Vec<PutTransaction>, ChannelError> {
    // One order for everybody: a put that holds room in one channel waits only for channels behind it.
    batches.sort_by_key(|(channel, _)| channel.number());
    let mut puts = Vec::with_capacity(batches.len());
    for (channel, batch) in batches {
        puts.push(channel.begin_put(batch).await?);
    }
    Ok(puts)
}

/// Commits `puts` as one; the receipt is settled when all readers of all the channels have settled their events.
/// `owner` is woken then.
pub fn commit_puts(puts: Vec<PutTransaction>, owner: &Arc<tokio::sync::Notify>) -> Receipt {
    let (receipt, shares) = Receipt::new(puts.len(), owner.clone());
    for (put, share) in puts.into_iter().zip(shares) {
        put.commit(Some(share));
    }
    receipt
}
