//! Channels: ordered logs with a cursor for each reader, and the transactions on them.
//!
//! Every channel keeps the same promises, proven by one suite (`contract.rs`):
//!
//! - A put is all or nothing: readers see its events after [`commit_puts`], and a put that is dropped before that
//!   leaves no trace. A put into several channels reserves its room in all of them first, always in the order of the
//!   channels' numbers, so that two sources cannot wait for each other.
//! - Every reader gets every event, in order. What a reader has taken but not settled comes again after a rollback.
//! - A full channel lets puts wait, first come, first served; it never drops.
//! - A put's [`Receipt`] is settled once its events are safe: in a file channel when they are on disk, in a memory channel when
//!   every reader has settled all of them. That is what a source is acked for.

#[cfg(test)]
mod contract;
mod cut;
pub mod file;
mod memory;
mod receipt;
mod room;
mod shared;
mod take;

pub use cut::{CutClock, CutLog, Cutter, WorkAhead};
pub use file::{FileChannel, FilePut, FileReader, ReaderCuts};
pub use memory::{MemoryChannel, MemoryPut, MemoryReader};
pub use receipt::{Receipt, ReceiptShare};
pub use room::{Amount, Capacity, Pressure};
use shared::SharedReader;
pub use take::{TakeLimits, Taken};

use std::sync::Arc;

use crate::config::pipeline::Start;
use crate::event::Batch;
use crate::metrics::ChannelCounts;
use crate::position::Part;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Back off and try again: room appears as readers settle events.
    #[error("channel `{channel}` is full ({held} of {capacity} events)")]
    Full { channel: Arc<str>, held: u64, capacity: u64 },
    /// Give up: a reader of this channel has stopped for good, so nothing put here would ever be settled.
    #[error("channel `{channel}` has lost a reader: {reason}")]
    Failed { channel: Arc<str>, reason: Arc<str> },
    /// Stop: its log may no longer survive a crash. What is not acked comes again after the next start.
    #[error("{detail}")]
    Broken { channel: Arc<str>, detail: Arc<str> },
    /// Stop: no channel of this kind ever takes a put that large.
    #[error("{detail}")]
    TooLarge { channel: Arc<str>, detail: Arc<str> },
    /// Stop: events that were acked cannot be read.
    #[error("{detail}")]
    Unreadable { channel: Arc<str>, detail: Arc<str> },
}

impl ChannelError {
    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Full { .. } | Self::Failed { .. } => None,
            Self::Broken { .. } => Some(
                "see to the disk and start again: what is on it then counts, and sources bring the rest again".into(),
            ),
            Self::TooLarge { .. } => Some("make `batch_events` or `batch_bytes` of the source smaller".into()),
            Self::Unreadable { channel, .. } => Some(format!(
                "`wasmflow channel verify FILE {channel}` lists what is damaged, `wasmflow channel export FILE {channel}` \
                 saves what is not; then go on behind it with `on_corruption = \"skip\"` in [channels.{channel}], or with \
                 `wasmflow channel seek FILE {channel} SINK --to SEQUENCE`"
            )),
        }
    }

    /// Whether the channel itself is at fault, and not somebody who reads it.
    pub fn is_own_fault(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::TooLarge { .. } | Self::Unreadable { .. })
    }
}

/// A channel of the pipeline, whatever keeps its events. A clone is the same channel.
#[derive(Debug, Clone)]
pub enum Channel {
    Memory(Arc<MemoryChannel>),
    File(Arc<FileChannel>),
}

