//! The roads an event can take inside a pipeline: selectors, several channels and sinks, dead letters, limits of a stop.

use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::component::component;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;

const LIMIT: Duration = Duration::from_secs(30);

/// Numbers below `total`, onto the roads that `rest` defines; `keys` are further lines of the source's table.
fn numbers(name: &str, total: u32, keys: &str, rest: &str) -> PipelineFile {
    let source = format!("[sources.numbers]\nplugin = \"seq\"\nconfig = {{ total = {total} }}\n{keys}\n{rest}");
    PipelineFile::new(name, &source)
}

/// A memory channel and a sink of it that prints each body behind the channel's name.
fn shown(channel: &str) -> String {
    format!(
        r#"
        [channels.{channel}]
        type = "memory"
        [sinks.show-{channel}]
        plugin = "prefix-suffix"
        channel = "{channel}"
        config = {{ prefix = "{channel} " }}
        "#
    )
}

fn of_channel(lines: &[String], channel: &str) -> Vec<String> {
    lines.iter().filter_map(|line| line.strip_prefix(&format!("{channel} ")).map(str::to_owned)).collect()
}

fn below(total: u32) -> Vec<String> {
    (0..total).map(|number| number.to_string()).collect()
}

#[test]
fn a_replicating_selector_gives_every_channel_every_event_in_order() {
    let pipeline = numbers(
        "replicating",
        5000,
        r#"channels = ["left", "right"]"#,
        &format!("{}{}", shown("left"), shown("right")),
    );
    let lines = pipeline.run().expect_done(LIMIT);
    assert_eq!(of_channel(&lines, "left"), below(5000));
    assert_eq!(of_channel(&lines, "right"), below(5000));
}

#[test]
fn two_sinks_on_one_channel_both_get_every_event() {
    let second = r#"
        [sinks.also]
        plugin = "prefix-suffix"
        channel = "left"
        config = { prefix = "also " }
    "#;
    let lines =
        numbers("two-sinks", 3000, r#"channels = ["left"]"#, &(shown("left") + second)).run().expect_done(LIMIT);
    assert_eq!(of_channel(&lines, "left"), below(3000));
    assert_eq!(of_channel(&lines, "also"), below(3000));
}

#[test]
fn a_multiplexing_selector_sends_events_where_their_header_says() {
    let keys = r#"
        interceptors = ["level"]
        selector = { type = "multiplexing", header = "level", routes = { error = ["alerts", "all"] }, default = ["all"] }
    "#;
    let level = r#"
        [interceptors.level]
        plugin = "static"
        config = { headers = { level = "LEVEL" } }
    "#;
    for (value, alerts) in [("error", below(10)), ("info", Vec::new())] {
        let rest = format!("{}{}{}", shown("alerts"), shown("all"), level.replace("LEVEL", value));
        let lines = numbers(&format!("multiplexing-{value}"), 10, keys, &rest).run().expect_done(LIMIT);
        assert_eq!(of_channel(&lines, "all"), below(10));
        assert_eq!(of_channel(&lines, "alerts"), alerts, "level {value}");
    }
}

#[test]
fn a_slow_sink_holds_its_neighbour_back_and_neither_loses_anything() {
    let rest = format!(
        r#"
        [channels.small]
        type = "memory"
        capacity_events = 20
        [sinks.slow]
        plugin = "{}"
        channel = "small"
        batch_events = 10
        config = {{ mode = "slow", delay = "5ms" }}
        [sinks.fast]
        plugin = "prefix-suffix"
        channel = "small"
        batch_events = 10
        config = {{ prefix = "fast " }}
        "#,
        component("corner-sink").display()
    );
    let lines = numbers("slow", 500, "channels = [\"small\"]\nbatch_events = 10", &rest).run().expect_done(LIMIT);
    assert_eq!(of_channel(&lines, "fast"), below(500));
    let slow: Vec<_> = lines.iter().filter(|line| !line.starts_with("fast ")).cloned().collect();
    assert_eq!(slow, below(500));
}

#[test]
fn a_rejected_event_becomes_a_dead_letter_that_says_why_and_where() {
    let folder = PipelineFile::new("letters", "");
    let text = format!(
        r#"
        [pipeline]
        name = "letters"
        state_dir = "state"
        dead_letters = "refused"
        [sources.numbers]
        plugin = "seq"
        config = {{ total = 30 }}
        channels = ["events"]
        [channels.events]
        type = "memory"
        [channels.refused]
        type = "memory"
        [sinks.picky]
        plugin = "{}"
        channel = "events"
        config = {{ mode = "reject", pattern = "13" }}
        [sinks.letters]
        plugin = "logger"
        channel = "refused"
        config = {{ format = "json" }}
        "#,
        component("corner-sink").display()
    );
    folder.folder().write("pipeline.toml", text);
    let lines = folder.run().expect_done(LIMIT);
    let (letters, delivered): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with('{'));
    assert_eq!(delivered.len(), 29, "{delivered:?}");
    assert!(!delivered.contains(&"13".to_string()));
    assert_eq!(letters.len(), 1, "{letters:?}");
    for part in ["dead-letter.reason", "dead-letter.stage", "picky", "dead-letter.plugin", "events:13", "13"] {
        assert!(letters[0].contains(part), "{part} is missing: {}", letters[0]);
    }
}

