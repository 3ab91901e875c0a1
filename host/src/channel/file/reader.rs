//! Reading a file channel: frames become batches on a thread that may block, a little ahead of the sink.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wasmflow_log::{Cursor, Frame, ReadError, ReadLimits};

use super::cuts::InCuts;
use super::{FileChannel, Passing, ReaderCuts, Signal, chain, columns};
use crate::channel::ChannelError;
use crate::channel::cut::{CutClock, Cutter};
use crate::channel::take::{TakeLimits, Taken, collect, is_due};
use crate::event::Batch;

/// What one read brings at least, if it is there: enough that the hop to another thread costs nothing an event, little enough
/// that a rollback throws little away.
const READ_EVENTS: u64 = 8_192;
const READ_BYTES: u64 = 1 << 20;

/// One cursor on a file channel.
pub struct FileReader {
    channel: Arc<FileChannel>,
    cursor: Cursor,
    /// Nothing while it is reading.
    reader: Option<wasmflow_log::Reader>,
    /// The read under way. Kept here, so that a cancelled take loses nothing.
    reading: Option<JoinHandle<Read>>,
    /// Where the next read starts, after a rollback.
    rewind: Option<u64>,
    /// Read and not taken: batches with the sequence numbers of their first events.
    ahead: VecDeque<(u64, Batch)>,
    /// Sequence number of the next event to be taken.
    taken: u64,
    /// Until when the take under way waits for a fuller batch.
    fuller_until: Option<Instant>,
    signal: Arc<Signal>,
    /// In a pipeline with transactions.
    cuts: Option<InCuts>,
    passing: Arc<Mutex<Passing>>,
}

/// One put as it was read.
struct Put {
    first: u64,
    batch: Batch,
    source: Arc<str>,
    time_ms: u64,
}

struct Read {
    reader: wasmflow_log::Reader,
    frames: Result<Vec<Put>, ChannelError>,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reader `{}` of {:?} at {}", self.cursor.reader(), self.channel, self.taken)
    }
}

impl FileChannel {
    /// The reader of this name, which was among the options when the log was opened.
    ///
    /// # Errors
    /// When there is no such reader, or it is open already.
    pub fn reader(self: &Arc<Self>, name: &str) -> Result<FileReader, ChannelError> {
        let reader = self.log.reader(name).map_err(|error| unreadable(self.name(), &error))?;
        let signal = Arc::new(Signal { arrived: Notify::new(), until: AtomicU64::new(u64::MAX) });
        self.shared.readers.lock().insert(name.into(), signal.clone());
        let cursor = reader.cursor();
        let passing = self.passing(name, cursor.settled());
        passing.lock().origins.clear();
        Ok(FileReader {
            channel: self.clone(),
            taken: cursor.settled(),
            cursor,
            reader: Some(reader),
            reading: None,
            rewind: None,
            ahead: VecDeque::new(),
            fuller_until: None,
            signal,
            cuts: None,
            passing,
        })
    }
}

impl FileReader {
    pub fn channel(&self) -> &Arc<FileChannel> {
        &self.channel
    }

    /// The cursor's epoch: every `channel seek` raises it.
    pub fn epoch(&self) -> u64 {
        self.cursor.epoch()
    }

    /// Makes what this reader takes part of transactions: its cursor moves when they are committed.
    pub fn in_cuts(&mut self, clock: &Arc<CutClock>, cutter: Arc<dyn Cutter>) -> Arc<ReaderCuts> {
        let cuts = ReaderCuts::new(self.channel.clone(), self.cursor.clone(), clock.clone(), self.signal.clone());
        self.cuts = Some(InCuts::new(cuts.clone(), cutter));
        cuts
    }

