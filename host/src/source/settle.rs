//! What becomes of a put: its position is stored and its source told once it is safe.

use tracing::warn;

use super::{Halt, SourceRunner};
use crate::channel::Receipt;
use crate::config::pipeline::AckRule;
use crate::plugin::{CallError, Failure};
use crate::position::Part;

/// A put whose events are not settled yet.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) tag: u64,
    pub(super) receipts: Vec<Receipt>,
    pub(super) parts: Vec<Part>,
    pub(super) generation: u64,
    /// The batch's number of that instance.
    pub(super) brought: u64,
}

impl SourceRunner {
    /// Takes note of what is settled now: stores its position and tells the source.
    pub(super) async fn settle(&mut self) -> Result<(), Halt> {
        let oldest_kept = self.parts.chain.oldest_kept().unwrap_or(u64::MAX);
        while self.under_way.front().is_some_and(Receipt::is_durable) {
            self.under_way.pop_front();
        }
        let mut acked = None;
        while let Some(front) = self.unsettled.front()
            && front.tag < oldest_kept
            && front.receipts.iter().all(|receipt| is_safe(self.parts.ack, receipt))
        {
            let front = self.unsettled.pop_front().expect("there is one");
            self.parts.store.settle(&front.parts);
            if let Some(kafka) = &self.parts.stage.context.kafka {
                kafka.settled(&front.parts);
            }
            if front.generation == self.generation {
                acked = Some(front.brought);
            }
        }
        self.keep_if_due()?;
        match acked {
            Some(batches) if batches > self.acked => self.tell(batches).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn tell(&mut self, batches: u64) -> Result<(), Halt> {
        self.acked = batches;
        self.gap.reset();
        let Some(instance) = self.instance.as_mut() else { return Ok(()) };
        match instance.acked(batches).await {
            Ok(()) => Ok(()),
            // The next ack covers this one too.
            Err(CallError::Failure(Failure::Retry { reason, .. })) => {
                warn!(source = %self.parts.stage.name, reason, "ack not taken");
                Ok(())
            }
            Err(error) => self.failed(error, "acked").map(drop),
        }
    }

    /// Waits for the settlement of what was put, unless the agent gives up on it, or another runner waits for it: then only for
    /// the disk.
    pub(super) async fn settle_the_rest(&mut self) {
        let mut abandoned = false;
        while self.settle().await.is_ok() && !self.unsettled.is_empty() && !abandoned {
            let leaving = self.stop.is_leaving();
            if leaving && self.under_way.is_empty() {
                break;
            }
            tokio::select! {
                () = self.settled.notified() => {}
                () = self.stop.stopping(), if !self.stop.is_stopping() => {}
                // The last settlements may have come just before: they are looked for once more.
                () = self.stop.abandoned() => abandoned = true,
            }
        }
        if !self.unsettled.is_empty() && !self.stop.is_leaving() {
            let puts = self.unsettled.len();
            warn!(source = %self.parts.stage.name, puts, "not settled; the source brings them again");
        }
    }
}

/// Whether a source may be told of a put.
fn is_safe(ack: AckRule, receipt: &Receipt) -> bool {
    match ack {
        AckRule::Settled => receipt.is_settled(),
        AckRule::Put => receipt.is_durable(),
    }
}
