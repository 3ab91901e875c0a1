//! Every sink blocked: 3 s here, a minute in `make soak`. Memory stays bounded, the processor idle, clients are kept, and the
//! flow goes on at once.

use std::time::{Duration, Instant};

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::measure::load;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::port::free_port;
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;

use crate::alone;

const MIB: u64 = 1 << 20;

/// A netcat source and a source without end, on channels of at most 8 MiB, before the given sinks of `flood` and `lines`.
fn pipeline(name: &str, port: u16, sinks: &str) -> PipelineFile {
    PipelineFile::new(
        name,
        &format!(
            r#"
            [channels.flood]
            type = "memory"
            capacity_events = 1_000_000
            capacity_bytes = "8MiB"

            [channels.lines]
            type = "memory"
            capacity_events = 100

            [sources.endless]
            plugin = "stress"
            channels = ["flood"]
            config = {{ size_bytes = 1000 }}

            [sources.netcat]
            plugin = "netcat"
            channels = ["lines"]
            config = {{ bind = "127.0.0.1:{port}" }}
            allow = {{ listen = ["127.0.0.1:{port}"] }}
            batch_events = 100

            {sinks}
            "#
        ),
    )
}

/// Asserts what holds while all sinks are blocked.
fn assert_idle_and_bounded(agent: &Agent, client: &mut NetcatClient) {
    let span = soak::span(Duration::from_secs(3), Duration::from_secs(60));
    let before = agent.process().resident_bytes();
    let load = load(agent, span);
    let grown = agent.process().resident_bytes().saturating_sub(before);
    assert!(load < soak::bound(0.5, 0.01), "{:.1} % of a core while every sink is blocked", load * 100.0);
    assert!(grown < 8 * MIB, "{grown} bytes more after {span:?} blocked");
    assert_eq!(client.answer_within(Duration::from_millis(1)), None, "an answer before the event was settled");
}

/// Asserts that the line sent before the block is answered soon after it, and one sent then too. `promise` is what `make soak`
/// holds a quiet machine to.
fn assert_goes_on(client: &mut NetcatClient, promise: Duration) {
    let unblocked = Instant::now();
    assert_eq!(client.answer_within(Duration::from_secs(20)).as_deref(), Some("OK"));
    let took = unblocked.elapsed();
    println!("the flow went on after {took:?}");
    let bound = soak::span(Duration::from_secs(10), promise);
    assert!(took < bound, "the flow went on only after {took:?}");
    assert_eq!(client.ask("after"), "OK");
}

#[test]
fn with_a_console_that_nobody_reads_the_agent_waits_and_goes_on_at_once() {
    let _alone = alone();
    let port = free_port();
    let sinks = r#"
        [sinks.endless-out]
        plugin = "prefix-suffix"
        channel = "flood"
        limits = { call = "1s" }

        [sinks.lines-out]
        plugin = "prefix-suffix"
        channel = "lines"
        limits = { call = "1s" }
    "#;
    let pipeline = pipeline("blocked-console", port, sinks);
    let mut agent = pipeline.run_unread();
    let mut client = NetcatClient::connect(port);
    // The pipe holds 1 MiB, as much more waits in the host, and both sinks write to it.
    std::thread::sleep(Duration::from_secs(1));
    client.send("before");
    std::thread::sleep(Duration::from_millis(500));
    assert_idle_and_bounded(&agent, &mut client);
    agent.read_console();
    assert_goes_on(&mut client, Duration::from_millis(10));
    // Waiting for the reader of the console is not the plugin's slowness.
    assert!(!agent.stderr().text().contains("took longer"), "{}", agent.stderr().text());
    agent.kill();
}

#[test]
fn with_a_broker_that_hangs_the_agent_waits_and_goes_on_at_once() -> anyhow::Result<()> {
    let _alone = alone();
    let Some(broker) = KafkaBroker::own() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("flood", 1)?;
    topics.create("lines", 1)?;
    let port = free_port();
    let sinks = format!(
        r#"
        [kafka.main]
        "bootstrap.servers" = "{}"
        # Longer than the block: else librdkafka gives the request up after 30 s and connects anew, at its own pace.
        "request.timeout.ms" = 120000
        "socket.timeout.ms" = 120000

        [sinks.endless-out]
        plugin = "kafka"
        channel = "flood"
        config = {{ topic = "flood" }}
        allow = {{ kafka = ["main"] }}

        [sinks.lines-out]
        plugin = "kafka"
        channel = "lines"
        config = {{ topic = "lines" }}
        allow = {{ kafka = ["main"] }}
        "#,
        broker.address()
    );
    let pipeline = pipeline("blocked-broker", port, &sinks);
    let agent = pipeline.run();
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("flowing"), "OK");
    // A producer that has never had an answer is not held while its broker is silent.
    topics.wait_for_count("flood", 1, Duration::from_secs(30))?;
    broker.freeze();
    client.send("before");
    std::thread::sleep(Duration::from_secs(2));
    assert_idle_and_bounded(&agent, &mut client);
    broker.thaw();
    // The broker's own waking and the 8 MiB that wait before the line are counted, so it is more than the agent's 10 ms.
    assert_goes_on(&mut client, Duration::from_millis(100));
    agent.kill();
    Ok(())
}
