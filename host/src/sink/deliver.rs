//! One delivery: a piece goes to the sink, and its answer, or the brokers', says what follows.

use tokio::time::Instant;
use tracing::warn;

use super::SinkRunner;
use super::pending::Pending;
use crate::channel::{PutNote, begin_puts, commit_puts};
use crate::dead_letter::{self, RejectedBy};
use crate::event::MADE_HERE;
use crate::interceptor::Processed;
use crate::kafka::{ProducerLost, Refused};
use crate::plugin::{Delivered, Delivery, Failure, Outcome, Rejected};
use crate::stage::{Decision, Piece, StageStop};

impl SinkRunner {
    /// Lines up what the interceptors made of a batch.
    pub(super) async fn begin(
        &mut self,
        processed: Processed,
        pending: Pending,
        suspected: bool,
    ) -> Result<(), StageStop> {
        let tag = pending.tag;
        self.pending.push(pending, processed.since);
        self.bury(tag, processed.rejected).await?;
        let stage = &self.parts.stage;
        if processed.batch.is_empty() {
            stage.counters.empty_batches.add(1);
        } else {
            stage.counters.received.add(processed.batch.count());
            self.work.push_back(match suspected {
                true => Piece::suspected(processed.batch, tag, stage),
                false => Piece::new(processed.batch, tag, stage),
            });
        }
        Ok(())
    }

    pub(super) fn is_due(&self) -> bool {
        !self.is_paused && !self.work.is_empty() && self.not_before.is_none_or(|due| due <= Instant::now())
    }

    pub(super) async fn deliver_next(&mut self) -> Result<(), StageStop> {
        self.ensure_open().await?;
        self.not_before = None;
        let Some(piece) = self.work.pop_front() else { return Ok(()) };
        if let Some(kafka) = self.kafka() {
            kafka.discard_staged();
        }
        let delivery = self.delivery(&piece);
        let instance = self.instance.as_mut().expect("it has just been opened");
        let began = self.seat.begins();
        match instance.deliver(&piece.batch, &delivery).await {
            Ok(delivered) => {
                self.seat.called(began, piece.batch.count());
                self.count(&piece, &delivered, began);
                self.delivered(piece, delivered).await?;
                self.leave_if_slow().await;
                Ok(())
            }
            Err(error) => {
                if let Some(before) = self.seat.failed(&error) {
                    self.parts.stage.counters.errors.add(1);
                    self.go_back(before, &error, piece).await;
                    return Ok(());
                }
                self.parts.stage.counters.errors.add(1);
                let trapped = error.is_trap();
                if trapped {
                    self.instance = None;
                }
                let decision = piece.failed(&self.parts.stage, error, &mut self.guard)?;
                match trapped && self.pending.is_holding() {
                    true => self.rewind().await,
                    false => self.follow(decision).await?,
                }
                Ok(())
            }
        }
    }

    pub(super) async fn delivered(&mut self, piece: Piece, delivered: Delivered) -> Result<(), StageStop> {
        self.guard.went_well();
        self.send_staged();
        let mut again = None;
        let refused = delivered.rejected.len();
        let tag = piece.tag;
        let is_whole = !matches!(delivered.outcome, Outcome::Partly { .. });
        match self.seat.rejected(refused).filter(|_| is_whole) {
            Some(before) => again = Some((before, delivered.rejected)),
            None => self.bury(tag, self.by_this_stage(delivered.rejected)).await?,
        }
        let accepted = piece.batch.count() - refused;
        match delivered.outcome {
            Outcome::Delivered => {
                self.pending.release_all();
                self.parts.stage.counters.accepted.add(accepted);
            }
            Outcome::Held => {
                self.pending.hold_newest();
                self.parts.stage.counters.accepted.add(accepted);
                if self.suspect.is_some() {
                    self.flush(true).await?;
                }
            }
            Outcome::Partly { rows, reason, after } => {
                self.pending.release_all();
                self.parts.stage.counters.accepted.add(accepted - rows.len());
                let mut piece = piece;
                piece.batch = piece.batch.select(&rows).expect("the rows were checked where they came in");
                let decision = piece.again(&self.parts.stage, reason, after)?;
                self.follow(decision).await?;
            }
        }
        if let Some((before, refused)) = again {
            self.give_again(before, refused, tag).await;
        }
        Ok(())
    }

    /// Counts a delivery that did not fail; one that is to come again in part has.
    fn count(&self, piece: &Piece, delivered: &Delivered, started: Instant) {
        let counters = &self.parts.stage.counters;
        if let Outcome::Partly { .. } = delivered.outcome {
            return counters.errors.add(1);
        }
        counters.deliveries.took(started.elapsed());
        counters.accepted_bytes.add(piece.batch.byte_size());
        match piece.batch.count() < self.parts.limits.events && piece.batch.byte_size() < self.parts.limits.bytes {
            true => counters.underflow_batches.add(1),
            false => counters.complete_batches.add(1),
        }
    }