    /// As [`Reader::take`](crate::channel::Reader::take).
    pub async fn take(&mut self, limits: &TakeLimits) -> Result<Option<Taken>, ChannelError> {
        loop {
            if let Some(cuts) = &mut self.cuts {
                if cuts.told_end() {
                    return Ok(Some(Taken::new(&[], self.taken)));
                }
                if !cuts.may_take() {
                    self.signal.arrived.notified().await;
                    continue;
                }
            }
            // Asked before the read: what is durable by then is among what the read brings.
            let complete = self.channel.shared.is_complete();
            if self.is_to_leave() {
                return Ok(None);
            }
            let (mut waiting, mut bytes) = self.ahead();
            let mut is_all = false;
            if waiting < limits.events && bytes < limits.bytes {
                is_all = !self.read(limits).await?;
                (waiting, bytes) = self.ahead();
            }
            let ended = is_all && complete;
            let is_full = waiting >= limits.events || bytes >= limits.bytes;
            let is_last = ended || self.until() != u64::MAX;
            if is_full || (is_last && waiting > 0) || is_due(&mut self.fuller_until, waiting, limits.wait) {
                match self.taken(limits) {
                    Some(taken) => return Ok(Some(taken)),
                    // Its cut has been closed meanwhile.
                    None => continue,
                }
            }
            match (waiting, self.fuller_until) {
                _ if !is_all => {}
                (0, _) if ended && self.is_at_end() => match &self.cuts {
                    // What was taken last may come again.
                    Some(cuts) if !cuts.is_committed(self.taken) => {
                        cuts.hurry();
                        self.signal.arrived.notified().await;
                    }
                    _ => return Ok(None),
                },
                (1.., Some(deadline)) => _ = tokio::time::timeout_at(deadline, self.signal.arrived.notified()).await,
                _ => self.signal.arrived.notified().await,
            }
        }
    }

    pub fn taken_up_to(&self) -> u64 {
        self.taken
    }

    /// Waits until the log has ended and all of it has been taken.
    pub async fn ended(&self) {
        while !(self.channel.shared.is_complete() && self.is_at_end() || self.is_to_leave()) {
            self.signal.arrived.notified().await;
        }
    }

    /// Waits until nobody puts any more, and with transactions until all that was put is committed.
    pub async fn closed(&self) {
        let is_committed = || {
            let end = self.channel.log.status().readable_sequence;
            self.cuts.as_ref().is_none_or(|cuts| cuts.is_committed(end))
        };
        while !(self.channel.shared.is_complete() && is_committed()) {
            self.signal.arrived.notified().await;
        }
    }

    pub fn is_at_end(&self) -> bool {
        self.channel.log.status().readable_sequence <= self.taken
    }

    /// Whether the log ends here for this reader, though not for others.
    fn is_to_leave(&self) -> bool {
        let until = self.until();
        let log = &self.channel.log;
        until != u64::MAX && (until <= self.taken || log.readable_from(self.taken) == log.readable_from(until))
    }

    fn until(&self) -> u64 {
        self.signal.until.load(Ordering::Acquire)
    }

    pub fn settle(&mut self, next: u64) {
        assert!(next <= self.taken, "settled {next} before it was taken (up to {})", self.taken);
        if let Some(cuts) = &self.cuts {
            return cuts.settle(next);
        }
        self.cursor.settle(next);
        self.passing.lock().settle(next);
        self.channel.count_held();
    }

    /// The cut of what was taken last; 0 in a pipeline without transactions.
    pub fn cut(&self) -> u64 {
        self.cuts.as_ref().map_or(0, InCuts::cut)
    }

    /// Goes on behind what is committed.
    pub fn restart(&mut self) {
        let cuts = self.cuts.as_mut().expect("only in a pipeline with transactions");
        let next = cuts.restart();
        self.go_to(next);
    }

    /// As [`Reader::skip_to`](crate::channel::Reader::skip_to), before the first take.
    pub fn skip_to(&mut self, next: u64) {
        if let Some(reader) = self.reader.as_mut().filter(|_| next > self.taken) {
            let place = reader.rewind(next);
            reader.settle(place);
            self.go_to(place);
        }
    }

    pub fn rollback(&mut self) {
        self.go_to(self.cursor.settled());
    }

    fn go_to(&mut self, next: u64) {
        self.taken = next;
        self.ahead.clear();
        // Read again from the put on that holds this event.
        self.passing.lock().origins.clear();
        self.fuller_until = None;
        self.rewind = Some(self.taken);
    }

    /// Events and bytes that were read and not taken.
    fn ahead(&self) -> (usize, usize) {
        let Some((first, batch)) = self.ahead.front() else { return (0, 0) };
        let skip = self.taken.saturating_sub(*first) as usize;
        let events: usize = self.ahead.iter().map(|(_, batch)| batch.count()).sum();
        let bytes: usize = self.ahead.iter().skip(1).map(|(_, batch)| batch.byte_size()).sum();
        // Of the first batch its share, without cutting it.
        let rest = batch.byte_size() * (batch.count() - skip) / batch.count();
        (events - skip, bytes + rest)
    }

