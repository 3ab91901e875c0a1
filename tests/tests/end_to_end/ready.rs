//! `/readyz`: each reason for which an agent is not ready, made to happen, said in words, and gone when its cause is.
//!
//! That a sink makes no progress is in `admin`, beside the rest of what an orchestrator asks.

use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::Asked;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::records::Topics;
use wasmflow_tests::skip::skip;
use wasmflow_tests::slow_disk::SlowDisk;

use super::file_channel_faults::Mount;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the agent is not ready for all these reasons at once.
fn expect_reasons(asked: &Asked, reasons: &[&str]) {
    let told = || asked.try_get("/readyz").is_some_and(|ready| holds_all(&ready.body, reasons) && ready.status == 503);
    let last = || asked.try_get("/readyz").map(|ready| ready.body);
    assert!(wait_until(LIMIT, told), "{reasons:?} in {:?}\nthe log:\n{}", last(), asked.agent.stderr().text());
    // `wasmflow status` says the same to a person.
    let status = asked.wasmflow(&["status"]);
    assert!(holds_all(&status.stdout.join("\n"), &["NOT READY", "  ! "]), "{:?}", status.stdout);
}

fn holds_all(text: &str, words: &[&str]) -> bool {
    words.iter().all(|word| text.contains(word))
}

fn expect_ready(asked: &Asked) {
    let is_ready = || asked.get("/readyz").status == 200;
    assert!(wait_until(LIMIT, is_ready), "{}\nthe log:\n{}", asked.get("/readyz").body, asked.agent.stderr().text());
}

/// Lines from a port into the memory channel `events`, and to `corner-sink` with this configuration.
fn corner(name: &str, config: &str) -> (PipelineFile, u16) {
    let port = free_port();
    let sink = format!(
        r#"
    [channels.events]
    type = "memory"
    [sinks.corner]
    plugin = "{}"
    channel = "events"
    config = {{ {config} }}
    retry = {{ initial = "50ms", max = "100ms" }}
"#,
        component("corner-sink").display()
    );
    (PipelineFile::new(name, &pipelines::netcat_to(port, &sink)), port)
}

/// Lines from a port into a file channel, and on to nowhere.
fn on_disk(name: &str, keys: &str) -> (PipelineFile, u16) {
    let port = free_port();
    let channel = format!("type = \"file\"\n    {keys}");
    let stages = pipelines::netcat_to(port, &pipelines::NOWHERE.replace("type = \"memory\"", &channel));
    (PipelineFile::new(name, &stages), port)
}

#[test]
fn a_call_that_does_not_return_is_a_reason_until_it_does() {
    let (pipeline, port) = corner("ready-call", "mode = \"slow\", delay = \"5s\"");
    let asked = Asked::run(&pipeline, &["--stall-after", "1s"]);
    expect_ready(&asked);
    let mut client = NetcatClient::connect(port);
    client.send("slow");
    expect_reasons(&asked, &["sink `corner` of pipeline `ready-call`: a call has been under way for"]);
    assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"));
    expect_ready(&asked);
}

#[test]
fn calls_that_fail_on_and_on_are_a_reason_with_what_they_answer() {
    let (pipeline, port) = corner("ready-calls", "mode = \"retry\", count = 25, delay = \"100ms\"");
    let asked = Asked::run(&pipeline, &["--stall-after", "1s"]);
    let mut client = NetcatClient::connect(port);
    client.send("again");
    expect_reasons(&asked, &["sink `corner` of pipeline `ready-calls`: its calls have failed for", "of 25 that fail"]);
    assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"));
    expect_ready(&asked);
}

#[test]
fn a_paused_sink_with_events_waiting_is_a_reason_and_one_without_is_not() {
    let port = free_port();
    let pipeline = PipelineFile::new("ready-paused", &pipelines::netcat_to(port, pipelines::CONSOLE));
    let asked = Asked::run(&pipeline, &["--stall-after", "1s"]);
    assert_eq!(asked.wasmflow(&["pause", "console"]).code, Some(0));
    expect_ready(&asked);
    let mut client = NetcatClient::connect(port);
    client.send("waits");
    expect_reasons(&asked, &["sink `console` of pipeline `ready-paused`: it is paused: no progress for", "1 events"]);
    assert_eq!(asked.wasmflow(&["resume", "console"]).code, Some(0));
    assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"));
    expect_ready(&asked);
}

#[test]
fn a_stop_and_a_stage_that_has_stopped_are_reasons_while_the_rest_drains() {
    let (pipeline, port) = corner("ready-stopping", "mode = \"fatal\", pattern = \"end\"");
    let more = r#"
    [channels.kept]
    type = "file"
    [sources.numbers]
    plugin = "seq"
    channels = ["kept"]
    [sinks.nowhere]
    plugin = "null"
    channel = "kept"
"#;
    let Some(disk) = SlowDisk::below(pipeline.folder()) else { return };
    let text = std::fs::read_to_string(pipeline.path()).expect("it has been written");
    std::fs::write(pipeline.path(), text.replace("state_dir", "drain_timeout = \"10m\"\nstate_dir") + more)
        .expect("the folder is the test's own");
    let asked = Asked::run_with(&pipeline, &[], &disk.variables());
    // From now on a put of the numbers waits for its sync, so their road cannot drain.
    disk.hold();
    NetcatClient::connect(port).send("end");
    let channel = "channel `events` of pipeline `ready-stopping`";
    expect_reasons(&asked, &["pipeline `ready-stopping`: it is stopping", channel, "cannot go on"]);
    disk.let_go();
    let ended = asked.agent.wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}

