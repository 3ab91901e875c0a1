//! The log on a real disk, with its threads.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use wasmflow_log::{
    ChannelOptions, Compression, Disk, Frame, Leg, LogSet, OpenError, Part, Poisoned, PositionChange, Put, PutError,
    ReadLimits, Recovered, Start, Sync, tools,
};

fn options(name: &str) -> ChannelOptions {
    let mut options = ChannelOptions::new(name);
    options.segment_bytes = 64 << 10;
    options.min_free_bytes = 0;
    options.readers.push(("sink".into(), Start::Oldest));
    options
}

fn open(root: &Path, channels: Vec<ChannelOptions>) -> (LogSet, Recovered) {
    LogSet::open(Arc::new(Disk), root, "test", channels).unwrap()
}

fn put(source: &str, number: u64, channels: &[&str], columns: &[&str]) -> Put {
    let columns: Vec<_> = columns.iter().map(|column| bytes::Bytes::copy_from_slice(column.as_bytes())).collect();
    let legs = channels.iter().map(|channel| Leg { channel: (*channel).into(), events: 1, columns: columns.clone() });
    let part = Part { key: "at".into(), value: Some(number.to_string().into()) };
    Put { source: source.into(), position: PositionChange::Parts(vec![part]), time_ms: number, legs: legs.collect() }
}

/// Puts and waits until it is durable.
fn put_now(logs: &LogSet, put: Put) -> Result<u64, Poisoned> {
    let (tell, told) = mpsc::channel();
    let number = logs.put(put, Box::new(move |outcome| tell.send(outcome).unwrap())).unwrap();
    told.recv().unwrap().map(|()| number)
}

const ALL: ReadLimits = ReadLimits { events: u64::MAX, bytes: u64::MAX };

fn bodies(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| std::str::from_utf8(&frame.columns[0]).unwrap()).collect()
}

#[test]
fn what_was_put_is_there_after_a_reopen_with_its_position() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let folder = tempfile::tempdir().unwrap();
        let with = || ChannelOptions { compression, cache_bytes: 0, ..options("events") };
        let (logs, recovered) = open(folder.path(), vec![with()]);
        assert!(recovered.sources.is_empty() && recovered.notes.is_empty());
        let long = "x".repeat(1000);
        for number in 1..=300 {
            assert_eq!(
                put_now(&logs, put("tail", number, &["events"], &[&format!("{number}"), &long])).unwrap(),
                number
            );
        }
        logs.close().unwrap();

        let (logs, recovered) = open(folder.path(), vec![with()]);
        let source = recovered.source("tail").unwrap();
        assert_eq!((source.last_put, &source.position[..]), (300, &[("at".into(), "300".into())][..]));
        assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
        let mut reader = logs.log("events").unwrap().reader("sink").unwrap();
        let frames = reader.read(ALL).unwrap();
        assert_eq!(bodies(&frames), (1..=300).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(frames.iter().all(|frame| frame.columns[1] == long));
    }
}

#[test]
fn segments_go_when_the_reader_has_settled_them_and_the_cursor_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![options("events")]);
    let long = "x".repeat(5000);
    for number in 1..=100 {
        put_now(&logs, put("tail", number, &["events"], &[&long])).unwrap();
    }
    let log = logs.log("events").unwrap();
    let full = log.status();
    assert!(full.segments > 5, "{full:?}");
    assert_eq!(full.held.events, 100);
    let mut reader = log.reader("sink").unwrap();
    assert_eq!(reader.read(ReadLimits { events: 10, bytes: u64::MAX }).unwrap().len(), 10);
    assert_eq!(reader.read(ReadLimits { events: 80, bytes: u64::MAX }).unwrap().len(), 80);
    reader.settle(85);
    assert_eq!(log.held().events, 15);
    drop(reader);
    logs.close().unwrap();

    let (logs, recovered) = open(folder.path(), vec![options("events")]);
    assert_eq!(recovered.channels[0].readers[0].cursor, 85);
    assert!(recovered.channels[0].oldest_sequence > 50, "{:?}", recovered.channels);
    let log = logs.log("events").unwrap();
    assert_eq!(log.held().events, 15);
    let mut reader = log.reader("sink").unwrap();
    let frames = reader.read(ALL).unwrap();
    assert_eq!((frames.len(), frames[0].first_sequence), (15, 85));
    assert_eq!(reader.rewind(90), 90);
    assert_eq!(reader.read(ALL).unwrap()[0].first_sequence, 90);
}

