//! How long events wait at a swap, under full load: from the last batch of the old generation to the first of the new.
//!
//! In that gap a runner also waits for room in its channels, for a transaction's end and for the next events, as it does without swaps. So
//! beside it stands the gap that a moment chosen at random comes to while nobody swaps, and the switch alone: from the runner being ready
//! for its next batch to the new generation being ready for it. The switch is all that a swap adds to the gap.
//!
//! Of sources and sinks the switch alone is told, from one batch to the stage being ready for the next: between their batches they
//! wait for events too. Swaps are asked for over one agent's endpoint, since a process for each would be most of the load.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::Asked;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;
use wasmflow_tests::stamped::two_versions;

use crate::report::Report;

/// Enough for a 99th percentile that is not the worst of them.
const SWAPS: usize = 500;
const SWAPS_OF_ENDS: usize = 200;
/// The swaps of one stage end after this, however many were made.
const SPAN: Duration = Duration::from_secs(12);
/// So long a generation of an interceptor serves before it is swapped, for its gaps without swaps: thirty transactions.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// 3 GB: more than are copied while the stages are swapped, at most 40 s.
const RECORDS: u64 = 24_000_000;

/// The waits at the swaps of one stage, in milliseconds.
#[derive(Default)]
struct Waits {
    gaps: Vec<f64>,
    /// The gaps in the generation before the first of these swaps: that of half of all moments, and of 99 of 100.
    usual: Option<[f64; 2]>,
    pauses: Vec<f64>,
    /// Less what a source's or sink's own close and open took.
    beside: Vec<f64>,
}

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let pipeline = PipelineFile::new("bench-swap", &format!("{}{}", stress(), pipelines::NOWHERE));
    let asked = Asked::run(&pipeline, &[]);
    interceptor(report, &asked, &pipeline, "swap of an interceptor");
    ends(report, &asked, "numbers", "stress")?;
    ends(report, &asked, "nowhere", "null")?;
    asked.agent.kill();
    files(report)?;
    kafka(report)
}

/// A sink with a folder, and a disk behind it.
fn files(report: &mut Report) -> anyhow::Result<()> {
    let pipeline = PipelineFile::new("bench-swap-files", &format!("{}{}", stress(), pipelines::FILES));
    let asked = Asked::run(&pipeline, &[]);
    ends(report, &asked, "files", "file-roll")?;
    asked.agent.kill();
    Ok(())
}

/// From topic to topic with exactly-once: the source, the interceptor and the sink.
fn kafka(report: &mut Report) -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("bench-swap-in", 1)?;
    topics.create("bench-swap-out", 1)?;
    let filling = stress().replace("size_bytes = 100", &format!("size_bytes = 100, total = {RECORDS}"));
    let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), "bench-swap-in");
    eprintln!("  filling a topic with {RECORDS} records");
    // All of it first: the copy is never without records.
    PipelineFile::new("bench-swap-fill", &format!("{sink}{filling}")).run().expect_done(Duration::from_secs(300));
    let stages = pipelines::topic_to_topic(&broker.address(), "bench-swap-in", "bench-swap-out")
        .replace("follow = false", "follow = true")
        .replace(pipelines::AFFIX, STAMP)
        .replace("\"affix\"", "\"stamp\"")
        .replace("STAMP", &component("stamp-interceptor").display().to_string());
    let pipeline = PipelineFile::new("bench-swap-kafka", &stages);
    pipeline.promise("delivery = \"exactly-once\"\n");
    let asked = Asked::run(&pipeline, &[]);
    asked.until_out("topic", 100_000);
    interceptor(report, &asked, &pipeline, "swap of an interceptor, Kafka to Kafka exactly-once");
    for stage in ["in", "topic"] {
        ends(report, &asked, stage, "kafka")?;
    }
    let copied = asked.stage("in")["counters"]["out_events"].as_u64().unwrap_or_default();
    ensure!(copied < RECORDS, "the records were copied before the swaps were over");
    asked.agent.kill();
    Ok(())
}

/// Swaps back and forth between two versions of the interceptor.
fn interceptor(report: &mut Report, asked: &Asked, pipeline: &PipelineFile, what: &str) {
    let versions = two_versions(pipeline.folder().path());
    // Reading and compiling comes first, once for each version.
    swap(asked, "stamp", &versions, 2);
    std::thread::sleep(UNDISTURBED);
    let waits = swap(asked, "stamp", &versions, SWAPS);
    eprintln!("  {what}: {} of them", waits.pauses.len());
    both(report, &format!("{what}, gap between batches"), &waits.gaps);
    for (percent, gap) in [50, 99].into_iter().zip(waits.usual.into_iter().flatten()) {
        report.add(format!("{what}, gap between batches without swaps, p{percent}"), gap, "ms");
    }
    both(report, &format!("{what}, the switch alone"), &waits.pauses);
}

/// Swaps a source or a sink to the plugin that it is.
fn ends(report: &mut Report, asked: &Asked, stage: &str, plugin: &str) -> anyhow::Result<()> {
    let plugins = [plugin.to_owned(), plugin.to_owned()];
    let waits = swap(asked, stage, &plugins, SWAPS_OF_ENDS);
    let kind = asked.stage(stage)["kind"].as_str().unwrap_or_default().to_owned();
    eprintln!("  {} swaps of the {kind} {plugin}", waits.pauses.len());
    ensure!(waits.pauses.len() > 20, "too few swaps of {stage} for a percentile");
    both(report, &format!("swap of the {kind} {plugin}"), &waits.pauses);
    both(report, &format!("swap of the {kind} {plugin} beside its own drain, close and open"), &waits.beside);
    Ok(())
}

fn both(report: &mut Report, what: &str, values: &[f64]) {
    for percent in [50, 99] {
        report.add(format!("{what}, p{percent}"), percentile(values, percent), "ms");
    }
}

fn swap(asked: &Asked, stage: &str, plugins: &[String; 2], swaps: usize) -> Waits {
    let (mut waits, began) = (Waits::default(), Instant::now());
    for swap in 0..swaps {
        if began.elapsed() > SPAN {
            break;
        }
        let report = asked.swapped(stage, &json!({ "plugin": plugins[swap % 2], "wait_for": "first-batch" }));
        let figure = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {report}"));
        // There is none where the stage has had no batch before.
        waits.gaps.extend(report["gap_ms"].as_f64());
        let usual = || Some([report["usual_gap_ms"].as_f64()?, report["usual_gap_p99_ms"].as_f64()?]);
        waits.usual = waits.usual.or_else(usual);
        waits.pauses.push(figure("pause_ms"));
        waits.beside.push(figure("pause_ms") - figure("plugin_time_ms"));
    }
    waits
}

const STAMP: &str = r#"
    [interceptors.stamp]
    plugin = "STAMP"
"#;

fn stress() -> String {
    let stamp = STAMP.replace("STAMP", &component("stamp-interceptor").display().to_string());
    format!(
        r#"
    [sources.numbers]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = 100 }}
    interceptors = ["stamp"]
{stamp}"#
    )
}

/// The value that so many percent are not above.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}
