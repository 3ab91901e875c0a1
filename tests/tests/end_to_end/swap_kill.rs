//! Agents killed in the middle of a swap, at each of its steps: they start again with what their file names, and nothing is lost; in a
//! pipeline that promises exactly-once nothing is there twice either.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use wasmflow_tests::agent::{Ended, PipelineFile};
use wasmflow_tests::asked::{Asked, ask_for_swap};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::pipelines;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;
use wasmflow_tests::stamped::two_versions;
use wasmflow_tests::stop::RaisedAtEnd;

#[path = "../sandbox/bytes.rs"]
#[expect(dead_code, reason = "the other components are for the tests of the sandbox")]
mod bytes;

const LIMIT: Duration = Duration::from_secs(60);

/// Numbers without end through `stamp`, which is configured like this, before the sink, which defines the channel `events`.
fn numbers(stamp: &str, sink: &str) -> String {
    let [source, interceptor] = ["corner-source", "stamp-interceptor"].map(path);
    format!(
        r#"{sink}
    [sources.numbers]
    plugin = "{source}"
    channels = ["events"]
    config = {{ mode = "endless", total = 1_000_000_000 }}
    interceptors = ["stamp"]

    [interceptors.stamp]
    plugin = "{interceptor}"
    {stamp}
"#
    )
}

/// A sink that prints, with this configuration.
fn printing(config: &str) -> String {
    format!(
        r#"
    [channels.events]
    type = "memory"
    capacity_events = 100

    [sinks.console]
    plugin = "{}"
    channel = "events"
    config = {{ {config} }}
"#,
        path("corner-sink")
    )
}

fn path(package: &str) -> String {
    component(package).display().to_string()
}

/// A swap, and how it is seen that it has come to the step that it is to be killed in.
struct Step {
    stage: &'static str,
    order: Value,
    seen: Seen,
}

#[derive(Clone, Copy)]
enum Seen {
    /// A child of the agent compiles.
    Compiler,
    /// A generation is at this point of its life.
    Life(&'static str),
    /// A candidate is there, and the stage has no batch any more: the runner is busy with the switch.
    Held,
}

impl Seen {
    fn is_seen(self, asked: &Asked, stage: &str) -> bool {
        match self {
            Self::Compiler => compiles(asked.agent.process().id()),
            Self::Life(life) => has_life(&asked.stage(stage), life),
            Self::Held => {
                let calls = || asked.stage(stage)["counters"]["calls"].as_u64();
                let before = calls();
                std::thread::sleep(Duration::from_millis(100));
                has_life(&asked.stage(stage), "candidate") && calls() == before
            }
        }
    }
}

fn has_life(stage: &Value, life: &str) -> bool {
    stage["generations"].as_array().into_iter().flatten().any(|generation| generation["life"] == life)
}

/// Whether a process of this parent compiles a plugin.
fn compiles(parent: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> =
        children.flat_map(|ids| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let command = |id: &String| std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    children.iter().any(|id| command(id).contains("compile-plugin"))
}

/// What a pipeline's file names serves, and nothing is left of a swap.
fn assert_as_in_the_file(asked: &Asked, digests: &mut Vec<Value>) {
    let found: Vec<Value> = asked.get("/v1/status").json()["pipelines"][0]["stages"]
        .as_array()
        .expect("it is a list")
        .iter()
        .map(|stage| json!([stage["name"], stage["generation"], stage["plugin"]["digest"]]))
        .collect();
    assert!(found.iter().all(|stage| stage[1] == 1), "{found:?}");
    if digests.is_empty() {
        digests.clone_from(&found);
    }
    assert_eq!(&found, digests, "the file's plugins");
    let stage = asked.stage("stamp");
    assert_eq!((stage["generations"].as_array().map(Vec::len), &stage["history"]), (Some(1), &json!([])), "{stage}");
}

/// Runs the pipeline, begins the swap when events flow, and kills the agent at its step.
fn killed_at(pipeline: &PipelineFile, sink: &str, step: Step, digests: &mut Vec<Value>) -> Ended {
    let Step { stage, order, seen } = step;
    let asked = Asked::run(pipeline, &[]);
    assert_as_in_the_file(&asked, digests);
    asked.until_out(sink, 20);
    let (port, asking) = (asked.port, order.clone());
    let swapping = std::thread::spawn(move || ask_for_swap(port, stage, &asking));
    let came = wait_until(LIMIT, || seen.is_seen(&asked, stage));
    let now = asked.stage(stage);
    asked.agent.process().signal(Signal::KILL);
    let ended = asked.agent.wait(LIMIT);
    assert!(came, "{stage}: {order}: not seen: {now}\n{}", ended.stderr);
    swapping.join().expect("it waits for an answer and nothing else");
    ended
}

#[test]
fn killed_at_each_step_of_a_swap_an_exactly_once_pipeline_has_each_number_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("swap-kill-steps", 1)?;
    let pipeline = exactly_once(broker, "swap-kill-steps");
    let bomb = pipeline.folder().write("bomb.wasm", bytes::compile_bomb(7 << 20)).display().to_string();
    let [_, v2] = two_versions(pipeline.folder().path());
    let step = |stage, order, seen| Step { stage, order, seen };
    let steps = [
        step("stamp", json!({ "plugin": bomb }), Seen::Compiler),
        step("stamp", json!({ "plugin": v2, "config_toml": "fault = \"retry\"\nat = 0" }), Seen::Life("candidate")),
        step("stamp", json!({ "plugin": v2, "shadow": 1_000_000 }), Seen::Life("shadow")),
        step("stamp", json!({ "plugin": v2, "watch_ms": 3_600_000 }), Seen::Life("draining")),
        step("numbers", json!({ "config_toml": "mode = \"slow-open\"" }), Seen::Held),
        step("topic", json!({ "plugin": "kafka", "watch_ms": 3_600_000 }), Seen::Life("draining")),
    ];
    let mut digests = Vec::new();
    for step in steps {
        killed_at(&pipeline, "topic", step, &mut digests);
    }
    each_number_once(&pipeline, &topics, "swap-kill-steps", &mut digests)
}

#[test]
fn killed_while_one_swap_follows_the_other_an_exactly_once_pipeline_has_each_number_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("swap-kill-random", 1)?;
    let pipeline = exactly_once(broker, "swap-kill-random");
    let versions = two_versions(pipeline.folder().path());
    let mut digests = Vec::new();
    killed_at_any_time(&pipeline, &mut digests, |swap| match swap % 3 {
        0 => ("stamp", versions[swap / 3 % 2].clone()),
        1 => ("numbers", path("corner-source")),
        _ => ("topic", "kafka".into()),
    });
    each_number_once(&pipeline, &topics, "swap-kill-random", &mut digests)
}