#[test]
fn four_sources_share_syncs_and_every_put_is_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![options("events"), options("audit")]);
    let hooked = Arc::new(AtomicUsize::new(0));
    let count = hooked.clone();
    logs.log("events").unwrap().on_change(Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    std::thread::scope(|scope| {
        for source in ["a", "b", "c", "d"] {
            let logs = &logs;
            scope.spawn(move || {
                let (tell, told) = mpsc::channel();
                for number in 1..=200 {
                    let tell = tell.clone();
                    let channels: &[&str] = if number % 3 == 0 { &["audit"] } else { &["events", "audit"] };
                    let put = put(source, number, channels, &[&format!("{source}{number}")]);
                    logs.put(put, Box::new(move |outcome| tell.send((number, outcome.is_ok())).unwrap())).unwrap();
                }
                for number in 1..=200 {
                    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), (number, true));
                }
            });
        }
    });
    let log = logs.log("audit").unwrap();
    let status = log.status();
    assert!(status.syncs < 800 && hooked.load(Ordering::Relaxed) > 0, "{status:?}");
    let frames = log.reader("sink").unwrap().read(ALL).unwrap();
    for source in ["a", "b", "c", "d"] {
        let of = frames.iter().filter(|frame| &*frame.source == source).map(|frame| frame.put);
        assert!(of.eq(1..=200));
    }
}

#[test]
fn a_folder_in_use_of_another_pipeline_or_of_a_newer_format_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![options("events")]);
    let open_as = |pipeline: &str| LogSet::open(Arc::new(Disk), folder.path(), pipeline, vec![options("events")]).err();
    let error = open_as("test").unwrap();
    let OpenError::Locked { holder, .. } = &error else { panic!("{error}") };
    assert!(holder.starts_with(&format!("process {} on ", std::process::id())), "{holder}");
    let storage: Arc<dyn wasmflow_log::Storage> = Arc::new(Disk);
    assert!(tools::inspect(&storage, folder.path()).unwrap_err().to_string().contains("is in use by process"));
    drop(logs);

    let error = open_as("other").unwrap();
    assert!(matches!(&error, OpenError::OtherPipeline { found, .. } if found == "test"), "{error}");
    std::fs::write(folder.path().join("folder"), "wasmflow channels\nformat 2\npipeline test\n").unwrap();
    let error = open_as("test").unwrap().to_string();
    assert!(error.ends_with("has format 2; this wasmflow reads up to format 1"), "{error}");
}

#[test]
fn puts_that_cannot_be_are_refused_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![options("events")]);
    let refused = |put: Put| logs.put(put, Box::new(|_| panic!("it was refused"))).unwrap_err();
    assert!(matches!(refused(put("a", 1, &["nowhere"], &[])), PutError::NoSuchChannel { .. }));
    assert!(matches!(refused(put("a", 1, &[], &[])), PutError::BadLegs { .. }));
    assert!(matches!(refused(put("a", 1, &["events", "events"], &[])), PutError::BadLegs { .. }));
    let mut large = put("a", 1, &["events"], &[]);
    large.legs[0].columns = vec![bytes::Bytes::from(vec![0; 64 << 20]); 17];
    assert!(matches!(refused(large), PutError::TooLarge { .. }));
    assert_eq!(put_now(&logs, put("a", 1, &["events"], &["x"])).unwrap(), 1);
}

#[test]
fn a_put_larger_than_a_segment_gets_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![ChannelOptions { cache_bytes: 0, ..options("events") }]);
    let large = "y".repeat(300 << 10);
    for number in 1..=3 {
        put_now(&logs, put("a", number, &["events"], &[if number == 2 { &large } else { "small" }])).unwrap();
    }
    let frames = logs.log("events").unwrap().reader("sink").unwrap().read(ALL).unwrap();
    assert_eq!(bodies(&frames), ["small", &large, "small"]);
}

