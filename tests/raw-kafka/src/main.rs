//! Raw librdkafka loops, tuned as an expert would: what the benchmark holds wasmflow against.
//!
//! ```text
//! raw-kafka fill BROKERS TOPIC COUNT SIZE          makes COUNT records of SIZE bytes, spread over the partitions
//! raw-kafka produce BROKERS TOPIC COUNT SIZE       sends COUNT records of SIZE bytes that lie in memory, as `tail` -> Kafka does
//! raw-kafka copy BROKERS TOPIC OUT-TOPIC COUNT     puts a prefix and a suffix around each value, until COUNT have come
//! raw-kafka transact BROKERS TOPIC OUT-TOPIC COUNT SIZE    the same, exactly once, SIZE records to a transaction
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

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let line = match arguments[..] {
        ["fill", brokers, topic, count, size] => fill::run(brokers, topic, number(count)?, number(size)? as usize)?,
        ["produce", brokers, topic, count, size] => {
            produce::run(brokers, topic, number(count)?, number(size)? as usize)?
        }
        ["copy", brokers, topic, out, count] => copy::run(brokers, topic, out, number(count)?)?,
        ["transact", brokers, topic, out, count, size] => {
            transact::run(brokers, topic, out, number(count)?, number(size)?)?
        }
        _ => bail!(
            "raw-kafka fill BROKERS TOPIC COUNT SIZE | raw-kafka produce BROKERS TOPIC COUNT SIZE | raw-kafka copy BROKERS TOPIC OUT-TOPIC COUNT | \
             raw-kafka transact BROKERS TOPIC OUT-TOPIC COUNT SIZE"
        ),
    };
    println!("{line}");
    Ok(())
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("`{text}` is no number"))
}
