//! One producer: batches become records, delivery reports become answers.
//!
//! Order is kept for each partition by the idempotent client. What the host adds: a record refused for good leaves its
//! neighbours alone, and a client that has lost a record is given up as a whole, since nothing may overtake that record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::client::{
    Client, Code, Event, Headers, RecordBatch, RecordToSend, Report, Topic, TopicOffset, offset, send_one,
};
use super::in_flight::{Answer, Delivery, Room};
use super::left_out::LeftOut;
use super::records::{ColumnCursor, Records, is_null};
use super::stall::{Heard, Stall};
use super::verdict::{self, Verdict, retry};
use crate::plugin::Failure;

/// How long the reports' thread sleeps when nothing happens. A report wakes it; this is only for a wake-up that got lost.
const IDLE: Duration = Duration::from_secs(1);

/// When a transaction fails, librdkafka purges everything that is queued, and reports it in no order: so long the report is waited
/// for that says why.
const AFTER_PURGE: Duration = Duration::from_millis(300);

/// How a producer packs records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As many in a request as fit.
    Together,
    /// One by one, for this many records: the broker has refused a batch without saying which of its records is wrong.
    Alone { records: usize },
}

/// A client that sends records, with the thread that takes its reports.
pub(super) struct Producer {
    shared: Arc<Shared>,
    pub(super) packing: Packing,
}

struct Shared {
    connection: Arc<str>,
    client: Client,
    topics: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
    /// Kept from one delivery to the next for its memory.
    batch: Mutex<RecordBatch>,
    pending: Mutex<Pending>,
    /// In a transaction: what the broker refuses is left out when everything is sent again. Without one it is answered with its
    /// delivery.
    left_out: Option<Arc<LeftOut>>,
    alone: bool,
    delivered: AtomicUsize,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Pending {
    next: u32,
    deliveries: HashMap<u32, Delivery>,
    lost: Option<Loss>,
    /// Partitions that records have arrived in.
    partitions: BTreeMap<String, BTreeSet<i32>>,
    /// Since when records come back unsent.
    purged: Option<Instant>,
}

/// Why a producer was given up, and how the next one packs.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) failure: Failure,
    pub(super) packing: Packing,
}

impl Producer {
    /// # Errors
    /// When the machine has no thread to give.
    pub(super) fn start(connection: &str, client: Client, packing: Packing) -> Result<Self, std::io::Error> {
        Self::start_with(connection, client, packing, None)
    }

    /// As [`start`](Self::start), for a client with a transactional id: any record that does not arrive loses the producer, and
    /// the transaction with it.
    ///
    /// # Errors
    /// When the machine has no thread to give.
    pub(super) fn start_transactional(
        connection: &str,
        client: Client,
        packing: Packing,
        left_out: Arc<LeftOut>,
    ) -> Result<Self, std::io::Error> {
        Self::start_with(connection, client, packing, Some(left_out))
    }

