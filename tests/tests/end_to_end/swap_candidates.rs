//! Candidates of every kind that are no good, whatever is wrong with them: the serving generation goes on, the caller is told the step that
//! failed, and no event is lost, repeated or out of order.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::{Asked, ask_for_swap};
use wasmflow_tests::component::component;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::stamped::all_numbers_to_files;

const LIMIT: Duration = Duration::from_secs(60);

/// Numbers through three plugins that are harmless as they are configured here, onto the console.
fn harmless(name: &str) -> PipelineFile {
    let [source, interceptor, sink] = ["source", "interceptor", "sink"].map(|kind| path(&format!("hostile-{kind}")));
    PipelineFile::new(
        name,
        &format!(
            r#"
    [kafka.main]
    embedded = true

    [channels.events]
    type = "memory"
    capacity_events = 1000

    [sources.source]
    plugin = "{source}"
    channels = ["events"]
    config = {{ {HARMLESS}, total = 1_000_000_000 }}
    interceptors = ["interceptor"]
    allow = {{ kafka = ["main"] }}
    {LIMITS}

    [interceptors.interceptor]
    plugin = "{interceptor}"
    config = {{ {HARMLESS} }}
    {LIMITS}

    [sinks.sink]
    plugin = "{sink}"
    channel = "events"
    config = {{ {HARMLESS} }}
    allow = {{ kafka = ["main"] }}
    {LIMITS}
"#
        ),
    )
}

/// An act whose time never comes.
const HARMLESS: &str = "mode = \"trap\", after = 1_000_000_000";
/// A loop ends soon.
const LIMITS: &str = "limits = { cpu = \"200ms\", memory = \"32MiB\" }";

fn path(package: &str) -> String {
    component(package).display().to_string()
}

/// A swap to another plugin, as it is configured now or with these lines.
fn plugin(package: &str, config: &str) -> Value {
    let mut order = json!({ "plugin": path(package) });
    if !config.is_empty() {
        order["config_toml"] = config.into();
    }
    order
}

/// The same plugin, with an act.
fn act(mode: &str, call: &str, after: u64) -> Value {
    json!({ "config_toml": format!("mode = \"{mode}\"\ncall = \"{call}\"\nafter = {after}\ntotal = 1_000_000_000") })
}

/// What is wrong with a candidate, and the step that says so.
fn candidates(kind: &str) -> Vec<(&'static str, Value)> {
    let mut candidates = vec![
        ("fetch", json!({ "plugin": "/nowhere.wasm" })),
        ("compile", json!({ "plugin_base64": "AGFzbQ==" })),
        ("describe", plugin("describe-trap-sink", "")),
        ("check", json!({ "config_toml": "mode = \"no-such-act\"" })),
        ("check", act("panic", "check", 0)),
        ("check", act("loop", "check", 0)),
        ("open", act("panic", "open", 0)),
        ("open", act("loop", "open", 0)),
        ("open", act("memory-fast", "open", 0)),
        ("watch", act("panic", "work", 0)),
        ("watch", act("stack-overflow", "work", 0)),
        ("watch", act("loop", "work", 0)),
        ("watch", act("memory-fast", "work", 0)),
        ("watch", act("trap", "work", 999)),
    ];
    candidates.extend(match kind {
        "source" => vec![
            ("world", plugin("stamp-interceptor", "")),
            ("grants", json!({ "plugin": "netcat", "config_toml": "bind = \"127.0.0.1:44444\"" })),
            ("watch", act("ends-decrease", "work", 0)),
            ("watch", act("more-than-asked", "work", 0)),
            ("watch", act("panic", "acked", 0)),
        ],
        "interceptor" => vec![
            ("world", plugin("corner-sink", "")),
            ("grants", json!({ "plugin": "timestamp", "config_toml": "" })),
            ("shadow", json!({ "config_toml": "mode = \"panic\"\nafter = 3", "shadow": 10 })),
            ("watch", act("kept-in-future", "work", 0)),
            ("watch", act("empty-items", "work", 0)),
            ("watch", act("panic", "flush", 0)),
        ],
        _ => vec![
            ("world", plugin("stamp-interceptor", "")),
            ("grants", json!({ "plugin": "file-roll", "config_toml": "dir = \"elsewhere\"" })),
            ("shadow", json!({ "config_toml": "mode = \"panic\"", "shadow": 10 })),
            ("watch", act("partly-unsorted", "work", 0)),
            ("watch", act("partly-out-of-range", "work", 0)),
            ("watch", act("panic", "flush", 0)),
        ],
    });
    candidates
}

