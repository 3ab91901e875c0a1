//! `wasmflow status`, `swap`, `rollback`, `pause` and `resume`, as an operator types them beside a running agent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmflow_tests::agent::{Ended, PipelineFile, wasmflow_with};
use wasmflow_tests::asked::Asked;
use wasmflow_tests::component::component;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// Lines from a port, each between `<` and `>`, onto the console.
fn affixed(name: &str) -> (PipelineFile, u16) {
    let port = free_port();
    let stages = pipelines::netcat_to(port, pipelines::CONSOLE);
    let stages = stages.replace("[sources.netcat]", "[sources.netcat]\n    interceptors = [\"affix\"]");
    (PipelineFile::new(name, &format!("{stages}{}", pipelines::AFFIX)), port)
}

fn assert_code(ended: &Ended, code: i32) {
    assert_eq!(ended.code, Some(code), "{:?}\n{}", ended.stdout, ended.stderr);
}

#[test]
fn a_configuration_is_swapped_between_two_lines_and_rolled_back() {
    let (pipeline, port) = affixed("admin-swap");
    let asked = Asked::run(&pipeline, &[]);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("one"), "OK");
    pipeline.folder().write("affix.toml", "prefix = \"[\"\nsuffix = \"]\"\n");
    let config = pipeline.folder().join("affix.toml");
    let config = config.to_str().expect("the folder is UTF-8");
    let swapped = asked.wasmflow(&["swap", "affix", "--config", config, "--watch", "0s"]);
    assert_code(&swapped, 0);
    assert!(swapped.stdout[0].contains("generation 2 serves"), "{:?}", swapped.stdout);
    assert_eq!(client.ask("two"), "OK");
    assert_code(&asked.wasmflow(&["rollback", "admin-swap/affix", "--json"]), 0);
    assert_eq!(client.ask("three"), "OK");
    assert_eq!(asked.agent.expect_lines(3, LIMIT), ["<one>", "[two]", "<three>"]);
    let detail = asked.wasmflow(&["status", "affix", "--json"]);
    let detail: serde_json::Value = serde_json::from_str(&detail.stdout.join("\n")).expect("it is JSON");
    assert_eq!((&detail["generation"], &detail["kind"]), (&3.into(), &"interceptor".into()));
    let history = detail["history"].as_array().expect("it is a list");
    let triggers: Vec<_> = history.iter().map(|swap| swap["trigger"].as_str().expect("it is a text")).collect();
    assert_eq!(triggers, ["operator", "rollback"]);
    let metrics = asked.metrics();
    assert_eq!(metrics["wasmflow_swaps_total{pipeline=\"admin-swap\",stage=\"affix\",result=\"served\"}"], 2.0);
}

/// As [`affixed`], to a sink that refuses what holds a `[`, for a sink of what is refused.
fn affixed_and_picky(name: &str) -> (PipelineFile, u16) {
    let port = free_port();
    let stages = format!(
        r#"
    dead_letters = "refused"
    [channels.events]
    type = "memory"
    [sinks.picky]
    plugin = "{}"
    channel = "events"
    config = {{ mode = "reject", pattern = "[" }}
{}{}"#,
        component("corner-sink").display(),
        pipelines::LETTERS,
        pipelines::AFFIX
    );
    let stages = pipelines::netcat_to(port, &stages);
    let stages = stages.replace("[sources.netcat]", "[sources.netcat]\n    interceptors = [\"affix\"]");
    (PipelineFile::new(name, &stages), port)
}

#[test]
fn what_a_new_configuration_makes_the_sink_refuse_is_a_dead_letter_until_it_is_rolled_back() {
    let (pipeline, port) = affixed_and_picky("admin-refused");
    let asked = Asked::run(&pipeline, &[]);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("one"), "OK");
    let config = pipeline.folder().write("affix.toml", "prefix = \"[\"\nsuffix = \"]\"\n");
    let config = config.to_str().expect("the folder is UTF-8");
    assert_code(&asked.wasmflow(&["swap", "affix", "--config", config, "--watch", "0s"]), 0);
    assert_eq!(client.ask("two"), "OK");
    assert_code(&asked.wasmflow(&["rollback", "affix"]), 0);
    assert_eq!(client.ask("three"), "OK");
    assert_eq!(asked.agent.expect_lines(3, LIMIT), ["<one>", "refused [two]", "<three>"]);
}