    /// Nothing: the cut that it would belong to has been closed meanwhile.
    fn taken(&mut self, limits: &TakeLimits) -> Option<Taken> {
        let until = self.until();
        let rest = usize::try_from(until.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let limits = &TakeLimits { events: limits.events.min(rest), ..*limits };
        let ahead = self.ahead.iter().take_while(|(first, _)| *first < until);
        let batches = collect(ahead.map(|(first, batch)| (*first, batch)), self.taken, limits);
        let taken = Taken::new(&batches, self.taken);
        if self.cuts.as_mut().is_some_and(|cuts| !cuts.count(&taken)) {
            return None;
        }
        self.passing.lock().passed.given += taken.next - taken.first;
        self.taken = taken.next;
        self.fuller_until = None;
        while self.ahead.front().is_some_and(|(first, batch)| first + batch.count() as u64 <= self.taken) {
            self.ahead.pop_front();
        }
        Some(taken)
    }

    /// Reads once. False: there is nothing more for now.
    ///
    /// Cancel: the read goes on and is taken over by the next call.
    async fn read(&mut self, limits: &TakeLimits) -> Result<bool, ChannelError> {
        if self.reading.is_none() {
            self.start_reading(limits);
        }
        let reading = self.reading.as_mut().expect("it has just been started");
        let read = reading.await;
        self.reading = None;
        let Read { reader, frames } = read.expect("reading does not panic");
        self.reader = Some(reader);
        // What was on its way when the reader was rolled back is read again, from the right place.
        if self.rewind.is_some() {
            return Ok(true);
        }
        let frames = frames?;
        let is_more = !frames.is_empty();
        let mut passing = self.passing.lock();
        for Put { first, batch, source, time_ms } in frames.into_iter().filter(|put| !put.batch.is_empty()) {
            passing.origins.push_back((first + batch.count() as u64, source, time_ms));
            self.ahead.push_back((first, batch));
        }
        Ok(is_more)
    }

    fn start_reading(&mut self, limits: &TakeLimits) {
        let mut reader = self.reader.take().expect("it is here unless it is reading");
        if let Some(sequence) = self.rewind.take() {
            let place = reader.rewind(sequence);
            if self.cuts.is_some() {
                // Committed, and perhaps not known to the cursor: the process may have ended in between.
                reader.settle(place);
            }
        }
        let limits =
            ReadLimits { events: READ_EVENTS.max(limits.events as u64), bytes: READ_BYTES.max(limits.bytes as u64) };
        let channel = self.channel.name().clone();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let frames = reader.read(limits).map_err(|error| unreadable(&channel, &error));
            let frames = frames.and_then(|frames| frames.into_iter().map(|frame| decoded(&channel, frame)).collect());
            Read { reader, frames }
        }));
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        let mut readers = self.channel.shared.readers.lock();
        // Another may have been opened since.
        if readers.get(self.cursor.reader()).is_some_and(|signal| Arc::ptr_eq(signal, &self.signal)) {
            readers.remove(self.cursor.reader());
        }
    }
}

fn decoded(channel: &Arc<str>, frame: Frame) -> Result<Put, ChannelError> {
    let (first, events) = (frame.first_sequence, frame.events as usize);
    let (source, time_ms) = (frame.source.clone(), frame.time_ms);
    let unreadable = |detail: String| ChannelError::Unreadable {
        channel: channel.clone(),
        detail: format!("channel `{channel}`, put {} of `{}` at sequence {first}: {detail}", frame.put, frame.source)
            .into(),
    };
    match columns::decode(frame.columns) {
        Ok(batch) if batch.count() == events => Ok(Put { first, batch, source, time_ms }),
        Ok(batch) => Err(unreadable(format!("{} events where {events} were put", batch.count()))),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn unreadable(channel: &Arc<str>, error: &ReadError) -> ChannelError {
    match error {
        ReadError::Poisoned(poisoned) => super::broken(&poisoned.channel, poisoned),
        other => ChannelError::Unreadable { channel: channel.clone(), detail: chain(other) },
    }
}
