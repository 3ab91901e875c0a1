//! An idle pipeline costs next to nothing, and what then arrives is through in milliseconds.

use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::measure::{answers_per_second, latency_to_console, latency_to_ok, load};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::records::{Sender, Topics};
use wasmflow_tests::soak;

use crate::alone;

/// The promise, held to in `make soak` on a quiet machine. The usual run has other work beside it: there the bound only finds
/// what waits for something, such as an interval of polling or a commit.
fn quick() -> Duration {
    soak::span(Duration::from_millis(150), Duration::from_millis(5))
}

#[test]
fn an_idle_pipeline_uses_under_one_percent_of_a_core() -> anyhow::Result<()> {
    let _alone = alone();
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("idle", 4)?;
    let port = free_port();
    let pipeline = PipelineFile::new("idle", &pipelines::netcat_and_topic_to_console(port, &broker.address(), "idle"));
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let agent = pipeline.run();
    // Idle after some work, not from the start: what is left to do after a settlement shows then.
    assert_eq!(NetcatClient::connect(port).ask("awake"), "OK");
    let sender = Sender::to(&topics, "idle")?;
    sender.send("awake too")?;
    assert!(agent.stdout().wait_for(0, "awake too", Duration::from_secs(30)).is_some(), "{}", agent.stderr().text());
    std::thread::sleep(Duration::from_secs(2));
    let load = load(&agent, soak::span(Duration::from_secs(5), Duration::from_secs(60)));
    println!("idle: {:.2} % of a core", load * 100.0);
    assert!(load < soak::bound(0.5, 0.01), "{:.2} % of a core while idle", load * 100.0);
    agent.kill();
    Ok(())
}

#[test]
fn a_line_by_netcat_is_on_the_console_within_milliseconds() {
    let _alone = alone();
    let port = free_port();
    let pipeline = PipelineFile::new("netcat-latency", &pipelines::netcat_to(port, pipelines::CONSOLE));
    let agent = pipeline.run();
    let mut client = NetcatClient::connect(port);
    let median = latency_to_console(&agent, 50, |line| client.send(line));
    println!("netcat to console: {median:?}");
    assert!(median < quick(), "median {median:?}");
    agent.kill();
}

#[test]
fn a_record_is_on_the_console_within_milliseconds() -> anyhow::Result<()> {
    let _alone = alone();
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("latency", 1)?;
    let port = free_port();
    let stages = pipelines::netcat_and_topic_to_console(port, &broker.address(), "latency");
    let pipeline = PipelineFile::new("kafka-latency", &stages);
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let agent = pipeline.run();
    let sender = Sender::to(&topics, "latency")?;
    // The first record comes when the group has given the partition out.
    sender.send("first")?;
    assert!(agent.stdout().wait_for(0, "first", Duration::from_secs(30)).is_some(), "{}", agent.stderr().text());
    let median = latency_to_console(&agent, 50, |line| sender.send(line).expect("the broker runs"));
    println!("kafka to console: {median:?}");
    assert!(median < quick(), "median {median:?}");
    agent.kill();
    Ok(())
}

#[test]
fn a_line_by_netcat_is_with_kafka_within_milliseconds_beyond_the_linger() -> anyhow::Result<()> {
    let _alone = alone();
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    Topics::at(broker.address()).create("acknowledged", 1)?;
    let port = free_port();
    let pipeline = PipelineFile::new(
        "netcat-kafka",
        &pipelines::netcat_to(port, &pipelines::topic_sink(&pipelines::lingering(&broker.address()), "acknowledged")),
    );
    let agent = pipeline.run();
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("first"), "OK");
    let median = latency_to_ok(&mut client, 50);
    println!("netcat to Kafka's acknowledgement, linger {} ms: {median:?}", pipelines::LINGER_MS);
    assert!(median < quick() + Duration::from_millis(pipelines::LINGER_MS), "median {median:?}");
    agent.kill();
    Ok(())
}

#[test]
fn a_client_that_waits_for_each_ok_gets_over_a_thousand_a_second() {
    let _alone = alone();
    let port = free_port();
    let pipeline = PipelineFile::new("ping-pong", &pipelines::netcat_to(port, pipelines::NOWHERE));
    let agent = pipeline.run();
    let rate = answers_per_second(&mut NetcatClient::connect(port), Duration::from_secs(3));
    println!("answers to a client that waits for each: {rate:.0} a second");
    assert!(rate > soak::bound(20.0, 1000.0), "{rate:.0} answers a second");
    agent.kill();
}
