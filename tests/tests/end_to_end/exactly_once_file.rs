//! `delivery = "exactly-once"` from file channels: sources are acked when their events are on disk, and each sink brings them from there into
//! Kafka once, whatever is killed, moved or lost on the way.

use std::path::Path;
use std::time::Duration;

use wasmflow_tests::agent::{Ended, PipelineFile, wasmflow_run};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;

use crate::exactly_once::{finish, kill_while_the_log_grows};

const LIMIT: Duration = Duration::from_secs(120);

/// A file channel `events` that keeps everything, and for each of these topics a sink of its name.
fn file_to_topics(broker: &KafkaBroker, topics: &[&str]) -> String {
    let head = format!(
        r#"
    [kafka.main]
    {}
    "session.timeout.ms" = 6000
    "transaction.timeout.ms" = 10000

    [channels.events]
    type = "file"
    retain = "1d"
    segment_bytes = "1MiB"
    min_free = "0B"
"#,
        pipelines::connection(&broker.address())
    );
    let sink = |topic: &&str| {
        format!(
            r#"
    [sinks.{topic}]
    plugin = "kafka"
    channel = "events"
    config = {{ topic = "{topic}" }}
    allow = {{ kafka = ["main"] }}
    limits = {{ call = "5s" }}
    start_at = "oldest"
"#
        )
    };
    head + &topics.iter().map(sink).collect::<String>()
}

/// Tails the folder `logs` into the file channel; `config` are further keys of the source.
fn tail_to_topics(broker: &KafkaBroker, name: &str, config: &str, topics: &[&str]) -> PipelineFile {
    let pipeline = PipelineFile::new(name, &pipelines::tail_to(config, &file_to_topics(broker, topics)));
    pipeline.promise("delivery = \"exactly-once\"\n");
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the folder is fresh");
    pipeline
}

/// A log of 100 lines that has gone by the file channel `events` into the topic of the pipeline's name, to its end.
fn hundred_lines(broker: &KafkaBroker, topics: &Topics, name: &str) -> anyhow::Result<PipelineFile> {
    topics.create(name, 1)?;
    let pipeline = tail_to_topics(broker, name, "follow = false", &[name]);
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..100));
    pipeline.run().expect_done(LIMIT);
    assert_eq!(arrived(topics, name)?.len(), 100);
    Ok(pipeline)
}

fn arrived(topics: &Topics, topic: &str) -> anyhow::Result<Vec<String>> {
    Ok(topics.read_all(topic)?.iter().map(|record| record.text()).collect())
}

fn seek(pipeline: &PipelineFile, sink: &str, to: &str) -> Ended {
    let file = pipeline.path().to_str().expect("a plain path");
    let ended = wasmflow_run(&["channel", "seek", file, "events", sink, "--to", to]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &to)?,
            false => drop(std::fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

#[test]
fn killed_agents_bring_each_line_by_a_file_channel_into_each_topic_once() -> anyhow::Result<()> {
    const NAMES: [&str; 2] = ["once-file-left", "once-file-right"];
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    for name in NAMES {
        topics.create(name, 1)?;
    }
    let pipeline = tail_to_topics(broker, "once-file", "poll_interval = \"20ms\"", &NAMES);
    let rounds = soak::times(15, 100);
    let count = kill_while_the_log_grows(&pipeline, rounds)?;
    finish(pipeline.run(), &topics, &NAMES, count)?;
    println!("{rounds} kills, {count} lines into each of {} topics, each once and in order", NAMES.len());
    Ok(())
}

#[test]
fn a_reader_that_is_moved_back_delivers_again_and_then_no_more() -> anyhow::Result<()> {
    const NAME: &str = "once-sought";
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let pipeline = hundred_lines(broker, &topics, NAME)?;
    pipeline.run().expect_done(LIMIT);
    assert_eq!(arrived(&topics, NAME)?.len(), 100, "what has been delivered is not delivered again");
    seek(&pipeline, NAME, "40");
    pipeline.run().expect_done(LIMIT);
    let lines = arrived(&topics, NAME)?;
    Ledger::of(&lines[..100]).assert_each_once_in_order("log", 100);
    let again: Vec<_> = (40..100).map(|number| ledger::line("log", number)).collect();
    assert_eq!(lines[100..], again);
    pipeline.run().expect_done(LIMIT);
    assert_eq!(arrived(&topics, NAME)?.len(), 160);
    Ok(())
}

#[test]
fn a_cursor_that_is_lost_repeats_nothing_and_can_be_moved_all_the_same() -> anyhow::Result<()> {
    const NAME: &str = "once-cursorless";
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let pipeline = hundred_lines(broker, &topics, NAME)?;
    seek(&pipeline, NAME, "oldest");
    pipeline.run().expect_done(LIMIT);
    assert_eq!(arrived(&topics, NAME)?.len(), 200);

    let cursor = pipeline.folder().join(format!("state/channels/events/{NAME}.cursor"));
    assert!(cursor.exists(), "{}", cursor.display());
    std::fs::write(cursor, b"rot")?;
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..110));
    pipeline.run().expect_done(LIMIT);
    let lines = arrived(&topics, NAME)?;
    Ledger::of(&lines[100..]).assert_each_once_in_order("log", 110);

    seek(&pipeline, NAME, "100");
    pipeline.run().expect_done(LIMIT);
    assert_eq!(arrived(&topics, NAME)?.len(), 220);
    Ok(())
}

