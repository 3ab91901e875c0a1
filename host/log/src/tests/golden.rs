//! Folders that released versions have written: they are read for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::ALL;
use crate::{ChannelOptions, Disk, LogSet, OpenError, Start, Storage, tools};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn options(name: &str) -> ChannelOptions {
    let mut options = ChannelOptions::new(name);
    options.segment_bytes = 2000;
    options.min_free_bytes = 0;
    options.readers.push(("console".into(), Start::Oldest));
    options
}

/// How the fixture of format 1 was made. It was copied into `fixtures` once, and a released fixture is never written again.
fn write_as_format_1_was(folder: &Path) {
    let mut compressed = options("audit");
    compressed.compression = crate::Compression::Lz4;
    let open = || LogSet::open_stepwise(Arc::new(Disk), folder, "golden", vec![options("events"), compressed.clone()]);
    let (logs, _) = open().unwrap();
    for number in 1..=12 {
        let columns = vec![format!("event {number}").into(), vec![b'x'; 150].into()];
        let leg = |channel: &str| crate::Leg { channel: channel.into(), events: 2, columns: columns.clone() };
        let part = crate::Part { key: "line".into(), value: Some(number.to_string().into()) };
        let put = crate::Put {
            source: "tail".into(),
            position: crate::PositionChange::Parts(vec![part]),
            time_ms: 1_700_000_000_000 + number,
            legs: vec![leg("events"), leg("audit")],
        };
        logs.put(put, Box::new(|outcome| outcome.unwrap())).unwrap();
        logs.step_writer("events", false);
        // The last put reaches one channel only: it is void.
        if number < 12 {
            logs.step_writer("audit", false);
        }
    }
    let mut reader = logs.log("events").unwrap().reader("console").unwrap();
    reader.read(ALL).unwrap();
    reader.settle(5);
    logs.step_keeper();
    drop(reader);
    logs.forget();
}

#[test]
fn a_folder_of_format_1_is_read_to_the_last_event() {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("format-1"), folder.path());
    assert_read_to_the_last_event(folder.path());
}

#[test]
fn what_is_written_now_is_read_as_the_fixture_is() {
    let folder = tempfile::tempdir().unwrap();
    write_as_format_1_was(folder.path());
    assert_read_to_the_last_event(folder.path());
}

fn assert_read_to_the_last_event(folder: &Path) {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    let inspected = tools::inspect(&storage, folder).unwrap();
    assert_eq!((&*inspected.pipeline, inspected.format), ("golden", 1));
    let (logs, recovered) =
        LogSet::open_stepwise(storage, folder, "golden", vec![options("events"), options("audit")]).unwrap();
    let source = recovered.source("tail").unwrap();
    assert_eq!((source.last_put, source.last_used), (11, 12));
    assert_eq!(source.position, [("line".into(), "11".into())]);
    let mut events = logs.log("events").unwrap().reader("console").unwrap();
    assert_eq!(events.next_sequence(), 5);
    let numbers: Vec<u64> = events.read(ALL).unwrap().iter().map(|frame| frame.put).collect();
    assert!(numbers.iter().copied().eq(3..=11), "{numbers:?}");
    let frames = logs.log("audit").unwrap().reader("console").unwrap().read(ALL).unwrap();
    assert_eq!(frames.len(), 11);
    for (at, frame) in frames.iter().enumerate() {
        assert_eq!((frame.put, frame.events, frame.time_ms), (at as u64 + 1, 2, 1_700_000_000_001 + at as u64));
        assert_eq!(frame.columns[0], format!("event {}", at + 1));
        assert_eq!(frame.columns[1], vec![b'x'; 150]);
    }
}

#[test]
fn every_fixture_has_a_test() {
    let fixtures = std::fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(fixtures.collect::<Vec<_>>(), ["format-1"]);
}

#[test]
fn a_folder_of_a_newer_format_is_refused_and_left_alone() {
    // A newer folder, a newer segment and a newer cursor in a folder that says 1.
    for change in ["folder", "segment", "cursor"] {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture("format-1"), folder.path());
        let of = |kind: &str| {
            let mut files: Vec<_> =
                std::fs::read_dir(folder.path().join("events")).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.retain(|path| path.extension().is_some_and(|is| is == kind));
            files.sort();
            files.remove(0)
        };
        let path = match change {
            "folder" => folder.path().join("folder"),
            "segment" => of("log"),
            _ => of("cursor"),
        };
        let mut bytes = std::fs::read(&path).unwrap();
        match change {
            "folder" => bytes = b"wasmflow channels\nformat 7\npipeline golden\nand more that only 7 knows\n".to_vec(),
            "segment" => bytes[8] = 7,
            _ => [8, 4096 + 8].iter().for_each(|at| bytes[*at] = 7),
        }
        std::fs::write(&path, &bytes).unwrap();
        let opened = LogSet::open_stepwise(Arc::new(Disk), folder.path(), "golden", vec![options("events")]);
        let error = opened.err().unwrap();
        assert!(matches!(error, OpenError::NewerFormat { found: 7, known: 1, .. }), "{change}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
