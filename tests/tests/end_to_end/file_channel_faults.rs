//! File channels and what happens to their folder: each fault is told in words, and nothing is overwritten.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wasmflow_tests::agent::{Agent, Ended, PipelineFile, wasmflow_run};
use wasmflow_tests::skip::skip;

const LIMIT: Duration = Duration::from_secs(40);

/// Numbers below `total` into the file channel `events`, whose keys are `keys`, and on to nowhere.
fn numbers(name: &str, total: u64, keys: &str) -> PipelineFile {
    PipelineFile::new(name, &stages(total, keys))
}

fn stages(total: u64, keys: &str) -> String {
    format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = {total} }}
    [channels.events]
    type = "file"
    retain = "1d"
    {keys}
    [sinks.nowhere]
    plugin = "null"
    channel = "events"
"#
    )
}

const SMALL: &str = "min_free = \"0B\"\n    segment_bytes = \"64KiB\"";

fn failed(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is not in:\n{}", ended.stderr);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_folder() {
    let pipeline = numbers("file-locked", 10, SMALL);
    pipeline.run().expect_done(LIMIT);
    pipeline.rewrite("file-locked", &stages(10, SMALL).replace("config = { total = 10 }", ""));
    let agent = pipeline.run();
    agent.expect_log("pipeline started", LIMIT);
    let holder = format!("process {}", agent.process().id());
    failed(&pipeline.run().wait(LIMIT), &["in use by", &holder]);
    let file = text(pipeline.path());
    for command in [
        &["channel", "inspect", file][..],
        &["channel", "verify", file, "events"],
        &["channel", "export", file, "events"],
        &["channel", "seek", file, "events", "nowhere", "--to", "oldest"],
        &["source", "reset", file, "numbers"],
    ] {
        failed(&wasmflow_run(command), &["in use by", &holder]);
    }
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn the_folder_of_another_pipeline_is_refused_and_left_alone() {
    let pipeline = numbers("file-mine", 10, SMALL);
    pipeline.run().expect_done(LIMIT);
    let before = contents(&pipeline.folder().join("state/channels"));
    pipeline.rewrite("file-yours", &stages(10, SMALL));
    failed(&pipeline.run().wait(LIMIT), &["belongs to the pipeline `file-mine`"]);
    assert_eq!(contents(&pipeline.folder().join("state/channels")), before);
}

/// Every file below a folder but the lock, with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it is read").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if !path.ends_with("lock") {
            all.push((path.display().to_string(), std::fs::read(&path).expect("it is read")));
        }
    }
    all.sort();
    all
}

#[test]
fn a_reader_that_no_sink_is_any_more_is_given_up_only_when_asked() {
    let pipeline = numbers("file-reader", 100, SMALL);
    pipeline.run().expect_done(LIMIT);
    pipeline.rewrite("file-reader", &stages(200, SMALL).replace("sinks.nowhere", "sinks.elsewhere"));
    failed(&pipeline.run().wait(LIMIT), &["has a reader `nowhere`", "--remove-readers"]);
    let ended = wasmflow_run(&["run", text(pipeline.path()), "--remove-readers"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let inspected = wasmflow_run(&["channel", "inspect", text(pipeline.path())]).stdout.join("\n");
    assert!(inspected.contains("elsewhere at 200") && !inspected.contains("nowhere"), "{inspected}");
}

#[test]
fn damage_in_the_middle_stops_the_sink_with_the_commands_to_run_and_skip_goes_on_behind_it() {
    let keys = "min_free = \"0B\"\n    segment_bytes = \"64KiB\"\n    capacity_events = 1000000";
    let pipeline = numbers("file-damage", 100_000, keys);
    pipeline.run().expect_done(LIMIT);
    let file = text(pipeline.path());
    let moved = wasmflow_run(&["channel", "seek", file, "events", "nowhere", "--to", "oldest"]);
    assert_eq!(moved.code, Some(0), "{}", moved.stderr);
    flip_a_byte(&pipeline.folder().join("state/channels/events"));
    let verified = wasmflow_run(&["channel", "verify", file, "events"]);
    assert_eq!(verified.code, Some(1));
    assert!(verified.stdout.join("\n").contains("damaged: "), "{:?}", verified.stdout);
    failed(&pipeline.run().wait(LIMIT), &["is damaged in", "wasmflow channel verify", "on_corruption"]);
    pipeline.rewrite("file-damage", &stages(100_000, &format!("{keys}\n    on_corruption = \"skip\"")));
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let delivered = delivered(&ended.stderr);
    assert!((90_000..100_000).contains(&delivered), "{delivered} of 100000 events:\n{}", ended.stderr);
}

/// In the middle of the second segment: neither the first, where the reader stands, nor the last, where writing went on.
fn flip_a_byte(channel: &Path) {
    let entries = std::fs::read_dir(channel).expect("the channel has a folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it is read").path()).collect();
    files.retain(|path| std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() >= 32 << 10));
    files.sort();
    assert!(files.len() > 3, "{files:?}");
    let mut bytes = std::fs::read(&files[1]).expect("it is read");
    bytes[20_000] ^= 0x10;
    std::fs::write(&files[1], bytes).expect("it is written");
}

