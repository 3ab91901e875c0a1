//! What file channels ask of a source runner: the position goes to disk with the events, and dead letters go before it.

use super::{GAP_MAX, Halt, SourceRunner};
use crate::channel::{Channel, PutNote, Receipt, begin_puts, commit_puts};
use crate::dead_letter;
use crate::event::Batch;
use crate::position::Part;

impl SourceRunner {
    /// Where the position on disk is not where this source starts, or not in all its file channels, it is put there before
    /// anything else.
    pub(super) async fn carry_over(&mut self) -> Result<(), Halt> {
        if self.parts.resume.is_to_be_carried {
            let batches = self.durable.iter().map(|channel| (channel.clone(), Batch::empty())).collect();
            let puts = begin_puts(batches).await.map_err(|error| self.channel_failed(&error))?;
            let parts = self.position.parts();
            let note = PutNote { source: &self.parts.stage.name, parts: &parts, is_whole: true };
            let receipt = commit_puts(puts, note, &self.settled).map_err(|error| self.channel_failed(&error))?;
            self.until(&receipt, &self.durable.clone()).await?;
        }
        self.kept_after = Some(self.inherited());
        self.keep_if_due()
    }

    /// Where file channels keep the position from now on, they do so once what another runner has put elsewhere is settled: a
    /// start before that goes on at what the store has.
    pub(super) fn keep_if_due(&mut self) -> Result<(), Halt> {
        let Some(inherited) = self.kept_after else { return Ok(()) };
        let kept_in = &self.parts.resume.kept_in;
        if !kept_in.is_empty() && self.unsettled.front().is_some_and(|front| front.tag <= inherited) {
            return Ok(());
        }
        self.kept_after = None;
        let kept = self.parts.store.keep(&self.position, kept_in);
        kept.map_err(|error| self.parts.stage.stop(error.report()).into())
    }

    /// Puts dead letters on a road of their own, ahead of the put that moves the position over their events: after a crash
    /// between the two they come again, and are never lost.
    pub(super) async fn bury(&mut self, letters: (Channel, Batch)) -> Result<(), Halt> {
        let channel = letters.0.clone();
        let puts = self.begin(vec![letters]).await?;
        let source = dead_letter::source(&self.parts.stage.name);
        let receipt = commit_puts(puts, PutNote::of(&source), &self.settled);
        let receipt = receipt.map_err(|error| self.channel_failed(&error))?;
        self.until(&receipt, &[channel]).await
    }

    /// Waits until a put is settled, unless one of its channels fails or the agent gives up on it.
    pub(super) async fn until(&mut self, receipt: &Receipt, channels: &[Channel]) -> Result<(), Halt> {
        while !receipt.is_settled() {
            if let Some(error) = channels.iter().find_map(Channel::failure) {
                return Err(self.channel_failed(&error));
            }
            tokio::select! {
                () = self.settled.notified() => {}
                () = tokio::time::sleep(GAP_MAX) => {}
                () = self.stop.abandoned() => return Err(Halt::ChannelFailed),
            }
        }
        // The permit may have been another put's.
        self.settled.notify_one();
        Ok(())
    }

    /// Waits for a put to reach the disk, and serves the source meanwhile.
    pub(super) async fn wait_for_the_disk(&mut self) -> Result<(), Halt> {
        if let Some(error) = self.durable.iter().find_map(Channel::failure) {
            return Err(self.channel_failed(&error));
        }
        let gap = self.gap.next();
        tokio::select! {
            biased;
            () = self.settled.notified() => Ok(()),
            () = self.stop.stopping() => Ok(()),
            () = tokio::time::sleep(gap) => self.serve().await,
        }
    }

    /// Adds the file channels that get no event of a put: they get its position.
    pub(super) fn add_durable(&self, batches: &mut Vec<(Channel, Batch)>) {
        for channel in &self.durable {
            if !batches.iter().any(|(given, _)| given.number() == channel.number()) {
                batches.push((channel.clone(), Batch::empty()));
            }
        }
    }

    /// The position parts that a put may carry now: no event from before them is kept back any more.
    pub(super) fn freed_parts(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        while self.is_freed(self.withheld.front()) {
            parts.extend(self.withheld.pop_front().into_iter().flat_map(|(_, parts)| parts));
        }
        parts
    }

    pub(super) fn is_freed(&self, withheld: Option<&(u64, Vec<Part>)>) -> bool {
        let kept = self.parts.chain.oldest_kept().unwrap_or(u64::MAX);
        withheld.is_some_and(|(tag, _)| *tag < kept)
    }
}
