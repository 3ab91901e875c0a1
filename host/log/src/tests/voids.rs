//! A put into two channels that reached only one of them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::check::{ALL, ROOT};
use crate::simulator::SimDisk;
use crate::{ChannelOptions, Leg, LogSet, Note, Part, Poisoned, PositionChange, Put, Reader, RecoveredSource, Start};

struct Pair {
    disk: SimDisk,
    told: Told,
}

/// Put numbers and what became of them.
type Told = Arc<Mutex<Vec<(u64, Result<(), Poisoned>)>>>;

fn options(name: &str) -> ChannelOptions {
    let mut options = ChannelOptions::new(name);
    options.segment_bytes = 4000;
    options.min_free_bytes = 0;
    options.readers.push(("r".into(), Start::Oldest));
    options
}

impl Pair {
    fn open(&self) -> (LogSet, crate::Recovered) {
        let disk = Arc::new(self.disk.clone());
        LogSet::open_stepwise(disk, ROOT.as_ref(), "test", vec![options("a"), options("b")]).unwrap()
    }

    fn put(&self, logs: &LogSet, source: &str, text: &str, channels: &[&str]) -> u64 {
        let leg =
            |channel: &&str| Leg { channel: (*channel).into(), events: 1, columns: vec![text.to_string().into()] };
        let part = Part { key: "at".into(), value: Some(text.to_string().into()) };
        let position = PositionChange::Parts(vec![part]);
        let legs = channels.iter().map(leg).collect();
        let put = Put { source: source.into(), position, time_ms: 1, legs };
        let told = self.told.clone();
        let number = Arc::new(Mutex::new(0));
        let of = number.clone();
        let given = logs.put(put, Box::new(move |outcome| told.lock().push((*of.lock(), outcome)))).unwrap();
        *number.lock() = given;
        given
    }
}

fn texts(reader: &mut Reader) -> Vec<String> {
    let frames = reader.read(ALL).unwrap();
    frames.iter().map(|frame| String::from_utf8(frame.columns[0].to_vec()).unwrap()).collect()
}

fn pair() -> Pair {
    Pair { disk: SimDisk::new(7), told: Arc::default() }
}

#[test]
fn a_reader_waits_until_the_put_is_durable_in_all_its_channels() {
    let pair = pair();
    let (logs, _) = pair.open();
    pair.put(&logs, "s", "both", &["a", "b"]);
    pair.put(&logs, "t", "only here", &["a"]);
    let mut reader = logs.log("a").unwrap().reader("r").unwrap();
    logs.step_writer("a", false);
    assert_eq!(texts(&mut reader), [""; 0]);
    assert_eq!(pair.told.lock().len(), 1, "the put of `t` is durable");
    logs.step_writer("b", false);
    assert_eq!(texts(&mut reader), ["both", "only here"]);
    assert_eq!(pair.told.lock().len(), 2);
}

#[test]
fn a_put_that_reached_one_channel_is_void_and_what_others_put_behind_it_stays() {
    let mut pair = pair();
    let (logs, _) = pair.open();
    pair.put(&logs, "s", "1", &["a", "b"]);
    logs.step_writer("a", false);
    logs.step_writer("b", false);
    pair.put(&logs, "s", "2", &["a", "b"]);
    pair.put(&logs, "t", "other", &["a"]);
    logs.step_writer("a", false);
    assert_eq!(pair.told.lock().len(), 2, "put 1 of `s` and put 1 of `t`");
    // Killed before channel b has it. Twice: the second recovery must not change its mind.
    for _ in 0..2 {
        pair.disk = pair.disk.after_kill();
        let (logs, recovered) = pair.open();
        let source = recovered.source("s").unwrap();
        let expected = RecoveredSource {
            name: "s".into(),
            last_put: 1,
            last_used: 2,
            position: vec![("at".into(), "1".into())],
            channels: vec!["a".into(), "b".into()],
        };
        assert_eq!(*source, expected);
        let mut reader = logs.log("a").unwrap().reader("r").unwrap();
        assert_eq!(texts(&mut reader), ["1", "other"]);
        assert_eq!(logs.log("a").unwrap().held().events, 2);
        drop(reader);
        logs.forget();
    }
    let (logs, recovered) = pair.open();
    assert!(recovered.notes.iter().all(Note::is_normal), "{:?}", recovered.notes);
    // The source brings it again, under a new number.
    assert_eq!(pair.put(&logs, "s", "2 again", &["a", "b"]), 3);
    logs.step_writer("a", false);
    logs.step_writer("b", false);
    for (channel, expected) in [("a", &["1", "other", "2 again"][..]), ("b", &["1", "2 again"])] {
        assert_eq!(texts(&mut logs.log(channel).unwrap().reader("r").unwrap()), expected);
    }
}

#[test]
fn a_put_that_is_void_takes_later_ones_of_its_source_with_it() {
    let mut pair = pair();
    let (logs, _) = pair.open();
    pair.put(&logs, "s", "1", &["a", "b"]);
    pair.put(&logs, "s", "2", &["a"]);
    logs.step_writer("a", false);
    // Put 2 is durable where it goes, but put 1 is not: nobody is told, and nobody may read.
    assert!(pair.told.lock().is_empty());
    pair.disk = pair.disk.after_kill();
    let (logs, recovered) = pair.open();
    let source = recovered.source("s").unwrap();
    assert_eq!((source.last_put, source.last_used, source.position.len()), (0, 2, 0));
    assert!(recovered.notes.iter().any(|note| matches!(note, Note::Voided { puts, .. } if puts[..] == [1, 2])));
    let log = logs.log("a").unwrap();
    assert_eq!(texts(&mut log.reader("r").unwrap()), [""; 0]);
    // Two sequences were used, and there is nothing to read under them.
    assert_eq!((log.status().readable_sequence, log.readable_from(0), log.held().events), (0, 0, 0));
}

#[test]
fn a_channel_that_fails_fails_the_puts_that_wait_for_it_elsewhere() {
    let pair = pair();
    let (logs, _) = pair.open();
    pair.put(&logs, "s", "1", &["a", "b"]);
    logs.step_writer("a", false);
    let fault = crate::simulator::Fault {
        operation: crate::simulator::Operation::Sync,
        skip: 0,
        times: 1,
        errno: Some(crate::simulator::Fault::EIO),
    };
    pair.disk.fail(fault);
    logs.step_writer("b", false);
    let told = pair.told.lock();
    assert!(matches!(&told[..], [(1, Err(poisoned))] if &*poisoned.channel == "b" && poisoned.action.contains("sync")));
    drop(told);
    let mut reader = logs.log("a").unwrap().reader("r").unwrap();
    assert!(reader.read(ALL).unwrap_err().to_string().contains("channel `b` takes nothing any more"));
}
