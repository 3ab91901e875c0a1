//! The file channel under SIGKILL: what is in it afterwards is each event once, and what its sinks got is none lost.
//!
//! What came out of a channel is read with `channel export`, since file-roll, like any sink outside of Kafka, may get events
//! twice: `retain` keeps them for that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile, wasmflow_run};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::database::MariaDb;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;
use wasmflow_tests::stop::RaisedAtEnd;

const LIMIT: Duration = Duration::from_secs(60);

/// A file channel that keeps everything, in small segments so that many begin and end, and a sink that delivers nowhere.
fn kept(channel: &str) -> String {
    format!(
        r#"
    [channels.{channel}]
    type = "file"
    retain = "1d"
    segment_bytes = "1MiB"
    min_free = "0B"

    [sinks.nowhere-{channel}]
    plugin = "null"
    channel = "{channel}"
"#
    )
}

/// The bodies of all events in a channel, in order.
fn exported(pipeline: &PipelineFile, channel: &str) -> Vec<String> {
    let file = pipeline.path().to_str().expect("a plain path");
    let ended = wasmflow_run(&["channel", "export", file, channel, "--format", "raw"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

/// The channel holds these numbers, each once, in order, and nothing else.
fn assert_counts(pipeline: &PipelineFile, channel: &str, expected: std::ops::Range<usize>) {
    let bodies = exported(pipeline, channel);
    let wrong = bodies.iter().zip(expected.clone()).find(|(body, number)| **body != number.to_string());
    assert_eq!((wrong, bodies.len()), (None, expected.len()), "channel {channel}");
}

fn kill_at_random_moments(pipeline: &PipelineFile) {
    crate::kills::kill_at_random_moments(pipeline, soak::times(15, 100));
}

fn expect_drained(agent: Agent) {
    agent.expect_done(LIMIT);
}

#[test]
fn numbers_are_each_once_in_two_file_channels_after_kills() {
    let source = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["left", "right"]
    batch_events = 50
    config = { total = 400_000 }
"#;
    let pipeline = PipelineFile::new("file-seq", &format!("{source}{}{}", kept("left"), kept("right")));
    kill_at_random_moments(&pipeline);
    expect_drained(pipeline.run());
    for channel in ["left", "right"] {
        assert_counts(&pipeline, channel, 0..400_000);
    }
}

#[test]
fn tailed_lines_are_each_once_in_a_file_channel_after_kills_and_none_is_lost_behind_it() -> anyhow::Result<()> {
    let sink = r#"
    [channels.events]
    type = "file"
    retain = "1d"
    segment_bytes = "1MiB"
    min_free = "0B"

    [sinks.files]
    plugin = "file-roll"
    channel = "events"
    config = { dir = "out", sync = false }
    allow = { dirs = [{ path = "out", write = true }] }
"#;
    let source = pipelines::tail_to("poll_interval = \"20ms\"", sink);
    let pipeline = PipelineFile::new("file-tail", &format!("{source}    batch_events = 100\n"));
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    std::fs::create_dir(pipeline.folder().join("out"))?;
    let log = pipeline.folder().join("logs/app.log");
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| ledger::append_until(&log, &stop));
        let _at_end = RaisedAtEnd(&stop);
        kill_at_random_moments(&pipeline);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    })?;
    let agent = pipeline.run();
    let delivered = || Ledger::of(lines_in(&pipeline.folder().join("out")));
    let arrived = wasmflow_tests::process::wait_until(LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        delivered().highest("log") == written.checked_sub(1)
    });
    assert!(arrived, "{:?} of {written} lines; the log:\n{}", delivered().highest("log"), agent.stderr().text());
    assert_eq!(agent.stop().code, Some(0));
    Ledger::of(exported(&pipeline, "events")).assert_each_once_in_order("log", written);
    delivered().assert_none_lost("log", written);
    Ok(())
}

/// The lines of all files of a folder, in the order of the files' names.
fn lines_in(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it is read").path()).collect();
    files.retain(|path| !path.to_string_lossy().ends_with(".batch"));
    // `<prefix>-<start ms>-<n>`: by numbers, since 10 comes behind 9.
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbers = name.split(['-', '.']).filter_map(|part| part.parse::<u64>().ok());
        numbers.collect::<Vec<_>>()
    });
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // A line that is being written is not there yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        lines.extend(whole.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn records_of_fixed_partitions_are_each_once_in_a_file_channel_after_kills() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("file-in", 2)?;
    let count = 30_000;
    for partition in 0..2 {
        let stream = format!("p{partition}");
        topics.produce("file-in", partition, (0..count).map(|number| ledger::line(&stream, number)))?;
    }
    let source = format!(
        r#"
    [kafka.main]
    {}

    [sources.in]
    plugin = "kafka"
    channels = ["events"]
    batch_events = 20
    config = {{ topics = ["file-in"], partitions = {{ file-in = [0, 1] }}, follow = false }}
    allow = {{ kafka = ["main"] }}
"#,
        pipelines::connection(&broker.address())
    );
    let pipeline = PipelineFile::new("file-kafka", &format!("{source}{}", kept("events")));
    kill_at_random_moments(&pipeline);
    expect_drained(pipeline.run());
    let all = Ledger::of(exported(&pipeline, "events"));
    all.assert_each_once_in_order("p0", count);
    all.assert_each_once_in_order("p1", count);
    Ok(())
}

