//! Transactions, for a pipeline that promises exactly-once: one at a time over all its memory channels, and one at a time for each reader
//! of a file channel.
//!
//! A transaction over memory channels is a *cut* of what flows. Every put belongs to the cut that is open when it is committed; a cut is closed when it is
//! full or old enough, settled when every reader of every channel has settled all of it, and committed with the positions of all
//! its puts: offsets of Kafka's own groups, and records in the pipeline's progress topic for everything else. While one cut is
//! being committed, the next is put, taken, intercepted and delivered; its records wait in the host.
//!
//! The transaction of a file channel's reader is a cut of what it takes: its sources have been acked when their events were on disk, and
//! take no part. It is committed with one record in the progress topic, the reader's place; the cursor follows.
//!
//! ```text
//!            id taken                put                  limit, interval, hurry            every reader has settled it
//! starting ───────────▶ open (empty) ─────▶ open (filling) ─────────────────────▶ closed ─────────────────────────────▶ committing
//!    ▲                     ▲                                                                                              │    │
//!    │                     └──────────────────────────── the next cut, open since this one was closed ◀─────── committed ─┘    │
//!    │                                                                                                                         │
//!    └── parked ◀── a record refused, partitions gone, a sink that lost what it held, no answer, the producer lost ────────────┘
//!
//! stopped ◀── another agent has our id, the broker does not allow it          ended ◀── every runner has ended
//! ```
//!
//! There is one way back, whatever went wrong, and it is what a restart of the process would do: every runner is *parked* (its plugin
//! instance, what it has taken and what it has delivered are thrown away), the channels are emptied, a new producer takes the
//! transactional id, which ends on the broker whatever the old one had left open, and every source, or the reader of a file
//! channel, goes on from what is committed by then. So nobody has to know what became of a transaction without an answer.
//!
//! Dependencies: `agent -> runners -> transaction -> kafka, channel`.

mod coordinator;
mod cut;
mod progress;

pub use coordinator::{Coordinator, Parts};
pub use cut::TransactionLimits;
pub use progress::{Progress, ReaderKey, ReaderProgress, SourceProgress};

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::channel::{Amount, CutClock, Cutter, Receipt};
use crate::kafka::Revocation;
use crate::position::{Part, Position};
use cut::OpenCuts;

/// The transactions of one coordinator, as its stages see them.
#[derive(Debug)]
pub struct Transactions {
    clock: Arc<CutClock>,
    state: Mutex<State>,
    /// Something happened that the coordinator waits for.
    wake: Notify,
    round: watch::Sender<Round>,
}

#[derive(Debug)]
struct State {
    cuts: OpenCuts,
    /// Somebody waits for the open cut to be committed.
    hurry: bool,
    /// Why this round is to end.
    restart: Option<Arc<str>>,
    participants: Participants,
    /// Where sources go on in this round, as the progress topic says.
    positions: BTreeMap<Arc<str>, Position>,
}

/// Who takes part, and whether it is in the round that flows.
#[derive(Debug, Default)]
struct Participants {
    next: u64,
    flowing: BTreeMap<u64, bool>,
}

/// From one start of a producer to the next: rounds are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Round {
    /// Nothing flows: this round is over, or, with 0, none has begun.
    Parked(u64),
    Flowing(u64),
    /// For good.
    Stopped(Arc<str>),
}

impl Transactions {
    pub fn new(limits: TransactionLimits) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::default(),
            state: Mutex::new(State {
                cuts: OpenCuts::new(limits),
                hurry: false,
                restart: None,
                participants: Participants::default(),
                positions: BTreeMap::new(),
            }),
            wake: Notify::new(),
            round: watch::Sender::new(Round::Parked(0)),
        })
    }

    /// What its channels go by.
    pub fn clock(&self) -> &Arc<CutClock> {
        &self.clock
    }

    /// A runner that takes part, until it is dropped.
    pub fn participant(self: &Arc<Self>) -> Participant {
        let mut state = self.state.lock();
        let id = state.participants.next;
        state.participants.next += 1;
        state.participants.flowing.insert(id, false);
        Participant { transactions: self.clone(), id, round: 0 }
    }

    /// Ends the round that flows, if one does.
    fn restart(&self, of: impl FnOnce(u64) -> bool, reason: &str) {
        let mut state = self.state.lock();
        // Under the lock: the coordinator ends rounds under it.
        if let Round::Flowing(round) = &*self.round.borrow()
            && of(*round)
        {
            state.restart.get_or_insert_with(|| reason.into());
            self.wake.notify_one();
        }
    }
}

