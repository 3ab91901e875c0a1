//! Changes of running pipelines that read and write Kafka, exactly once too; and of one whose sink cannot deliver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::process::wait_until;
use wasmflow_tests::records::{Feeder, Topics};
use wasmflow_tests::rolled::rolled_lines;

use super::reload::{expect_lines, road, started};

const LIMIT: Duration = Duration::from_secs(120);

/// A copy of the topic `<name>-in` to `<name>-out`, with these batches and this prefix.
fn copy(broker: &KafkaBroker, name: &str, batch: usize, prefix: &str) -> String {
    let address = broker.address();
    format!(
        r#"
[kafka.main]
"bootstrap.servers" = "{address}"

[sources.from]
plugin = "kafka"
channels = ["records"]
config = {{ topics = ["{name}-in"] }}
allow = {{ kafka = ["main"] }}
interceptors = ["affix"]
batch_events = {batch}

[interceptors.affix]
plugin = "prefix-suffix"
config = {{ prefix = "{prefix}" }}

[channels.records]
type = "memory"

[sinks.to]
plugin = "kafka"
channel = "records"
config = {{ topic = "{name}-out" }}
allow = {{ kafka = ["main"] }}
batch_events = {batch}
"#
    )
}

/// Feeds the topic `<name>-in` while `work` is done; then each record has arrived once, in order, whatever its prefix.
fn while_it_is_copied(
    broker: &KafkaBroker,
    name: &str,
    promise: &str,
    work: impl FnOnce(&PipelineFile, &Agent),
) -> anyhow::Result<String> {
    let topics = Topics::at(broker.address());
    let (from, to) = (format!("{name}-in"), format!("{name}-out"));
    topics.create(&from, 1)?;
    topics.create(&to, 1)?;
    let pipeline = PipelineFile::new(name, &copy(broker, name, 100, "<"));
    pipeline.promise(promise);
    let agent = started(&pipeline);
    let stop = AtomicBool::new(false);
    let feeder = Feeder::to(&topics, &from)?;
    let fed = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let mut fed = 0;
            while !stop.load(Ordering::Relaxed) {
                feeder.feed(0, (fed..fed + 25).map(|number| ledger::line("records", number))).expect("the broker runs");
                fed += 25;
                std::thread::sleep(Duration::from_millis(5));
            }
            feeder.finish().expect("the broker runs");
            fed
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&pipeline, &agent)));
        stop.store(true, Ordering::Relaxed);
        let fed = feeding.join().expect("the feeder does not panic");
        worked.map(|()| fed).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let arrived = || topics.read_all(&to).expect("the broker runs");
    let all = wait_until(LIMIT, || arrived().len() as u64 >= fed);
    assert!(all, "{} of {fed}; the log:\n{}", arrived().len(), agent.stderr().text());
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let bodies: Vec<_> =
        arrived().iter().map(|record| record.text().trim_start_matches(['<', '(']).to_owned()).collect();
    Ledger::of(bodies).assert_each_once_in_order("records", fed);
    Ok(ended.stderr)
}

#[test]
fn a_kafka_source_and_sink_start_anew_and_each_record_is_copied_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let log = while_it_is_copied(broker, "anew", "", |pipeline, agent| {
        for round in 1..=10 {
            pipeline.rewrite("anew", &copy(broker, "anew", 100 + round, "<"));
            let said = agent.reload();
            assert!(said.contains("restarted source `from`, restarted sink `to`"), "{said}");
        }
    })?;
    // The clients outlive the runners: one assignment for all of them.
    assert!(log.matches("partitions assigned").count() <= 1, "{log}");
    Ok(())
}

#[test]
fn an_exactly_once_pipeline_swaps_and_refuses_what_would_take_a_runner_out_of_its_transactions() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    const PROMISE: &str = "delivery = \"exactly-once\"\n";
    while_it_is_copied(broker, "once", PROMISE, |pipeline, agent| {
        for round in 0..4 {
            let prefix = if round % 2 == 0 { "(" } else { "<" };
            pipeline.rewrite("once", &copy(broker, "once", 100, prefix));
            pipeline.promise(PROMISE);
            let said = agent.reload();
            assert!(said.contains("swapped interceptor `affix`"), "{said}");
        }
        pipeline.rewrite("once", &copy(broker, "once", 200, "<"));
        pipeline.promise(PROMISE);
        let said = agent.reload();
        for field in ["sources.from.batch_events", "sinks.to.batch_events"] {
            let refused = format!("`{field}` cannot change while a pipeline with `delivery = \"exactly-once\"` runs");
            assert!(said.contains(&refused), "{refused}: {said}");
        }
    })?;
    Ok(())
}

#[test]
fn a_sink_that_cannot_deliver_is_let_go_after_the_drain_timeout_and_its_channel_flows_again() -> anyhow::Result<()> {
    let main = road("main", "memory", ["batch_events = 50", ""]);
    let main = main.replace("type = \"memory\"", "type = \"memory\"\ncapacity_events = 100");
    let kafka = "[kafka.main]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n";
    let stuck = "[sinks.stuck]\nplugin = \"kafka\"\nchannel = \"main-events\"\nbatch_events = 50\nconfig = { topic = \"t\" }\n\
                 allow = { kafka = [\"main\"] }\n";
    let pipeline = PipelineFile::new("stuck", &format!("{kafka}{main}{stuck}"));
    pipeline.promise("drain_timeout = \"2s\"\n");
    for folder in ["main", "main-out"] {
        std::fs::create_dir(pipeline.folder().join(folder))?;
    }
    let agent = started(&pipeline);
    std::fs::write(pipeline.folder().join("main/1.log"), ledger::lines("log", 0..1000))?;
    let out = pipeline.folder().join("main-out");
    expect_lines(&agent, &out, 100);
    pipeline.rewrite("stuck", &format!("{kafka}{main}"));
    pipeline.promise("drain_timeout = \"2s\"\n");
    let said = agent.reload();
    assert!(said.contains("removed sink `stuck`"), "{said}");
    expect_lines(&agent, &out, 1000);
    let ended = agent.stop();
    assert!(ended.stderr.contains("reader removed, with what it had not delivered"), "{}", ended.stderr);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Ledger::of(rolled_lines(&out)).assert_each_once_in_order("log", 1000);
    Ok(())
}
