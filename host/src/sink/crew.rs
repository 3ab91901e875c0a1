//! The runners of one sink: one, or `workers` of them that share the channel's cursor.
//!
//! Each worker is a whole runner, with its own interceptors, instance, retries and way of finding a poison event, so that deliveries
//! are under way side by side. They are in no order among each other; the cursor moves over what all of them have settled.

use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::{SinkParts, SinkRunner};
use crate::stage::StageStop;

/// Never without a member.
pub struct SinkCrew(Vec<SinkRunner>);

impl SinkCrew {
    pub fn new(parts: Vec<SinkParts>) -> Self {
        Self(parts.into_iter().map(SinkRunner::new).collect())
    }

    /// Runs until the channel has ended and all of it is settled.
    ///
    /// Cancel: as [`SinkRunner::run`].
    ///
    /// # Errors
    /// When one of them has to stop for good: the others end with it.
    ///
    /// # Panics
    /// When one of them has panicked.
    pub async fn run(mut self) -> Result<(), StageStop> {
        if self.0.len() == 1 {
            return self.0.remove(0).run().await;
        }
        let mut workers = JoinSet::new();
        for runner in self.0 {
            workers.spawn(runner.run().in_current_span());
        }
        while let Some(ended) = workers.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        Ok(())
    }

    /// As [`SinkRunner::open_early`].
    ///
    /// # Errors
    /// When one of them has to stop for good.
    pub async fn open_early(&mut self) -> Result<(), StageStop> {
        for runner in &mut self.0 {
            runner.open_early().await?;
        }
        Ok(())
    }

    /// As [`SinkRunner::discard`].
    pub async fn discard(self) {
        for runner in self.0 {
            runner.discard().await;
        }
    }
}
