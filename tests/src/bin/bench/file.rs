//! The file channel with `sync = "always"`: `stress` -> file -> `null`, 100 bytes in batches of 1000, beside what the same disk
//! gives to plain writes with a sync behind each; and how long a channel of 10 GB takes to open.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::measure::median;

use crate::RUNS;
use crate::report::Report;

const EVENTS: u64 = 2_000_000;
const BODY_BYTES: u64 = 100;
const LIMIT: Duration = Duration::from_secs(600);
/// How long the raw disk is measured each time.
const RAW: Duration = Duration::from_secs(2);
/// The raw disk's files are as large as the log's.
const FILE_BYTES: u64 = 64 << 20;
const BACKLOG_BYTES: u64 = 10_000_000_000;

/// Runs the pipelines and the raw disk in turn, so that a slow minute of the machine meets all.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    for sources in [1, 4] {
        let (mut runs, mut plain, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let run = run(sources)?;
            // What the disk gives to syncs that carry as much as ours did.
            let bytes = run.bytes as usize / run.syncs as usize;
            plain.push(raw_writes(bytes, Space::New)? / 1e6);
            over.push(raw_writes(bytes, Space::Old)? / 1e6);
            runs.push(run);
        }
        let what = format!("stress -> file -> null, {sources} source{}", if sources == 1 { "" } else { "s" });
        let of = |value: fn(&Run) -> f64| median(&mut runs.iter().map(value).collect::<Vec<_>>());
        let written = of(|run| run.bytes as f64 / 1e6 / run.seconds);
        report.add(&what, of(|run| run.events as f64 / run.seconds), "events/s");
        report.add(format!("{what}: written"), written, "MB/s");
        report.add(format!("{what}: syncs"), of(|run| run.syncs as f64 / run.seconds), "syncs/s");
        let plain = median(&mut plain);
        report.add(format!("{what}: reference: plain sequential writes as large, a sync behind each"), plain, "MB/s");
        report.add(format!("{what}: of what the disk gives"), 100.0 * written / plain, "%");
        report.add(
            format!("{what}: reference: the same written over one file again and again"),
            median(&mut over),
            "MB/s",
        );
    }
    let mut syncs: Vec<_> = (0..RUNS).map(|_| raw_writes(4096, Space::Old)).collect::<Result<_, _>>()?;
    report.add("reference: fdatasync behind 4 KiB over one file", median(&mut syncs) / 4096.0, "syncs/s");
    report.add("opening a channel of 10 GB whose reader is at its start", recovery()?, "s");
    Ok(())
}

struct Run {
    events: u64,
    bytes: u64,
    syncs: u64,
    seconds: f64,
}

fn run(sources: u64) -> anyhow::Result<Run> {
    let each = EVENTS / sources;
    let mut stages = channel("");
    for source in 0..sources {
        stages += &stress(&format!("stress{source}"), each);
    }
    let pipeline = PipelineFile::new("file-bench", &stages);
    let agent = pipeline.run();
    // Compiling plugins and ending the process are not counted.
    let started = agent.stderr().wait_for(0, "pipeline started", LIMIT).context("it did not start")?;
    let closed = agent.stderr().wait_for(0, "file channel closed", LIMIT).context("it did not end")?;
    let ended = agent.wait(LIMIT);
    ensure!(ended.code == Some(0), "{}", ended.stderr);
    Ok(Run {
        events: each * sources,
        bytes: field(&closed.text, "written_bytes")?,
        syncs: field(&closed.text, "syncs")?.max(1),
        seconds: (closed.at - started.at).as_secs_f64(),
    })
}

fn channel(keys: &str) -> String {
    format!(
        r#"
    [channels.events]
    type = "file"
    capacity_events = 1_000_000_000
    capacity_bytes = "100GiB"
    {keys}
    [sinks.nowhere]
    plugin = "null"
    channel = "events"
"#
    )
}

fn stress(name: &str, total: u64) -> String {
    format!(
        r#"
    [sources.{name}]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = {BODY_BYTES}, total = {total} }}
"#
    )
}

fn field(line: &str, name: &str) -> anyhow::Result<u64> {
    let value = line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    Ok(value.with_context(|| format!("no `{name}` in {line}"))?.parse()?)
}

/// Where the raw disk's writes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// Into preallocated files, one after the other, as any log that grows.
    New,
    /// Over the same file again and again. The file system then has nothing to note: the most that the disk can do.
    Old,
}

/// Bytes a second of sequential writes of this size with `fdatasync` behind each.
fn raw_writes(bytes: usize, space: Space) -> anyhow::Result<f64> {
    let folder = Folder::new("raw-disk");
    let mut file = new_file(&folder)?;
    let block = vec![b'x'; bytes];
    let (start, mut at, mut written) = (Instant::now(), 0, 0);
    while start.elapsed() < RAW {
        if at + bytes as u64 > FILE_BYTES {
            at = 0;
            if space == Space::New {
                file = new_file(&folder)?;
            }
        }
        file.write_all_at(&block, at)?;
        file.sync_data()?;
        at += bytes as u64;
        written += bytes;
    }
    Ok(written as f64 / start.elapsed().as_secs_f64())
}

/// A preallocated file in the place of the last one.
fn new_file(folder: &Folder) -> anyhow::Result<File> {
    let (aside, path) = (folder.join("aside"), folder.join("file"));
    let file = File::create(&aside)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES)?;
    file.sync_all()?;
    std::fs::rename(aside, path)?;
    Ok(file)
}

/// Fills a channel whose sink cannot deliver, kills the agent, and opens it again: the time from the start of the process to the
/// line that says the channel is open.
fn recovery() -> anyhow::Result<f64> {
    let stuck = channel("sync = \"os\"").replace("plugin = \"null\"", "plugin = \"kafka\"").replace(
        "[sinks.nowhere]",
        "[kafka.main]\n    \"bootstrap.servers\" = \"127.0.0.1:1\"\n    [sinks.nowhere]\n    config = { topic = \"t\" }\n    \
         allow = { kafka = [\"main\"] }",
    );
    let total = BACKLOG_BYTES / BODY_BYTES;
    let source = stress("stress", total).replace("channels =", "batch_events = 5000\n    channels =");
    let pipeline = PipelineFile::new("file-recovery", &format!("{stuck}{source}"));
    let agent = pipeline.run();
    agent.expect_log("finished", LIMIT);
    agent.kill();
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let agent = pipeline.run();
        let opened = agent.stderr().wait_for(0, "file channel opened", LIMIT).context("it was not opened")?;
        seconds.push((opened.at - start).as_secs_f64());
        let held = field(&opened.text, "events")?;
        ensure!(held == total, "it holds {held} of {total} events");
        agent.kill();
    }
    Ok(median(&mut seconds))
}
