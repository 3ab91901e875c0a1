//! `produce`: records that lie in memory from the start, to whichever partitions librdkafka chooses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::client::{Header, Producer, partitions, record};
use crate::fill::push_value;
use crate::measure::Measurement;

/// Records in one call.
const BATCH: usize = 1000;
/// Limit: records in flight.
const IN_FLIGHT: u64 = 200_000;
/// Records in memory, sent over and over.
const RECORDS: u64 = 100_000;
/// `RD_KAFKA_PARTITION_UA`: the partitioner decides.
const ANY_PARTITION: i32 = -1;

static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

/// One thread sends, one takes reports; no value is copied on this side of librdkafka. With headers it is a call for each record:
/// librdkafka has none for many.
pub fn run(brokers: &str, topic: &str, count: u64, size: usize, headers: &[Header]) -> Result<String> {
    let producer = Producer::start(brokers, topic)?;
    partitions(producer.rk, topic)?;
    let mut values = Vec::new();
    (0..RECORDS).for_each(|number| push_value(&mut values, number, size));
    // librdkafka reads it until the process ends.
    let values: Vec<_> = values.leak().chunks_exact(size).collect();
    let (reported, news) = channel();
    std::thread::spawn(move || take_reports(producer, &reported));

    let measurement = Measurement::start()?;
    let mut sent = 0;
    for batch in values.chunks(BATCH).cycle() {
        while sent - ACKNOWLEDGED.load(Ordering::Acquire) >= IN_FLIGHT {
            wait(&news)?;
        }
        let batch = &batch[..batch.len().min((count - sent) as usize)];
        match headers {
            [] => producer
                .send_shared(&mut batch.iter().map(|value| record(ANY_PARTITION, value, 0)).collect::<Vec<_>>())?,
            _ => batch.iter().try_for_each(|value| producer.send_with_headers(value, headers))?,
        }
        sent += batch.len() as u64;
        if sent == count {
            break;
        }
    }
    while ACKNOWLEDGED.load(Ordering::Acquire) < count {
        wait(&news)?;
    }
    measurement.finish(count)
}

fn wait(news: &std::sync::mpsc::Receiver<()>) -> Result<()> {
    match news.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => Ok(()),
        Err(RecvTimeoutError::Timeout) => bail!("no reports for a minute"),
        Err(RecvTimeoutError::Disconnected) => bail!("the thread that takes reports is gone"),
    }
}

fn take_reports(producer: Producer, reported: &Sender<()>) {
    loop {
        let mut acknowledged = 0;
        if let Err(error) = producer.reports(100, |_| acknowledged += 1) {
            eprintln!("a record was lost: {error}");
            std::process::exit(1);
        }
        ACKNOWLEDGED.fetch_add(acknowledged, Ordering::AcqRel);
        // Nobody listens once all are acknowledged.
        let _ = reported.send(());
    }
}
