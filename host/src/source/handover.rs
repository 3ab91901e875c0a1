//! One runner of a source takes the place of another while the pipeline runs.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::SourceRunner;
use super::settle::Unsettled;
use crate::position::Position;
use crate::position_store::PositionStore;

/// What a runner that leaves gives to the next: the source goes on behind the last put, and what is not settled yet is settled
/// there, so nothing is brought twice.
///
/// Whoever drops it instead leaves the stored position as it is: what is not settled comes again.
#[derive(Debug)]
pub struct Handover {
    /// Behind the last put; all that was put is on disk where its channels are.
    pub position: Position,
    pub store: PositionStore,
    pub inheritance: Inheritance,
}

/// What the runner before has put and not settled; nothing for the first runner of a source.
#[derive(Debug, Default)]
pub struct Inheritance {
    pub(super) unsettled: VecDeque<Unsettled>,
    /// What the receipts of the unsettled puts wake.
    pub(super) settled: Arc<Notify>,
    pub(super) tag: u64,
    pub(super) generation: u64,
}

impl SourceRunner {
    pub(super) fn into_handover(self) -> Handover {
        let Self { unsettled, settled, tag, generation, .. } = self;
        let inheritance = Inheritance { unsettled, settled, tag, generation };
        Handover { position: self.position, store: self.parts.store, inheritance }
    }

    /// The newest tag that another runner has put and that is not settled; 0 when there is none.
    pub(super) fn inherited(&self) -> u64 {
        self.unsettled.back().map_or(0, |newest| newest.tag)
    }
}
