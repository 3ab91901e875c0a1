//! One event that a plugin dies of, among many that it does not: it is set aside, the others arrive once, and the flow goes on.

use std::process::Command;
use std::time::{Duration, Instant};

use wasmflow_tests::agent::{Agent, Options, PipelineFile};
use wasmflow_tests::binary::wasmflow;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;

const LIMIT: Duration = Duration::from_secs(120);

/// An interceptor `guard` that panics on whatever contains `poison`.
fn guard() -> String {
    format!(
        "[interceptors.guard]\nplugin = \"{}\"\nconfig = {{ mode = \"panic\", when_body_contains = \"poison\" }}\n",
        component("hostile-interceptor").display()
    )
}

/// A nearest peer, given the same, loses its worker for good and closes its listener after 4,479 of the second lot.
#[test]
fn ten_thousand_good_lines_on_each_side_of_a_poison_one_arrive_once_over_the_same_connection() {
    let port = free_port();
    let stages =
        format!("{}interceptors = [\"guard\"]\n{}{LETTERS}", pipelines::netcat_to(port, pipelines::CONSOLE), guard());
    let pipeline = PipelineFile::new("poison", &stages);
    pipeline.promise("dead_letters = \"refused\"\n");
    let sockets = pipeline.folder().join("sockets").to_string_lossy().into_owned();
    let agent = Agent::run_with(
        pipeline.path(),
        &Options { env: vec![("WASMFLOW_RUNTIME_DIR", &sockets)], ..Options::default() },
    );
    let mut client = NetcatClient::connect(port);
    let mut send = |lines: &[String]| {
        lines.iter().for_each(|line| client.send(line));
        for line in lines {
            assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"), "{line}; {}", agent.stderr().text());
        }
    };
    let lot = |name: &str| (0..10_000).map(|number| ledger::line(name, number)).collect::<Vec<_>>();
    send(&lot("before"));
    let started = Instant::now();
    send(&["poison".into()]);
    send(&lot("after")[..1]);
    let served = started.elapsed();
    println!("the next line was served {served:?} after the poison one was sent");
    assert!(served.as_secs_f64() < soak::bound(30.0, 1.0), "{served:?}");
    send(&lot("after")[1..]);

    assert_told(&sockets);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (letters, good): (Vec<_>, Vec<_>) = ended.stdout.into_iter().partition(|line| line.starts_with('{'));
    let ledger = Ledger::of(good);
    ledger.assert_each_once_in_order("before", 10_000);
    ledger.assert_each_once_in_order("after", 10_000);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let digest = wasmflow_digest("hostile-interceptor");
    for part in
        ["panicked at", "hostile_acts::", "dead-letter.stage", "guard", &digest, "dead-letter.generation", "netcat#"]
    {
        assert!(letters[0].contains(part), "{part} is missing: {}", letters[0]);
    }
    assert!(ended.stderr.contains("dead_letters=1"), "the closing summary counts it: {}", ended.stderr);
}

/// The agent is well, and says what was set aside and why.
fn assert_told(sockets: &str) {
    let mut command = Command::new(wasmflow());
    let output =
        command.args(["status", "--json"]).env("WASMFLOW_RUNTIME_DIR", sockets).output().expect("it was built");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let agent = &status["agents"][0];
    assert_eq!(agent["is_ready"], true, "{agent:#}");
    let stages = agent["pipelines"][0]["stages"].as_array().expect("there are stages");
    let guard = stages.iter().find(|stage| stage["name"] == "guard").expect("it is one of them");
    assert_eq!(guard["counters"]["dead_letter_events"], 1, "{guard:#}");
    assert!(guard["counters"]["traps"].as_u64() >= Some(2), "{guard:#}");
    assert!(guard["last_error"]["text"].as_str().is_some_and(|text| text.contains("panicked at")), "{guard:#}");
}

/// A sink that prints dead letters as JSON, and their channel.
const LETTERS: &str = r#"
    [channels.refused]
    type = "memory"

    [sinks.letters]
    plugin = "logger"
    channel = "refused"
    config = { format = "json" }
"#;

