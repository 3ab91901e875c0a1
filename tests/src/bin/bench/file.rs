//! The file channel with `sync = "always"`: `stress` -> file -> `null`, 100 bytes in batches of 1000, beside what the same disk
//! gives to plain writes with a sync behind each; and how long a channel of 10 GB takes to open.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::asked::Asked;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::run::run;

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::report::{Better, Report};
use crate::spread::Spread;

const EVENTS: u64 = 8_000_000;
const BODY_BYTES: u64 = 100;
const LIMIT: Duration = Duration::from_secs(600);
/// How long the raw disk is measured each time.
const RAW: Duration = Duration::from_millis(1500);
/// The raw disk's files are as large as the log's.
const FILE_BYTES: u64 = 64 << 20;
const BACKLOG_BYTES: u64 = 10_000_000_000;
/// Limit: what has to be free for it. The log writes somewhat more than the bodies, and other parts have files too.
const FREE_BYTES: u64 = 15_000_000_000;

/// Runs the pipelines and the raw disk in turn, so that a slow minute of the machine meets all.
pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let sources = [1, 4];
    let last: Vec<Cell<Option<Written>>> = sources.iter().map(|_| Cell::new(None)).collect();
    let mut contest = Contest::new(measuring.runs);
    for (&sources, last) in sources.iter().zip(&last) {
        let what = format!("sync always, 1000 x 100 B, {sources} source{}", if sources == 1 { "" } else { "s" });
        let log = contest.line(&what, "events/s", None, move |_| {
            let (sample, written) = put(sources)?;
            last.set(Some(written));
            Ok(sample)
        });
        // Behind what it is held against: a sync of the plain writes carries as much as one of ours did.
        contest.hold(log, "plain writes into new files, as much a sync", move |_| raw(last.get(), Space::New));
        contest.line(format!("{what}: reference: as much a sync, over one file"), "events/s", None, move |_| {
            raw(last.get(), Space::Old)
        });
        contest.line(format!("{what}: syncs"), "syncs/s", None, move |_| {
            let written = last.get().context("nothing was written")?;
            Ok(Sample::of(written.syncs as f64 / written.seconds))
        });
    }
    contest.line("reference: fdatasync behind 4 KiB over one file", "syncs/s", None, |_| {
        Ok(Sample::of(raw_writes(4096, Space::Old)? / 4096.0))
    });
    contest.run(report)?;
    let free = rustix::fs::statvfs(std::env::temp_dir()).map(|disk| disk.f_bavail * disk.f_frsize)?;
    ensure!(
        free >= FREE_BYTES,
        "a channel of 10 GB needs {FREE_BYTES} bytes free in the temporary folder; there are {free}"
    );
    let opened = Spread::of(&recovery(measuring.runs)?).context("there was no run")?;
    report.add_spread("opening a channel of 10 GB whose reader is at its start", opened, "s", Better::Lower);
    Ok(())
}

/// What the log wrote in one run.
#[derive(Clone, Copy)]
struct Written {
    events: u64,
    bytes: u64,
    syncs: u64,
    seconds: f64,
}

impl Written {
    fn events_a_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// In events a second: as many bytes an event as the log had.
fn raw(written: Option<Written>, space: Space) -> anyhow::Result<Sample> {
    let written = written.context("the log was not measured")?;
    let bytes_a_second = raw_writes((written.bytes / written.syncs) as usize, space)?;
    Ok(Sample::of(bytes_a_second * written.events as f64 / written.bytes as f64))
}

fn put(sources: u64) -> anyhow::Result<(Sample, Written)> {
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
    let written = Written {
        events: each * sources,
        bytes: field(&closed.text, "written_bytes")?,
        syncs: field(&closed.text, "syncs")?.max(1),
        seconds: (closed.at - started.at).as_secs_f64(),
    };
    // The account of a whole process, start and all, of a fresh run: the log's lines above do not tell it.
    let cost = run(quiet_run(&PipelineFile::new("file-bench", &stages)))?;
    Ok((Sample { value: written.events_a_second(), ..Sample::rate(written.events as f64, &cost) }, written))
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
fn recovery(runs: usize) -> anyhow::Result<Vec<f64>> {
    let stuck = channel("sync = \"os\"").replace("plugin = \"null\"", "plugin = \"kafka\"").replace(
        "[sinks.nowhere]",
        "[kafka.main]\n    \"bootstrap.servers\" = \"127.0.0.1:1\"\n    [sinks.nowhere]\n    config = { topic = \"t\" }\n    \
         allow = { kafka = [\"main\"] }",
    );
    let total = BACKLOG_BYTES / BODY_BYTES;
    let source = stress("stress", total).replace("channels =", "batch_events = 5000\n    channels =");
    let pipeline = PipelineFile::new("file-recovery", &format!("{stuck}{source}"));
    let filling = Asked::run(&pipeline, &[]);
    // Of a source that has finished some puts may still be on their way to the disk.
    let on_disk = || filling.stage("nowhere")["lag_events"].as_u64().unwrap_or_default();
    ensure!(wait_until(LIMIT, || on_disk() == total), "{} of {total} events are on disk", on_disk());
    filling.agent.kill();
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let agent = pipeline.run();
        let opened = agent.stderr().wait_for(0, "file channel opened", LIMIT).context("it was not opened")?;
        seconds.push((opened.at - start).as_secs_f64());
        let held = field(&opened.text, "events")?;
        ensure!(held == total, "it holds {held} of {total} events");
        agent.kill();
    }
    Ok(seconds)
}