impl Revocation for Transactions {
    fn hurry(&self) {
        self.state.lock().hurry = true;
        self.wake.notify_one();
    }

    fn void(&self) {
        self.restart(|_| true, "partitions went to another agent before what was read of them could be committed");
    }
}

impl Cutter for Transactions {
    fn take(&self, cut: u64, amount: Amount, note: &mut dyn FnMut()) -> bool {
        let mut state = self.state.lock();
        // Under the lock, in which cuts are closed.
        if self.clock.open() != cut {
            return false;
        }
        note();
        let first = state.cuts.add_amount(amount);
        let full = state.cuts.is_full();
        if full {
            state.cuts.close(&self.clock);
        }
        drop(state);
        if first || full {
            self.wake.notify_one();
        }
        true
    }

    fn hurry(&self) {
        Revocation::hurry(self);
    }
}

/// A runner's part in the transactions.
///
/// ```text
/// parked ── next_round ──▶ flowing ── over ──▶ parked
/// ```
///
/// Invariant: between `next_round` and `over` everything that the runner does belongs to one round. When it is over the runner
/// drops whatever it is doing, wherever that is, and forgets what it did: nothing of it has been committed.
#[derive(Debug)]
pub struct Participant {
    transactions: Arc<Transactions>,
    id: u64,
    round: u64,
}

impl Participant {
    /// Says that nothing of the last round is left here, and waits until the next one begins.
    ///
    /// Cancel: it can be called again.
    ///
    /// # Errors
    /// Why there will be none.
    pub async fn next_round(&mut self) -> Result<(), Arc<str>> {
        self.set_flowing(false);
        let mut rounds = self.transactions.round.subscribe();
        loop {
            let last = self.round;
            let begun = rounds.wait_for(|round| match round {
                Round::Flowing(round) => *round > last,
                Round::Stopped(_) => true,
                Round::Parked(_) => false,
            });
            let begun = begun.await.expect("we hold the sender").clone();
            let mut state = self.transactions.state.lock();
            match begun {
                Round::Stopped(cause) => return Err(cause),
                // Under the lock, in which rounds end: this one may be over already.
                Round::Flowing(round) if *self.transactions.round.borrow() == Round::Flowing(round) => {
                    state.participants.flowing.insert(self.id, true);
                    self.round = round;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn set_flowing(&self, flowing: bool) {
        self.transactions.state.lock().participants.flowing.insert(self.id, flowing);
        self.transactions.wake.notify_one();
    }

    /// Resolves when the round is over.
    pub fn over(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (mut rounds, round) = (self.transactions.round.subscribe(), self.round);
        async move {
            // A sender that is gone ends everything.
            _ = rounds.wait_for(|now| *now != Round::Flowing(round)).await;
        }
    }

    /// Ends the round: nothing of it is committed, and it comes again.
    pub fn restart(&self, reason: &str) {
        self.transactions.restart(|round| round == self.round, reason);
    }

    /// Asks for the open cut to be committed soon.
    pub fn hurry(&self) {
        Revocation::hurry(&*self.transactions);
    }

    /// Commits a put of a source as part of the open cut. The receipt is settled, and `owner` woken, when the cut is committed.
    pub fn put(
        &self,
        source: &Arc<str>,
        parts: &[Part],
        amount: Amount,
        owner: &Arc<Notify>,
        commit: impl FnOnce(),
    ) -> Receipt {
        let (receipt, mut shares) = Receipt::new(1, false, owner.clone());
        let mut state = self.transactions.state.lock();
        // Under the lock, so that the put is in one cut in all its channels.
        commit();
        let first = state.cuts.add(source, parts, amount, shares.pop());
        let full = state.cuts.is_full();
        if full {
            state.cuts.close(&self.transactions.clock);
        }
        drop(state);
        if first || full {
            self.transactions.wake.notify_one();
        }
        receipt
    }

    /// Where a source goes on, as the progress topic says.
    pub fn position(&self, source: &str) -> Option<Position> {
        self.transactions.state.lock().positions.get(source).cloned()
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.transactions.state.lock().participants.flowing.remove(&self.id);
        self.transactions.wake.notify_one();
    }
}
