//! What hostile plugins may cost: a quarter of a core for one that loops, bounded memory, and nothing of their neighbours.

use std::time::{Duration, Instant};

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::component::component;
use wasmflow_tests::measure::load;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines::{self, CONSOLE};
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::soak;

use crate::alone;

/// A guest of this kind that loops in every call, in an otherwise harmless pipeline.
fn looping(kind: &str) -> PipelineFile {
    let guest = format!(
        "plugin = \"{}\"\nconfig = {{ mode = \"loop\" }}\nlimits = {{ cpu = \"200ms\" }}\nretry = {{ initial = \"1ms\", max = \"1ms\" }}\n",
        component(&format!("hostile-{kind}")).display()
    );
    let numbers = "[sources.numbers]\nplugin = \"seq\"\nchannels = [\"events\"]\nconfig = { total = 1000 }\n";
    let stages = match kind {
        "source" => format!("{CONSOLE}[sources.guest]\nchannels = [\"events\"]\n{guest}"),
        "interceptor" => format!("{CONSOLE}{numbers}interceptors = [\"guest\"]\n[interceptors.guest]\n{guest}"),
        _ => format!("{CONSOLE}{numbers}[sinks.guest]\nchannel = \"events\"\n{guest}"),
    };
    PipelineFile::new(&format!("looping-{kind}"), &stages)
}

/// Computing time is what is measured, so a busy machine can only lower it.
#[test]
fn a_looping_stage_has_a_quarter_of_a_core_after_its_third_timeout() {
    let _alone = alone();
    for kind in ["source", "interceptor", "sink"] {
        let pipeline = looping(kind);
        let agent = pipeline.run();
        let timeouts = || agent.stderr().text().matches("computed longer than 200 ms").count();
        assert!(wait_until(Duration::from_secs(60), || timeouts() >= 3), "{kind}: {}", agent.stderr().text());
        let before = timeouts();
        let load = load(&agent, Duration::from_secs(5));
        println!("{kind}: {:.1} % of a core", load * 100.0);
        assert!(load < 0.25, "{kind}: {:.1} % of a core", load * 100.0);
        assert!(timeouts() > before, "{kind} was not tried again: {}", agent.stderr().text());
        agent.kill();
    }
}

/// An interceptor that acts on every number, with dead letters that nobody reads.
fn acting(mode: &str) -> PipelineFile {
    let stages = format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = 90 }}
    batch_events = 1
    interceptors = ["guest"]

    [interceptors.guest]
    plugin = "{}"
    config = {{ mode = "{mode}" }}
    limits = {{ cpu = "200ms" }}

    [channels.refused]
    type = "memory"

    [sinks.letters]
    plugin = "null"
    channel = "refused"
{}"#,
        component("hostile-interceptor").display(),
        pipelines::NOWHERE
    );
    let pipeline = PipelineFile::new(&format!("acting-{mode}"), &stages);
    pipeline.promise("dead_letters = \"refused\"\n");
    pipeline
}

/// Each hostile plugin dies of every event it is given, in one agent with a pipeline whose clients wait for each answer.
#[test]
fn a_pipeline_goes_on_beside_hostile_ones_and_memory_stays_bounded() {
    let _alone = alone();
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let hostile = ["loop", "memory-fast", "log-storm", "handles"].map(acting);
    let agent = Agent::run_together(&[&[&good], hostile.each_ref().as_slice()].concat());
    let mut client = NetcatClient::connect(port);
    let (mut times, started) = (Vec::new(), Instant::now());
    let reasons = ["computed longer than 200 ms", "more memory than its limit", "log lines dropped", "1024 handles"];
    let span = soak::span(Duration::from_secs(5), Duration::from_secs(60));
    let all_told = || reasons.iter().all(|reason| agent.stderr().text().contains(reason));
    while started.elapsed() < span || (!all_told() && started.elapsed() < Duration::from_secs(120)) {
        let asked = Instant::now();
        assert_eq!(client.ask("line"), "OK", "{:.4000}", agent.stderr().text());
        times.push(asked.elapsed());
    }
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    let peak = agent.process().peak_resident_bytes() >> 20;
    println!("{} answers, p99 {p99:?}; at most {peak} MiB resident", times.len());
    for reason in reasons {
        assert!(agent.stderr().text().contains(reason), "`{reason}` is not in the log");
    }
    assert!(p99.as_secs_f64() < soak::bound(10.0, 0.05), "{p99:?}");
    // Four instances of 64 MiB at most, beside what an agent has anyway.
    assert!(peak < 600, "{peak} MiB resident");
    agent.kill();
}