#[test]
fn rows_are_each_once_in_a_file_channel_after_kills() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let count = 30_000;
    database.sql(&format!(
        "CREATE DATABASE file_rows; CREATE TABLE file_rows.t (id INT PRIMARY KEY); \
         INSERT INTO file_rows.t SELECT seq FROM file_rows.seq_1_to_{count}"
    ))?;
    let address = database.address();
    let source = format!(
        r#"
    [sources.rows]
    plugin = "mysql"
    channels = ["events"]
    batch_events = 20
    config = {{ url = "mysql://{address}/file_rows", user = "root", table = "t", format = "csv", follow = false, page_rows = 100 }}
    allow = {{ net = ["{address}"] }}
"#
    );
    let pipeline = PipelineFile::new("file-rows", &format!("{source}{}", kept("events")));
    kill_at_random_moments(&pipeline);
    expect_drained(pipeline.run());
    assert_counts(&pipeline, "events", 1..count + 1);
    Ok(())
}

#[test]
fn a_full_file_channel_stops_its_source_and_the_other_channel_gets_each_event_once() {
    // The slow sink's broker is nowhere, so its channel stays full.
    let stages = |slow: &str| {
        format!(
            r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["fast", "slow"]
    batch_events = 10
    config = {{ total = 5000 }}
    {}
    [channels.slow]
    type = "file"
    capacity_events = 100
    retain = "1d"
    min_free = "0B"
    {slow}
"#,
            kept("fast")
        )
    };
    let nowhere = r#"
    [kafka.main]
    "bootstrap.servers" = "127.0.0.1:1"
    [sinks.stuck]
    plugin = "kafka"
    channel = "slow"
    config = { topic = "t" }
    allow = { kafka = ["main"] }
"#;
    let pipeline = PipelineFile::new("file-full", &stages(nowhere));
    for _ in 0..soak::times(3, 15) {
        let agent = pipeline.run();
        agent.expect_log("pipeline started", LIMIT);
        std::thread::sleep(Duration::from_millis(300));
        agent.kill();
    }
    let held = exported(&pipeline, "slow");
    assert!((1..=100).contains(&held.len()), "{} events in a channel of 100", held.len());
    pipeline.rewrite("file-full", &stages("[sinks.stuck]\n    plugin = \"null\"\n    channel = \"slow\"\n"));
    expect_drained(pipeline.run());
    for channel in ["fast", "slow"] {
        assert_counts(&pipeline, channel, 0..5000);
    }
}

/// Whether its letters are refused: those with two sevens.
fn is_refused(number: u64) -> bool {
    number.to_string().contains("77")
}

#[test]
fn dead_letters_on_disk_are_none_lost_and_the_rest_is_each_once_after_kills() {
    let total = 20_000;
    for kind in ["file", "memory"] {
        let letters = kept("refused").replace("type = \"file\"", &format!("type = \"{kind}\""));
        let letters = match kind {
            "file" => letters,
            _ => letters
                .replace("retain = \"1d\"\n", "")
                .replace("segment_bytes = \"1MiB\"", "")
                .replace("min_free = \"0B\"", ""),
        };
        let stages = format!(
            r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    batch_events = 20
    interceptors = ["picky"]
    config = {{ total = {total} }}

    [interceptors.picky]
    plugin = "{}"
    config = {{ mode = "reject", pattern = "77" }}
    {}{letters}
"#,
            component("corner-interceptor").display(),
            kept("events")
        );
        let pipeline = PipelineFile::new("file-letters", &stages);
        pipeline.promise("dead_letters = \"refused\"\n");
        kill_at_random_moments(&pipeline);
        expect_drained(pipeline.run());
        let accepted: Vec<String> = (0..total).filter(|number| !is_refused(*number)).map(|n| n.to_string()).collect();
        assert!(exported(&pipeline, "events") == accepted, "letters in {kind}: not each event once, in order");
        if kind == "file" {
            let letters = exported(&pipeline, "refused");
            let letters = letters.iter().map(|letter| letter.parse::<u64>().expect("a number"));
            // A crash may repeat the letters of one put.
            let mut first_time: Vec<u64> = Vec::new();
            letters.for_each(|letter| {
                if first_time.last().is_none_or(|last| letter > *last) {
                    first_time.push(letter);
                }
            });
            assert_eq!(first_time, (0..total).filter(|number| is_refused(*number)).collect::<Vec<_>>());
        }
    }
}
