//! One runner of a source takes the place of another while the pipeline runs.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::settle::Unsettled;
use super::{Halt, SourceRunner};
use crate::position::Position;
use crate::position_store::PositionStore;
use crate::stage::StageStop;

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
    /// Opens the source and its interceptors before the runner runs, to see whether they open.
    ///
    /// Cancel: what was opening is thrown away; the runner opens it when it runs.
    ///
    /// # Errors
    /// When one of them has to stop for good.
    pub async fn open_early(&mut self) -> Result<(), StageStop> {
        self.parts.chain.open().await?;
        match self.ensure_open().await {
            Err(Halt::Stop(stop)) => Err(stop),
            Err(Halt::ChannelFailed) | Ok(_) => Ok(()),
        }
    }

    /// Closes a runner that is not to run after all.
    pub async fn discard(mut self) {
        self.parts.chain.close().await;
        if let Some(mut instance) = self.instance.take() {
            self.parts.stage.closed(instance.close().await);
        }
        self.parts.store.close().await;
    }

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