/// Kills agents of the pipeline while one swap follows the other: which stage, and to what.
fn killed_at_any_time(
    pipeline: &PipelineFile,
    digests: &mut Vec<Value>,
    swaps: impl Fn(usize) -> (&'static str, String) + Sync,
) {
    let mut random = StdRng::seed_from_u64(soak::seed());
    for _ in 0..soak::times(6, 100) {
        let asked = Asked::run(pipeline, &[]);
        assert_as_in_the_file(&asked, digests);
        asked.until_out("topic", 20);
        let (port, stop) = (asked.port, AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _at_end = RaisedAtEnd(&stop);
            scope.spawn(|| {
                for (stage, plugin) in (0..).map(&swaps) {
                    // Nobody answers when the agent has been killed.
                    let order = json!({ "plugin": plugin, "wait_for": "switch" });
                    if stop.load(Ordering::Relaxed) || ask_for_swap(port, stage, &order).is_none() {
                        return;
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(random.random_range(20..600)));
            asked.agent.kill();
        });
    }
}

#[test]
fn killed_inside_the_drain_of_a_switch_an_exactly_once_pipeline_has_each_number_once() -> anyhow::Result<()> {
    const NAME: &str = "swap-kill-drain";
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create(NAME, 1)?;
    // Nothing is kept back, so only a switch asks for a drain; it lasts until the kill.
    let pipeline = exactly_once(broker, NAME);
    write_exactly_once(&pipeline, broker, NAME, "config = { fault = \"drain\" }", "");
    let versions = two_versions(pipeline.folder().path());
    let mut digests = Vec::new();
    for plugin in &versions {
        let order = json!({ "plugin": plugin });
        killed_at(&pipeline, "topic", Step { stage: "stamp", order, seen: Seen::Held }, &mut digests);
    }
    // The last run is stopped in order, which asks for a drain as well.
    write_exactly_once(&pipeline, broker, NAME, "", "");
    each_number_once(&pipeline, &topics, NAME, &mut digests)
}

#[test]
fn killed_while_drains_let_go_of_what_was_kept_an_exactly_once_pipeline_has_each_number_once() -> anyhow::Result<()> {
    const NAME: &str = "swap-kill-kept";
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create(NAME, 1)?;
    // On both roads: about half of the time is a drain of a switch, and most of the rest one of a batch or a transaction.
    let kept = "config = { keep = 1, fault = \"drain\", drain_ms = 100 }";
    let pipeline = exactly_once(broker, NAME);
    write_exactly_once(&pipeline, broker, NAME, kept, kept);
    let versions = two_versions(pipeline.folder().path());
    let mut digests = Vec::new();
    killed_at_any_time(&pipeline, &mut digests, |swap| {
        (["stamp", "last"][swap % 2], versions[(swap / 2 + 1) % 2].clone())
    });
    each_number_once(&pipeline, &topics, NAME, &mut digests)
}

/// Numbers into the topic of the pipeline's name.
fn exactly_once(broker: &KafkaBroker, name: &str) -> PipelineFile {
    let pipeline = PipelineFile::new(name, "");
    write_exactly_once(&pipeline, broker, name, "", "");
    pipeline
}

/// As [`exactly_once`], with the source's interceptor `stamp` configured like this, and another one, `last`, before the sink, unless
/// nothing is said of it.
fn write_exactly_once(pipeline: &PipelineFile, broker: &KafkaBroker, name: &str, stamp: &str, last: &str) {
    let connection = format!("{}\n    \"transaction.timeout.ms\" = 10000", pipelines::connection(&broker.address()));
    // No partition is named: there is one.
    let mut sink = pipelines::topic_sink(&connection, name).replace(", partition_header = \"kafka.partition\"", "");
    if !last.is_empty() {
        sink += &format!(
            "    interceptors = [\"last\"]\n\n    [interceptors.last]\n    plugin = \"{}\"\n    {last}\n",
            path("stamp-interceptor")
        );
    }
    pipeline.rewrite(name, &numbers(stamp, &sink));
    pipeline.promise("delivery = \"exactly-once\"\n");
}

/// Runs it once more, stops it in order, and looks at the topic.
fn each_number_once(
    pipeline: &PipelineFile,
    topics: &Topics,
    name: &str,
    digests: &mut Vec<Value>,
) -> anyhow::Result<()> {
    let asked = Asked::run(pipeline, &[]);
    assert_as_in_the_file(&asked, digests);
    asked.until_out("topic", 20);
    let ended = asked.agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let arrived: Vec<String> = topics.read_all(name)?.iter().map(|record| record.text()).collect();
    let wrong = arrived.iter().zip(0_u64..).find(|(arrived, number)| **arrived != number.to_string());
    assert_eq!(wrong, None, "each number once and in order");
    Ok(())
}

#[test]
fn killed_while_a_runner_drains_closes_opens_or_delivers_in_a_switch_nothing_is_lost() {
    const NAME: &str = "swap-kill-switch";
    let plain = || numbers("", &printing("mode = \"slow\""));
    let pipeline = PipelineFile::new(NAME, &plain());
    let [_, v2] = two_versions(pipeline.folder().path());
    let anew = json!({ "config_toml": "mode = \"slow\"\ndelay = \"1ms\"" });
    let slow = |mode: &str| json!({ "config_toml": format!("mode = \"{mode}\"\ndelay = \"1m\"") });
    let steps = [
        (numbers("config = { fault = \"drain\" }", &printing("mode = \"slow\"")), "stamp", json!({ "plugin": v2 })),
        (numbers("", &printing("mode = \"slow-drain\", delay = \"1m\"")), "console", anew.clone()),
        (numbers("", &printing("mode = \"slow\", delay = \"1s\"")), "console", anew),
        (plain(), "console", slow("slow-open")),
        (plain(), "numbers", json!({ "config_toml": "mode = \"slow-open\"" })),
    ];
    let mut arrived = BTreeSet::new();
    // The last line may have been cut by the kill; what is left of it is a smaller number.
    let mut collect = |ended: Ended| arrived.extend(ended.stdout.iter().filter_map(|line| line.parse::<u64>().ok()));
    for (stages, stage, order) in steps {
        pipeline.rewrite(NAME, &stages);
        collect(killed_at(&pipeline, "console", Step { stage, order, seen: Seen::Held }, &mut Vec::new()));
    }
    pipeline.rewrite(NAME, &plain());
    let asked = Asked::run(&pipeline, &[]);
    asked.until_out("console", 1000);
    let ended = asked.agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    collect(ended);
    assert_eq!(arrived.last().copied(), Some(arrived.len() as u64 - 1), "numbers lost");
}
