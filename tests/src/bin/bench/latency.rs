//! Latency of single events through an idle pipeline, answers a second to a waiting client, and what idling costs.

use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::measure::{answers_per_second, latency_to_console, latency_to_ok, load};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::records::{Sender, Topics};

use crate::report::Report;

const EVENTS: usize = 200;

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let port = free_port();
    let pipeline = PipelineFile::new("ping-pong", &pipelines::netcat_to(port, pipelines::NOWHERE));
    let agent = pipeline.run();
    let rate = answers_per_second(&mut NetcatClient::connect(port), Duration::from_secs(5));
    report.add("netcat client that waits for each OK", rate, "answers/s");
    agent.kill();
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    all_sources(report, broker)?;
    to_kafka(report, broker)
}

fn all_sources(report: &mut Report, broker: &KafkaBroker) -> anyhow::Result<()> {
    let topics = Topics::at(broker.address());
    topics.create("latency", 1)?;
    let port = free_port();
    let stages = pipelines::netcat_and_topic_to_console(port, &broker.address(), "latency");
    let pipeline = PipelineFile::new("latency", &stages);
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let agent = pipeline.run();
    let (mut client, sender) = (NetcatClient::connect(port), Sender::to(&topics, "latency")?);
    sender.send("first")?;
    agent.stdout().wait_for(0, "first", Duration::from_secs(30));
    let by_netcat = latency_to_console(&agent, EVENTS, |line| client.send(line));
    report.add("netcat to console, pipeline idle before", millis(by_netcat), "ms");
    let by_kafka = latency_to_console(&agent, EVENTS, |line| sender.send(line).expect("the broker runs"));
    report.add("Kafka to console, pipeline idle before", millis(by_kafka), "ms");
    idle(report, &agent);
    agent.kill();
    Ok(())
}

fn idle(report: &mut Report, agent: &Agent) {
    let idle = load(agent, Duration::from_secs(20));
    report.add("idle with netcat, kafka and tail sources", idle * 100.0, "% of a core");
    report.add("idle: resident", agent.process().resident_bytes() as f64 / 1e6, "MB");
}

fn to_kafka(report: &mut Report, broker: &KafkaBroker) -> anyhow::Result<()> {
    Topics::at(broker.address()).create("acknowledged", 1)?;
    let port = free_port();
    let stages =
        pipelines::netcat_to(port, &pipelines::topic_sink(&pipelines::lingering(&broker.address()), "acknowledged"));
    let pipeline = PipelineFile::new("netcat-kafka", &stages);
    let agent = pipeline.run();
    let mut client = NetcatClient::connect(port);
    client.ask("first");
    let median = latency_to_ok(&mut client, EVENTS).saturating_sub(Duration::from_millis(pipelines::LINGER_MS));
    report.add("netcat to Kafka's acknowledgement, beyond the linger", millis(median), "ms");
    agent.kill();
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
