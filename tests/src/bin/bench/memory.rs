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

const EVENTS: u32 = 20_000_000;
const BODY_BYTES: usize = 100;
const AFFIXED: &str = r#"["affix"]"#;

/// Runs each pipeline and the reference in turn, so that a slow minute of the machine meets all.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (plain, affixed) = (pipeline("stress-null", EVENTS, "[]"), pipeline("stress-affix-null", EVENTS, AFFIXED));
    let (plain_start, affixed_start) = (pipeline("one-null", 1, "[]"), pipeline("one-affix-null", 1, AFFIXED));
    let mut plain_costs = Vec::new();
    let mut affixed_costs = Vec::new();
    let mut one_core_costs = Vec::new();
    let mut references = Vec::new();
    for _ in 0..RUNS {
        plain_costs.push(run(quiet_run(&plain))?.beyond(run(quiet_run(&plain_start))?));
        affixed_costs.push(run(quiet_run(&affixed))?.beyond(run(quiet_run(&affixed_start))?));
        one_core_costs.push(run(on_one_core(quiet_run(&plain)))?.beyond(run(on_one_core(quiet_run(&plain_start)))?));
        references.push(reference());
    }
    add(report, "stress -> memory -> null, 100 B", &plain_costs);
    add(report, "the same on one core (taskset)", &one_core_costs);
    add(report, "the same with prefix-suffix", &affixed_costs);
    let mut rates: Vec<_> = references.iter().map(|took| rate(*took)).collect();
    report.add("reference: bodies copied, sent and affixed by native Rust", median(&mut rates), "events/s");
    Ok(())
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

fn pipeline(name: &str, events: u32, interceptors: &str) -> PipelineFile {
    PipelineFile::new(
        name,
        &format!(
            r#"{NOWHERE}
    [sources.stress]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = {BODY_BYTES}, total = {events} }}
    interceptors = {interceptors}
{AFFIX}"#
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
