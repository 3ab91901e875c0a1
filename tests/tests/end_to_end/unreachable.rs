//! A broker that is down, goes away, hangs or refuses the password.

use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::{KafkaBroker, USER};
use wasmflow_tests::ledger;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;

const LIMIT: Duration = Duration::from_secs(60);

/// Tails `app.log` to its end into the topic `out`, over a connection with these settings.
fn file_to_topic(name: &str, connection: &str, lines: u64) -> PipelineFile {
    let stages = pipelines::tail_to("follow = false", &pipelines::topic_sink(connection, "out"));
    let pipeline = PipelineFile::new(name, &stages);
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the folder is fresh");
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..lines));
    pipeline
}

/// What the topic `out` holds arrived once and in order: the producer is idempotent, so a broken connection repeats nothing.
fn assert_all_arrived_once(broker: &KafkaBroker, lines: u64) -> anyhow::Result<()> {
    Topics::at(broker.address()).ledger("out")?.assert_each_once_in_order("log", lines);
    Ok(())
}

#[test]
fn a_broker_that_is_down_at_start_delays_and_loses_nothing() -> anyhow::Result<()> {
    let Some(mut broker) = KafkaBroker::own() else { return Ok(()) };
    Topics::at(broker.address()).create("out", 1)?;
    broker.kill();
    let pipeline = file_to_topic("down-at-start", &pipelines::connection(&broker.address()), 1000);
    let agent = pipeline.run();
    agent.expect_log(&broker.address(), LIMIT);
    agent.expect_log("down-at-start.topic", LIMIT);
    broker.restart()?;
    agent.expect_done(LIMIT);
    assert_all_arrived_once(&broker, 1000)
}

#[test]
fn a_broker_that_goes_away_in_the_middle_delays_and_loses_nothing() -> anyhow::Result<()> {
    const LINES: u64 = 300_000;
    let Some(mut broker) = KafkaBroker::own() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("out", 1)?;
    let pipeline = file_to_topic("down-in-the-middle", &pipelines::connection(&broker.address()), LINES);
    let agent = pipeline.run();
    topics.wait_for_count("out", 1, LIMIT)?;
    broker.kill();
    std::thread::sleep(Duration::from_millis(500));
    broker.restart()?;
    agent.expect_done(LIMIT);
    assert_all_arrived_once(&broker, LINES)
}

#[test]
fn a_refused_password_is_said_in_words_and_does_not_appear_in_them() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("out", 1)?;
    let connection = |password: &str| {
        let (address, user) = (broker.password_address(), USER.0);
        format!(
            r#"
            "bootstrap.servers" = "{address}"
            "security.protocol" = "SASL_PLAINTEXT"
            "sasl.mechanism" = "PLAIN"
            "sasl.username" = "{user}"
            "sasl.password" = {password}
            "#
        )
    };
    let refused = file_to_topic("refused-password", &connection(r#""canary-4711""#), 10);
    let agent = refused.run();
    agent.expect_log("uthentication", LIMIT);
    let log = agent.stop().stderr;
    assert!(log.contains("main"), "the log names the connection: {log}");
    assert!(!log.contains("canary-4711"), "{log}");

    let welcome = file_to_topic("right-password", &connection(r#"{ env = "KAFKA_PASSWORD" }"#), 10);
    let options = wasmflow_tests::agent::Options { env: vec![("KAFKA_PASSWORD", USER.1)], ..Default::default() };
    wasmflow_tests::agent::Agent::run_with(welcome.path(), &options).expect_done(LIMIT);
    assert_all_arrived_once(broker, 10)
}

#[test]
fn a_topic_that_does_not_exist_is_said_and_taken_up_when_it_is_made() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let pipeline = file_to_topic("missing-topic", &pipelines::connection(&broker.address()), 10);
    let text = std::fs::read_to_string(pipeline.path())?.replace("topic = \"out\"", "topic = \"made-later\"");
    std::fs::write(pipeline.path(), text)?;
    let agent = pipeline.run();
    agent.expect_log("made-later", LIMIT);
    topics.create("made-later", 1)?;
    let ended = agent.wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    topics.ledger("made-later")?.assert_each_once_in_order("log", 10);
    Ok(())
}
