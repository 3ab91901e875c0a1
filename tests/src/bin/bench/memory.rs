//! The road through memory: `stress` -> memory -> `null` at 100 bytes, without and with `prefix-suffix`, against the same
//! work in plain Rust.

use std::process::Command;
use std::time::{Duration, Instant};

use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::measure::median;
use wasmflow_tests::pipelines::{AFFIX, NOWHERE};
use wasmflow_tests::run::{Cost, run};

use crate::RUNS;
use crate::report::Report;

const EVENTS: u32 = 5_000_000;
const BODY_BYTES: usize = 100;
/// Behind the table of the source.
const AFFIXED: &str = "    interceptors = [\"affix\"]\n";

/// Runs each pipeline and the reference in turn, so that a slow minute of the machine meets all.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (mut plain, mut one_core, mut affixed, mut references) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        plain.push(cost("", quiet_run)?);
        one_core.push(cost("", |pipeline| on_one_core(quiet_run(pipeline)))?);
        affixed.push(cost(&format!("{AFFIXED}{AFFIX}"), quiet_run)?);
        references.push(rate(reference()));
    }
    add(report, "stress -> memory -> null, 100 B", &plain);
    add(report, "the same on one core (taskset)", &one_core);
    add(report, "the same with prefix-suffix", &affixed);
    report.add("reference: bodies copied, sent and affixed by native Rust", median(&mut references), "events/s");
    Ok(())
}

/// What all events cost beyond the first one, whose cost is that of the start.
fn cost(interceptors: &str, command: fn(&PipelineFile) -> Command) -> anyhow::Result<Cost> {
    let one = run(command(&pipeline(1, interceptors)))?;
    Ok(run(command(&pipeline(EVENTS, interceptors)))?.beyond(one))
}

fn add(report: &mut Report, what: &str, costs: &[Cost]) {
    let mut rates: Vec<_> = costs.iter().map(|cost| rate(cost.wall)).collect();
    let mut cpus: Vec<_> = costs.iter().map(|cost| cost.cpu.as_secs_f64() / f64::from(EVENTS) * 1e6).collect();
    let mut peaks: Vec<_> = costs.iter().map(|cost| cost.peak_resident_bytes as f64 / 1e6).collect();
    report.add(what, median(&mut rates), "events/s");
    report.add(format!("{what}: processor"), median(&mut cpus), "s per million events");
    report.add(format!("{what}: resident at most"), median(&mut peaks), "MB");
}

fn rate(took: Duration) -> f64 {
    f64::from(EVENTS) / took.as_secs_f64()
}

/// In a folder of its own, so without a position to go on from.
fn pipeline(events: u32, interceptors: &str) -> PipelineFile {
    PipelineFile::new(
        "stress",
        &format!(
            r#"{NOWHERE}
    [sources.stress]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = {BODY_BYTES}, total = {events} }}
{interceptors}"#
        ),
    )
}

fn on_one_core(command: Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args()).env("RUST_LOG", "warn");
    pinned
}

/// What no sandbox, no transactions and no acks would cost: one thread fills batches of 1000 bodies, a bounded queue carries
/// them, another thread puts a prefix and a suffix around each body into a fresh batch.
fn reference() -> Duration {
    const BATCH: u32 = 1000;
    let start = Instant::now();
    let (batches, inbox) = std::sync::mpsc::sync_channel::<Vec<u8>>(10);
    let sink = std::thread::spawn(move || {
        let mut bytes = 0;
        for batch in inbox {
            let mut affixed = Vec::with_capacity(batch.len() + 2 * BATCH as usize);
            for body in batch.chunks_exact(BODY_BYTES) {
                affixed.push(b'<');
                affixed.extend_from_slice(body);
                affixed.push(b'>');
            }
            bytes += std::hint::black_box(affixed).len();
        }
        bytes
    });
    let body = [b'x'; BODY_BYTES];
    for _ in 0..EVENTS / BATCH {
        let mut batch = Vec::with_capacity(BODY_BYTES * BATCH as usize);
        (0..BATCH).for_each(|_| batch.extend_from_slice(std::hint::black_box(&body)));
        batches.send(batch).expect("the sink takes until there is no more");
    }
    drop(batches);
    sink.join().expect("the sink does not panic");
    start.elapsed()
}