#[test]
fn progress_of_a_reader_that_is_gone_is_refused_until_somebody_says_where_to_go_on() -> anyhow::Result<()> {
    const NAME: &str = "once-forgotten";
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let pipeline = hundred_lines(broker, &topics, NAME)?;
    topics.delete(&format!("_wasmflow.{NAME}"))?;
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..110));

    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in ["_wasmflow.once-forgotten", "gone", "wasmflow channel seek FILE events once-forgotten --to"] {
        assert!(ended.stderr.contains(words), "`{words}` in {}", ended.stderr);
    }
    seek(&pipeline, NAME, "100");
    pipeline.run().expect_done(LIMIT);
    Ledger::of(arrived(&topics, NAME)?).assert_each_once_in_order("log", 110);
    Ok(())
}

#[test]
fn a_state_folder_older_than_its_progress_is_refused() -> anyhow::Result<()> {
    const NAME: &str = "once-restored";
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let pipeline = hundred_lines(broker, &topics, NAME)?;
    let (state, backup) = (pipeline.folder().join("state"), pipeline.folder().join("backup"));
    copy_folder(&state, &backup)?;
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..150));
    pipeline.run().expect_done(LIMIT);
    std::fs::remove_dir_all(&state)?;
    copy_folder(&backup, &state)?;

    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in ["150 events of channel `events`", "ends at 100", "channel seek"] {
        assert!(ended.stderr.contains(words), "`{words}` in {}", ended.stderr);
    }
    assert_eq!(arrived(&topics, NAME)?.len(), 150);
    Ok(())
}

#[test]
fn the_position_of_a_source_is_reset_where_it_is_kept_and_refused_where_it_is_committed() -> anyhow::Result<()> {
    let stages = |kind: &str| {
        format!(
            r#"
    [kafka.main]
    "bootstrap.servers" = "localhost:1"

    [channels.events]
    type = "{kind}"

    [sources.numbers]
    plugin = "seq"
    channels = ["events"]

    [sinks.topic]
    plugin = "kafka"
    channel = "events"
    config = {{ topic = "reset" }}
    allow = {{ kafka = ["main"] }}
"#
        )
    };
    for (kind, code) in [("memory", 2), ("file", 0)] {
        let pipeline = PipelineFile::new("once-reset", &stages(kind));
        pipeline.promise("delivery = \"exactly-once\"\n");
        let file = pipeline.path().to_str().expect("a plain path");
        let ended = wasmflow_run(&["source", "reset", file, "numbers"]);
        assert_eq!(ended.code, Some(code), "{kind}: {}", ended.stderr);
        let words = "commits the position of `numbers` to Kafka";
        assert_eq!(ended.stderr.contains(words), code == 2, "{kind}: {}", ended.stderr);
    }
    Ok(())
}

#[test]
fn an_event_that_is_rejected_on_the_way_into_a_file_channel_stops_its_source() {
    // Its dead letter would be in a transaction of the sink's, and the position is on disk.
    let stages = format!(
        r#"
    [kafka.main]
    "bootstrap.servers" = "localhost:1"

    [channels.events]
    type = "file"

    [channels.refused]
    type = "memory"

    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = 10 }}
    interceptors = ["picky"]

    [interceptors.picky]
    plugin = "{}"
    config = {{ mode = "reject", pattern = "7" }}

    [sinks.topic]
    plugin = "kafka"
    channel = "events"
    config = {{ topic = "picky" }}
    allow = {{ kafka = ["main"] }}

    [sinks.graveyard]
    plugin = "kafka"
    channel = "refused"
    config = {{ topic = "graveyard" }}
    allow = {{ kafka = ["main"] }}
"#,
        component("corner-interceptor").display()
    );
    let pipeline = PipelineFile::new("once-picky", &stages);
    pipeline.promise("delivery = \"exactly-once\"\ndead_letters = \"refused\"\n");
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("on the way into a file channel"), "{}", ended.stderr);
}