/// Swaps the stage of this kind to one bad candidate after another.
fn refused(kind: &str) {
    let pipeline = harmless(&format!("swap-bad-{kind}"));
    let asked = Asked::run(&pipeline, &[]);
    for (step, order) in candidates(kind) {
        let order = watched(order);
        let answer = asked.swap(kind, &order);
        assert_eq!(answer.status, 422, "{kind}: {order}: {}", answer.body);
        assert_eq!(answer.json()["error"]["step"], step, "{kind}: {order}: {}", answer.body);
        if order == watched(act("trap", "work", 999)) {
            assert!(answer.body.contains("1 traps in 1000 calls"), "the thousandth: {}", answer.body);
        }
        let stage = asked.stage(kind);
        assert_eq!(stage["generation"], 1, "{kind}: {order}: {stage}");
        let lives: Vec<_> = stage["generations"].as_array().into_iter().flatten().map(|one| &one["life"]).collect();
        assert_eq!(lives, ["serving"], "{kind}: {order}: {stage}");
        let told = &stage["history"].as_array().expect("it is a list").last().expect("it is remembered").clone();
        assert_eq!(told["result"], if step == "watch" { "rolled-back" } else { "refused" }, "{told}");
        let out = asked.stage("sink")["counters"]["out_events"].as_u64().expect("it is a number");
        asked.until_out("sink", out + 100);
    }
    let ended = asked.agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let wrong = ended.stdout.iter().zip(0_u64..).find(|(line, number)| **line != number.to_string());
    assert_eq!(wrong, None, "each number once and in order");
}

/// Longer than any of them takes to be found out.
fn watched(mut order: Value) -> Value {
    (order["watch_ms"], order["wait_for"]) = (50_000.into(), "watch".into());
    order
}

#[test]
fn a_bad_source_is_refused_or_sent_back_with_its_step_and_each_number_arrives_once() {
    refused("source");
}

#[test]
fn a_bad_interceptor_is_refused_or_sent_back_with_its_step_and_each_number_arrives_once() {
    refused("interceptor");
}

#[test]
fn a_bad_sink_is_refused_or_sent_back_with_its_step_and_each_number_arrives_once() {
    refused("sink");
}

const SLOW: &str = "config = { mode = \"slow\", delay = \"200ms\" }";

#[test]
fn a_swap_while_the_pipeline_drains_is_made_or_refused_and_everything_arrives() {
    let stages = all_numbers_to_files("");
    let (stages, _) = stages.split_once("[sinks.files]").expect("its sink is the last");
    let slow = format!(
        "{stages}[sinks.slow]\nplugin = \"{}\"\nchannel = \"events\"\nbatch_events = 100\n{SLOW}",
        path("corner-sink")
    );
    let pipeline = PipelineFile::new("swap-drain", &slow);
    let asked = Asked::run(&pipeline, &[]);
    // The channel is full: it takes the sink two seconds to come to its end.
    assert!(wait_until(LIMIT, || asked.stage("slow")["lag_events"].as_u64() >= Some(900)));
    asked.agent.process().signal(Signal::TERM);
    let port = asked.port;
    let swapping = std::thread::spawn(move || {
        let orders = [
            ("slow", json!({ "config_toml": "mode = \"slow\"\ndelay = \"150ms\"", "wait_for": "switch" })),
            ("stamp", json!({ "plugin": path("stamp-interceptor"), "wait_for": "switch" })),
        ];
        let mut made = 0;
        for (stage, order) in orders.iter().cycle() {
            // Nobody answers when the agent has ended.
            let Some(answer) = ask_for_swap(port, stage, order) else { return made };
            assert!([200, 404, 409, 422, 503].contains(&answer.status), "{}", answer.body);
            made += usize::from(answer.status == 200);
        }
        made
    });
    let ended = asked.agent.wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    println!("{} swaps made while it drained", swapping.join().expect("only an unknown answer panics"));
    let wrong = ended.stdout.iter().zip(0_u64..).find(|(line, number)| **line != number.to_string());
    assert_eq!(wrong, None, "each number once and in order");
}
