//! Raw librdkafka loops, tuned as an expert would: what the benchmark holds wasmflow against.
//!
//! ```text
//! raw-kafka fill BROKERS TOPIC COUNT SIZE          makes COUNT records of SIZE bytes, spread over the partitions
//! raw-kafka produce BROKERS TOPIC COUNT SIZE       sends COUNT records of SIZE bytes that lie in memory, as `tail` -> Kafka does
//! raw-kafka copy BROKERS TOPIC OUT-TOPIC COUNT     puts a prefix and a suffix around each value, until COUNT have come
//! raw-kafka transact BROKERS TOPIC OUT-TOPIC COUNT SIZE    the same, exactly once, SIZE records to a transaction
//! raw-kafka transact BROKERS TOPIC OUT-TOPIC COUNT --interval-ms MS    a transaction for each time
//!
//! --set NAME=VALUE, repeated, anywhere: librdkafka's options for producer and consumer
//! ```
//!
//! Each prints one line of JSON: records, seconds, records a second, and CPU seconds (user and system) of this process.
//! `transact` commits the consumer's offsets in the transactions, and sends nothing while one commits, as librdkafka wants it.
//! `copy` does what wasmflow's `prefix-suffix` pipeline does and no more: at least once, `acks=all`, idempotent, the same
//! client settings, offsets committed once the copies are acknowledged. Topics are there before.

mod client;
mod copy;
mod fill;
mod measure;
mod produce;
mod transact;

use std::ffi::CString;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use transact::Length;

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut set = Vec::new();
    while let Some(option) = take_option(&mut arguments, "--set")? {
        let (name, value) = option.split_once('=').with_context(|| format!("`{option}` is no NAME=VALUE"))?;
        set.push((name.to_owned(), value.to_owned()));
    }
    client::SET.get_or_init(|| set);
    let mut headers = Vec::new();
    while let Some(option) = take_option(&mut arguments, "--header")? {
        let (name, value) = option.split_once('=').with_context(|| format!("`{option}` is no NAME=VALUE"))?;
        headers.push((CString::new(name)?, value.to_owned()));
    }
    let interval = take_option(&mut arguments, "--interval-ms")?;
    let interval = interval.map(|text| number(&text).map(Duration::from_millis)).transpose()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let line = match arguments[..] {
        ["fill", brokers, topic, count, size] => fill::run(brokers, topic, number(count)?, number(size)? as usize)?,
        ["produce", brokers, topic, count, size] => {
            produce::run(brokers, topic, number(count)?, number(size)? as usize, &headers)?
        }
        ["copy", brokers, topic, out, count] => copy::run(brokers, topic, out, number(count)?)?,
        ["transact", brokers, topic, out, count, size] => {
            transact::run(brokers, topic, out, number(count)?, Length { records: number(size)?, time: Duration::MAX })?
        }
        ["transact", brokers, topic, out, count] if interval.is_some() => {
            let time = interval.unwrap_or_default();
            transact::run(brokers, topic, out, number(count)?, Length { records: u64::MAX, time })?
        }
        _ => bail!(
            "raw-kafka fill BROKERS TOPIC COUNT SIZE | raw-kafka produce BROKERS TOPIC COUNT SIZE [--header NAME=VALUE]... | raw-kafka copy BROKERS TOPIC OUT-TOPIC COUNT | \
             raw-kafka transact BROKERS TOPIC OUT-TOPIC COUNT SIZE|--interval-ms MS; --set NAME=VALUE"
        ),
    };
    println!("{line}");
    Ok(())
}

/// Takes the value of an option out of the arguments, and the option with it.
fn take_option(arguments: &mut Vec<String>, option: &str) -> Result<Option<String>> {
    let Some(place) = arguments.iter().position(|argument| argument == option) else { return Ok(None) };
    if place + 1 == arguments.len() {
        bail!("`{option}` wants a value");
    }
    arguments.remove(place);
    Ok(Some(arguments.remove(place)))
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("`{text}` is no number"))
}