    fn start_with(
        connection: &str,
        client: Client,
        packing: Packing,
        left_out: Option<Arc<LeftOut>>,
    ) -> Result<Self, std::io::Error> {
        let shared = Arc::new(Shared {
            connection: connection.into(),
            client,
            topics: Mutex::default(),
            batch: Mutex::default(),
            pending: Mutex::default(),
            left_out,
            alone: packing != Packing::Together,
            delivered: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let reporter = shared.clone();
        crate::thread::spawn("kafka-reports", move || reporter.take_reports())?;
        Ok(Self { shared, packing })
    }

    /// Why this producer sends nothing any more, if it does not.
    pub(super) fn lost(&self) -> Option<Loss> {
        self.shared.pending().lost.clone()
    }

    /// Whether records may travel together again: those that were suspected have been dealt with, and nothing is in flight.
    pub(super) fn is_through(&self) -> bool {
        match self.packing {
            Packing::Together => false,
            Packing::Alone { records } => {
                self.shared.delivered.load(Ordering::Acquire) >= records && self.shared.pending().deliveries.is_empty()
            }
        }
    }

    /// Hands records over, in order behind all that were before.
    pub(super) fn send(&self, records: Arc<Records>, room: &Arc<Room>) -> oneshot::Receiver<Answer> {
        let (delivery, answer) = Delivery::new(records, room);
        self.send_delivery(delivery);
        answer
    }

    /// As [`send`](Self::send), for a delivery whose answer somebody awaits already.
    pub(super) fn send_delivery(&self, delivery: Delivery) {
        let records = delivery.records.clone();
        let number = {
            let mut pending = self.shared.pending();
            if let Some(loss) = &pending.lost {
                drop(delivery.lose(loss.failure.clone()));
                return;
            }
            if delivery.is_done() {
                delivery.finish();
                return;
            }
            let number = pending.next;
            pending.next = number.wrapping_add(1);
            pending.deliveries.insert(number, delivery);
            number
        };
        let mut refused = Vec::new();
        if let Err(failure) = self.shared.hand_over(&records, number, &mut refused) {
            self.shared.lose(failure, Packing::Together);
        }
        self.shared.report(&refused);
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.client.wake();
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_reports(&self) {
        let mut reports = Vec::new();
        let mut stall = Stall::new();
        while !self.stopping.load(Ordering::Acquire) {
            let heard = if self.pending().deliveries.is_empty() { Heard::Answer } else { Heard::Silence };
            stall.look(heard, &self.client, || self.partitions());
            let patience = if heard == Heard::Answer { IDLE } else { stall.patience() };
            let patience = patience.min(self.patience());
            match self.client.poll(patience, &mut reports) {
                Some(Event::Reports) => {
                    stall.look(Heard::Answer, &self.client, || self.partitions());
                    self.report(&reports);
                    reports.clear();
                }
                Some(Event::Error(error)) => {
                    // What was in flight on that connection is to be sent again.
                    stall.look(Heard::Failure, &self.client, || self.partitions());
                    if let Some(failure) = verdict::of_client(&self.connection, &error) {
                        tracing::warn!(connection = %self.connection, reason = %failure, "producer is given up");
                        self.lose(failure, Packing::Together);
                    }
                }
                _ => {}
            }
        }
        self.lose(retry("the producer was closed".into()), Packing::Together);
    }

    /// Where records have arrived so far.
    fn partitions(&self) -> Vec<TopicOffset> {
        let pending = self.pending();
        let of_topic = |(topic, numbers): (&String, &BTreeSet<i32>)| {
            numbers.iter().map(|&number| TopicOffset::new(topic, number, offset::NONE)).collect::<Vec<_>>()
        };
        pending.partitions.iter().flat_map(of_topic).collect()
    }

    /// How long to wait for reports; gives the producer up where nobody says why records came back.
    fn patience(&self) -> Duration {
        let Some(purged) = self.pending().purged else { return IDLE };
        let left = AFTER_PURGE.saturating_sub(purged.elapsed());
        if left.is_zero() {
            self.lose(
                retry(format!("connection `{}`: the transaction has failed", self.connection)),
                Packing::Together,
            );
            return IDLE;
        }
        left
    }

    /// Takes the brokers' word on records.
    fn report(&self, reports: &[Report]) {
        let mut done = Vec::new();
        let mut loss = None;
        let mut pending = self.pending();
        // Reports of one delivery mostly come together and mostly say yes: then they are only counted.
        let alike = |report: &Report| (report.code, report.partition, delivery_of(report));
        for run in reports.chunk_by(|left, right| alike(left) == alike(right)) {
            let number = delivery_of(&run[0]);
            let Pending { deliveries, partitions, purged, .. } = &mut *pending;
            // A delivery that was answered already: its producer is lost.
            let Some(delivery) = deliveries.get_mut(&number) else { continue };
            note(partitions, delivery.topic(record_of(&run[0])), &run[0]);
            if run[0].code == Code::PURGED_IN_QUEUE || run[0].code == Code::PURGED_IN_FLIGHT {
                purged.get_or_insert_with(Instant::now);
                continue;
            }
            match self.judge(delivery, run) {
                Ok(true) => done.extend(deliveries.remove(&number)),
                Ok(false) => {}
                Err((failure, packing)) => loss = loss.or(Some((failure, packing))),
            }
        }
        let in_flight = pending.deliveries.values().map(|delivery| delivery.records.rows.len()).sum();
        drop(pending);
        done.into_iter().for_each(Delivery::finish);
        if let Some((failure, alone)) = loss {
            self.lose(failure, if alone { Packing::Alone { records: in_flight } } else { Packing::Together });
        }
    }

    /// Whether the delivery is done; or why the producer is lost, and whether records must travel alone from now on.
    fn judge(&self, delivery: &mut Delivery, run: &[Report]) -> Result<bool, (Failure, bool)> {
        if run[0].code == Code::OK {
            self.delivered.fetch_add(run.len(), Ordering::AcqRel);
            return Ok(delivery.acknowledged(run.len()));
        }
        let mut left_out = None;
        for report in run {
            let index = record_of(report);
            match (verdict::of_record(report.code, delivery.topic(index), self.alone), &self.left_out) {
                (Verdict::Delivered, _) => unreachable!("asked only about errors"),
                (Verdict::Refused(reason), Some(refused)) => {
                    refused.add(&delivery.records, index, &reason);
                    left_out.get_or_insert(reason);
                }
                (Verdict::Refused(reason), None) => {
                    self.delivered.fetch_add(1, Ordering::AcqRel);
                    delivery.refuse(index, reason);
                }
                (Verdict::OneOfMany(reason), _) => return Err((retry(reason), true)),
                (Verdict::Lost(failure), _) => return Err((failure, false)),
            }
        }
        match left_out {
            Some(reason) => {
                Err((retry(format!("a record is refused, and left out from now on: {reason}")), self.alone))
            }
            None => Ok(delivery.is_done()),
        }
    }

    /// Gives the client up: answers everything in flight, and sends nothing more.
    fn lose(&self, failure: Failure, packing: Packing) {
        let mut pending = self.pending();
        if pending.lost.is_some() {
            return;
        }
        pending.lost = Some(Loss { failure: failure.clone(), packing });
        let deliveries = std::mem::take(&mut pending.deliveries);
        drop(pending);
        self.client.purge();
        let unreported: Vec<_> = deliveries.into_values().map(|delivery| delivery.lose(failure.clone())).collect();
        self.client.keep_until_gone(unreported);
    }

    fn topic(&self, name: &Arc<str>) -> Result<Arc<Topic>, Failure> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        let topic = Topic::new(&self.client, name).map_err(|error| retry(format!("topic `{name}`: {error}")))?;
        let topic = Arc::new(topic);
        topics.insert(name.clone(), topic.clone());
        Ok(topic)
    }

    /// Adds a report for each record that librdkafka did not take.
    fn hand_over(&self, records: &Records, number: u32, refused: &mut Vec<Report>) -> Result<(), Failure> {
        let topics: Vec<_> = records.topics.iter().map(|name| self.topic(name)).collect::<Result<_, _>>()?;
        if records.are_plain() {
            self.hand_over_together(records, &topics, number, refused);
        } else {
            self.hand_over_singly(records, &topics, number, refused);
        }
        Ok(())
    }

    fn hand_over_together(&self, records: &Records, topics: &[Arc<Topic>], number: u32, refused: &mut Vec<Report>) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = RecordCursor::new(records, number);
        for (topic_number, topic) in topics.iter().enumerate() {
            for index in 0..records.rows.len() {
                let is_here = records.topic_of.as_ref().is_none_or(|topic_of| topic_of[index] as usize == topic_number);
                if is_here {
                    batch.push(rows.record(index));
                }
            }
            // SAFETY: the values lie in `records.batch`. The delivery that holds it is in `pending` until all reports have
            // come, and then, or when the producer is lost, until the client is gone.
            unsafe { batch.send(topic, refused) };
            rows.rewind();
        }
    }

    fn hand_over_singly(&self, records: &Records, topics: &[Arc<Topic>], number: u32, refused: &mut Vec<Report>) {
        let mut rows = RecordCursor::new(records, number);
        // Where the first record went of which nothing says where: the others follow it.
        let mut chosen = vec![None; topics.len()];
        for index in 0..records.rows.len() {
            let topic_number = records.topic_of.as_ref().map_or(0, |topic_of| topic_of[index] as usize);
            let topic = &topics[topic_number];
            let mut record = rows.record(index);
            let timestamp = records.timestamps.as_ref().and_then(|timestamps| timestamps[index]);
            let headers = headers_of(records, records.rows[index] as usize);
            if record.is_loose() {
                record.partition = chosen[topic_number];
            }
            // SAFETY: as in `hand_over_together`.
            match unsafe { send_one(topic, record, timestamp, headers) } {
                Ok(partition) => chosen[topic_number] = partition.or(chosen[topic_number]),
                Err(error) => refused.push(Report { partition: -1, tag: record.tag, code: error.code }),
            }
        }
    }
}

fn headers_of(records: &Records, row: usize) -> Option<Headers> {
    if records.headers.is_empty() && records.untouched.is_none() {
        return None;
    }
    let mut headers = Headers::with_capacity(records.headers.len());
    for header in records.untouched.iter().flat_map(|untouched| untouched.row(row)) {
        headers.push(&header.name, header.value.as_deref());
    }
    for (name, column) in &records.headers {
        if let Some(value) = column.get(row) {
            headers.push(name, Some(&value));
        }
    }
    Some(headers)
}

/// Makes records of rows, in rising order.
struct RecordCursor<'r> {
    records: &'r Records,
    delivery: u64,
    keys: ColumnCursor<'r>,
}

