//! From the start of the process to the first event on the console, with nothing compiled yet and with the cache filled; and an agent
//! that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use wasmflow_tests::agent::{Agent, Options, PipelineFile};
use wasmflow_tests::measure::load;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::report::Report;

const FIRST: &str = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = { total = 1 }
"#;

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let pipelines: Vec<_> = (0..measuring.runs).map(|_| PipelineFile::new("first-event", &stages(1))).collect();
    let mut contest = Contest::new(measuring.runs);
    let cold = contest.reference("nothing compiled yet", |round| first_event(&pipelines[round]));
    contest.cost("start to first event, cache filled", "ms", Some(cold), |round| {
        let pipeline = &pipelines[round];
        // As a first start, but for the compiled plugins.
        std::fs::remove_dir_all(pipeline.folder().join("state/positions")).ok();
        pipeline.rewrite("first-event", &stages(7));
        first_event(pipeline)
    });
    contest.cost("idle agent of one pipeline", "% of a core", None, |_| idle());
    contest.run(report)
}

fn stages(first: u32) -> String {
    format!("{}{}", pipelines::CONSOLE, FIRST.replace("total = 1", &format!("start = {first}, total = 1")))
}

/// `netcat` to the console, after an event and some seconds of nothing.
fn idle() -> anyhow::Result<Sample> {
    let port = free_port();
    let pipeline = PipelineFile::new("idle", &pipelines::netcat_to(port, pipelines::CONSOLE));
    let agent = pipeline.run();
    let mut client = wasmflow_tests::netcat::NetcatClient::connect(port);
    client.ask("first");
    std::thread::sleep(Duration::from_secs(2));
    let percent = load(&agent, Duration::from_secs(8)) * 100.0;
    let resident = agent.process().peak_resident_bytes() as f64 / 1e6;
    agent.kill();
    Ok(Sample { resident: Some(resident), ..Sample::of(percent) })
}

fn first_event(pipeline: &PipelineFile) -> anyhow::Result<Sample> {
    // A cache of the pipeline's own, so that the first start finds nothing.
    let cache = pipeline.folder().join("cache");
    let cache = cache.to_str().expect("temporary paths are text");
    let start = Instant::now();
    let agent = Agent::run_with(
        pipeline.path(),
        &Options { env: vec![("XDG_CACHE_HOME", cache)], log: Some("warn"), ..Options::default() },
    );
    let first = agent.stdout().wait_for(0, "", Duration::from_secs(60));
    let first = first.with_context(|| format!("no event; the log:\n{}", agent.stderr().text()))?;
    Ok(Sample::of(first.at.duration_since(start).as_secs_f64() * 1e3))
}
