//! Cuts: how what flows through the channels of a pipeline is divided among its transactions.
//!
//! Every put of every source belongs to the cut that is open when it is committed, in all its channels at once. Cuts are numbered
//! and done one after another; `transaction` says when one is closed and when it is done.
//!
//! A reader of a file channel has cuts of its own, made of what it takes.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::Amount;

/// Where the events of cuts are until their transaction is committed.
pub trait CutLog: Send + Sync {
    /// Whether every reader has settled all of this cut and of those before it.
    fn is_settled(&self, cut: u64) -> bool;
    /// A cut is done: its events go.
    fn commit(&self, cut: u64);
    /// All that is not committed comes again. Nobody may be putting or taking.
    fn void(&self);
    /// A cut has been closed: readers that have taken all of it hear of its end.
    fn wake_readers(&self);
}

/// Who divides what a reader takes into cuts.
pub trait Cutter: std::fmt::Debug + Send + Sync {
    /// Counts a take as part of this cut, and calls `note` before anybody can close it. False: it has been closed meanwhile.
    fn take(&self, cut: u64, amount: Amount, note: &mut dyn FnMut()) -> bool;
    /// Asks for the open cut to be committed soon.
    fn hurry(&self);
}

/// Which cut is open, and up to which all are done. Moved by the pipeline's transactions, read by its channels.
///
/// Invariant: done < open.
#[derive(Debug)]
pub struct CutClock {
    open: AtomicU64,
    done: AtomicU64,
    /// Woken when a reader has delivered something.
    pub delivered: Notify,
}

impl Default for CutClock {
    fn default() -> Self {
        Self { open: AtomicU64::new(1), done: AtomicU64::new(0), delivered: Notify::new() }
    }
}

impl CutClock {
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Closes the open cut and opens the next.
    pub fn close(&self) {
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    /// All cuts up to this one are done.
    pub fn set_done(&self, cut: u64) {
        self.done.store(cut, Ordering::Release);
    }
}

/// How far ahead of what is done a channel's readers may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkAhead {
    /// On the next cut while one is being committed.
    NextCut,
    /// Not at all: sinks put dead letters of the cut that is not done yet in front of whatever is of later ones.
    None,
}

impl WorkAhead {
    pub(super) fn cuts(self) -> u64 {
        match self {
            Self::NextCut => 2,
            Self::None => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::{Capacity, MemoryChannel, MemoryReader, TakeLimits};
    use super::*;
    use crate::event::{Batch, Event};

    const CAPACITY: Capacity = Capacity { events: 4, bytes: 1000 };

    fn channel(ahead: WorkAhead) -> (Arc<CutClock>, Arc<MemoryChannel>) {
        let clock = Arc::<CutClock>::default();
        (clock.clone(), MemoryChannel::in_cuts("events", 0, CAPACITY, clock, ahead))
    }

    fn batch(bodies: &[&str]) -> Batch {
        let event = |body: &&str| Event { headers: Vec::new(), body: (*body).into() };
        Batch::from_events(&bodies.iter().map(event).collect::<Vec<_>>())
    }

    fn put(channel: &Arc<MemoryChannel>, bodies: &[&str]) {
        channel.try_begin_put(batch(bodies)).expect("there is room").commit("source", None);
    }

    /// What a take brings now: nothing where it would wait, no bodies for the end of a cut.
    async fn take(reader: &mut MemoryReader) -> Option<Vec<String>> {
        let limits = TakeLimits { events: 10, bytes: 1000, wait: Duration::ZERO };
        let taken = tokio::time::timeout(Duration::ZERO, reader.take(&limits)).await.ok()??;
        Some(taken.batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into()).collect())
    }

    fn bodies(bodies: &[&str]) -> Option<Vec<String>> {
        Some(bodies.iter().map(|body| (*body).into()).collect())
    }

    #[tokio::test]
    async fn a_take_keeps_to_one_cut_tells_its_end_and_goes_one_ahead_at_most() {
        let (clock, channel) = channel(WorkAhead::NextCut);
        channel.add_writer();
        let mut reader = channel.reader("r");
        put(&channel, &["a", "b"]);
        assert_eq!(take(&mut reader).await, bodies(&["a", "b"]));
        assert_eq!(reader.cut(), 1);
        assert_eq!(take(&mut reader).await, None, "the cut is open: more of it may come");
        clock.close();
        put(&channel, &["c"]);
        clock.close();
        put(&channel, &["d"]);
        assert_eq!(take(&mut reader).await, bodies(&[]), "the end of cut 1");
        assert_eq!(take(&mut reader).await, bodies(&["c"]));
        assert_eq!(take(&mut reader).await, bodies(&[]), "the end of cut 2");
        assert_eq!(take(&mut reader).await, None, "cut 1 is not done, so cut 3 has to wait");
        reader.settle(2);
        assert!(channel.is_settled(1) && !channel.is_settled(2));
        clock.set_done(1);
        channel.commit(1);
        assert_eq!(take(&mut reader).await, bodies(&["d"]));
    }

    #[tokio::test]
    async fn room_comes_with_the_commit_and_not_with_the_settlement() {
        let (clock, channel) = channel(WorkAhead::NextCut);
        let mut reader = channel.reader("r");
        put(&channel, &["a", "b", "c", "d"]);
        take(&mut reader).await;
        reader.settle(4);
        assert!(channel.try_begin_put(batch(&["e"])).is_err());
        clock.close();
        clock.set_done(1);
        channel.commit(1);
        assert!(channel.try_begin_put(batch(&["e"])).is_ok());
    }

    #[tokio::test]
    async fn dead_letters_go_in_front_of_later_cuts_and_need_no_room() {
        let (clock, channel) = channel(WorkAhead::None);
        channel.add_writer();
        let mut reader = channel.reader("r");
        put(&channel, &["a"]);
        clock.close();
        put(&channel, &["x", "y", "z"]);
        assert_eq!(take(&mut reader).await, bodies(&["a"]));
        channel.put_letters(batch(&["b"]), 1);
        assert_eq!(take(&mut reader).await, bodies(&["b"]));
        assert_eq!(take(&mut reader).await, bodies(&[]), "the end of cut 1, as far as it is there");
        channel.put_letters(batch(&["c"]), 1);
        assert!(!channel.is_settled(1));
        assert_eq!(take(&mut reader).await, bodies(&["c"]));
        assert_eq!(take(&mut reader).await, bodies(&[]), "its end once more");
        reader.settle(3);
        assert!(channel.is_settled(1));
        assert_eq!(take(&mut reader).await, None);
        clock.set_done(1);
        channel.commit(1);
        assert_eq!(take(&mut reader).await, bodies(&["x", "y", "z"]));
    }

    #[tokio::test]
    async fn what_comes_to_nothing_is_gone_and_its_room_is_free() {
        let (clock, channel) = channel(WorkAhead::NextCut);
        channel.add_writer();
        let mut reader = channel.reader("r");
        put(&channel, &["a", "b", "c", "d"]);
        take(&mut reader).await;
        channel.void();
        clock.set_done(clock.open());
        clock.close();
        // A source may be quicker than this reader to begin anew.
        put(&channel, &["e", "f", "g", "h"]);
        reader.restart();
        assert_eq!(take(&mut reader).await, bodies(&["e", "f", "g", "h"]));
        assert!(!channel.is_settled(2));
        reader.settle(reader.taken_up_to());
        assert!(channel.is_settled(2));
    }
}