impl Channel {
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Memory(channel) => channel.name(),
            Self::File(channel) => channel.name(),
        }
    }

    /// The channel's place in the pipeline: puts into several channels reserve in this order.
    pub fn number(&self) -> usize {
        match self {
            Self::Memory(channel) => channel.number(),
            Self::File(channel) => channel.number(),
        }
    }

    /// Events and bytes put and not yet settled by every reader, or reserved for an open put.
    pub fn held(&self) -> Amount {
        match self {
            Self::Memory(channel) => channel.room().held(),
            Self::File(channel) => channel.room().held(),
        }
    }

    /// What it holds and has done.
    pub fn counts(&self) -> ChannelCounts {
        match self {
            Self::Memory(channel) => channel.counts(),
            Self::File(channel) => channel.counts(),
        }
    }

    /// Why nothing more is put.
    pub fn failure(&self) -> Option<ChannelError> {
        match self {
            Self::Memory(channel) => channel.room().failure(),
            Self::File(channel) => channel.room().failure(),
        }
    }

    /// Opens a put and waits for its room. A put larger than the whole channel is let in once the channel is empty.
    ///
    /// Cancel: dropping the future gives up the place in the queue; nothing was put.
    ///
    /// # Errors
    /// When the channel has failed: the room would never come.
    pub async fn begin_put(&self, batch: Batch) -> Result<PutTransaction, ChannelError> {
        match self {
            Self::Memory(channel) => channel.begin_put(batch).await.map(PutTransaction::Memory),
            Self::File(channel) => channel.begin_put(batch).await.map(PutTransaction::File),
        }
    }

    /// Opens a put if there is room for it now.
    ///
    /// # Errors
    /// When the channel is full, or has failed.
    pub fn try_begin_put(&self, batch: Batch) -> Result<PutTransaction, ChannelError> {
        match self {
            Self::Memory(channel) => channel.try_begin_put(batch).map(PutTransaction::Memory),
            Self::File(channel) => channel.try_begin_put(batch).map(PutTransaction::File),
        }
    }

    /// Whether a put is safe once it is on disk, and not only when all readers have settled it.
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Names the log for whoever gets events of it: with an event's sequence number it names the event. A memory channel is
    /// a new log at each start.
    pub fn log_name(&self) -> Arc<str> {
        match self {
            Self::Memory(channel) => channel.log_name().clone(),
            Self::File(channel) => format!("{}-{}", channel.name(), channel.id()).into(),
        }
    }

    /// The reader of this name, at its cursor. In a memory channel one that is not known starts at the next event put.
    ///
    /// # Errors
    /// When a file channel has no such reader, or it is open: its readers are named when it is opened, or added.
    pub fn reader(&self, name: &str) -> Result<Reader, ChannelError> {
        match self {
            Self::Memory(channel) => Ok(Reader::Memory(channel.reader(name))),
            Self::File(channel) => channel.reader(name).map(|reader| Reader::File(Box::new(reader))),
        }
    }

    /// Sequence number behind the last event that a reader can take now.
    pub fn end(&self) -> u64 {
        match self {
            Self::Memory(channel) => channel.next(),
            Self::File(channel) => channel.end(),
        }
    }

    /// Makes a reader that is to be opened later, and answers where it stands: in a memory channel at the next event put. One that
    /// is there stays where it is. It writes to disk where the channel does.
    ///
    /// # Errors
    /// When its cursor cannot be written to disk.
    pub fn add_reader(&self, name: &str, start: Start) -> Result<u64, ChannelError> {
        match self {
            Self::Memory(channel) => Ok(channel.reader(name).taken_up_to()),
            Self::File(channel) => channel.add_reader(name, start),
        }
    }

    /// Lets the log end for one reader at `until`, or where it has taken up to if that is further: whoever reads settles what it
    /// has taken, and leaves. It can be opened again.
    pub fn stop_reader(&self, name: &str, until: u64) {
        match self {
            Self::Memory(channel) => channel.stop_reader(name, until),
            Self::File(channel) => channel.stop_reader(name, until),
        }
    }

    /// Forgets a reader that is not open: its events are held no longer. How many it gives up.
    ///
    /// # Errors
    /// When its cursor on disk cannot be changed.
    pub fn remove_reader(&self, name: &str) -> Result<u64, ChannelError> {
        match self {
            Self::Memory(channel) => Ok(channel.remove_reader(name)),
            Self::File(channel) => channel.remove_reader(name),
        }
    }

    /// Where a reader's cursor stands; nothing when there is no such reader.
    pub fn settled_by(&self, name: &str) -> Option<u64> {
        match self {
            Self::Memory(channel) => channel.settled_by(name),
            Self::File(channel) => channel.settled_by(name),
        }
    }

    /// Changes how much it holds before puts wait.
    pub fn set_capacity(&self, capacity: Capacity) {
        match self {
            Self::Memory(channel) => channel.room().set_capacity(capacity),
            Self::File(channel) => channel.room().set_capacity(capacity),
        }
    }

    /// Announces somebody who puts. The log ends for its readers when every writer is gone.
    pub fn writer(&self) -> Writer {
        match self {
            Self::Memory(channel) => channel.add_writer(),
            Self::File(channel) => channel.add_writer(),
        }
        Writer(self.clone())
    }

    /// Puts dead letters into a cut that is not done yet, in front of all later ones. Only in a pipeline with transactions.
    pub fn put_letters(&self, letters: Batch, cut: u64) {
        match self {
            Self::Memory(channel) => channel.put_letters(letters, cut),
            Self::File(channel) => panic!("{channel:?} is part of a transaction of memory channels"),
        }
    }

    /// Marks the channel as failed: a reader has stopped for good, so waiting puts are refused from now on.
    pub fn fail(&self, reason: impl Into<Arc<str>>) {
        let error = ChannelError::Failed { channel: self.name().clone(), reason: reason.into() };
        match self {
            Self::Memory(channel) => channel.room().fail(error),
            Self::File(channel) => channel.room().fail(error),
        }
    }
}

