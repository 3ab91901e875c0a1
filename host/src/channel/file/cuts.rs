//! A reader of a file channel with transactions of its own: what it takes is divided into cuts, and its cursor moves when a cut is
//! committed.
//!
//! The channel still has whatever a transaction that comes to nothing had, so the reader only goes back to what is committed. What
//! that is, Kafka says when a round of transactions begins; the cursor may lag behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmflow_log::Cursor;

use super::{FileChannel, Signal};
use crate::channel::cut::{CutClock, CutLog, Cutter, WorkAhead};
use crate::channel::{Amount, Taken};

/// The cuts of one reader, for whoever commits them.
///
/// Invariant: cursor <= committed <= settled <= taken.
pub struct ReaderCuts {
    channel: Arc<FileChannel>,
    cursor: Cursor,
    clock: Arc<CutClock>,
    signal: Arc<Signal>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of each cut that is not committed, the sequence number behind its last event.
    ends: BTreeMap<u64, u64>,
    settled: u64,
    committed: u64,
}

impl std::fmt::Debug for ReaderCuts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuts of reader `{}` of {:?}: {:?}", self.cursor.reader(), self.channel, self.state.lock())
    }
}

impl ReaderCuts {
    pub(super) fn new(
        channel: Arc<FileChannel>,
        cursor: Cursor,
        clock: Arc<CutClock>,
        signal: Arc<Signal>,
    ) -> Arc<Self> {
        let settled = cursor.settled();
        let state = Mutex::new(State { ends: BTreeMap::new(), settled, committed: settled });
        Arc::new(Self { channel, cursor, clock, signal, state })
    }

    /// What is committed, where Kafka has a word on it. Said before a round begins.
    pub fn go_on_from(&self, next: u64) {
        let mut state = self.state.lock();
        // Where the cursor is ahead, the pipeline has run without transactions in between.
        state.committed = state.committed.max(next);
        state.settled = state.settled.max(state.committed);
    }

    /// Later commits are counted in this epoch.
    pub fn raise_epoch(&self, epoch: u64) {
        self.cursor.raise_epoch(epoch);
    }

    /// Sequence number behind the last event of this cut and of those before it.
    pub fn end(&self, cut: u64) -> Option<u64> {
        self.state.lock().ends.range(..=cut).next_back().map(|(_, end)| *end)
    }
}

impl CutLog for ReaderCuts {
    fn is_settled(&self, cut: u64) -> bool {
        let state = self.state.lock();
        state.ends.range(..=cut).next_back().is_none_or(|(_, end)| state.settled >= *end)
    }

    fn commit(&self, cut: u64) {
        let committed = {
            let mut state = self.state.lock();
            let later = state.ends.split_off(&(cut + 1));
            let done = std::mem::replace(&mut state.ends, later);
            let end = done.last_key_value().map_or(state.committed, |(_, end)| *end);
            assert!(
                end <= state.settled,
                "cut {cut} of {:?} ends at {end}, behind {}",
                self.cursor.reader(),
                state.settled
            );
            state.committed = end;
            end
        };
        self.cursor.settle(committed);
        self.channel.passing(self.cursor.reader(), committed).lock().settle(committed);
        self.channel.count_held();
        self.signal.arrived.notify_one();
    }

    fn void(&self) {
        let mut state = self.state.lock();
        state.ends.clear();
        state.settled = state.committed;
    }

    fn wake_readers(&self) {
        self.signal.arrived.notify_one();
    }
}

/// The reader's side of its cuts.
pub(super) struct InCuts {
    cuts: Arc<ReaderCuts>,
    cutter: Arc<dyn Cutter>,
    /// Of what was taken last, as long as the end of its cut has not been told.
    cut: Option<u64>,
}

impl InCuts {
    pub(super) fn new(cuts: Arc<ReaderCuts>, cutter: Arc<dyn Cutter>) -> Self {
        Self { cuts, cutter, cut: None }
    }

    pub(super) fn cut(&self) -> u64 {
        self.cut.unwrap_or_default()
    }

    /// True once for each cut that has been closed.
    pub(super) fn told_end(&mut self) -> bool {
        self.cut.take_if(|cut| *cut < self.cuts.clock.open()).is_some()
    }

    /// Not more than a cut ahead of the one that is being committed.
    pub(super) fn may_take(&self) -> bool {
        self.cuts.clock.open() <= self.cuts.clock.done() + WorkAhead::NextCut.cuts()
    }

    /// Counts what is to be taken. False: the cut has been closed meanwhile, and its end is to be told first.
    pub(super) fn count(&mut self, taken: &Taken) -> bool {
        let open = self.cuts.clock.open();
        if self.cut.is_some_and(|cut| cut != open) {
            return false;
        }
        let mut note = || _ = self.cuts.state.lock().ends.insert(open, taken.next);
        let counted = self.cutter.take(open, Amount::of(&taken.batch), &mut note);
        if counted {
            self.cut = Some(open);
        }
        counted
    }

    pub(super) fn settle(&self, next: u64) {
        self.cuts.state.lock().settled = next;
        self.cuts.clock.delivered.notify_one();
    }

    pub(super) fn is_committed(&self, next: u64) -> bool {
        self.cuts.state.lock().committed >= next
    }

    pub(super) fn hurry(&self) {
        self.cutter.hurry();
    }

    /// Forgets what was taken and not committed; answers where to go on.
    pub(super) fn restart(&mut self) -> u64 {
        self.cut = None;
        self.cuts.state.lock().committed
    }
}
