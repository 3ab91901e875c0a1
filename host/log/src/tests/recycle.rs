//! Segments that are written over others that nobody needs.

use std::path::Path;
use std::sync::Arc;

use super::check::ALL;
use crate::channel::MOST_SPARES;
use crate::segment::read_header;
use crate::{ChannelOptions, Disk, Leg, LogSet, Note, PositionChange, Put, Recovered, Start, Storage, names};

const SEGMENT_BYTES: u64 = 2000;

fn open(folder: &Path) -> (LogSet, Recovered) {
    let mut options = ChannelOptions::new("events");
    (options.segment_bytes, options.min_free_bytes) = (SEGMENT_BYTES, 0);
    options.readers.push(("console".into(), Start::Oldest));
    LogSet::open_stepwise(Arc::new(Disk), folder, "test", vec![options]).unwrap()
}

/// One put, on disk at once.
fn put(logs: &LogSet, number: u64) {
    let columns = vec![format!("event {number}").into(), vec![b'x'; 150].into()];
    let leg = Leg { channel: "events".into(), events: 1, columns };
    let put = Put { source: "tail".into(), position: PositionChange::default(), time_ms: number, legs: vec![leg] };
    logs.put(put, Box::new(|outcome| outcome.unwrap())).unwrap();
    assert!(logs.step_writer("events", false));
}

/// Puts these, each taken, settled and noted by the keeper before the next.
fn pass(logs: &LogSet, numbers: std::ops::Range<u64>) {
    let mut reader = logs.log("events").unwrap().reader("console").unwrap();
    for number in numbers {
        put(logs, number);
        let frames = reader.read(ALL).unwrap();
        assert_eq!(frames[0].columns[0], format!("event {number}"));
        reader.settle(frames[0].next_sequence());
        assert!(logs.step_keeper());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("events")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn newest_is_recycled(folder: &Path) -> bool {
    let newest = names(folder).into_iter().rfind(|name| name.ends_with(".log")).unwrap();
    let file = Disk.open_read(&folder.join("events").join(newest)).unwrap();
    read_header(&*file).unwrap().unwrap().recycled
}

#[test]
fn a_log_whose_readers_keep_up_goes_on_in_the_files_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path());
    pass(&logs, 0..100);
    assert!(newest_is_recycled(folder.path()));
    let spares = names(folder.path()).iter().filter(|name| names::is_spare(name)).count();
    assert!((1..=MOST_SPARES).contains(&spares), "{:?}", names(folder.path()));
    logs.close().unwrap();
    // They are there for the next start too.
    let (logs, _) = open(folder.path());
    pass(&logs, 100..120);
    assert!(newest_is_recycled(folder.path()));
}

#[test]
fn a_process_that_is_killed_in_a_recycled_segment_leaves_no_torn_tail_and_every_event() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path());
    pass(&logs, 0..40);
    let mut number = 40;
    // In the middle of a segment, with old frames behind the last.
    while !newest_is_recycled(folder.path()) || number % 10 != 5 {
        pass(&logs, number..number + 1);
        number += 1;
    }
    put(&logs, 1000);
    put(&logs, 1001);
    logs.forget();
    let (logs, recovered) = open(folder.path());
    assert!(!recovered.notes.iter().any(|note| matches!(note, Note::TailCut { .. })), "{:?}", recovered.notes);
    let frames = logs.log("events").unwrap().reader("console").unwrap().read(ALL).unwrap();
    let bodies: Vec<_> = frames.iter().map(|frame| frame.columns[0].clone()).collect();
    assert_eq!(bodies, ["event 1000", "event 1001"]);
}

#[test]
fn files_of_another_size_are_no_spares() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, _) = open(folder.path());
    pass(&logs, 0..40);
    logs.close().unwrap();
    let spare = folder.path().join("events").join(names::spare(999));
    std::fs::write(&spare, vec![1; SEGMENT_BYTES as usize * 9]).unwrap();
    let (logs, _) = open(folder.path());
    assert!(!spare.exists(), "{:?}", names(folder.path()));
    pass(&logs, 40..60);
}