/// What the sink says it has delivered at the end.
fn delivered(log: &str) -> u64 {
    let line = log.lines().find(|line| line.contains("totals") && line.contains("kind=sink")).expect("the totals");
    let field = line.split_whitespace().find_map(|field| field.strip_prefix("out_events=")).expect("the count");
    field.parse().expect("a number")
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("a small file system can only be mounted by root");
        return Ok(());
    }
    let pipeline = numbers("file-disk", 250_000, "min_free = \"0B\"\n    segment_bytes = \"256KiB\"");
    let state = pipeline.folder().join("state");
    std::fs::create_dir(&state)?;
    let Some(_mount) = Mount::small(&state) else {
        skip("this container does not let root mount a tmpfs");
        return Ok(());
    };
    let ballast = state.join("ballast");
    std::fs::write(&ballast, vec![7; 3 << 20])?;
    let agent = pipeline.run();
    agent.expect_log("puts wait for space on disk", LIMIT);
    std::fs::remove_file(&ballast)?;
    let ended = agent.wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let exported = wasmflow_run(&["channel", "export", text(pipeline.path()), "events", "--format", "raw"]);
    assert_eq!(exported.stdout.len(), 250_000);
    Ok(())
}

/// A tmpfs of 4 MiB, unmounted when dropped.
pub struct Mount<'p>(&'p Path);

impl<'p> Mount<'p> {
    pub fn small(path: &'p Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: a test that has failed may still have an agent in it.
        _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_moved_reader_gets_its_events_again_and_a_reset_source_brings_its_events_again() {
    let pipeline = numbers("file-again", 50, SMALL);
    pipeline.run().expect_done(LIMIT);
    let file = text(pipeline.path());
    let dry = wasmflow_run(&["channel", "seek", file, "events", "nowhere", "--to", "20", "--dry-run"]);
    assert!(dry.stdout[0].contains("would go from 50 to 20"), "{:?}", dry.stdout);
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 0);
    wasmflow_run(&["channel", "seek", file, "events", "nowhere", "--to", "20"]);
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 30);
    let dry = wasmflow_run(&["source", "reset", file, "numbers", "--dry-run"]).stdout.join("\n");
    assert!(dry.contains("kept in channel events") && dry.contains("would stand"), "{dry}");
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 0);
    let reset = wasmflow_run(&["source", "reset", file, "numbers"]);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 50);
    let wrong = wasmflow_run(&["channel", "seek", file, "events", "nowhere", "--to", "4711"]);
    failed(&wrong, &["sequence 4711 of channel `events` is not there: it holds 0 up to 100"]);
    let other = wasmflow_run(&["channel", "seek", file, "events", "console", "--to", "tail"]);
    failed(&other, &["channel `events` has no reader `console`"]);
    let one = wasmflow_run(&["channel", "export", file, "events", "--from", "99"]).stdout;
    assert_eq!(one.len(), 1);
    assert!(one[0].contains(r#""body":"49""#) && one[0].contains(r#""sequence":99"#), "{}", one[0]);
}

#[test]
fn a_source_goes_on_where_it_was_when_its_channel_changes_its_kind() {
    let pipeline = numbers("file-kinds", 100, SMALL);
    pipeline.run().expect_done(LIMIT);
    let memory = |total| {
        let file = stages(total, "");
        file.replace("type = \"file\"", "type = \"memory\"").replace("retain = \"1d\"", "")
    };
    pipeline.rewrite("file-kinds", &memory(150));
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 50, "from disk to memory");
    pipeline.rewrite("file-kinds", &stages(220, SMALL));
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 70, "from memory to a disk that has an older position");
    pipeline.rewrite("file-kinds", &stages(230, SMALL).replace("events", "others"));
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 10, "from one file channel to another");
}

#[test]
fn a_folder_of_a_later_format_is_refused_and_left_alone() {
    let pipeline = numbers("file-later", 10, SMALL);
    pipeline.run().expect_done(LIMIT);
    let channels = pipeline.folder().join("state/channels");
    let about = channels.join("folder");
    let text = std::fs::read_to_string(&about).expect("the folder says what it is");
    std::fs::write(&about, text.replace("format 1", "format 9")).expect("it is written");
    let before = contents(&channels);
    failed(&pipeline.run().wait(LIMIT), &["has format 9", "reads up to format 1"]);
    assert_eq!(contents(&channels), before);
}

#[test]
fn a_folder_that_may_not_be_written_is_refused_by_its_name() {
    use std::os::unix::fs::PermissionsExt as _;
    let pipeline = numbers("file-read-only", 10, SMALL);
    pipeline.run().expect_done(LIMIT);
    let channel = pipeline.folder().join("state/channels/events");
    let mode = |mode| std::fs::set_permissions(&channel, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    mode(0o555);
    let ended = Agent::run_without_capabilities(pipeline.path(), "-dac_override,-dac_read_search").wait(LIMIT);
    mode(0o755);
    failed(&ended, &["channels/events", "Permission denied"]);
    pipeline.run().expect_done(LIMIT);
}

#[test]
fn a_folder_that_is_deleted_under_a_running_pipeline_ends_it_and_the_source_is_not_begun_again_silently() {
    let pipeline = numbers("file-deleted", 10, SMALL);
    pipeline.rewrite("file-deleted", &stages(10, SMALL).replace("config = { total = 10 }", ""));
    let agent = pipeline.run();
    agent.expect_log("pipeline started", LIMIT);
    std::fs::remove_dir_all(pipeline.folder().join("state/channels")).expect("it is removed");
    failed(&agent.wait(LIMIT), &["takes nothing any more", "No such file or directory", "see to the disk"]);
    let file = text(pipeline.path());
    failed(
        &pipeline.run().wait(LIMIT),
        &["the position of source `numbers` is kept in", "which is gone", "source reset"],
    );
    let reset = wasmflow_run(&["source", "reset", file, "numbers", "--part", "next=7"]);
    assert_eq!(reset.code, Some(0), "{}", reset.stderr);
    pipeline.rewrite("file-deleted", &stages(10, SMALL));
    assert_eq!(delivered(&pipeline.run().wait(LIMIT).stderr), 3);
}
