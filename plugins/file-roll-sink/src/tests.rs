//! What becomes of events, files and crashes: the plugin as the host drives it, in real folders.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use wasmflow_sdk::disk::Disk;
use wasmflow_sdk::prelude::{Batch, Delivery, Failure, Sink};
use wasmflow_sdk::serde_json;

use crate::{FileRoll, mark::Mark};

/// A folder, and a sink on it.
struct World {
    folder: tempfile::TempDir,
    config: serde_json::Value,
    sink: Option<FileRoll>,
}

impl World {
    fn new(more: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = serde_json::json!({ "dir": folder.path().join("out"), "sync": false });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        World { folder, config, sink: None }
    }

    fn plain() -> Self {
        Self::new(serde_json::json!({}))
    }

    fn sink(&mut self) -> &mut FileRoll {
        let config = &self.config;
        self.sink.get_or_insert_with(|| FileRoll::open(serde_json::from_value(config.clone()).unwrap()).unwrap())
    }

    fn deliver(&mut self, bodies: &[&str]) -> Result<(), Failure> {
        let delivery = Delivery { log: String::new(), first: 0, next: 0, attempt: 1 };
        self.sink().deliver(&mut Batch::from_bodies(bodies), &delivery).map(|_| ())
    }

    /// As a kill: nothing is closed.
    fn crash(&mut self) {
        self.sink = None;
    }

    fn close(&mut self) {
        if let Some(mut sink) = self.sink.take() {
            sink.flush(true).unwrap();
            sink.close();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    /// The files by their ends: `-1.log`, `-1.log.open` and so on, with what is in them.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.folder.path().join("out")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let text = String::from_utf8(fs::read(self.path(&name)).unwrap()).unwrap();
            files.insert(name, text);
        }
        files
    }

    fn texts(&self) -> Vec<String> {
        self.files().into_values().collect()
    }

    fn open_file(&self) -> PathBuf {
        let name = self.files().into_keys().find(|name| name.ends_with(".open")).unwrap();
        self.path(&name)
    }
}

#[test]
fn a_file_is_open_until_the_sink_is_drained() {
    let mut world = World::plain();
    world.deliver(&["one", "two"]).unwrap();
    let names: Vec<_> = world.files().into_keys().collect();
    assert!(matches!(&names[..], [open, mark] if open.ends_with("-1.log.open") && mark.ends_with("-1.log.open.batch")));
    world.close();
    let files = world.files();
    let (name, text) = files.first_key_value().unwrap();
    assert!(name.starts_with("events-") && name.ends_with("-1.log"), "{name}");
    assert_eq!((files.len(), text.as_str()), (1, "one\ntwo\n"));
}

#[test]
fn the_start_in_the_name_is_the_time() {
    let mut world = World::plain();
    world.deliver(&["one"]).unwrap();
    world.close();
    let name = world.files().into_keys().next().unwrap();
    let start: u128 = name.split('-').nth(1).unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(now.abs_diff(start) < 60_000, "{start} {now}");
}

#[test]
fn without_events_there_are_no_files() {
    let mut world = World::new(serde_json::json!({ "roll_interval": "1ms" }));
    world.deliver(&[]).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    world.sink().flush(false).unwrap();
    world.close();
    assert_eq!(world.files(), BTreeMap::new());
}

#[test]
fn an_old_file_is_rolled_by_the_tick_and_by_the_next_batch() {
    // Long beside what two calls take, even on a busy machine.
    let (interval, longer) = ("500ms", Duration::from_millis(510));
    let mut world = World::new(serde_json::json!({ "roll_interval": interval }));
    world.deliver(&["one"]).unwrap();
    world.sink().flush(false).unwrap();
    assert_eq!(world.files().len(), 2);
    std::thread::sleep(longer);
    world.sink().flush(false).unwrap();
    assert_eq!(world.texts(), ["one\n"]);
    world.deliver(&["two"]).unwrap();
    std::thread::sleep(longer);
    world.deliver(&["three"]).unwrap();
    world.close();
    assert_eq!(world.texts(), ["one\n", "two\n", "three\n"]);
}

#[test]
fn files_are_rolled_between_batches_by_count_and_size() {
    for limit in [serde_json::json!({ "roll_events": 3 }), serde_json::json!({ "roll_bytes": "6B" })] {
        let mut world = World::new(limit);
        for batch in [&["a", "b"][..], &["c"], &["d", "e"], &["f", "g"], &["h", "i", "j", "k"], &["l"]] {
            world.deliver(batch).unwrap();
        }
        world.close();
        assert_eq!(world.texts(), ["a\nb\nc\n", "d\ne\n", "f\ng\n", "h\ni\nj\nk\n", "l\n"]);
    }
}

