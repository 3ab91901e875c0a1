//! The road into the channels: what was polled goes through the interceptors and is put as one transaction.

use std::time::Duration;

use tokio::time::Instant;

use super::settle::Unsettled;
use super::{Gap, Halt, SourceRunner};
use crate::channel::{Amount, Channel, PutNote, PutTransaction, begin_puts, commit_puts};
use crate::event::Batch;
use crate::interceptor::Processed;
use crate::plugin::{Polled, Progress};
use crate::transaction::Participant;

impl SourceRunner {
    /// Sends what was polled through the interceptors and puts it.
    pub(super) async fn take_over(&mut self, polled: Polled) -> Result<(), Halt> {
        self.tag += 1;
        self.brought += 1;
        let (generation, brought) = (self.generation, self.brought);
        let stage = self.parts.stage.clone();
        stage.counters.received.add(polled.batch.count() + polled.rejected.len());
        let bytes = polled.batch.byte_size();
        stage.counters.received_bytes.add(bytes);
        self.ahead_bytes += bytes;
        let mut processed = self.parts.chain.process(polled.batch, self.tag).await?;
        if self.parts.transaction.is_some() && self.parts.chain.oldest_kept().is_some() {
            // A position stands for whole batches: none may go into a transaction while a part of its batch stays behind.
            let rest = self.parts.chain.flush(self.tag, true).await?;
            processed.batch = Batch::concat(&[processed.batch, rest.batch]);
            processed.rejected.extend(rest.rejected);
        }
        processed.rejected.extend(polled.rejected.into_iter().map(|rejected| (stage.clone(), rejected)));
        self.position.apply(&polled.position);
        if !self.durable.is_empty() {
            self.withheld.push_back((self.tag, polled.position.clone()));
        }
        let unsettled = Unsettled { tag: self.tag, receipts: Vec::new(), parts: polled.position, generation, brought };
        self.put(processed, unsettled).await
    }

    /// Puts events into their channels as one transaction, and remembers them until they are settled.
    pub(super) async fn put(&mut self, processed: Processed, mut unsettled: Unsettled) -> Result<(), Halt> {
        let routed = self.parts.selector.route(&processed.batch);
        self.parts.stage.counters.filtered.add(routed.dropped);
        let mut batches = routed.batches;
        let number = unsettled.tag;
        let name = &self.parts.stage.name;
        let letters = self
            .parts
            .dead_letters
            .collect(&processed.rejected, |event| format!("{name}#{number}:{}", event.origin(0)))?;
        match letters {
            // A letter on its way in memory must not be lost by a position that is on disk already.
            Some(letters) if !self.durable.is_empty() => self.bury(letters).await?,
            letters => batches.extend(letters),
        }
        let parts = self.freed_parts();
        // A put without events and without a position need not be.
        if !(batches.is_empty() && parts.is_empty()) {
            self.add_durable(&mut batches);
        }
        let mut amount = Amount::default();
        batches.iter().for_each(|(_, batch)| amount += Amount::of(batch));
        let puts = if batches.is_empty() { Vec::new() } else { self.begin(batches).await? };
        self.parts.stage.counters.accepted.add(processed.batch.count() - routed.dropped);
        let receipt = match &self.parts.transaction {
            None => {
                let note = PutNote { source: &self.parts.stage.name, parts: &parts, is_whole: false };
                commit_puts(puts, note, &self.settled).map_err(|error| self.channel_failed(&error))?
            }
            Some(transaction) => {
                let source = &self.parts.stage.name;
                let commit = || puts.into_iter().for_each(|put| put.commit_in_transaction(source));
                transaction.put(&self.parts.stage.name, &unsettled.parts, amount, &self.settled, commit)
            }
        };
        if !receipt.is_durable() {
            self.under_way.push_back(receipt.clone());
        }
        unsettled.receipts.push(receipt);
        // Events that an interceptor had kept back went out with this put: their batches wait for it.
        while self.unsettled.back().is_some_and(|earlier| earlier.tag >= processed.since) {
            let earlier = self.unsettled.pop_back().expect("there is one");
            unsettled.receipts.extend(earlier.receipts);
            unsettled.parts.splice(0..0, earlier.parts);
        }
        self.unsettled.push_back(unsettled);
        Ok(())
    }

    /// Waits for room in the channels, and meanwhile serves the source: clients are answered, nothing new is brought.
    pub(super) async fn begin(&mut self, batches: Vec<(Channel, Batch)>) -> Result<Vec<PutTransaction>, Halt> {
        let reserving = begin_puts(batches);
        tokio::pin!(reserving);
        let mut gap = Gap::default();
        let mut waits = false;
        loop {
            tokio::select! {
                biased;
                puts = &mut reserving => return puts.map_err(|error| self.channel_failed(&error)),
                () = self.settled.notified() => self.settle().await?,
                () = self.stop.abandoned() => return Err(Halt::ChannelFailed),
                () = tokio::time::sleep(gap.next()) => {
                    if !std::mem::replace(&mut waits, true) {
                        self.parts.stage.counters.channel_full.add(1);
                        // Room comes with the end of the transaction.
                        self.parts.transaction.iter().for_each(Participant::hurry);
                    }
                    self.serve().await?;
                }
            }
        }
    }

    pub(super) async fn serve(&mut self) -> Result<(), Halt> {
        if self.finished || !self.early.is_empty() || self.stop.is_stopping() {
            return Ok(());
        }
        match self.poll(0, Duration::ZERO).await? {
            Some(Progress::Events(polled)) => self.early.push_back(polled),
            Some(Progress::Finished) => self.finish(),
            Some(Progress::Idle) | None => {}
        }
        Ok(())
    }

    /// Lets the interceptors let go of what is due.
    pub(super) async fn flush_due(&mut self, drain: bool) -> Result<(), Halt> {
        if !drain && self.parts.chain.next_tick().is_none_or(|tick| tick > Instant::now()) {
            return Ok(());
        }
        let processed = self.parts.chain.flush(self.tag, drain).await?;
        self.put_late(processed).await
    }

    pub(super) async fn drain(&mut self) -> Result<(), Halt> {
        while let Some(polled) = self.early.pop_front() {
            self.take_over(polled).await?;
        }
        self.flush_due(true).await
    }
}
