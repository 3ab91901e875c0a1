//! Kafka -> `prefix-suffix` -> Kafka against the raw librdkafka loop of `tests/raw-kafka`: same broker, records and settings.

use std::process::Command;

use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::binary::wasmflow;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::measure::median;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;
use wasmflow_tests::run::{Cost, run};

use crate::RUNS;
use crate::report::Report;

const RECORDS: u32 = 2_000_000;
pub const PARTITIONS: i32 = 4;
const BODY_BYTES: usize = 100;

/// Both copy the same topic, in turn, each time into a topic of its own; start-up and joining the group are counted for both.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    fill(&topics, "bench-in", RECORDS)?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for round in 0..RUNS {
        let to = format!("bench-wasmflow-{round}");
        let pipeline = PipelineFile::new(&to, &pipelines::topic_to_topic(&broker.address(), "bench-in", &to));
        ours.push(copied(&topics, &to, RECORDS, quiet_run(&pipeline))?);
        let to = format!("bench-raw-{round}");
        raw.push(copied(&topics, &to, RECORDS, raw_loop(&broker.address(), &to))?);
    }
    let ours = add(report, "Kafka -> prefix-suffix -> Kafka, 100 B, 4 partitions", RECORDS, &ours);
    let raw = add(report, "reference: raw librdkafka loop", RECORDS, &raw);
    report.add("wasmflow to raw loop", ours / raw * 100.0, "% of its records/s");
    Ok(())
}

/// Makes the topic and the records to be copied.
pub fn fill(topics: &Topics, topic: &str, records: u32) -> anyhow::Result<()> {
    topics.create(topic, PARTITIONS)?;
    for partition in 0..PARTITIONS {
        let bodies = (0..records / PARTITIONS as u32).map(|number| format!("{number:0BODY_BYTES$}"));
        topics.produce(topic, partition, bodies)?;
    }
    Ok(())
}

/// Runs the copier into a fresh topic, which must then hold every record; transactions leave marks beside them. The topic is
/// deleted then, so that the disk does not fill.
pub fn copied(topics: &Topics, to: &str, records: u32, copier: Command) -> anyhow::Result<Cost> {
    topics.create(to, PARTITIONS)?;
    let cost = run(copier)?;
    let arrived = topics.count(to)?;
    anyhow::ensure!(arrived >= u64::from(records), "`{to}` holds {arrived} of {records} records");
    topics.delete(to)?;
    Ok(cost)
}

pub fn add(report: &mut Report, what: &str, records: u32, costs: &[Cost]) -> f64 {
    let mut rates: Vec<_> = costs.iter().map(|cost| f64::from(records) / cost.wall.as_secs_f64()).collect();
    let mut cpus: Vec<_> = costs.iter().map(|cost| cost.cpu.as_secs_f64() / f64::from(records) * 1e6).collect();
    let rate = median(&mut rates);
    report.add(what, rate, "records/s");
    report.add(format!("{what}: processor"), median(&mut cpus), "s per million records");
    rate
}

fn raw_loop(broker: &str, to: &str) -> Command {
    let mut command = Command::new(wasmflow().with_file_name("raw-kafka"));
    command.args(["copy", broker, "bench-in", to]).arg(RECORDS.to_string());
    command
}