impl<'r> RecordCursor<'r> {
    fn new(records: &'r Records, number: u32) -> Self {
        let keys = ColumnCursor::new(records.keys.as_ref());
        Self { records, delivery: u64::from(number) << 32, keys }
    }

    fn rewind(&mut self) {
        self.keys = ColumnCursor::new(self.records.keys.as_ref());
    }

    fn record(&mut self, index: usize) -> RecordToSend<'r> {
        let records = self.records;
        let row = records.rows[index] as usize;
        RecordToSend {
            value: (!is_null(records.nulls.as_ref(), row)).then(|| records.batch.bodies().get(row)),
            key: self.keys.get(row),
            partition: records.partitions.as_ref().and_then(|partitions| partitions[index]),
            tag: self.delivery | index as u64,
        }
    }
}

/// Remembers where a record has arrived.
fn note(partitions: &mut BTreeMap<String, BTreeSet<i32>>, topic: &str, report: &Report) {
    if report.code == Code::OK && !partitions.get(topic).is_some_and(|numbers| numbers.contains(&report.partition)) {
        partitions.entry(topic.to_owned()).or_default().insert(report.partition);
    }
}

fn delivery_of(report: &Report) -> u32 {
    (report.tag >> 32) as u32
}

fn record_of(report: &Report) -> usize {
    report.tag as u32 as usize
}
