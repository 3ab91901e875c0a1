//! The producer's side: records handed over in batches, or one by one where they carry headers or timestamps.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka_sys as sys;
use sys::rd_kafka_vtype_t as Kind;

use super::error::{ClientError, Code};
use super::event::Report;
use super::offsets::{OffsetList, TopicOffset};
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
    known: AtomicBool,
}

// SAFETY: librdkafka's topic handles may be used from any thread at the same time; the client outlives them.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    /// # Errors
    /// When librdkafka does not take the name.
    pub fn new(client: &Client, name: &str) -> Result<Self, ClientError> {
        // SAFETY: client and name live for the call; no configuration means the client's.
        let topic = unsafe { sys::rd_kafka_topic_new(client.rk(), c_string(name).as_ptr(), std::ptr::null_mut()) };
        let topic = NonNull::new(topic).ok_or_else(|| ClientError::from_code(Code::TOPIC_INVALID))?;
        Ok(Self { topic, client: client.clone(), known: AtomicBool::new(false) })
    }

    /// Whether the brokers have acknowledged a record of it, and so librdkafka knows its partitions.
    ///
    /// Before that `rd_kafka_produce_batch` of librdkafka 2.12 adds a partition -1 to a transaction when its records name their
    /// partitions, and the transaction fails with it: such records go one by one.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub fn set_known(&self) {
        self.known.store(true, Ordering::Release);
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

/// Records on their way into one topic, in order.
///
/// Keys and headers are copied by librdkafka, values are not: it reads them until the record's report.
#[derive(Default)]
pub struct RecordBatch {
    records: Vec<sys::rd_kafka_message_t>,
}

// SAFETY: the pointers in it are read by librdkafka only, under the promise of `send`.
unsafe impl Send for RecordBatch {}

impl RecordBatch {
    pub fn push(&mut self, record: RecordToSend<'_>) {
        let (payload, len) = pointer(record.value);
        let (key, key_len) = pointer(record.key);
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
        // SAFETY: the topic lives; the records are ours and promised by the caller.
        let taken = unsafe {
            sys::rd_kafka_produce_batch(
                topic.topic.as_ptr(),
                ANY_PARTITION,
                sys::RD_KAFKA_MSG_F_PARTITION,
                self.records.as_mut_ptr(),
                i32::try_from(self.records.len()).expect("a batch is far smaller"),
            )
        };
        if usize::try_from(taken) != Ok(self.records.len()) {
            let reports = self.records.iter().map(|record| {
                let (tag, partition) = (record._private as u64, record.partition);
                Report { tag, code: record.err.into(), partition }
            });
            refused.extend(reports.filter(|report| report.code != Code::OK));
        }
        self.records.clear();
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

/// Hands over one record with headers or a timestamp (milliseconds since 1970).
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
) -> Result<(), ClientError> {
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
    unsafe {
        ClientError::from_object(sys::rd_kafka_produceva(topic.client.rk(), units.list.as_ptr(), units.count))?;
    }
    if let Some(mut headers) = headers {
        // The record has taken them over.
        headers.0 = std::ptr::null_mut();
    }
    Ok(())
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
