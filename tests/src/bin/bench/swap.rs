//! How long events wait at a swap, under full load: from the last batch of the old generation to the first of the new.
//!
//! Of sources and sinks the switch alone is told, from one batch to the stage being ready for the next: between their batches they
//! wait for events too.

use std::time::Duration;

use wasmflow_tests::admin::Managed;
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::{component, stamp_version};
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;

use crate::report::Report;

/// Enough for a 99th percentile that is not the worst of them.
const SWAPS: usize = 500;
const SWAPS_OF_ENDS: usize = 100;
/// More than are copied while the stages are swapped: 2 GB.
const RECORDS: u64 = 20_000_000;

/// The waits at the swaps of one stage, in milliseconds.
#[derive(Default)]
struct Waits {
    gaps: Vec<f64>,
    pauses: Vec<f64>,
    /// Less what a source's or sink's own close and open took.
    beside: Vec<f64>,
}

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let stages = format!("{}{}", stress(), pipelines::NOWHERE);
    let pipeline = PipelineFile::new("bench-swap", &stages);
    let versions = versions(&pipeline);
    let agent = Managed::run(&pipeline);
    // Reading and compiling comes first, once for each version.
    swap(&agent, "stamp", &versions, 2);
    let waits = swap(&agent, "stamp", &versions, SWAPS);
    report.add("swap of an interceptor, gap between batches, median", percentile(&waits.gaps, 50), "ms");
    report.add("swap of an interceptor, gap between batches, p99", percentile(&waits.gaps, 99), "ms");
    report.add("swap of an interceptor, the switch alone, p99", percentile(&waits.pauses, 99), "ms");
    for (stage, plugin) in [("numbers", "stress"), ("nowhere", "null")] {
        ends(report, &agent, stage, plugin);
    }
    agent.into_agent().kill();
    files(report);
    kafka(report)
}

/// A sink with a folder, and a disk behind it.
fn files(report: &mut Report) {
    let stages = format!(
        r#"{}
    [channels.events]
    type = "memory"

    [sinks.files]
    plugin = "file-roll"
    channel = "events"
    config = {{ dir = "out", roll_bytes = "100MiB" }}
    allow = {{ dirs = [{{ path = "out", write = true }}] }}
"#,
        stress()
    );
    let pipeline = PipelineFile::new("bench-swap-files", &stages);
    let agent = Managed::run(&pipeline);
    ends(report, &agent, "files", "file-roll");
    agent.into_agent().kill();
}

/// From topic to topic with exactly-once: the source, the interceptor and the sink.
fn kafka(report: &mut Report) -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("bench-swap-in", 1)?;
    topics.create("bench-swap-out", 1)?;
    let filler = PipelineFile::new(
        "bench-swap-fill",
        &format!(
            "{}{}",
            pipelines::topic_sink(&pipelines::connection(&broker.address()), "bench-swap-in"),
            stress().replace("size_bytes = 100", &format!("size_bytes = 100, total = {RECORDS}"))
        ),
    );
    // All of it first: the copy is never without records.
    filler.run().expect_done(Duration::from_secs(600));
    let stages = format!(
        "{}{}",
        pipelines::topic_to_topic(&broker.address(), "bench-swap-in", "bench-swap-out")
            .replace("follow = false", "follow = true")
            .replace(pipelines::AFFIX, "")
            .replace("affix", "stamp"),
        interceptor()
    );
    let pipeline = PipelineFile::new("bench-swap-kafka", &stages);
    pipeline.promise("delivery = \"exactly-once\"\n");
    let versions = versions(&pipeline);
    let agent = Managed::run(&pipeline);
    swap(&agent, "stamp", &versions, 2);
    let waits = swap(&agent, "stamp", &versions, SWAPS);
    report.add("the same from Kafka to Kafka, exactly-once, p99", percentile(&waits.gaps, 99), "ms");
    for stage in ["in", "topic"] {
        ends(report, &agent, stage, "kafka");
    }
    agent.into_agent().kill();
    Ok(())
}

fn ends(report: &mut Report, agent: &Managed, stage: &str, plugin: &str) {
    let waits = swap(agent, stage, &[plugin.to_owned(), plugin.to_owned()], SWAPS_OF_ENDS);
    let kind = agent.json(&["status", stage])["kind"].as_str().unwrap_or_default().to_owned();
    report.add(format!("swap of {plugin} ({kind}), p99"), percentile(&waits.pauses, 99), "ms");
    report.add("the same beside its own close and open, p99", percentile(&waits.beside, 99), "ms");
}

fn swap(agent: &Managed, stage: &str, plugins: &[String; 2], swaps: usize) -> Waits {
    let mut waits = Waits::default();
    for swap in 0..swaps {
        let arguments = ["swap", stage, &plugins[swap % 2], "--wait-for", "first-batch"];
        let report = agent.json(&arguments);
        let figure = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {report}"));
        // There is none where the stage has had no batch before.
        waits.gaps.extend(report["gap_ms"].as_f64());
        waits.pauses.push(figure("pause_ms"));
        waits.beside.push(figure("pause_ms") - figure("plugin_time_ms"));
    }
    waits
}

fn versions(pipeline: &PipelineFile) -> [String; 2] {
    ["v2", "v1"].map(|version| stamp_version(pipeline.folder().path(), version).display().to_string())
}

fn stress() -> String {
    format!(
        r#"
    [sources.numbers]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = 100 }}
    interceptors = ["stamp"]
{}"#,
        interceptor()
    )
}

fn interceptor() -> String {
    format!("\n    [interceptors.stamp]\n    plugin = \"{}\"\n", component("stamp-interceptor").display())
}

/// The value that so many percent are not above.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}
