//! Exactly-once Kafka -> `prefix-suffix` -> Kafka beside our own at-least-once, and beside a raw transactional librdkafka loop with
//! the same size of transactions.

use std::process::Command;

use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::binary::wasmflow;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;

use crate::RUNS;
use crate::kafka::{add, copied, fill};
use crate::report::Report;

/// Enough for a run of many seconds: what is paid once, as finding the transaction's coordinator, is not what is measured.
const RECORDS: u32 = 6_000_000;
/// Records in a transaction: about what wasmflow makes them of under load by itself, with its interval of 100 ms.
const TRANSACTION: u32 = 100_000;

const FROM: &str = "bench-once-in";

/// All copy the same topic, in turn, each time into a topic of its own; start-up and joining the group are counted for all.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    fill(&topics, FROM, RECORDS)?;
    let (mut once, mut at_least, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..RUNS {
        let copy = |kind: &str, keys: &str| {
            let to = format!("bench-{kind}-{round}");
            let pipeline = PipelineFile::new(&to, &pipelines::topic_to_topic(&broker.address(), FROM, &to));
            pipeline.promise(keys);
            copied(&topics, &to, RECORDS, quiet_run(&pipeline))
        };
        let transaction = format!("transaction = {{ max_events = {TRANSACTION}, interval = \"10s\" }}\n");
        once.push(copy("once", &format!("delivery = \"exactly-once\"\n{transaction}"))?);
        at_least.push(copy("at-least-once", "")?);
        let to = format!("bench-raw-once-{round}");
        raw.push(copied(&topics, &to, RECORDS, raw_loop(&broker.address(), &to))?);
    }
    let what = format!("exactly-once, Kafka -> prefix-suffix -> Kafka, 100 B, {TRANSACTION} records a transaction");
    let once = add(report, &what, RECORDS, &once);
    let at_least = add(report, "the same pipeline at-least-once", RECORDS, &at_least);
    let raw = add(report, "reference: raw transactional librdkafka loop", RECORDS, &raw);
    report.add("exactly-once to at-least-once", once / at_least * 100.0, "% of its records/s");
    report.add("exactly-once to raw transactional loop", once / raw * 100.0, "% of its records/s");
    Ok(())
}

fn raw_loop(broker: &str, to: &str) -> Command {
    let mut command = Command::new(wasmflow().with_file_name("raw-kafka"));
    command.args(["transact", broker, FROM, to]).arg(RECORDS.to_string()).arg(TRANSACTION.to_string());
    command
}
