//! Plugins that do their worst, a dozen at once beside a pipeline that must not notice: the host survives, and the reason of
//! each is in the log, in the metrics and in `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use wasmflow_tests::agent::{Agent, PipelineFile, wasmflow_run, wasmflow_verb};
use wasmflow_tests::asked::Asked;
use wasmflow_tests::component::component;
use wasmflow_tests::hostile::{ACTS, Act, pipeline, stages};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines::{self, CONSOLE};
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn every_act_of_a_source_is_borne_and_told() {
    borne_and_told("source");
}

#[test]
fn every_act_of_an_interceptor_is_borne_and_told() {
    borne_and_told("interceptor");
}

#[test]
fn every_act_of_a_sink_is_borne_and_told() {
    borne_and_told("sink");
}

/// So many at once: each that computes holds a worker for a tick of 10 ms, and a busy machine makes more of it.
const AT_ONCE: usize = 12;

fn borne_and_told(kind: &str) {
    let acts: Vec<&Act> = ACTS.iter().filter(|act| act.kinds.contains(&kind)).collect();
    assert!(acts.len() >= 30, "{} acts of a {kind}", acts.len());
    acts.chunks(AT_ONCE).for_each(|acts| together(kind, acts));
}

/// These acts in one agent, with a pipeline whose client waits for each answer.
fn together(kind: &str, acts: &[&Act]) {
    let hostile: Vec<PipelineFile> = acts.iter().map(|act| pipeline(act, kind)).collect();
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let others: Vec<&str> = hostile.iter().map(|file| file.path().to_str().expect("the path is text")).collect();
    let asked = Asked::run(&good, &others);
    let mut client = NetcatClient::connect(port);
    let mut untold: BTreeSet<(&str, &str)> =
        acts.iter().flat_map(|act| ["log", "metrics", "status"].map(|place| (act.mode, place))).collect();
    let (started, mut lines, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while !untold.is_empty() {
        let sent = Instant::now();
        client.send("line");
        let answer = client.answer_within(LIMIT);
        assert_eq!(answer.as_deref(), Some("OK"), "{kind}, after {lines} lines: {}", asked.agent.stderr().text());
        slowest = slowest.max(sent.elapsed());
        lines += 1;
        look(&asked, acts, &mut untold);
        assert!(started.elapsed() < LIMIT, "{kind}: not told {untold:?}; the log:\n{}", asked.agent.stderr().text());
    }
    let peak = asked.agent.process().peak_resident_bytes() >> 20;
    println!(
        "{kind}: {} acts told within {:.1?}, {lines} lines answered, the slowest within {slowest:.1?}, {peak} MiB resident",
        acts.len(),
        started.elapsed()
    );
    // As many guests of 32 MiB at most, beside what an agent has anyway.
    assert!(peak < 300 + 32 * acts.len() as u64, "{peak} MiB resident");
    let log = asked.agent.stderr().text();
    assert!(!log.contains("breach:") && !log.contains('\u{1b}'), "{kind}: a breach, or a control character: {log}");
    assert_eq!(client.ask("last"), "OK");
}

/// Takes out of `untold` what is told by now.
fn look(asked: &Asked, acts: &[&Act], untold: &mut BTreeSet<(&str, &str)>) {
    let (metrics, status) = (asked.metrics(), asked.get("/v1/status").json());
    // A reason in a field of its own has its quotes escaped.
    let log = asked.agent.stderr().text().replace("\\\"", "\"");
    for act in acts {
        let told = [
            ("log", log.lines().any(|line| line.contains(act.told) && line.contains("guest"))),
            ("metrics", is_counted(&metrics, act)),
            ("status", is_in_status(&status, act)),
        ];
        for (place, _) in told.into_iter().filter(|(_, told)| *told) {
            untold.remove(&(act.mode, place));
        }
    }
}

fn is_counted(metrics: &BTreeMap<String, f64>, act: &Act) -> bool {
    let (family, label) = act.counted.split_once(' ').unwrap_or((act.counted, ""));
    let family = format!("wasmflow_{family}{{");
    let pipeline = format!("pipeline=\"{}\"", act.mode);
    metrics.iter().any(|(series, value)| {
        *value > 0.0 && series.starts_with(&family) && series.contains(&pipeline) && series.contains(label)
    })
}

/// The last error of the stage; of a pipeline that has stopped the reason why the agent is not ready.
fn is_in_status(status: &Value, act: &Act) -> bool {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of_stage = |stage: &Value| {
        let text = stage["last_error"]["text"].as_str().unwrap_or_default().to_owned();
        stage["name"] == "guest" && text.contains(act.told)
    };
    let pipelines = items(&status["pipelines"]);
    let stages = pipelines
        .iter()
        .filter(|pipeline| pipeline["name"] == act.mode)
        .flat_map(|pipeline| items(&pipeline["stages"]));
    let problems = items(&status["problems"]);
    let mut problems = problems.iter().filter_map(Value::as_str);
    stages.into_iter().any(|stage| of_stage(&stage))
        || problems.any(|problem| problem.contains(&format!("`{}`", act.mode)) && problem.contains(act.told))
}

#[test]
fn every_row_of_the_faults_of_plugins_has_an_act_or_a_test_of_its_own() {
    // Refused before anything runs, or a promise about what follows.
    let elsewhere = [18, 19, 20, 24, 26, 32, 33, 37, 38, 39, 40, 41];
    let acted: BTreeSet<u8> = ACTS.iter().map(|act| act.row).collect();
    let lacking: Vec<u8> = (18..=41).filter(|row| !acted.contains(row) && !elsewhere.contains(row)).collect();
    assert_eq!(lacking, [0u8; 0]);
    let faults =
        std::fs::read_to_string(wasmflow_tests::binary::repository().join("tests/FAULTS.md")).expect("it is there");
    for row in elsewhere {
        let line = faults.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap_or_default();
        assert!(line.contains(".rs"), "row {row} has no test: {line}");
    }
}

/// A pipeline named as the kind, whose stage `guest` does this in every call.
fn acting(kind: &str, name: &str, mode: &str) -> PipelineFile {
    let guest = format!(
        "plugin = \"{}\"\nconfig = {{ mode = \"{mode}\" }}\nlimits = {{ cpu = \"200ms\" }}\nretry = {{ initial = \"1ms\", max = \"1ms\" }}\n",
        component(&format!("hostile-{kind}")).display()
    );
    let pipeline = PipelineFile::new(name, &stages(kind, &guest));
    pipeline.promise("dead_letters = \"refused\"\n");
    pipeline
}

#[test]
fn a_plugin_that_traps_on_everything_is_slowed_down_and_stops_and_its_neighbours_go_on() {
    let kinds = ["source", "interceptor", "sink"];
    let trapping = kinds.map(|kind| acting(kind, kind, "trap"));
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let others = trapping.each_ref().map(|file| file.path().to_str().expect("the path is text"));
    let (started, asked) = (Instant::now(), Asked::run(&good, &others));
    let stopped = || {
        let log = asked.agent.stderr().text();
        let stops =
            log.lines().filter(|line| line.contains("stage stopped") && line.contains("trapped 100 times in a row"));
        stops.count() == kinds.len()
    };
    assert!(wait_until(LIMIT, stopped), "{}", asked.agent.stderr().text());
    // A hundred instances at full pace are a matter of some hundred milliseconds.
    assert!(started.elapsed() > Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(asked.agent.stderr().text().matches("plugin trapped").count(), 100 * kinds.len());
    assert_eq!(NetcatClient::connect(port).ask("still there?"), "OK");
}

#[test]
fn an_agent_answers_while_more_plugins_loop_than_there_are_cores() {
    let looping: Vec<PipelineFile> = (0..12)
        .map(|number| acting(["source", "interceptor", "sink"][number % 3], &format!("loop-{number}"), "loop"))
        .collect();
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let others: Vec<&str> = looping.iter().map(|file| file.path().to_str().expect("the path is text")).collect();
    let asked = Asked::run(&good, &others);
    let mut client = NetcatClient::connect(port);
    let timeouts = || {
        let metrics = asked.metrics();
        let timeouts = metrics.iter().filter(|(series, value)| {
            series.starts_with("wasmflow_plugin_traps_total{") && series.contains("kind=\"time\"") && **value >= 3.0
        });
        timeouts.count()
    };
    let started = Instant::now();
    while timeouts() < looping.len() {
        assert_eq!(asked.get("/healthz").status, 200);
        client.send("line");
        assert_eq!(client.answer_within(LIMIT).as_deref(), Some("OK"), "{}", asked.agent.stderr().text());
        assert!(started.elapsed() < LIMIT, "{} were ended: {}", timeouts(), asked.agent.stderr().text());
    }
}

/// The digest as `plugin inspect` prints it.
fn digest(package: &str) -> String {
    let component = component(package);
    let path = component.to_str().expect("the path is text");
    let printed = wasmflow_run(&["plugin", "inspect", path]).stdout.join("\n");
    let at = printed.find("sha256:").unwrap_or_else(|| panic!("no digest: {printed}"));
    printed[at..at + "sha256:".len() + 64].to_owned()
}

/// Ten numbers and no end, through `plugin.wasm` with this digest.
fn pinned(digest: &str) -> String {
    format!(
        "[sources.numbers]\nplugin = \"{}\"\nchannels = [\"events\"]\nconfig = {{ mode = \"endless\", total = 10 }}\n\
         interceptors = [\"shout\"]\n[interceptors.shout]\nplugin = \"plugin.wasm\"\ndigest = \"{digest}\"\n\
         config = {{ mode = \"reject\", pattern = \"x\" }}\n{CONSOLE}",
        component("corner-source").display()
    )
}

#[test]
fn a_plugin_that_is_not_the_pinned_one_is_refused_at_the_start_in_a_reload_and_when_it_is_saved() {
    let right = digest("corner-interceptor");
    let file = PipelineFile::new("pinned", &pinned(&right));
    let plugin = std::fs::read(component("corner-interceptor")).expect("it was compiled");
    file.folder().write("plugin.wasm", &plugin);
    let agent = Agent::run_arguments(file.path(), &["--watch", "--admin", "off"], &[]);
    assert_eq!(agent.expect_lines(10, Duration::from_secs(60)).len(), 10);
    // Saved: another one under the same name, which would run without the pin.
    let other = std::fs::read(component("hostile-interceptor")).expect("it was compiled");
    file.folder().write("plugin.wasm", &other);
    agent.expect_log("is not the plugin that is pinned", Duration::from_secs(60));
    // Reloaded: the file is right again and the pin is wrong.
    file.folder().write("plugin.wasm", &plugin);
    let wrong = digest("hostile-interceptor");
    file.rewrite("pinned", &pinned(&wrong));
    let refused = || agent.stderr().text().matches("is not the plugin that is pinned").count() >= 2;
    assert!(wait_until(Duration::from_secs(60), refused), "{}", agent.stderr().text());
    assert_eq!(agent.stop().code, Some(0));
    for verb in ["validate", "run"] {
        let ended = wasmflow_verb(verb, file.path());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(&right), "the digest to write down is said: {}", ended.stderr);
    }
}
