//! Agents with the same pipeline share the partitions of a topic.

use std::time::Duration;

use wasmflow_tests::agent::Agent;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::records::Topics;

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;
const RECORDS: u64 = 400_000;

/// An agent of the pipeline, told apart from its like by its instance; its state is its own, as on another machine.
struct Member {
    folder: Folder,
    agent: Agent,
}

impl Member {
    fn start(broker: &KafkaBroker, topics: (&str, &str), instance: &str) -> Self {
        let folder = Folder::new(instance);
        let (address, (from, to)) = (broker.address(), topics);
        // A short session, since a test waits for it to end.
        let pipeline = folder.write(
            "pipeline.toml",
            format!(
                r#"
                [pipeline]
                name = "{from}"
                instance = "{instance}"
                state_dir = "state"

                [kafka.main]
                "bootstrap.servers" = "{address}"
                "session.timeout.ms" = 6000

                [sources.from]
                plugin = "kafka"
                channels = ["records"]
                config = {{ topics = ["{from}"] }}
                allow = {{ kafka = ["main"] }}

                [channels.records]
                type = "memory"

                [sinks.to]
                plugin = "kafka"
                channel = "records"
                config = {{ topic = "{to}", partition_header = "kafka.partition", headers = [] }}
                allow = {{ kafka = ["main"] }}
                "#
            ),
        );
        Self { agent: Agent::run(&pipeline), folder }
    }

    fn stop(self) {
        let ended = self.agent.stop();
        assert_eq!(ended.code, Some(0), "{} in {}", ended.stderr, self.folder.path().display());
    }
}

fn fill(topics: &Topics, topic: &str, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    for partition in 0..PARTITIONS {
        let lines = numbers.clone().map(|number| ledger::line(&format!("p{partition}"), number));
        topics.produce(topic, partition, lines)?;
    }
    Ok(())
}

fn ledger_of(topics: &Topics, topic: &str, partition: i32) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::default();
    topics.read_partition(topic, partition, |record| ledger.arrived(&record.text()))?;
    Ok(ledger)
}

#[test]
fn a_second_agent_takes_its_share_and_nothing_comes_twice() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("share-in", PARTITIONS)?;
    topics.create("share-out", PARTITIONS)?;
    fill(&topics, "share-in", 0..1000)?;
    let first = Member::start(broker, ("share-in", "share-out"), "first");
    topics.wait_for_count("share-out", 4000, LIMIT)?;

    let second = Member::start(broker, ("share-in", "share-out"), "second");
    fill(&topics, "share-in", 1000..RECORDS / 4)?;
    second.agent.expect_log("partitions assigned", LIMIT);
    topics.wait_for_count("share-out", RECORDS, LIMIT)?;
    first.stop();
    second.stop();
    for partition in 0..PARTITIONS {
        let ledger = ledger_of(&topics, "share-out", partition)?;
        ledger.assert_each_once_in_order(&format!("p{partition}"), RECORDS / 4);
    }
    Ok(())
}

#[test]
fn the_partitions_of_a_killed_agent_go_to_the_others_and_nothing_is_lost() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("widow-in", PARTITIONS)?;
    topics.create("widow-out", PARTITIONS)?;
    fill(&topics, "widow-in", 0..RECORDS / 4)?;
    let first = Member::start(broker, ("widow-in", "widow-out"), "first");
    let second = Member::start(broker, ("widow-in", "widow-out"), "second");
    topics.wait_for_count("widow-out", RECORDS / 10, LIMIT)?;
    first.agent.kill();
    fill(&topics, "widow-in", RECORDS / 4..RECORDS / 4 + 1000)?;
    // Repeats count too, so what is waited for is the end of each partition.
    let deadline = std::time::Instant::now() + LIMIT;
    for partition in 0..PARTITIONS {
        let stream = format!("p{partition}");
        while ledger_of(&topics, "widow-out", partition)?.highest(&stream) != Some(RECORDS / 4 + 999) {
            assert!(std::time::Instant::now() < deadline, "partition {partition} was not taken over");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    second.stop();
    for partition in 0..PARTITIONS {
        ledger_of(&topics, "widow-out", partition)?.assert_none_lost(&format!("p{partition}"), RECORDS / 4 + 1000);
    }
    Ok(())
}
