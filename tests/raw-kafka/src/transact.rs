//! `transact`: as `copy`, with the offsets in transactions of a given length.

use std::ffi::CString;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka_sys as sys;

use crate::client::{self, CONSUMER, Producer};
use crate::copy::{Batch, assign, serve, wait};
use crate::measure::Measurement;

/// Milliseconds that one call may take.
const CALL_WAIT: i32 = 60_000;

const TRANSACTIONAL: &[(&str, &str)] = &[("transactional.id", "raw-kafka"), ("message.timeout.ms", "45000")];

/// A transaction ends with whichever comes first.
pub struct Length {
    pub records: u64,
    /// Since its first record.
    pub time: Duration,
}

pub fn run(brokers: &str, topic: &str, out: &str, count: u64, length: Length) -> Result<String> {
    let consumer = client::start(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, brokers, CONSUMER)?;
    let producer = Producer::start_with(brokers, out, TRANSACTIONAL)?;
    // Known before the first record: else librdkafka adds a partition -1 to the transaction.
    client::partitions(producer.rk, out)?;
    // SAFETY: the client lives.
    unsafe { succeeded(sys::rd_kafka_init_transactions(producer.rk, CALL_WAIT))? };
    let (ready, woken) = channel();
    let partitions = assign(consumer, topic, &ready)?;
    std::thread::spawn(move || take_reports(producer));

    let next = vec![None; partitions.len()];
    let mut transaction = Transaction { consumer, producer, topic, next, records: 0, opened: None };
    transaction.begin()?;
    let (mut batch, mut read, mut measurement) = (Batch::default(), 0, None);
    while read < count {
        let mut idle = true;
        for partition in &partitions {
            let records = batch.read(partition)? as u64;
            if records == 0 {
                continue;
            }
            idle = false;
            if measurement.is_none() {
                measurement = Some(Measurement::start()?);
            }
            producer.send(&mut batch.records(partition.number, 0))?;
            read += records;
            transaction.next[partition.number as usize] = Some(batch.next);
            transaction.records += records;
            let opened = *transaction.opened.get_or_insert_with(Instant::now);
            if transaction.records >= length.records || opened.elapsed() >= length.time {
                transaction.commit()?;
                transaction.begin()?;
            }
        }
        if idle && transaction.opened.is_some_and(|opened| opened.elapsed() >= length.time) {
            transaction.commit()?;
            transaction.begin()?;
        } else if idle {
            wait(&woken);
        }
        serve(consumer);
    }
    transaction.commit()?;
    measurement.expect("records have come").finish(read)
}

struct Transaction<'t> {
    consumer: *mut sys::rd_kafka_t,
    producer: Producer,
    topic: &'t str,
    /// Behind the last record of each partition that has moved.
    next: Vec<Option<i64>>,
    records: u64,
    /// When its first record came.
    opened: Option<Instant>,
}

impl Transaction<'_> {
    fn begin(&mut self) -> Result<()> {
        self.next.fill(None);
        self.records = 0;
        self.opened = None;
        // SAFETY: the client lives.
        unsafe { succeeded(sys::rd_kafka_begin_transaction(self.producer.rk)) }
    }

    fn commit(&self) -> Result<()> {
        let topic = CString::new(self.topic)?;
        // SAFETY: list and group are ours and destroyed once; clients and name live for the calls.
        unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(4);
            for (number, next) in self.next.iter().enumerate() {
                if let Some(next) = next {
                    (*sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), number as i32)).offset = *next;
                }
            }
            let group = sys::rd_kafka_consumer_group_metadata(self.consumer);
            let sent = sys::rd_kafka_send_offsets_to_transaction(self.producer.rk, list, group, CALL_WAIT);
            sys::rd_kafka_consumer_group_metadata_destroy(group);
            sys::rd_kafka_topic_partition_list_destroy(list);
            succeeded(sent)?;
            succeeded(sys::rd_kafka_commit_transaction(self.producer.rk, CALL_WAIT))
        }
    }
}

/// # Safety
/// `error` is null or an error object that nobody else destroys.
unsafe fn succeeded(error: *mut sys::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: promised by the caller; destroyed after its last use.
    let text = unsafe {
        let text = std::ffi::CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        sys::rd_kafka_error_destroy(error);
        text
    };
    bail!(text)
}

/// A commit waits for the reports, and does not take them itself.
fn take_reports(producer: Producer) {
    loop {
        if let Err(error) = producer.reports(100, |_| {}) {
            eprintln!("a record was lost: {error}");
            std::process::exit(1);
        }
    }
}