fn wasmflow_digest(package: &str) -> String {
    let arguments =
        ["plugin", "inspect", component(package).to_str().expect("the path is text"), "--json"].map(str::to_owned);
    let inspected = wasmflow_tests::agent::wasmflow_run(&arguments.each_ref().map(String::as_str));
    let json: serde_json::Value = serde_json::from_str(&inspected.stdout.join("\n")).expect("it prints JSON");
    json["digest"].as_str().expect("it has a digest").trim_start_matches("sha256:").to_owned()
}

#[test]
fn without_dead_letters_a_poison_event_stops_its_stage_with_the_reason_and_those_before_it_are_delivered() {
    let stages =
        format!("{}interceptors = [\"guard\"]\n{}", pipelines::tail_to("follow = false", pipelines::CONSOLE), guard());
    let pipeline = PipelineFile::new("poison-stop", &stages);
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the test's own folder is writable");
    pipeline.folder().write(
        "logs/app.log",
        [ledger::lines("log", 0..1500), "poison\n".into(), ledger::lines("log", 1500..1510)].concat(),
    );
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for part in ["guard", "panicked at", "hostile_acts::", "dead_letters"] {
        assert!(ended.stderr.contains(part), "{part} is missing: {}", ended.stderr);
    }
    assert!(ended.stdout.len() < 1500 && !ended.stdout.contains(&"poison".into()), "{} lines", ended.stdout.len());
}

/// The road of `a_record_refused_for_good`, with a plugin that dies in place of a broker that refuses, on each side of the channel.
#[test]
fn a_poison_record_is_a_dead_letter_in_the_same_transaction() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    for side in ["source", "sink"] {
        let (good, bad) = (format!("once-good-{side}"), format!("once-bad-{side}"));
        topics.create(&good, 1)?;
        topics.create(&bad, 1)?;
        let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), &good);
        let source = pipelines::tail_to("follow = false", "");
        let guarded = "interceptors = [\"guard\"]\n";
        let (on_sink, on_source) = if side == "sink" { (guarded, "") } else { ("", guarded) };
        let stages = format!(
            r#"{sink}{on_sink}{source}{on_source}{}
    [channels.refused]
    type = "memory"

    [sinks.graveyard]
    plugin = "kafka"
    channel = "refused"
    config = {{ topic = "{bad}" }}
    allow = {{ kafka = ["main"] }}
"#,
            guard()
        );
        let pipeline = PipelineFile::new(&good, &stages);
        pipeline.promise("delivery = \"exactly-once\"\ndead_letters = \"refused\"\n");
        std::fs::create_dir(pipeline.folder().join("logs"))?;
        let log = [ledger::lines("log", 0..1300), "poison\n".into(), ledger::lines("log", 1300..2000)];
        pipeline.folder().write("logs/app.log", log.concat());
        pipeline.run().expect_done(LIMIT);
        let arrived = topics.read_all(&good)?;
        Ledger::of(arrived.iter().map(|record| record.text())).assert_each_once_in_order("log", 2000);
        let letters = topics.read_all(&bad)?;
        assert_eq!(letters.iter().map(|letter| letter.text()).collect::<Vec<_>>(), ["poison"], "{side}");
        let reason = letters[0].headers.iter().find(|(name, _)| name == "dead-letter.reason");
        let reason = String::from_utf8_lossy(&reason.expect("a dead letter says why").1).into_owned();
        assert!(reason.contains("panicked at"), "{side}: {reason}");
    }
    Ok(())
}

/// librdkafka keeps for ever what it refuses of records that name their partitions one by one: 200 bytes of each event.
#[test]
fn events_for_a_partition_that_there_is_not_are_set_aside_and_nothing_of_them_is_kept() {
    const EVENTS: usize = 20_000;
    let source = format!(
        r#"
    [sources.load]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = 10, total = {EVENTS}, rate = {EVENTS} }}
    interceptors = ["nowhere"]

    [interceptors.nowhere]
    plugin = "static"
    config = {{ headers = {{ "kafka.partition" = "99" }} }}
"#
    );
    let pipeline = PipelineFile::new(
        "nowhere",
        &[&source, &*pipelines::topic_sink("embedded = true", "t"), pipelines::LETTERS].concat(),
    );
    pipeline.promise("dead_letters = \"refused\"\n");
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.len(), EVENTS);
    // It says so of a producer that ends with any left.
    assert!(!ended.stderr.contains("still in queue"), "{}", ended.stderr);
}
