//! A broker that does not allow what transactions need: said in words, and never tried again without end.

use std::io::Write as _;
use std::time::Duration;

use wasmflow_tests::acl::{Resource, deny};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::{KafkaBroker, USER};
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;

const LIMIT: Duration = Duration::from_secs(90);

/// Tails the folder `logs` by a channel of this type into the topic of the pipeline's name, as [`USER`].
fn tail_as_user(broker: &KafkaBroker, name: &str, channel: &str, config: &str) -> PipelineFile {
    let connection = pipelines::connection_as_user(&broker.password_address());
    let sink = pipelines::topic_sink(&connection, name).replace("\"memory\"", &format!("\"{channel}\""));
    let pipeline = PipelineFile::new(name, &pipelines::tail_to(config, &sink));
    pipeline.promise("delivery = \"exactly-once\"\n");
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the folder is fresh");
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..100));
    pipeline
}

#[test]
fn what_the_broker_does_not_allow_stops_an_exactly_once_pipeline_with_the_reason() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::guarded() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let cases = [
        ("denied-id", Resource::TransactionalId("denied-id.test"), "does not allow this transactional id"),
        ("denied-topic", Resource::Topic("denied-topic"), "denied-topic"),
        ("denied-progress", Resource::Topic("_wasmflow.denied-progress"), "not allowed to"),
    ];
    for (name, resource, words) in cases {
        topics.create(name, 1)?;
        deny(&broker.address(), resource, USER.0)?;
        let ended = tail_as_user(&broker, name, "memory", "follow = false").run().wait(LIMIT);
        assert_eq!(ended.code, Some(1), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{name}: `{words}` in {}", ended.stderr);
        assert!(topics.read_all(name)?.is_empty(), "{name}");
    }
    // Each reader of a file channel has an id of its own.
    topics.create("denied-reader", 1)?;
    deny(&broker.address(), Resource::TransactionalId("denied-reader.test.topic"), USER.0)?;
    let ended = tail_as_user(&broker, "denied-reader", "file", "follow = false").run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("does not allow this transactional id"), "{}", ended.stderr);

    right_that_is_taken_away(&broker, &topics, "file")?;
    right_that_is_taken_away(&broker, &topics, "memory")
}

/// In the middle of the flow: what was committed stays, and nothing is committed by halves.
fn right_that_is_taken_away(broker: &KafkaBroker, topics: &Topics, channel: &str) -> anyhow::Result<()> {
    let name = format!("denied-later-{channel}");
    topics.create(&name, 1)?;
    let pipeline = tail_as_user(broker, &name, channel, "poll_interval = \"20ms\"");
    let agent = pipeline.run();
    topics.wait_for_count(&name, 100, LIMIT)?;
    deny(&broker.address(), Resource::Topic(&name), USER.0)?;
    let mut log = std::fs::File::options().append(true).open(pipeline.folder().join("logs/app.log"))?;
    log.write_all(ledger::lines("log", 100..200).as_bytes())?;
    let ended = agent.wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{name}: {}", ended.stderr);
    assert!(
        ended.stderr.contains("not allowed") || ended.stderr.contains("does not allow"),
        "{name}: {}",
        ended.stderr
    );
    let records = topics.read_all(&name)?;
    Ledger::of(records.iter().map(|record| record.text())).assert_each_once_in_order("log", 100);
    Ok(())
}
