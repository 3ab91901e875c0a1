//! What hostile plugins may cost: a quarter of a core for one that loops, bounded memory, and nothing of their neighbours.

use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::Asked;
use wasmflow_tests::component::component;
use wasmflow_tests::measure::{answers_per_second, load};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines::{self, CONSOLE};
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::soak;

use crate::alone;

const KINDS: [&str; 3] = ["source", "interceptor", "sink"];

/// A guest of this kind that acts in every call, in an otherwise harmless pipeline; what it is given goes to the dead letters.
fn acting(kind: &str, mode: &str) -> PipelineFile {
    let guest = format!(
        "plugin = \"{}\"\nconfig = {{ mode = \"{mode}\" }}\nlimits = {{ cpu = \"200ms\" }}\nretry = {{ initial = \"1ms\", max = \"1ms\" }}\n",
        component(&format!("hostile-{kind}")).display()
    );
    let numbers = "[sources.numbers]\nplugin = \"seq\"\nchannels = [\"events\"]\nconfig = { total = 1000000 }\nbatch_events = 1\n";
    let letters = "[channels.refused]\ntype = \"memory\"\n[sinks.letters]\nplugin = \"null\"\nchannel = \"refused\"\n";
    let nowhere = pipelines::NOWHERE;
    let stages = match kind {
        "source" => format!("{nowhere}[sources.guest]\nchannels = [\"events\"]\n{guest}"),
        "interceptor" => format!("{nowhere}{numbers}interceptors = [\"guest\"]\n[interceptors.guest]\n{guest}"),
        _ => format!("{nowhere}{numbers}[sinks.guest]\nchannel = \"events\"\nbatch_events = 1\n{guest}"),
    };
    let pipeline = PipelineFile::new(&format!("{mode}-{kind}"), &format!("{letters}{stages}"));
    pipeline.promise("dead_letters = \"refused\"\n");
    pipeline
}