#[test]
fn a_channel_and_a_reader_can_come_and_go_while_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![options("events")]);
    put_now(&logs, put("a", 1, &["events"], &["1"])).unwrap();
    logs.add_channel(options("audit")).unwrap();
    put_now(&logs, put("a", 2, &["events", "audit"], &["2"])).unwrap();
    let log = logs.log("events").unwrap();
    log.add_reader("late", Start::Tail).unwrap();
    let mut late = log.reader("late").unwrap();
    put_now(&logs, put("a", 3, &["events"], &["3"])).unwrap();
    assert_eq!(bodies(&late.read(ALL).unwrap()), ["3"]);
    log.remove_reader("late").unwrap();
    assert!(late.read(ALL).is_err() && log.readers().len() == 1);
    logs.retire_channel("audit").unwrap();
    logs.close().unwrap();

    let (logs, recovered) = open(folder.path(), vec![options("events")]);
    assert!(recovered.channels.iter().any(|channel| channel.dormant && &*channel.name == "audit"));
    assert_eq!(recovered.source("a").unwrap().last_put, 3);
    logs.add_channel(options("audit")).unwrap();
    // It missed a put, so with the next one it is told the whole position.
    put_now(&logs, put("a", 4, &["audit"], &["4"])).unwrap();
    let frames = logs.log("audit").unwrap().reader("sink").unwrap().read(ALL).unwrap();
    assert_eq!(bodies(&frames), ["2", "4"]);
    assert!(matches!(frames[1].position, PositionChange::Whole(_)));
}

#[test]
fn the_lossy_modes_tell_before_they_sync_and_keep_all_when_they_are_closed() {
    for sync in [Sync::Interval(Duration::from_millis(5)), Sync::Os] {
        let folder = tempfile::tempdir().unwrap();
        let with = || ChannelOptions { sync, ..options("events") };
        let (logs, _) = open(folder.path(), vec![with()]);
        for number in 1..=50 {
            put_now(&logs, put("a", number, &["events"], &["x"])).unwrap();
        }
        logs.close().unwrap();
        let (logs, recovered) = open(folder.path(), vec![with()]);
        assert_eq!((recovered.channels[0].next_sequence, recovered.notes.len()), (50, 0));
        assert_eq!(logs.log("events").unwrap().held().events, 50);
    }
}

#[test]
fn a_folder_that_is_removed_while_it_is_used_stops_the_channel() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path(), vec![options("events")]);
    put_now(&logs, put("a", 1, &["events"], &["x"])).unwrap();
    std::fs::remove_dir_all(folder.path().join("events")).unwrap();
    let log = logs.log("events").unwrap();
    // Noticed by the next upkeep, without anything being written.
    while log.status().poisoned.is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = logs.put(put("a", 2, &["events"], &["y"]), Box::new(|_| {})).unwrap_err();
    assert!(refused.to_string().contains("which somebody removed"), "{refused}");
    assert!(logs.close().is_err());
}

/// Tells the test below that it is the process to be killed, and where its logs are.
const VICTIM: &str = "WASMFLOW_LOG_TEST_ROOT";

/// Puts for ever, and prints what is durable.
fn put_until_killed(root: &Path) {
    let (logs, recovered) = open(root, vec![options("events"), options("audit")]);
    let first = recovered.source("a").map_or(0, |source| source.last_used) + 1;
    for number in first.. {
        assert_eq!(put_now(&logs, put("a", number, &["events", "audit"], &[&number.to_string()])).unwrap(), number);
        println!("durable {number}");
    }
}

#[test]
fn a_process_that_is_killed_loses_nothing_it_was_told_is_durable() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    // The test runs itself as the process to be killed.
    if let Some(root) = std::env::var_os(VICTIM) {
        return put_until_killed(root.as_ref());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut told = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_is_killed_loses_nothing_it_was_told_is_durable", "--nocapture"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for (at, number) in lines.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok()).enumerate() {
            told = number;
            if at == round * 30 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        // The lock of the dead is free.
        let (logs, recovered) = open(folder.path(), vec![options("events"), options("audit")]);
        let last = recovered.source("a").unwrap().last_put;
        assert!(last >= told && told > 0, "round {round}: put {told} was durable, and it ends at {last}");
        assert!(recovered.notes.iter().all(wasmflow_log::Note::is_normal), "{:?}", recovered.notes);
        for channel in ["events", "audit"] {
            let frames = logs.log(channel).unwrap().reader("sink").unwrap().read(ALL).unwrap();
            // A number may be missing where a put reached one channel only.
            assert!(frames.windows(2).all(|pair| pair[0].put < pair[1].put));
            assert_eq!(frames.last().unwrap().put, last);
            assert!(frames.iter().all(|frame| frame.columns[0] == frame.put.to_string()));
        }
        drop(logs);
    }
}
