//! The producer's side: records handed over in batches, or one by one where they carry headers or timestamps.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka_sys as sys;
use sys::rd_kafka_vtype_t as Kind;

use super::error::{ClientError, Code};
use super::event::Report;
use super::offsets::{OffsetList, TopicOffset};
use super::partitioner::{self, chosen_by};
use super::{Client, c_string, milliseconds};

/// `RD_KAFKA_PARTITION_UA`: the partitioner decides.
const ANY_PARTITION: i32 = -1;

impl Client {
    /// Drops what is queued: the client is given up, and what its records' bodies point to must not be read again.
    pub fn purge(&self) {
        // RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT, macros that bindgen leaves out.
        // SAFETY: the client lives.
        unsafe { sys::rd_kafka_purge(self.rk(), 0x1 | 0x2) };
    }

    /// Sends what is queued without waiting for the linger, until all of it has been answered for, or for so long.
    pub fn flush(&self, wait: Duration) {
        // SAFETY: the client lives. The reports come by its queue, which another thread polls.
        unsafe { sys::rd_kafka_flush(self.rk(), milliseconds(wait)) };
    }

    /// Sends nothing more to these partitions until they are resumed; those that the client does not know are passed over.
    pub fn pause(&self, partitions: &[TopicOffset]) {
        // SAFETY: client and list live for the call.
        unsafe { sys::rd_kafka_pause_partitions(self.rk(), OffsetList::new(partitions).as_ptr()) };
    }

    /// Sends to these partitions again, at once: a flush that waits for nothing wakes the brokers' threads, which else may sleep
    /// for another second.
    pub fn resume(&self, partitions: &[TopicOffset]) {
        // SAFETY: client and list live for the calls.
        unsafe {
            sys::rd_kafka_resume_partitions(self.rk(), OffsetList::new(partitions).as_ptr());
            sys::rd_kafka_flush(self.rk(), 0);
        }
    }
}

/// A topic that records are sent to.
pub struct Topic {
    topic: NonNull<sys::rd_kafka_topic_t>,
    /// Keeps the client alive for as long as the topic's handle.
    client: Client,
}

// SAFETY: librdkafka's topic handles may be used from any thread at the same time; the client outlives them.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    /// # Errors
    /// When librdkafka does not take the name.
    pub fn new(client: &Client, name: &str) -> Result<Self, ClientError> {
        // SAFETY: client and name live for the call, which takes the configuration over.
        let topic = unsafe {
            let conf = sys::rd_kafka_default_topic_conf_dup(client.rk());
            if let Some(partitioning) = client.0.partitioning {
                sys::rd_kafka_topic_conf_set_partitioner_cb(conf, Some(partitioner::choose));
                sys::rd_kafka_topic_conf_set_opaque(conf, partitioning.to_opaque());
            }
            sys::rd_kafka_topic_new(client.rk(), c_string(name).as_ptr(), conf)
        };
        let topic = NonNull::new(topic).ok_or_else(|| ClientError::from_code(Code::TOPIC_INVALID))?;
        Ok(Self { topic, client: client.clone() })
    }

    /// Hands records over that all go to one partition, or each where the partitioner says; how many were taken.
    ///
    /// A partition is named once for all rather than by each record (`RD_KAFKA_MSG_F_PARTITION`): librdkafka 2.12 keeps for ever what it
    /// refuses then, and adds a partition -1 to a transaction when it does not know the topic yet.
    ///
    /// # Safety
    /// As for [`RecordBatch::send`].
    unsafe fn produce(&self, partition: i32, records: &mut [sys::rd_kafka_message_t]) -> usize {
        if records.is_empty() {
            return 0;
        }
        let count = i32::try_from(records.len()).expect("a batch is far smaller");
        // SAFETY: the topic lives; the records are ours and promised by the caller.
        let taken =
            unsafe { sys::rd_kafka_produce_batch(self.topic.as_ptr(), partition, 0, records.as_mut_ptr(), count) };
        usize::try_from(taken).unwrap_or_default()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// One record as it is handed over.
#[derive(Debug, Clone, Copy)]
pub struct RecordToSend<'a> {
    /// Nothing is a tombstone.
    pub value: Option<&'a [u8]>,
    pub key: Option<&'a [u8]>,
    /// Nothing: the partitioner decides.
    pub partition: Option<i32>,
    /// Comes back in the record's [`Report`].
    pub tag: u64,
}

impl RecordToSend<'_> {
    /// Nothing says where it goes.
    pub fn is_loose(&self) -> bool {
        self.key.is_none() && self.partition.is_none()
    }
}

/// Records on their way into one topic, in order.
///
/// Keys and headers are copied by librdkafka, values are not: it reads them until the record's report.
#[derive(Default)]
pub struct RecordBatch {
    records: Vec<sys::rd_kafka_message_t>,
    /// How many of them have neither key nor partition, and how many name their partition.
    loose: usize,
    placed: usize,
}

// SAFETY: the pointers in it are read by librdkafka only, under the promise of `send`.
unsafe impl Send for RecordBatch {}

impl RecordBatch {
    pub fn push(&mut self, record: RecordToSend<'_>) {
        let (payload, len) = pointer(record.value);
        let (key, key_len) = pointer(record.key);
        self.loose += usize::from(record.is_loose());
        self.placed += usize::from(record.partition.is_some());
        self.records.push(sys::rd_kafka_message_t {
            err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
            rkt: std::ptr::null_mut(),
            partition: record.partition.unwrap_or(ANY_PARTITION),
            payload,
            len,
            key,
            key_len,
            offset: 0,
            _private: record.tag as usize as *mut c_void,
        });
    }

