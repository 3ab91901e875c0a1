//! Where finite sources end, and that they say so.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::pipelines::{self, CONSOLE};
use wasmflow_tests::records::Topics;

const LIMIT: Duration = Duration::from_secs(60);

/// One transaction with these lines: its last record in the partition is the broker's mark, which no reader is shown.
fn transaction(broker: &KafkaBroker, topic: &str, lines: &[&str], is_committed: bool) -> anyhow::Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("transactional.id", format!("{topic}-writer"))
        .create()?;
    producer.init_transactions(LIMIT)?;
    producer.begin_transaction()?;
    for line in lines {
        let record = BaseRecord::<(), str>::to(topic).partition(0).payload(line);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    match is_committed {
        true => producer.commit_transaction(LIMIT)?,
        false => {
            producer.flush(LIMIT)?;
            producer.abort_transaction(LIMIT)?;
        }
    }
    Ok(())
}

#[test]
fn a_topic_that_ends_in_a_transaction_is_read_to_its_end() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    Topics::at(broker.address()).create("marked", 2)?;
    transaction(broker, "marked", &["kept", "kept too"], true)?;
    transaction(broker, "marked", &["given up"], false)?;
    let connection = pipelines::connection(&broker.address());
    let stages = format!(
        r#"
        [kafka.main]
        {connection}

        [sources.in]
        plugin = "kafka"
        channels = ["events"]
        config = {{ topics = ["marked"], follow = false }}
        allow = {{ kafka = ["main"] }}
        {CONSOLE}"#
    );
    let printed = PipelineFile::new("marked", &stages).run().expect_done(LIMIT);
    assert_eq!(printed, ["kept", "kept too"]);
    Ok(())
}

#[test]
fn a_source_that_ends_while_its_last_events_wait_for_room_says_so() {
    // The sink's broker is nowhere: the second batch waits for ever.
    let sink = pipelines::topic_sink(&pipelines::connection("127.0.0.1:1"), "t");
    let sink = sink.replace("type = \"memory\"", "type = \"memory\"\n    capacity_events = 10");
    let source = r#"
    [sources.stress]
    plugin = "stress"
    channels = ["events"]
    batch_events = 10
    config = { total = 20 }
"#;
    let pipeline = PipelineFile::new("ends-full", &format!("{sink}{source}"));
    let agent = pipeline.run();
    agent.expect_log("finished", LIMIT);
    agent.kill();
}
