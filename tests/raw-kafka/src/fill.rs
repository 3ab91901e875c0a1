//! `fill`: records to be copied.

use anyhow::Result;

use crate::client::{Producer, partitions, record};
use crate::measure::Measurement;

/// Records in one call.
const BATCH: u64 = 1000;
/// Limit: records in flight.
const IN_FLIGHT: u64 = 200_000;

/// Each value begins with its record's number in decimal and a space, as far as it fits, so that a reader can tell them apart.
pub fn run(brokers: &str, topic: &str, count: u64, size: usize) -> Result<String> {
    let producer = Producer::start(brokers, topic)?;
    let partitions = partitions(producer.rk, topic)? as u64;
    let measurement = Measurement::start()?;
    let (mut sent, mut acknowledged) = (0, 0);
    let mut values = Vec::new();
    while acknowledged < count {
        if sent < count && sent - acknowledged < IN_FLIGHT {
            let end = count.min(sent + BATCH);
            values.clear();
            (sent..end).for_each(|number| push_value(&mut values, number, size));
            let value = |number: u64| &values[(number - sent) as usize * size..][..size];
            let mut records: Vec<_> =
                (sent..end).map(|number| record((number / BATCH % partitions) as i32, value(number), 0)).collect();
            producer.send(&mut records)?;
            sent = end;
        }
        let is_waiting = sent == count || sent - acknowledged >= IN_FLIGHT;
        producer.reports(if is_waiting { 100 } else { 0 }, |_| acknowledged += 1)?;
    }
    measurement.finish(count)
}

/// A value that begins with its number.
pub fn push_value(values: &mut Vec<u8>, number: u64, size: usize) {
    let start = values.len();
    values.extend_from_slice(format!("{number} ").as_bytes());
    values.resize(start + size, b'x');
}