#[test]
fn without_a_dead_letter_channel_a_rejection_stops_the_pipeline_and_nothing_behind_it_is_lost() {
    let rest = format!(
        r#"
        [channels.events]
        type = "memory"
        [sinks.picky]
        plugin = "{}"
        channel = "events"
        batch_events = 10
        config = {{ mode = "reject", pattern = "13" }}
        "#,
        component("corner-sink").display()
    );
    let pipeline = numbers("no-letters", 30, "channels = [\"events\"]\nbatch_events = 10", &rest);
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("picky") && ended.stderr.contains("dead_letters"), "{}", ended.stderr);
    // The operator mends the sink: what was not settled comes again.
    let mended = numbers_shown();
    pipeline.rewrite("no-letters", &mended);
    let lines = pipeline.run().expect_done(LIMIT);
    assert_eq!(of_channel(&lines, "events"), below(30)[10..]);
}

fn numbers_shown() -> String {
    format!(
        "[sources.numbers]\nplugin = \"seq\"\nconfig = {{ total = 30 }}\nchannels = [\"events\"]\n{}",
        shown("events")
    )
}

#[test]
fn a_second_signal_stops_at_once_and_what_was_not_settled_comes_again() {
    let rest = format!(
        r#"
        [channels.events]
        type = "memory"
        [sinks.slow]
        plugin = "{}"
        channel = "events"
        batch_events = 10
        config = {{ mode = "slow", delay = "1s" }}
        "#,
        component("corner-sink").display()
    );
    let pipeline = numbers("twice", 30, "channels = [\"events\"]\nbatch_events = 10", &rest);
    let agent = pipeline.run();
    agent.expect_lines(10, LIMIT);
    agent.process().signal(rustix::process::Signal::TERM);
    agent.expect_log("a second signal stops at once", LIMIT);
    agent.process().signal(rustix::process::Signal::TERM);
    let ended = agent.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped at once"), "{}", ended.stderr);
    pipeline.rewrite("twice", &numbers_shown());
    let lines = of_channel(&pipeline.run().expect_done(LIMIT), "events");
    assert_eq!(lines.last().map(String::as_str), Some("29"));
    let first: u32 = lines[0].parse().expect("a number");
    assert!(first <= 20, "nothing is skipped: {lines:?}");
}

#[test]
fn clients_that_reset_their_connection_do_not_disturb_the_others() {
    let port = free_port();
    let pipeline = PipelineFile::new("resets", &pipelines::netcat_to(port, pipelines::CONSOLE));
    let agent = pipeline.run();
    let mut steady = NetcatClient::connect(port);
    assert_eq!(steady.ask("before"), "OK");
    // Some are reset before they are accepted, some in the middle of a line, some with an answer on its way.
    for number in 0..60 {
        let mut client = NetcatClient::connect(port);
        match number % 3 {
            1 => client.send("whole\nhalf"),
            2 => assert_eq!(client.ask("answered"), "OK"),
            _ => {}
        }
        client.reset();
    }
    assert_eq!(steady.ask("after"), "OK");
    assert_eq!(NetcatClient::connect(port).ask("new"), "OK");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("restarts=0") && !ended.stderr.contains("restarts=1"), "{}", ended.stderr);
    assert!(ended.stdout.iter().filter(|line| *line == "answered").count() == 20, "{:?}", ended.stdout);
}