    /// Hands the records over and empties the batch; adds a report for each record that librdkafka did not take.
    ///
    /// # Safety
    /// The values of the records live, unchanged, until their reports have come or the client is gone; the keys for
    /// this call.
    pub unsafe fn send(&mut self, topic: &Topic, refused: &mut Vec<Report>) {
        // SAFETY: promised by the caller.
        let taken = unsafe {
            if self.loose == self.records.len() { self.send_loose(topic) } else { self.send_by_partition(topic) }
        };
        if taken != self.records.len() {
            let reports = self.records.iter().map(|record| {
                let (tag, partition) = (record._private as u64, record.partition);
                Report { tag, code: record.err.into(), partition }
            });
            refused.extend(reports.filter(|report| report.code != Code::OK));
        }
        self.records.clear();
        (self.loose, self.placed) = (0, 0);
    }

    /// The partitioner is asked for the first record, and the others follow it.
    ///
    /// # Safety
    /// As for [`send`](Self::send).
    unsafe fn send_loose(&mut self, topic: &Topic) -> usize {
        let first = self.records.len().min(1);
        let (first, others) = self.records.split_at_mut(first);
        // SAFETY: promised by the caller.
        unsafe {
            let (first_taken, chosen) = chosen_by(|| topic.produce(ANY_PARTITION, first));
            let taken = topic.produce(chosen.unwrap_or(ANY_PARTITION), others);
            // The topic may have lost the partition in between.
            let taken = if taken == 0 { topic.produce(ANY_PARTITION, others) } else { taken };
            first_taken + taken
        }
    }

    /// # Safety
    /// As for [`send`](Self::send).
    unsafe fn send_by_partition(&mut self, topic: &Topic) -> usize {
        // Where one goes by its key, it may meet one that names the partition: then their order stays.
        if self.placed == self.records.len() {
            self.records.sort_by_key(|record| record.partition);
        }
        let runs = self.records.chunk_by_mut(|left, right| left.partition == right.partition);
        // SAFETY: promised by the caller.
        runs.map(|run| unsafe { topic.produce(run[0].partition, run) }).sum()
    }
}

/// Headers of one record, in the making.
pub struct Headers(*mut sys::rd_kafka_headers_t);

impl Headers {
    pub fn with_capacity(headers: usize) -> Self {
        // SAFETY: librdkafka makes the list or aborts.
        Self(unsafe { sys::rd_kafka_headers_new(headers) })
    }

    /// Adds a header; names may repeat, a value may be null.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        let (value, length) = pointer(value);
        // SAFETY: the list is ours; name and value are copied.
        unsafe {
            sys::rd_kafka_header_add(self.0, name.as_ptr().cast(), name.len() as isize, value, length as isize);
        }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: still ours: no record has taken it over.
            unsafe { sys::rd_kafka_headers_destroy(self.0) }
        }
    }
}

/// Hands over one record with headers or a timestamp (milliseconds since 1970); the partition that was chosen for it, if it has neither
/// a key nor a partition.
///
/// # Errors
/// When librdkafka does not take it.
///
/// # Safety
/// As for [`RecordBatch::send`].
pub unsafe fn send_one(
    topic: &Topic,
    record: RecordToSend<'_>,
    timestamp: Option<i64>,
    headers: Option<Headers>,
) -> Result<Option<i32>, ClientError> {
    let mut units = Units::new();
    units.push(Kind::RD_KAFKA_VTYPE_RKT, |unit| unit.rkt = topic.topic.as_ptr());
    units.push(Kind::RD_KAFKA_VTYPE_PARTITION, |unit| unit.i32_ = record.partition.unwrap_or(ANY_PARTITION));
    units.push_bytes(Kind::RD_KAFKA_VTYPE_VALUE, record.value);
    units.push_bytes(Kind::RD_KAFKA_VTYPE_KEY, record.key);
    units.push(Kind::RD_KAFKA_VTYPE_OPAQUE, |unit| unit.ptr = record.tag as usize as *mut c_void);
    if let Some(timestamp) = timestamp {
        units.push(Kind::RD_KAFKA_VTYPE_TIMESTAMP, |unit| unit.i64_ = timestamp);
    }
    if let Some(headers) = &headers {
        units.push(Kind::RD_KAFKA_VTYPE_HEADERS, |unit| unit.headers = headers.0);
    }
    // SAFETY: topic, record and headers live for the call, the value as promised by the caller.
    let (sent, chosen) =
        chosen_by(|| unsafe { sys::rd_kafka_produceva(topic.client.rk(), units.list.as_ptr(), units.count) });
    // SAFETY: the error is the call's own.
    unsafe { ClientError::from_object(sent)? };
    if let Some(mut headers) = headers {
        // The record has taken them over.
        headers.0 = std::ptr::null_mut();
    }
    Ok(chosen)
}

/// The arguments of one `rd_kafka_produceva`.
struct Units {
    list: [sys::rd_kafka_vu_t; 7],
    count: usize,
}

impl Units {
    fn new() -> Self {
        let none = sys::rd_kafka_vu_t {
            vtype: Kind::RD_KAFKA_VTYPE_END,
            u: sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: std::ptr::null_mut() },
        };
        Self { list: [none; 7], count: 0 }
    }

    fn push(&mut self, kind: Kind, set: impl FnOnce(&mut sys::rd_kafka_vu_s__bindgen_ty_1)) {
        let unit = &mut self.list[self.count];
        unit.vtype = kind;
        set(&mut unit.u);
        self.count += 1;
    }

    fn push_bytes(&mut self, kind: Kind, bytes: Option<&[u8]>) {
        let (ptr, size) = pointer(bytes);
        self.push(kind, |unit| unit.mem = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size });
    }
}

/// Null for nothing; never null for something, however short: that is what tells a tombstone from an empty value.
fn pointer(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    match bytes {
        None => (std::ptr::null_mut(), 0),
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
    }
}