#[test]
fn what_a_new_configuration_makes_a_sink_behind_it_refuse_sends_it_back_within_its_watch_window() {
    let (pipeline, port) = affixed_and_picky("admin-behind");
    let asked = Asked::run(&pipeline, &[]);
    let config = pipeline.folder().write("affix.toml", "prefix = \"[\"\nsuffix = \"]\"\n");
    let config = config.to_str().expect("the folder is UTF-8");
    let is_back = AtomicBool::new(false);
    let (refused, sent) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = NetcatClient::connect(port);
            let mut sent = 0;
            while !is_back.load(Ordering::Relaxed) {
                assert_eq!(client.ask(&sent.to_string()), "OK");
                sent += 1;
            }
            assert_eq!(client.ask("last"), "OK");
            sent + 1
        });
        // Far longer than it takes: the window ends with what is found in it.
        let refused = asked.wasmflow(&["swap", "affix", "--config", config, "--watch", "50s"]);
        is_back.store(true, Ordering::Relaxed);
        (refused, client.join().expect("the client does not panic"))
    });
    assert_code(&refused, 1);
    for words in ["step `watch`", "sink `picky` behind it: ", " rejections in ", "refused for good"] {
        assert!(refused.stderr.contains(words), "`{words}` is not in {}", refused.stderr);
    }
    let stage = asked.get("/v1/stages/affix").json();
    assert_eq!((&stage["generation"], &stage["history"][0]["result"]), (&1.into(), &"rolled-back".into()));
    let lines = asked.agent.expect_lines(sent, LIMIT);
    assert_eq!((lines.len(), lines.last().map(String::as_str)), (sent, Some("<last>")), "each line once");
    assert!(lines.iter().filter(|line| line.starts_with("refused [")).count() > 10);
}

#[test]
fn a_component_is_sent_to_the_agent_where_it_cannot_read_it_itself() {
    let (pipeline, port) = affixed("admin-upload");
    let asked = Asked::run(&pipeline, &[]);
    let component = component("stamp-interceptor");
    let component = component.to_str().expect("the path is UTF-8");
    pipeline.folder().write("stamp.toml", "keep = 0\n");
    let config = pipeline.folder().join("stamp.toml");
    let arguments = [
        "swap",
        "affix",
        component,
        "--upload",
        "--config",
        config.to_str().expect("the folder is UTF-8"),
        "--watch",
        "0s",
    ];
    assert_code(&asked.wasmflow(&arguments), 0);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("plain"), "OK");
    assert_eq!(asked.agent.expect_lines(1, LIMIT), ["plain"]);
    let left = std::fs::read_dir(pipeline.folder().join("run/uploads")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what was sent is left behind");
}

#[test]
fn what_is_refused_says_the_step_and_a_remedy_and_what_serves_goes_on() {
    let (pipeline, port) = affixed("admin-refused");
    let asked = Asked::run(&pipeline, &[]);
    pipeline.folder().write("affix.toml", "prefx = \"[\"\n");
    let config = pipeline.folder().join("affix.toml");
    let refused = |arguments: &[&str], code: i32, words: &[&str]| {
        let ended = asked.wasmflow(arguments);
        assert_code(&ended, code);
        for word in words {
            assert!(ended.stderr.contains(word), "`{word}` is not in {}", ended.stderr);
        }
    };
    refused(
        &["swap", "affix", "--config", config.to_str().expect("the folder is UTF-8")],
        1,
        &["step `check`", "prefx"],
    );
    refused(&["swap", "affix", "nix"], 1, &["step `fetch`", "hint: known are"]);
    refused(&["swap", "affix", "/etc/hostname"], 1, &["step `compile`", "not a WebAssembly file"]);
    refused(&["swap", "console", "null", "--shadow", "3"], 1, &["shadow"]);
    refused(&["swap", "nix", "null"], 2, &["no stage `nix`", "admin-refused/affix"]);
    refused(&["swap", "affix", "./nowhere.wasm"], 2, &["nowhere.wasm"]);
    refused(&["swap", "affix"], 2, &["PLUGIN"]);
    refused(&["rollback", "affix"], 1, &["no generation before"]);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("on"), "OK");
    assert_eq!(asked.agent.expect_lines(1, LIMIT), ["<on>"]);
}