/// A batch on its way into a channel, with its room reserved.
///
/// Nobody sees the events before [`commit_puts`], and then all of them or none. Dropping an uncommitted transaction
/// rolls it back, so an early return, a trap or a panic leaves the channel as it was.
#[derive(Debug)]
#[must_use = "an uncommitted transaction is rolled back"]
pub enum PutTransaction {
    Memory(MemoryPut),
    File(FilePut),
}

impl PutTransaction {
    pub fn channel(&self) -> Channel {
        match self {
            Self::Memory(put) => Channel::Memory(put.channel().clone()),
            Self::File(put) => Channel::File(put.channel().clone()),
        }
    }

    pub fn rollback(self) {}

    /// Commits into a channel whose pipeline counts the puts in transactions of its own.
    ///
    /// # Panics
    /// When the channel is on disk: those are never part of such a pipeline.
    pub fn commit_in_transaction(self, source: &str) {
        match self {
            Self::Memory(put) => put.commit(source, None),
            Self::File(put) => panic!("{:?} is part of a transaction of memory channels", put.channel()),
        }
    }
}

/// What is put with the events.
#[derive(Debug, Clone, Copy)]
pub struct PutNote<'n> {
    /// Who puts. Puts of one name come one after the other.
    pub source: &'n str,
    /// How the source's position moves, in every file channel of the put.
    pub parts: &'n [Part],
    /// Whether these are all parts there are, and not only those that changed.
    pub is_whole: bool,
}

impl<'n> PutNote<'n> {
    /// A put that moves no position.
    pub fn of(source: &'n str) -> Self {
        Self { source, parts: &[], is_whole: false }
    }
}

/// Reserves room for `batches` in their channels and returns the open transactions: all of them or none.
///
/// Cancel: dropping the future gives every reservation back.
///
/// # Errors
/// When one of the channels has failed.
pub async fn begin_puts(mut batches: Vec<(Channel, Batch)>) -> Result<Vec<PutTransaction>, ChannelError> {
    // One order for everybody: a put that holds room in one channel waits only for channels behind it.
    batches.sort_by_key(|(channel, _)| channel.number());
    let mut puts = Vec::with_capacity(batches.len());
    for (channel, batch) in batches {
        puts.push(channel.begin_put(batch).await?);
    }
    Ok(puts)
}

/// Commits `puts` as one, by value: no second commit, no late put. The receipt is settled when the events are safe in all the
/// channels. `owner` is woken then, and when they are durable in the file channels among them.
///
/// Every file channel of a source takes part in each of its puts, if need be with an empty batch: so each has all of the
/// source's position.
///
/// # Errors
/// When a log takes nothing any more: nothing was put then.
pub fn commit_puts(
    puts: Vec<PutTransaction>,
    note: PutNote<'_>,
    owner: &Arc<tokio::sync::Notify>,
) -> Result<Receipt, ChannelError> {
    let (mut memory, mut file) = (Vec::with_capacity(puts.len()), Vec::new());
    for put in puts {
        match put {
            PutTransaction::Memory(put) => memory.push(put),
            PutTransaction::File(put) => file.push(put),
        }
    }
    let (receipt, shares) = Receipt::new(memory.len(), !file.is_empty(), owner.clone());
    let mut shares = shares.into_iter();
    if !file.is_empty() {
        file::commit(file, note, shares.next().expect("there is one for the disk"))?;
    }
    for (put, share) in memory.into_iter().zip(shares) {
        put.commit(note.source, Some(share));
    }
    Ok(receipt)
}

/// One cursor on a channel. Taking moves ahead of it; settling moves it.
#[derive(Debug)]
pub enum Reader {
    Memory(MemoryReader),
    File(Box<FileReader>),
    Shared(SharedReader),
}

impl Reader {
    pub fn channel(&self) -> Channel {
        match self {
            Self::Memory(reader) => Channel::Memory(reader.channel().clone()),
            Self::File(reader) => Channel::File(reader.channel().clone()),
            Self::Shared(reader) => reader.channel().clone(),
        }
    }