/// Computing time is what is measured, so a busy machine can only lower it.
#[test]
fn a_looping_stage_has_a_quarter_of_a_core_after_its_third_timeout() {
    let _alone = alone();
    for kind in KINDS {
        let pipeline = acting(kind, "loop");
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

/// How many lines a second a client is answered that waits for each, with nobody beside it.
fn greatest_rate() -> f64 {
    let port = free_port();
    let alone = PipelineFile::new("alone", &pipelines::netcat_to(port, CONSOLE));
    let agent = alone.run();
    let rate = answers_per_second(&mut NetcatClient::connect(port), Duration::from_secs(2));
    agent.kill();
    rate
}

/// Guests of every kind that die of every event they are given, in one agent with a pipeline that is offered half of its greatest rate.
#[test]
fn a_pipeline_goes_on_beside_hostile_ones_and_memory_stays_bounded() {
    let _alone = alone();
    let offered = greatest_rate() / 2.0;
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let modes = ["loop", "loop-with-naps", "memory-fast", "handles"];
    let hostile: Vec<_> = KINDS.iter().flat_map(|kind| modes.map(|mode| acting(kind, mode))).collect();
    let others: Vec<&str> = hostile.iter().map(|file| file.path().to_str().expect("the path is text")).collect();
    // What plugins say is not printed: whoever measures would measure this process as it reads a storm.
    let asked = Asked::run_with(&good, &others, &[("RUST_LOG", "info,wasmflow::plugin=off")]);
    let agent = &asked.agent;
    let client = NetcatClient::connect(port);
    // What computes for long has lost what it may lose, and holds back from now on; what dies of handles dies too soon for that.
    let costly: Vec<String> =
        KINDS.iter().flat_map(|kind| modes[..3].iter().map(move |mode| format!("{{name={mode}-{kind}}}"))).collect();
    let all_rest = || {
        let log = agent.stderr().text();
        let rests: Vec<&str> = log.lines().filter(|line| line.contains("rests for the computing time")).collect();
        costly.iter().all(|pipeline| rests.iter().any(|line| line.contains(pipeline)))
    };
    assert!(wait_until(Duration::from_secs(120), all_rest), "{:.4000}", agent.stderr().text());
    keeps_its_rate(&asked, client, offered);
    asked.agent.kill();
}

/// Guests of every kind that compute on end and fail in nothing, so that nothing holds them back.
#[test]
fn a_pipeline_goes_on_beside_those_that_compute_without_end() {
    let _alone = alone();
    let offered = greatest_rate() / 2.0;
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let busy = KINDS.map(|kind| acting(kind, "log-storm"));
    let others: Vec<&str> = busy.iter().map(|file| file.path().to_str().expect("the path is text")).collect();
    let asked = Asked::run_with(&good, &others, &[("RUST_LOG", "info,wasmflow::plugin=off")]);
    keeps_its_rate(&asked, NetcatClient::connect(port), offered);
    asked.agent.kill();
}

/// Pipelines that do honest work as fast as they can, in calls that are short each.
#[test]
fn a_pipeline_goes_on_beside_those_that_work_as_fast_as_they_can() {
    let _alone = alone();
    let offered = greatest_rate() / 2.0;
    let port = free_port();
    let good = PipelineFile::new("good", &pipelines::netcat_to(port, CONSOLE));
    let stages = format!("{BUSY}{}", pipelines::NOWHERE);
    let busy: Vec<_> = (0..3).map(|number| PipelineFile::new(&format!("busy-{number}"), &stages)).collect();
    let others: Vec<&str> = busy.iter().map(|file| file.path().to_str().expect("the path is text")).collect();
    let asked = Asked::run_with(&good, &others, &[]);
    keeps_its_rate(&asked, NetcatClient::connect(port), offered);
    asked.agent.kill();
}

/// In front of [`pipelines::NOWHERE`].
const BUSY: &str = r#"
    [sources.stress]
    plugin = "stress"
    channels = ["events"]
    interceptors = ["replace"]
    [interceptors.replace]
    plugin = "search-replace"
    config = { pattern = "[a-f]+", replacement = "x" }
"#;

/// Offers so many lines a second, whenever answers come, and asks that they come in time and memory stays bounded.
fn keeps_its_rate(asked: &Asked, client: NetcatClient, offered: f64) {
    let agent = &asked.agent;
    let before = agent.process().cpu_time();
    let span = soak::span(Duration::from_secs(5), Duration::from_secs(60));
    let lines = (offered * span.as_secs_f64()) as usize;
    let started = Instant::now();
    let due = |line: usize| started + Duration::from_secs_f64(line as f64 / offered);
    let (mut sender, answers) = client.into_parts();
    let mut times = std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in 0..lines {
                std::thread::sleep(due(line).saturating_duration_since(Instant::now()));
                sender.write_all(b"line\n").expect("the source keeps the connection open");
            }
        });
        let answered = answers.lines().take(lines).zip(0..).map(|(answer, line)| {
            let text = answer.unwrap_or_else(|error| panic!("line {line}: {error}\n{:.4000}", agent.stderr().text()));
            assert_eq!(text, "OK");
            due(line).elapsed()
        });
        answered.collect::<Vec<_>>()
    });
    assert_eq!(times.len(), lines, "the source has closed the connection");
    let kept = times.len() as f64 / started.elapsed().as_secs_f64() / offered;
    times.sort();
    let [median, p99] = [50, 99].map(|percent| times[times.len() * percent / 100]);
    let peak = agent.process().peak_resident_bytes() >> 20;
    let cores = (agent.process().cpu_time() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    println!(
        "{offered:.0} lines/s offered, {:.1} % kept, p50 {median:?}, p99 {p99:?}, at most {:?}; {cores:.2} cores, at most {peak} MiB resident",
        kept * 100.0,
        times[times.len() - 1]
    );
    assert!(kept > soak::bound(0.0, 0.99), "{:.1} % of {offered:.0} lines/s", kept * 100.0);
    assert!(p99.as_secs_f64() < soak::bound(30.0, 0.05), "{p99:?}");
    // Twelve instances of 64 MiB at most, beside what an agent has anyway.
    assert!(peak < 1200, "{peak} MiB resident");
}