#[test]
fn a_paused_stage_takes_nothing_until_it_is_resumed_or_the_agent_stops() {
    let (pipeline, port) = affixed("admin-pause");
    let asked = Asked::run(&pipeline, &[]);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("before"), "OK");
    assert_code(&asked.wasmflow(&["pause", "console"]), 0);
    client.send("paused");
    let waits = || asked.get("/v1/stages/console").json()["lag_events"] == 1;
    assert!(wait_until(LIMIT, waits), "{}", asked.get("/v1/status").body);
    assert_eq!(asked.get("/v1/stages/console").json()["state"], "paused");
    assert_eq!(asked.agent.stdout().count(), 1);
    assert_code(&asked.wasmflow(&["resume", "console"]), 0);
    assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"));
    assert_code(&asked.wasmflow(&["pause", "console"]), 0);
    client.send("last");
    assert!(wait_until(LIMIT, waits), "{}", asked.get("/v1/status").body);
    let ended = asked.agent.stop();
    assert_eq!((ended.code, ended.stdout), (Some(0), ["<before>", "<paused>", "<last>"].map(String::from).into()));
}

#[test]
fn a_changed_pipeline_file_is_applied_when_the_endpoint_is_asked_to_and_a_bad_one_is_not() {
    let (pipeline, port) = affixed("admin-reload");
    let asked = Asked::run(&pipeline, &[]);
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("one"), "OK");
    let reload = || asked.post("/v1/pipelines/admin-reload/reload", "", "");
    let nothing = reload();
    assert_eq!((nothing.status, nothing.json()), (200, serde_json::json!({ "applied": [] })));
    let text = std::fs::read_to_string(pipeline.path()).expect("it has been written");
    pipeline.folder().write("pipeline.toml", text.replace("prefix = \"<\"", "prefx = \"(\""));
    let refused = reload();
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("prefx"), "{}", refused.body);
    assert_eq!(asked.metrics()["wasmflow_config_last_reload_success"], 0.0);
    pipeline.folder().write("pipeline.toml", text.replace("prefix = \"<\"", "prefix = \"(\""));
    let applied = reload();
    assert_eq!(applied.status, 200, "{}", applied.body);
    assert_eq!(applied.json()["applied"][0]["name"], "affix", "{}", applied.body);
    assert_eq!(asked.metrics()["wasmflow_config_last_reload_success"], 1.0);
    assert_eq!(client.ask("two"), "OK");
    assert_eq!(asked.agent.expect_lines(2, LIMIT), ["<one>", "(two>"]);
    assert_eq!(asked.post("/v1/pipelines/nix/reload", "", "").status, 404);
}

#[test]
fn agents_are_found_without_flags_and_dead_ones_forgotten() {
    let (one, _) = affixed("admin-one");
    let (two, _) = affixed("admin-two");
    let one = Asked::run(&one, &[]);
    let two = Asked::run_with(&two, &[], &[("WASMFLOW_RUNTIME_DIR", one.runtime_dir())]);
    let status = |asked: &Asked| asked.wasmflow(&["status"]);
    let both = status(&one).stdout.join("\n");
    assert!(both.contains("pipeline admin-one: running") && both.contains("pipeline admin-two: running"), "{both}");
    let ambiguous = one.wasmflow(&["pause", "affix"]);
    assert_code(&ambiguous, 2);
    assert!(ambiguous.stderr.contains("admin-two/affix"), "{}", ambiguous.stderr);
    assert_code(&one.wasmflow(&["pause", "admin-two/affix"]), 0);
    two.agent.kill();
    let rest = status(&one).stdout.join("\n");
    assert!(rest.contains("admin-one") && !rest.contains("admin-two"), "{rest}");
    let variables = [("WASMFLOW_RUNTIME_DIR", one.runtime_dir().to_owned())];
    let socket = one.socket();
    assert!(socket.exists());
    assert_eq!(one.agent.stop().code, Some(0));
    assert!(!socket.exists());
    let none = wasmflow_with(&["status"], &variables.each_ref().map(|(name, value)| (*name, value.as_str())));
    assert_code(&none, 1);
    assert!(none.stderr.contains("no agent of yours runs"), "{}", none.stderr);
}