#[test]
fn a_pipeline_that_has_failed_is_a_reason_while_others_go_on() {
    let (failing, port) = corner("ready-failed", "mode = \"fatal\", pattern = \"end\"");
    let (other, other_port) = corner("ready-other", "mode = \"slow\"");
    let asked = Asked::run(&failing, &[other.path().to_str().expect("the folder is UTF-8")]);
    NetcatClient::connect(port).send("end");
    expect_reasons(&asked, &["pipeline `ready-failed`: it has failed: ", "sink `corner` stopped: ", "cannot go on"]);
    assert_eq!(NetcatClient::connect(other_port).ask("goes on"), "OK");
    assert_eq!(asked.agent.stop().code, Some(1));
}

#[test]
fn a_disk_that_does_not_answer_is_a_reason_and_costs_time_and_nothing_else() {
    let (pipeline, port) = on_disk("ready-disk", "");
    let Some(disk) = SlowDisk::below(pipeline.folder()) else { return };
    disk.hold();
    let asked = Asked::begin(&pipeline, &["--stall-after", "1s"], &disk.variables());
    expect_reasons(&asked, &["pipeline `ready-disk`: it is starting"]);
    disk.let_go();
    expect_ready(&asked);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("before"), "OK");
    disk.hold();
    client.send("meanwhile");
    expect_reasons(
        &asked,
        &["channel `events` of pipeline `ready-disk`: the disk is slow: puts have waited", "for it"],
    );
    assert_eq!(client.answer_within(Duration::from_millis(200)), None, "answered before it was on disk");
    disk.let_go();
    assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"));
    expect_ready(&asked);
    let metrics = asked.metrics();
    let of = |series: &str| metrics[&format!("wasmflow_{series}{{pipeline=\"ready-disk\",source=\"netcat\"}}")];
    assert_eq!((of("source_received_events_total"), of("source_accepted_events_total")), (2.0, 2.0));
    assert_eq!(of("source_read_errors_total"), 0.0, "a slow disk is no error of the source");
    assert_eq!(asked.agent.stop().code, Some(0));
}

#[test]
fn a_full_disk_is_a_reason_until_there_is_space() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("a small file system can only be mounted by root");
        return Ok(());
    }
    let (pipeline, port) = on_disk("ready-full", "min_free = \"1MiB\"\n    segment_bytes = \"256KiB\"");
    let state = pipeline.folder().join("state");
    std::fs::create_dir(&state)?;
    let Some(_mount) = Mount::small(&state) else {
        skip("this container does not let root mount a tmpfs");
        return Ok(());
    };
    let asked = Asked::run(&pipeline, &[]);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("before"), "OK");
    let ballast = state.join("ballast");
    let size = (8..=32).rev().map(|steps| steps << 17).find(|size| std::fs::write(&ballast, vec![7; *size]).is_ok());
    assert!(size.is_some(), "nothing could be written beside the channel");
    // More than the segment has room for that was taken from the disk before.
    (0..300).for_each(|_| client.send(&"meanwhile".repeat(120)));
    expect_reasons(&asked, &["channel `events` of pipeline `ready-full`: puts wait for space on disk: "]);
    std::fs::remove_file(&ballast)?;
    (0..300).for_each(|_| assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK")));
    expect_ready(&asked);
    assert_eq!(asked.agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn a_broker_that_is_away_is_a_reason_for_who_reads_it_and_for_who_has_records_for_it() -> anyhow::Result<()> {
    let Some(mut broker) = KafkaBroker::own() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("in", 1)?;
    topics.create("out", 1)?;
    let stages = pipelines::topic_sink(&pipelines::connection(&broker.address()), "out");
    let source = r#"
    [sources.in]
    plugin = "kafka"
    channels = ["read"]
    config = { topics = ["in"] }
    allow = { kafka = ["main"] }
    [channels.read]
    type = "memory"
    [sinks.console]
    plugin = "prefix-suffix"
    channel = "read"
    config = { prefix = "" }
"#;
    let port = free_port();
    let pipeline = PipelineFile::new("ready-broker", &(pipelines::netcat_to(port, &stages) + source));
    let asked = Asked::run(&pipeline, &["--stall-after", "1s"]);
    topics.produce("in", 0, ["first"])?;
    asked.agent.expect_lines(1, LIMIT);
    expect_ready(&asked);
    broker.kill();
    NetcatClient::connect(port).send("for the topic");
    expect_reasons(
        &asked,
        &[
            "source `in` of pipeline `ready-broker`: no broker of connection `main` has answered for",
            "sink `topic` of pipeline `ready-broker`: no progress for",
        ],
    );
    broker.restart()?;
    expect_ready(&asked);
    topics.produce("in", 0, ["second"])?;
    assert_eq!(asked.agent.expect_lines(2, LIMIT), ["first", "second"]);
    topics.wait_for_count("out", 1, LIMIT)?;
    asked.agent.kill();
    Ok(())
}