    /// One for each of so many workers, who share the cursor; none of them can take part in transactions.
    pub fn shared_by(self, workers: u32) -> Vec<Self> {
        match workers {
            1 => vec![self],
            _ => SharedReader::of(self, workers).into_iter().map(Self::Shared).collect(),
        }
    }

    /// Takes the next events, waiting for the first of them. Nothing: the log has ended, and all of it has been taken.
    ///
    /// Cancel: dropping the future takes nothing.
    ///
    /// # Errors
    /// When the channel can give no more: what it keeps cannot be read, or it has stopped writing.
    pub async fn take(&mut self, limits: &TakeLimits) -> Result<Option<Taken>, ChannelError> {
        match self {
            Self::Memory(reader) => Ok(reader.take(limits).await),
            Self::File(reader) => reader.take(limits).await,
            Self::Shared(reader) => Box::pin(reader.take(limits)).await,
        }
    }

    /// Tells when puts have to wait for room.
    pub fn pressure(&self) -> Pressure {
        match self {
            Self::Memory(reader) => reader.pressure(),
            Self::File(reader) => reader.channel().room().pressure(),
            Self::Shared(reader) => reader.pressure(),
        }
    }

    /// Waits until the log has ended and all of it has been taken.
    pub async fn ended(&self) {
        match self {
            Self::Memory(reader) => reader.ended().await,
            Self::File(reader) => reader.ended().await,
            Self::Shared(reader) => Box::pin(reader.ended()).await,
        }
    }

    /// Sequence number of the next event to be taken.
    pub fn taken_up_to(&self) -> u64 {
        match self {
            Self::Memory(reader) => reader.taken_up_to(),
            Self::File(reader) => reader.taken_up_to(),
            Self::Shared(reader) => reader.taken_up_to(),
        }
    }

    /// Whether everything put so far has been taken.
    pub fn is_at_end(&self) -> bool {
        match self {
            Self::Memory(reader) => reader.is_at_end(),
            Self::File(reader) => reader.is_at_end(),
            Self::Shared(reader) => reader.is_at_end(),
        }
    }

    /// Commits everything before `next`: it will not come again, and its room is free once every reader has passed.
    pub fn settle(&mut self, next: u64) {
        match self {
            Self::Memory(reader) => reader.settle(next),
            Self::File(reader) => reader.settle(next),
            Self::Shared(reader) => reader.settle(next),
        }
    }

    /// The cut of what was taken last; 0 where there are none. In a pipeline with transactions a take that brings no event says that
    /// all of this cut has been taken: what is kept back of it must be let go of.
    pub fn cut(&self) -> u64 {
        match self {
            Self::Memory(reader) => reader.cut(),
            Self::File(reader) => reader.cut(),
            Self::Shared(_) => 0,
        }
    }

    /// Waits until nobody puts any more; at a file channel with transactions, until all that was put is committed besides.
    pub async fn closed(&self) {
        match self {
            Self::Memory(reader) => reader.closed().await,
            Self::File(reader) => reader.closed().await,
            Self::Shared(_) => std::future::pending().await,
        }
    }

    /// Goes on after a transaction that came to nothing: behind all that was put, or at a file channel behind all that is
    /// committed.
    pub fn restart(&mut self) {
        match self {
            Self::Memory(reader) => reader.restart(),
            Self::File(reader) => reader.restart(),
            Self::Shared(_) => {}
        }
    }

    /// Goes on at `next`, if that is further: another reader has settled what is before it in this one's stead.
    pub fn skip_to(&mut self, next: u64) {
        match self {
            Self::Memory(reader) => reader.skip_to(next),
            Self::File(reader) => reader.skip_to(next),
            Self::Shared(_) => {}
        }
    }

    /// Everything taken and not settled comes again, in order.
    pub fn rollback(&mut self) {
        match self {
            Self::Memory(reader) => reader.rollback(),
            Self::File(reader) => reader.rollback(),
            Self::Shared(reader) => reader.rollback(),
        }
    }
}

/// Somebody who puts into a channel; the log ends when the last one is dropped.
#[derive(Debug)]
pub struct Writer(Channel);

impl Writer {
    pub fn channel(&self) -> &Channel {
        &self.0
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match &self.0 {
            Channel::Memory(channel) => channel.remove_writer(),
            Channel::File(channel) => channel.remove_writer(),
        }
    }
}
