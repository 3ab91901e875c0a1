//! A sink of a running pipeline that is changed: opened before it runs, to see whether it opens.

use super::SinkRunner;
use crate::position::Position;
use crate::stage::StageStop;

impl SinkRunner {
    /// Opens the sink and its interceptors before the runner runs.
    ///
    /// Cancel: what was opening is thrown away; the runner opens it when it runs.
    ///
    /// # Errors
    /// When one of them has to stop for good.
    pub async fn open_early(&mut self) -> Result<(), StageStop> {
        self.parts.chain.open().await?;
        let instance = self.parts.stage.opened(&Position::default()).await?;
        self.opened(instance);
        Ok(())
    }

    /// Closes a runner that is not to run after all.
    pub async fn discard(mut self) {
        self.parts.chain.close().await;
        if let Some(mut instance) = self.instance.take() {
            self.parts.stage.closed(instance.close().await);
        }
    }
}
