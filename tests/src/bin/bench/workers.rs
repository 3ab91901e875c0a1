//! What `workers` bring: an interceptor that computes, and a sink that waits, each with one instance and with several.

use std::time::Duration;

use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::component::component;
use wasmflow_tests::measure::median;
use wasmflow_tests::pipelines::NOWHERE;
use wasmflow_tests::run::run;

use crate::RUNS;
use crate::report::Report;

/// Of 1 KiB, each searched from end to end.
const SEARCHED: u32 = 400_000;
/// A hundred at a time, each hundred 5 ms under way.
const DELIVERED: u32 = 20_000;

/// Runs both kinds in turn, so that a slow minute of the machine meets all.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get() as u32);
    let (mut searched, mut delivered) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..RUNS {
        for (rates, workers) in searched.iter_mut().zip([1, cores]) {
            rates.push(rate(SEARCHED, |events| searching(events, workers))?);
        }
        for (rates, workers) in delivered.iter_mut().zip([1, 8]) {
            rates.push(rate(DELIVERED, |events| waiting(events, workers))?);
        }
    }
    let [mut one, mut more] = searched;
    report.add("stress -> search-replace over 1 KiB -> null, one worker", median(&mut one), "events/s");
    report.add(format!("the same with `workers = {cores}`, as many as cores"), median(&mut more), "events/s");
    let [mut one, mut more] = delivered;
    report.add("seq -> a sink that takes 5 ms for 100 events, one worker", median(&mut one), "events/s");
    report.add("the same with `workers = 8`", median(&mut more), "events/s");
    Ok(())
}

/// Events a second, beyond what one event costs, which is the start.
fn rate(events: u32, pipeline: impl Fn(u32) -> PipelineFile) -> anyhow::Result<f64> {
    let one = run(quiet_run(&pipeline(1)))?;
    let took: Duration = run(quiet_run(&pipeline(events)))?.beyond(one).wall;
    Ok(f64::from(events) / took.as_secs_f64())
}

fn searching(events: u32, workers: u32) -> PipelineFile {
    let stages = format!(
        r#"{NOWHERE}
    [sources.stress]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = 1024, total = {events} }}
    interceptors = ["search"]

    [interceptors.search]
    plugin = "search-replace"
    workers = {workers}
    config = {{ pattern = "[a-z]+[0-9]+x", replacement = "y" }}
"#
    );
    PipelineFile::new("searching", &stages)
}

fn waiting(events: u32, workers: u32) -> PipelineFile {
    let stages = format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = {events} }}

    [channels.events]
    type = "memory"

    [sinks.slow]
    plugin = "{}"
    channel = "events"
    batch_events = 100
    workers = {workers}
    config = {{ mode = "slow", delay = "5ms" }}
"#,
        component("corner-sink").display()
    );
    PipelineFile::new("waiting", &stages)
}
