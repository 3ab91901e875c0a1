//! From the start of the process to the first event on the console: with nothing compiled yet, and with the cache filled.

use std::time::{Duration, Instant};

use wasmflow_tests::agent::{Agent, Options, PipelineFile};
use wasmflow_tests::measure::median;
use wasmflow_tests::pipelines;

use crate::RUNS;
use crate::report::Report;

const FIRST: &str = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = { total = 1 }
"#;

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let pipeline = PipelineFile::new("first-event", &format!("{}{FIRST}", pipelines::CONSOLE));
        cold.push(first_event(&pipeline));
        std::fs::remove_dir_all(pipeline.folder().join("state/positions")).ok();
        pipeline.rewrite(
            "first-event",
            &format!("{}{}", pipelines::CONSOLE, FIRST.replace("total = 1", "start = 7, total = 1")),
        );
        warm.push(first_event(&pipeline));
    }
    report.add("start to first event, nothing compiled", median(&mut cold).as_secs_f64() * 1e3, "ms");
    report.add("start to first event, cache filled", median(&mut warm).as_secs_f64() * 1e3, "ms");
    Ok(())
}

fn first_event(pipeline: &PipelineFile) -> Duration {
    // A cache of the pipeline's own, so that the first start finds nothing.
    let cache = pipeline.folder().join("cache");
    let cache = cache.to_str().expect("temporary paths are text");
    let start = Instant::now();
    let agent = Agent::run_with(
        pipeline.path(),
        &Options { env: vec![("XDG_CACHE_HOME", cache)], log: Some("warn"), ..Options::default() },
    );
    let first = agent.stdout().wait_for(0, "", Duration::from_secs(60));
    first.unwrap_or_else(|| panic!("no event; the log:\n{}", agent.stderr().text())).at.duration_since(start)
}