#[test]
fn rolling_never_is_possible() {
    let mut world = World::new(serde_json::json!({ "roll_interval": "0" }));
    world.deliver(&["one"]).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    world.sink().flush(false).unwrap();
    assert_eq!(world.files().len(), 2);
}

#[test]
fn a_restart_finishes_what_was_left_open_and_begins_a_new_file() {
    let mut world = World::plain();
    world.deliver(&["one"]).unwrap();
    world.crash();
    world.deliver(&["two"]).unwrap();
    world.close();
    assert_eq!(world.texts(), ["one\n", "two\n"]);
}

#[test]
fn files_of_others_are_left_alone() {
    let mut world = World::plain();
    fs::create_dir(world.folder.path().join("out")).unwrap();
    for name in ["events-1-1.txt.open", "other-1-1.log.open", "events.log"] {
        fs::write(world.path(name), "x").unwrap();
    }
    world.deliver(&["one"]).unwrap();
    world.close();
    assert_eq!(world.files().len(), 4);
}

#[test]
fn a_file_deleted_while_it_is_written_is_noticed_and_the_batch_comes_again() {
    let mut world = World::plain();
    world.deliver(&["one"]).unwrap();
    fs::remove_file(world.open_file()).unwrap();
    assert!(matches!(world.deliver(&["two"]), Err(Failure::Retry(_))));
    world.deliver(&["two"]).unwrap();
    world.close();
    assert_eq!(world.texts(), ["two\n"]);
}

#[test]
fn a_finished_name_is_never_taken_from_another_file() {
    let mut world = World::plain();
    world.deliver(&["one"]).unwrap();
    let finished = world.open_file().with_extension("");
    fs::write(&finished, "mine").unwrap();
    assert!(world.sink().flush(true).is_err());
    assert_eq!(fs::read_to_string(&finished).unwrap(), "mine");
    fs::remove_file(&finished).unwrap();
    world.close();
    assert_eq!(world.texts(), ["one\n"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_said_with_its_name() {
    let mut world = World::plain();
    fs::write(world.folder.path().join("out"), "a file").unwrap();
    let config = serde_json::from_value(world.config.take()).unwrap();
    let Err(failure) = FileRoll::open(config) else { panic!("opened") };
    assert!(format!("{failure:?}").contains("/out`"), "{failure:?}");
}

#[test]
fn a_bad_config_says_all_that_is_wrong() {
    let json =
        serde_json::json!({ "dir": "", "prefix": "a/b", "extension": "open", "roll_bytes": "0B", "roll_events": 0 });
    let problems = FileRoll::check(&serde_json::from_value(json).unwrap()).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["/dir", "/prefix", "/extension", "/roll_bytes", "/roll_events"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever part of a batch a kill has left in the file, with the mark of it or, after a power cut, with an older one: all
    /// settled batches are there, once and in order, and no line is half. With its own mark, no part of the batch is left.
    #[test]
    fn after_a_crash_only_whole_batches_are_left(
        batches in prop::collection::vec(prop::collection::vec("[a-z]{0,12}", 1..5), 1..8),
        torn in prop::collection::vec("[a-z]{0,12}", 1..5),
        part in 0.0_f64..1.0,
        stale: bool,
    ) {
        let mut world = World::plain();
        let mut settled = String::new();
        for batch in &batches {
            world.deliver(&batch.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            batch.iter().for_each(|line| settled.push_str(&format!("{line}\n")));
        }
        world.crash();
        let open = world.open_file();
        let text: String = torn.iter().map(|line| format!("{line}\n")).collect();
        let begin = settled.len() as u64;
        if !stale {
            let mark = Disk::new().open_to_write(&format!("{}.batch", open.display())).unwrap();
            Mark { begin, end: begin + text.len() as u64 }.write(&mark).unwrap();
        }
        let written = &text.as_bytes()[..(text.len() as f64 * part) as usize];
        OpenOptions::new().append(true).open(&open).unwrap().write_all(written).unwrap();
        world.sink();
        let texts = world.texts();
        prop_assert_eq!(texts.len(), 1);
        prop_assert!(texts[0].starts_with(&settled));
        let more = &texts[0][settled.len()..];
        prop_assert!(more.is_empty() || (stale && text.starts_with(more) && more.ends_with('\n')));
    }
}
