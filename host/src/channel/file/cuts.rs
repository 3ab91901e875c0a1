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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::sync::Notify;
    use wasmflow_log::{ChannelOptions, Disk, LogSet, Start};

    use super::*;
    use crate::channel::file::FileReader;
    use crate::channel::{Capacity, Channel, PutNote, TakeLimits, commit_puts};
    use crate::event::{Batch, Packed};

    /// Closes a cut once it holds so many events.
    #[derive(Debug)]
    struct Full(Arc<CutClock>, u64, Mutex<u64>);

    impl Cutter for Full {
        fn take(&self, cut: u64, amount: Amount, note: &mut dyn FnMut()) -> bool {
            if self.0.open() != cut {
                return false;
            }
            note();
            *self.2.lock() += amount.events;
            if *self.2.lock() >= self.1 {
                *self.2.lock() = 0;
                self.0.close();
            }
            true
        }

        fn hurry(&self) {
            self.0.close();
        }
    }

    struct Fixture {
        clock: Arc<CutClock>,
        channel: Arc<FileChannel>,
        reader: FileReader,
        cuts: Arc<ReaderCuts>,
    }

    /// A channel with one reader whose cuts are of two events.
    fn open(folder: &TempDir) -> Fixture {
        let options = ChannelOptions {
            min_free_bytes: 0,
            readers: vec![("r".into(), Start::Oldest)],
            ..ChannelOptions::new("events")
        };
        let logs = LogSet::open(Arc::new(Disk), folder.path(), "test", vec![options]).expect("the folder is ours").0;
        let channel = FileChannel::new(&Arc::new(logs), "events", 0, Capacity { events: 100, bytes: 1 << 20 });
        let mut reader = channel.reader("r").expect("it was named");
        let clock = Arc::<CutClock>::default();
        let cuts = reader.in_cuts(&clock, Arc::new(Full(clock.clone(), 2, Mutex::new(0))));
        Fixture { clock, channel, reader, cuts }
    }

    impl Fixture {
        async fn put(&self, bodies: &[&str]) {
            let settled = Arc::<Notify>::default();
            let batch = Batch::new(bodies.iter().collect::<Packed>());
            let put = Channel::File(self.channel.clone()).begin_put(batch).await.expect("there is room");
            let receipt = commit_puts(vec![put], PutNote::of("test"), &settled).expect("the log takes it");
            while !receipt.is_durable() {
                settled.notified().await;
            }
        }

        /// What a take of one event brings: no bodies for the end of a cut.
        async fn take(&mut self) -> Vec<String> {
            let limits = TakeLimits { events: 1, bytes: 1000, wait: Duration::ZERO };
            let taken = self.reader.take(&limits).await.expect("it can be read").expect("it has not ended");
            taken.batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into()).collect()
        }

        fn commit(&self, cut: u64) {
            self.clock.set_done(cut);
            self.cuts.commit(cut);
        }
    }

    #[tokio::test]
    async fn a_reader_hears_the_end_of_its_cuts_goes_one_ahead_and_its_cursor_moves_with_commits() {
        let folder = tempfile::tempdir().unwrap();
        let mut fixture = open(&folder);
        fixture.put(&["a", "b", "c", "d", "e"]).await;
        for (bodies, cut) in [(vec!["a"], 1), (vec!["b"], 1), (vec![], 0), (vec!["c"], 2), (vec!["d"], 2), (vec![], 0)]
        {
            assert_eq!(fixture.take().await, bodies);
            assert_eq!(fixture.reader.cut(), cut, "{bodies:?}");
        }
        let ahead = tokio::time::timeout(Duration::from_millis(50), fixture.take()).await;
        assert!(ahead.is_err(), "cut 1 is not done, so cut 3 has to wait");
        fixture.reader.settle(2);
        assert!(fixture.cuts.is_settled(1) && !fixture.cuts.is_settled(2));
        assert_eq!(fixture.cuts.cursor.settled(), 0);
        fixture.commit(1);
        assert_eq!(fixture.cuts.cursor.settled(), 2);
        assert_eq!(fixture.take().await, ["e"]);
    }

    #[tokio::test]
    async fn what_came_to_nothing_is_taken_again_from_what_is_committed_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let mut fixture = open(&folder);
        fixture.put(&["a", "b", "c", "d", "e"]).await;
        for _ in 0..5 {
            fixture.take().await;
        }
        fixture.reader.settle(4);
        fixture.cuts.void();
        fixture.clock.set_done(fixture.clock.open());
        fixture.clock.close();
        // Whoever committed had no answer, and it was committed all the same.
        fixture.cuts.go_on_from(2);
        fixture.reader.restart();
        assert_eq!(fixture.take().await, ["c"]);
        assert_eq!(fixture.cuts.cursor.settled(), 2, "the cursor follows");
        assert!(!fixture.cuts.is_settled(fixture.clock.open()));
    }

    #[tokio::test]
    async fn the_log_ends_for_a_reader_once_all_of_it_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut fixture = open(&folder);
        let writer = Channel::File(fixture.channel.clone()).writer();
        fixture.put(&["a"]).await;
        drop(writer);
        assert_eq!(fixture.take().await, ["a"]);
        assert_eq!(fixture.take().await, [""; 0], "the end of the cut, which nobody else would have closed");
        let limits = TakeLimits { events: 1, bytes: 1000, wait: Duration::ZERO };
        let end = tokio::time::timeout(Duration::from_millis(50), fixture.reader.take(&limits)).await;
        assert!(end.is_err(), "it may come again");
        fixture.reader.settle(1);
        fixture.commit(1);
        assert!(fixture.reader.take(&limits).await.expect("it can be read").is_none());
    }
}
