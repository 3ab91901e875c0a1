//! The admin endpoint of a running agent, asked as Prometheus, an orchestrator, a stranger and a web page would.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::asked::Asked;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// A thousand numbers, of which an interceptor drops those with a 7: 729 reach the console.
const NUMBERS: &str = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = { total = 1000 }
    interceptors = ["sevens"]

    [interceptors.sevens]
    plugin = "regex-filter"
    config = { pattern = "7", exclude = true }
"#;

/// A source that waits for lines, so that the pipeline does not end by itself, and a console.
fn waiting(name: &str, more: &str) -> (PipelineFile, u16) {
    let port = free_port();
    (PipelineFile::new(name, &format!("{}{more}", pipelines::netcat_to(port, pipelines::CONSOLE))), port)
}

/// The value of a series of the pipeline, its other labels as Prometheus writes them.
fn value(metrics: &BTreeMap<String, f64>, name: &str, pipeline: &str, labels: &str) -> f64 {
    let series = format!("wasmflow_{name}{{pipeline=\"{pipeline}\",{labels}}}");
    *metrics.get(&series).unwrap_or_else(|| panic!("there is no {series} in {metrics:#?}"))
}

#[test]
fn metrics_equal_what_flowed_and_keep_their_invariants() {
    let (pipeline, _) = waiting("admin-metrics", NUMBERS);
    let asked = Asked::run(&pipeline, &[]);
    asked.agent.expect_lines(729, LIMIT);
    let of = |metrics: &BTreeMap<String, f64>, name: &str, labels: &str| value(metrics, name, "admin-metrics", labels);
    let reader = r#"channel="events",reader="console""#;
    // What is printed is settled a moment later.
    let settled = || of(&asked.metrics(), "channel_taken_events_total", reader) >= 729.0;
    assert!(wait_until(LIMIT, settled), "{:#?}", asked.metrics());
    let metrics = asked.metrics();
    let is =
        |name: &str, labels: &str, expected: f64| assert_eq!(of(&metrics, name, labels), expected, "{name} {labels}");
    is("source_received_events_total", r#"source="numbers""#, 1000.0);
    is("source_accepted_events_total", r#"source="numbers""#, 729.0);
    is("interceptor_in_events_total", r#"stage="sevens""#, 1000.0);
    is("interceptor_out_events_total", r#"stage="sevens""#, 729.0);
    is("discarded_events_total", r#"stage="sevens",reason="filtered""#, 271.0);
    is("channel_put_attempts_total", r#"channel="events""#, 729.0);
    is("channel_put_events_total", r#"channel="events""#, 729.0);
    is("channel_taken_events_total", reader, 729.0);
    is("channel_events", r#"channel="events""#, 0.0);
    is("channel_lag_events", reader, 0.0);
    is("sink_attempted_events_total", r#"sink="console""#, 729.0);
    is("sink_drained_events_total", r#"sink="console""#, 729.0);
    is("plugin_generation", r#"stage="sevens""#, 1.0);
    assert!(of(&metrics, "end_to_end_seconds_count", r#"source="numbers",sink="console""#) >= 1.0);
    assert!(of(&metrics, "source_received_bytes_total", r#"source="numbers""#) >= 2890.0);
    assert!(of(&metrics, "sink_drained_bytes_total", r#"sink="console""#) >= 729.0);
    let batches: f64 = ["empty", "underflow", "complete"]
        .iter()
        .map(|size| of(&metrics, "sink_batches_total", &format!(r#"sink="console",size="{size}""#)))
        .sum();
    is("sink_delivery_seconds_count", r#"sink="console""#, batches);
}

#[test]
fn a_file_channel_tells_of_its_syncs_and_of_the_time_that_events_take() {
    let stages = r#"
    [channels.events]
    type = "file"

    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = { total = 1000 }

    [sinks.console]
    plugin = "logger"
    channel = "events"
    start_at = "oldest"
"#;
    let port = free_port();
    let lines = pipelines::netcat_to(port, stages);
    let pipeline = PipelineFile::new("admin-file", &lines);
    let asked = Asked::run(&pipeline, &[]);
    let of = |metrics: &BTreeMap<String, f64>, name: &str, labels: &str| value(metrics, name, "admin-file", labels);
    let reader = r#"channel="events",reader="console""#;
    let settled = || of(&asked.metrics(), "channel_taken_events_total", reader) >= 1000.0;
    assert!(wait_until(LIMIT, settled), "{:#?}", asked.metrics());
    let metrics = asked.metrics();
    assert_eq!(of(&metrics, "channel_put_events_total", r#"channel="events""#), 1000.0);
    assert_eq!(of(&metrics, "channel_events", r#"channel="events""#), 0.0);
    assert_eq!(of(&metrics, "channel_group_commit_events_sum", r#"channel="events""#), 1000.0);
    let syncs = of(&metrics, "channel_sync_seconds_count", r#"channel="events""#);
    assert_eq!(of(&metrics, "channel_group_commit_events_count", r#"channel="events""#), syncs);
    assert!(syncs >= 1.0);
    assert!(of(&metrics, "end_to_end_seconds_count", r#"source="numbers",sink="console""#) >= 1.0);
    assert_eq!(of(&metrics, "channel_torn_bytes_total", r#"channel="events""#), 0.0);
}

#[test]
fn metrics_keep_their_invariants_while_events_flow() {
    let stages = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
"#;
    let pipeline = PipelineFile::new("admin-flow", &format!("{}{stages}", pipelines::NOWHERE));
    let asked = Asked::run(&pipeline, &[]);
    let mut last = 0.0;
    for _ in 0..50 {
        let metrics = asked.metrics();
        let of = |name: &str, labels: &str| value(&metrics, name, "admin-flow", labels);
        let received = of("source_received_events_total", r#"source="numbers""#);
        assert!(received >= of("source_accepted_events_total", r#"source="numbers""#));
        let (put, taken) = (
            of("channel_put_events_total", r#"channel="events""#),
            of("channel_taken_events_total", r#"channel="events",reader="nowhere""#),
        );
        assert_eq!(of("channel_events", r#"channel="events""#), put - taken);
        assert!(of("channel_take_attempts_total", r#"channel="events",reader="nowhere""#) >= taken);
        assert!(received >= last, "a counter has gone back");
        last = received;
    }
    assert!(last > 0.0);
    asked.agent.kill();
}

#[test]
fn a_stranger_is_refused_with_the_reason_and_counted() {
    let (pipeline, _) = waiting("admin-strangers", "");
    let asked = Asked::run_with(&pipeline, &[], &[("WASMFLOW_ADMIN_TOKEN", TOKEN)]);
    let status = |request: String| asked.send(&request).map(|answer| answer.status);
    let get = |path: &str, headers: &str| status(format!("GET {path} HTTP/1.1\r\n{headers}\r\n"));
    assert_eq!(get("/metrics", "host: rebound.example\r\n"), Some(403));
    assert_eq!(get("/metrics", ""), Some(403));
    assert_eq!(get("/metrics", "host: 127.0.0.1\r\n"), Some(200));
    let right = format!("authorization: Bearer {TOKEN}\r\n");
    let pause = "/v1/stages/console/pause";
    let missing = asked.post(pause, "", "");
    assert_eq!((missing.status, missing.head.contains("www-authenticate: bearer")), (401, true));
    assert_eq!(asked.post(pause, "authorization: Bearer another-token-0123456789\r\n", "").status, 401);
    assert_eq!(asked.post(pause, &format!("{right}origin: http://localhost\r\n"), "").status, 403);
    assert_eq!(asked.post(pause, &right, "").status, 200);
    assert_eq!(asked.post("/v1/stages/console/resume", &right, "").status, 200);
    let huge =
        format!("POST /v1/stages/console/swap HTTP/1.1\r\nhost: localhost\r\n{right}content-length: 99999999\r\n\r\n");
    assert_eq!(status(huge), Some(413));
    let swap = |order: &str| asked.post("/v1/stages/console/swap", &right, order);
    assert_eq!(swap("{\"plugn\": \"x\"}").status, 400);
    let unseen = swap("{\"plugin\": \"logger\", \"wait_for\": \"first-batch\", \"watch_ms\": 0}");
    assert!(unseen.status == 400 && unseen.body.contains("needs a watch window"), "{}", unseen.body);
    let nix = asked.get("/v1/stages/nix");
    assert_eq!(nix.status, 404);
    assert!(nix.json()["error"]["message"].as_str().unwrap().contains("`console`"), "{}", nix.body);
    assert_eq!(asked.get("/v1/pipelines/nix/stages/console").status, 404);
    assert_eq!(asked.get("/nix").status, 404);
    assert_eq!(asked.get(pause).status, 405);
    let metrics = asked.metrics();
    for (reason, count) in [("host", 2.0), ("token", 2.0), ("origin", 1.0), ("size", 1.0)] {
        assert_eq!(metrics[&format!("wasmflow_admin_refused_total{{reason=\"{reason}\"}}")], count, "{reason}");
    }
    let log = asked.agent.stderr().text();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_port_in_use_stops_the_start_and_is_named() {
    let (pipeline, _) = waiting("admin-port", "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let folder = pipeline.folder().join("run");
    let variables = [("WASMFLOW_RUNTIME_DIR", folder.to_str().expect("the folder is UTF-8"))];
    let ended = Agent::run_arguments(pipeline.path(), &["--admin", &port], &variables).wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("127.0.0.1:{port}")), "{}", ended.stderr);
    assert!(!ended.stderr.contains("pipeline started"), "{}", ended.stderr);
}

#[test]
fn ten_thousand_connections_do_not_disturb_the_flow_nor_the_operator() {
    let (pipeline, port) = waiting("admin-flood", "");
    let asked = Asked::run(&pipeline, &[]);
    let mut client = NetcatClient::connect(port);
    // As many at a time as a process may commonly have; each sends a part of a request and no more.
    let mut open = VecDeque::new();
    for number in 0..10_000 {
        if let Some(mut stream) = asked.connect() {
            _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: loc");
            open.push_back(stream);
        }
        if open.len() > 500 {
            open.pop_front();
        }
        if number % 100 == 0 {
            assert_eq!(client.ask(&format!("line {number}")), "OK");
        }
    }
    // The socket has connections of its own.
    let status = asked.wasmflow(&["status", "--json"]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    drop(open);
    let answers =
        || asked.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").is_some_and(|answer| answer.status == 200);
    assert!(wait_until(LIMIT, answers));
    let refused = asked.metrics()["wasmflow_admin_refused_total{reason=\"connections\"}"];
    assert!(refused > 0.0, "nobody was turned away");
    assert_eq!(asked.agent.expect_lines(100, LIMIT).len(), 100);
}

#[test]
fn a_sink_that_makes_no_progress_turns_readiness_bad_until_it_goes_on() {
    let stages = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = { total = 200000 }
"#;
    let (pipeline, _) = waiting("admin-ready", stages);
    let mut asked = Asked::run_unread(&pipeline, &["--stall-after", "1s"]);
    let is_bad = || asked.get("/readyz").status == 503 && asked.get("/readyz").body.contains("no progress");
    assert!(wait_until(LIMIT, is_bad), "{}", asked.get("/v1/status").body);
    let bad = asked.get("/readyz").json();
    assert_eq!(bad["is_ready"], false);
    assert!(bad["problems"].to_string().contains("sink `console` of pipeline `admin-ready`"), "{bad}");
    assert_eq!(asked.get("/healthz").status, 200, "the agent itself is well");
    asked.agent.read_console();
    let is_good = || asked.get("/readyz").status == 200;
    assert!(wait_until(LIMIT, is_good), "{}", asked.get("/readyz").body);
    asked.agent.expect_lines(200_000, LIMIT);
}

#[test]
fn no_answer_holds_a_secret() {
    const CANARY: &str = "canary-of-the-admin-tests";
    let stages = r#"
    [interceptors.affix]
    plugin = "prefix-suffix"
    config = { prefix = { env = "ADMIN_CANARY" }, suffix = "" }
"#;
    let (pipeline, _) = waiting("admin-secrets", stages);
    let text = std::fs::read_to_string(pipeline.path()).expect("it has been written");
    let text = text.replace("[sources.netcat]", "[sources.netcat]\n    interceptors = [\"affix\"]");
    pipeline.folder().write("pipeline.toml", text);
    let asked = Asked::run_with(&pipeline, &[], &[("ADMIN_CANARY", CANARY)]);
    let order = |toml: &str| serde_json::json!({ "config_toml": toml, "watch_ms": 0 }).to_string();
    let swap = "/v1/stages/affix/swap";
    // A key that is wrong, a plugin that is not there, a text that is no TOML: each with the secret in it.
    let mut answers = vec![
        asked.post(swap, "", &order("prefix = { env = \"ADMIN_CANARY\" }\nsufix = { env = \"ADMIN_CANARY\" }")),
        asked.post(swap, "", &serde_json::json!({ "plugin": format!("/nowhere/{CANARY}.wasm") }).to_string()),
        asked.post(swap, "", &order(&format!("prefix = \"{CANARY}"))),
    ];
    assert!(answers.iter().all(|answer| answer.status == 422), "{answers:#?}");
    answers.push(asked.post(swap, "", &order("prefix = { env = \"ADMIN_CANARY\" }\nsuffix = \"!\"")));
    assert_eq!(answers[3].status, 200, "{answers:#?}");
    let paths = [
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/stages/affix",
        "/v1/stages/netcat",
        "/v1/pipelines/admin-secrets",
        "/openapi.json",
    ];
    answers.extend(paths.map(|path| asked.get(path)));
    for answer in answers {
        assert!(!answer.body.contains(CANARY), "{}", answer.body);
    }
}