    /// Does what was decided about a piece that is not delivered, ahead of everything behind it.
    pub(super) async fn follow(&mut self, decision: Decision) -> Result<(), StageStop> {
        match decision {
            Decision::Again(piece, after) => {
                self.not_before = Some(Instant::now() + after);
                self.work.push_front(piece);
            }
            Decision::Halves(halves, after) => {
                self.not_before = Some(Instant::now() + after);
                let [first, second] = *halves;
                self.work.push_front(second);
                self.work.push_front(first);
            }
            Decision::Refused(rejected) => {
                let tag = self.tag;
                self.bury(tag, self.by_this_stage(rejected)).await?;
            }
        }
        Ok(())
    }

    /// The broker has answered for one delivery.
    pub(super) async fn landed(
        &mut self,
        tag: u64,
        answer: Result<Vec<Refused>, ProducerLost>,
    ) -> Result<(), StageStop> {
        match answer {
            Ok(refused) => {
                self.backoff.reset();
                let rejected =
                    refused.into_iter().map(|refused| Rejected { event: refused.event, reason: refused.reason });
                let rejected = self.by_this_stage(rejected.collect());
                self.bury(tag, rejected).await
            }
            Err(lost) => {
                let after = match lost.failure {
                    Failure::Retry { reason, .. } if self.parts.transaction.is_some() => self.give_up(&reason).await,
                    Failure::Retry { reason, after } => {
                        warn!(sink = %self.parts.stage.name, reason, "everything not settled is sent again");
                        after.unwrap_or_default().max(self.backoff.delay())
                    }
                    failure => return Err(self.parts.stage.stop(failure.to_string())),
                };
                self.settle();
                self.rewind().await;
                self.suspect = None;
                tokio::time::sleep(after).await;
                Ok(())
            }
        }
    }

    /// Puts dead letters into their channel; the delivery of this tag is settled when they are.
    pub(super) async fn bury(&mut self, tag: u64, rejected: Vec<RejectedBy>) -> Result<(), StageStop> {
        if rejected.is_empty() {
            return Ok(());
        }
        let channel = self.parts.reader.channel().name().clone();
        let first = self.pending.newest().filter(|newest| newest.tag == tag && newest.exact).map(|newest| newest.first);
        let letters = self.parts.dead_letters.collect(&rejected, |event| match (first, event.origin(0)) {
            (Some(first), row) if row != MADE_HERE => format!("{channel}:{}", first + u64::from(row)),
            _ => channel.to_string(),
        })?;
        if self.parts.transaction.is_some() {
            letters.into_iter().for_each(|(channel, letters)| channel.put_letters(letters, self.cut));
            return Ok(());
        }
        let puts = begin_puts(letters.into_iter().collect()).await;
        let puts = puts.map_err(|error| self.parts.stage.stop(format!("its dead letters cannot be put: {error}")))?;
        let source = dead_letter::source(&self.parts.stage.name);
        let receipt = commit_puts(puts, PutNote::of(&source), &self.letters_settled);
        self.pending.buried(tag, receipt.map_err(|error| self.channel_failed(&error))?);
        Ok(())
    }

    pub(super) fn send_staged(&mut self) {
        if let Some(kafka) = self.kafka()
            && kafka.has_staged()
        {
            let in_flight = kafka.send_staged(self.cut);
            self.pending.sent(in_flight);
        }
    }

    pub(super) fn delivery(&self, piece: &Piece) -> Delivery {
        let newest = self.pending.newest().expect("a piece belongs to the newest delivery");
        let (mut first, mut next) = (newest.first, newest.next);
        let rows = piece.batch.count();
        let (start, end) = (piece.batch.origin(0), piece.batch.origin(rows - 1));
        if newest.exact && start != MADE_HERE && end != MADE_HERE && start <= end {
            (first, next) = (newest.first + u64::from(start), newest.first + u64::from(end) + 1);
        }
        Delivery { log: self.parts.log.clone(), first, next, attempt: piece.attempt }
    }

    pub(super) fn by_this_stage(&self, rejected: Vec<Rejected>) -> Vec<RejectedBy> {
        rejected.into_iter().map(|rejected| (self.parts.stage.clone(), rejected)).collect()
    }

    /// Whether the brokers may be given more.
    pub(super) fn has_room(&self) -> bool {
        self.kafka().is_none_or(|kafka| kafka.has_room())
    }

    /// Waits until they may.
    pub(super) fn room(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let kafka = self.kafka().cloned();
        async move {
            if let Some(kafka) = kafka {
                kafka.room().await;
            }
        }
    }
}
