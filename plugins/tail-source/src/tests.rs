//! What happens to files, and what comes of it: the plugin as the host drives it, on real files.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use wasmflow_sdk::prelude::{Part, Position, Progress, Source};
use wasmflow_sdk::{log::Level, serde_json};

use crate::TailSource;

/// A folder, a source on it, and the position as the host would keep it.
struct World {
    folder: tempfile::TempDir,
    config: serde_json::Value,
    source: Option<TailSource>,
    position: BTreeMap<Vec<u8>, Vec<u8>>,
    lines: Vec<String>,
    headers: Vec<(String, String)>,
    log: Vec<(Level, String)>,
    max_events: u32,
}

impl World {
    fn new(files: &[&str], more: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = files.iter().map(|file| format!("{}/{file}", folder.path().display())).collect();
        let mut config = serde_json::json!({ "files": files, "poll_interval": "10ms", "idle_flush": "50ms" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        World {
            folder,
            config,
            source: None,
            position: BTreeMap::new(),
            lines: Vec::new(),
            headers: Vec::new(),
            log: Vec::new(),
            max_events: 1000,
        }
    }

    fn following(files: &[&str]) -> Self {
        Self::new(files, serde_json::json!({}))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// As a kill and a start: the instance is gone, the position is what was last brought.
    fn restart(&mut self) {
        self.source = None;
    }

    fn source(&mut self) -> &mut TailSource {
        self.source.get_or_insert_with(|| {
            let parts: Vec<_> =
                self.position.iter().map(|(key, value)| Part::new(key.clone(), value.clone())).collect();
            let config = serde_json::from_value(self.config.clone()).unwrap();
            TailSource::open(config, &Position::from(parts)).unwrap()
        })
    }

    fn poll(&mut self, wait: Duration) -> Option<bool> {
        let max_events = self.max_events;
        let polled = self.source().poll(max_events, 1 << 20, wait).unwrap();
        let told = self.source.as_mut().unwrap().told();
        self.log.extend(told);
        let Progress::Events(polled) = polled else { return matches!(polled, Progress::Finished).then_some(true) };
        for part in polled.position {
            match part.value {
                Some(value) => self.position.insert(part.key, value),
                None => self.position.remove(&part.key),
            };
        }
        for event in polled.batch.events() {
            let header = |name: &str| String::from_utf8(event.header(name).unwrap_or_default().to_vec()).unwrap();
            self.headers.push((header("file"), header("offset")));
            self.lines.push(String::from_utf8_lossy(&event.body).into_owned());
        }
        Some(false)
    }

    /// Polls until nothing has come for a while; what came.
    fn settle(&mut self) -> Vec<String> {
        self.settle_for(Duration::from_millis(40))
    }

    /// Polls until so many lines are there, however slow the machine, and then on as [`settle`](Self::settle) does.
    fn settle_with(&mut self, count: usize) -> Vec<String> {
        let started = Instant::now();
        while self.lines.len() < count && started.elapsed() < Duration::from_secs(5) {
            self.poll(Duration::from_millis(5));
        }
        self.settle()
    }

    fn settle_for(&mut self, silence: Duration) -> Vec<String> {
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < silence {
            if self.poll(Duration::from_millis(5)).is_some() {
                quiet_since = Instant::now();
            }
        }
        std::mem::take(&mut self.lines)
    }

    /// Polls a source that does not follow until it has finished; what came.
    fn finish(&mut self) -> Vec<String> {
        while self.poll(Duration::from_millis(5)) != Some(true) {}
        std::mem::take(&mut self.lines)
    }

    fn warnings(&self) -> Vec<&str> {
        self.log.iter().filter(|(level, _)| *level == Level::Warn).map(|(_, line)| line.as_str()).collect()
    }
}

#[test]
fn lines_come_as_they_are_appended() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\ntwo\n");
    assert_eq!(world.settle(), ["one", "two"]);
    world.append("a.log", "thr");
    assert_eq!(world.settle(), [""; 0]);
    world.append("a.log", "ee\nfour\r\n\n");
    assert_eq!(world.settle(), ["three", "four\r", ""]);
}

#[test]
fn an_append_is_seen_within_the_interval() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\n");
    world.settle();
    world.append("a.log", "two\n");
    let started = Instant::now();
    let wait = Duration::from_secs(20);
    assert_eq!(world.poll(wait), Some(false));
    assert!(started.elapsed() < wait, "{:?}", started.elapsed());
}

#[test]
fn a_full_channel_brings_nothing() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\n");
    world.max_events = 0;
    assert_eq!(world.poll(Duration::ZERO), None);
    world.max_events = 1;
    assert_eq!(world.settle(), ["one"]);
}

#[test]
fn headers_name_the_file_and_the_place() {
    let mut world = World::following(&["*.log"]);
    world.append("a.log", "one\ntwo\n");
    world.append("b.log", "x\n");
    world.settle();
    let path = |name: &str| world.path(name).display().to_string();
    let expected = [(path("a.log"), "0".into()), (path("a.log"), "4".into()), (path("b.log"), "0".into())];
    assert_eq!(world.headers, expected);
}

#[test]
fn a_restart_goes_on_behind_what_was_brought() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\ntwo\nthr");
    assert_eq!(world.settle(), ["one", "two"]);
    world.restart();
    world.append("a.log", "ee\n");
    assert_eq!(world.settle(), ["three"]);
}

#[test]
fn a_rename_inside_the_pattern_repeats_nothing() {
    let mut world = World::following(&["a.log*"]);
    world.append("a.log", "one\n");
    assert_eq!(world.settle(), ["one"]);
    world.rename("a.log", "a.log.1");
    world.append("a.log.1", "two\n");
    world.append("a.log", "three\n");
    let mut lines = world.settle();
    lines.sort();
    assert_eq!(lines, ["three", "two"]);
}

#[test]
fn a_rename_while_the_source_is_down_repeats_nothing() {
    let mut world = World::following(&["a.log*"]);
    world.append("a.log", "one\n");
    assert_eq!(world.settle(), ["one"]);
    world.restart();
    world.append("a.log", "two\n");
    world.rename("a.log", "a.log.1");
    world.append("a.log", "three\n");
    let mut lines = world.settle();
    lines.sort();
    assert_eq!(lines, ["three", "two"]);
}

#[test]
fn the_rest_of_a_file_renamed_out_of_the_pattern_is_brought() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\n");
    assert_eq!(world.settle(), ["one"]);
    world.append("a.log", "two\n");
    world.rename("a.log", "old");
    world.append("a.log", "three\n");
    assert_eq!(world.settle(), ["two", "three"]);
    // Whoever had it open may still write to it.
    world.append("old", "four\n");
    assert_eq!(world.settle(), ["four"]);
}

#[test]
fn the_rest_of_a_deleted_file_is_brought() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\n");
    assert_eq!(world.settle(), ["one"]);
    let mut writer = OpenOptions::new().append(true).open(world.path("a.log")).unwrap();
    fs::remove_file(world.path("a.log")).unwrap();
    world.settle();
    writer.write_all(b"two\n").unwrap();
    assert_eq!(world.settle(), ["two"]);
}

#[test]
fn a_truncated_file_is_read_from_its_start_and_that_is_said() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\ntwo\n");
    world.settle();
    File::create(world.path("a.log")).unwrap();
    world.settle();
    world.append("a.log", "three\n");
    assert_eq!(world.settle(), ["three"]);
    assert!(matches!(world.warnings()[..], [line] if line.contains("shorter")), "{:?}", world.log);
}

#[test]
fn a_file_cut_and_filled_beyond_the_old_place_is_read_whole() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\n");
    world.settle();
    fs::write(world.path("a.log"), "three\nfour\n").unwrap();
    assert_eq!(world.settle(), ["three", "four"]);
    world.restart();
    fs::write(world.path("a.log"), "five six\nseven eight\n").unwrap();
    assert_eq!(world.settle(), ["five six", "seven eight"]);
    assert!(world.warnings().iter().all(|line| line.contains("other bytes")), "{:?}", world.log);
}

#[test]
fn a_long_rest_of_a_renamed_file_comes_before_what_has_taken_its_name() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "first\n");
    assert_eq!(world.settle(), ["first"]);
    let rest: Vec<String> = (0..100_000).map(|number| format!("old {number}")).collect();
    world.append("a.log", rest.join("\n") + "\n");
    world.rename("a.log", "old");
    world.append("a.log", "new\n");
    let expected: Vec<&str> = rest.iter().map(String::as_str).chain(["new"]).collect();
    assert_eq!(world.settle(), expected);
}

#[test]
fn a_replaced_file_is_another_file() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\ntwo\n");
    assert_eq!(world.settle_with(2), ["one", "two"]);
    fs::write(world.path("new"), "three\nfour\nfive\n").unwrap();
    world.rename("new", "a.log");
    assert_eq!(world.settle_with(3), ["three", "four", "five"]);
    world.restart();
    fs::write(world.path("new"), "six\n").unwrap();
    world.rename("new", "a.log");
    assert_eq!(world.settle_with(1), ["six"]);
}

#[test]
fn a_file_with_a_new_identity_and_the_same_bytes_is_gone_on_with() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\ntwo\n");
    world.settle();
    world.restart();
    // As after a reboot that numbers devices anew: the stored identity is nobody's.
    fs::copy(world.path("a.log"), world.path("copy")).unwrap();
    world.rename("copy", "a.log");
    world.append("a.log", "three\n");
    assert_eq!(world.settle(), ["three"]);
    assert_eq!(world.position.len(), 1);
}

#[test]
fn a_missing_file_and_a_missing_folder_are_waited_for_and_said_once() {
    let mut world = World::following(&["a.log", "sub/*.log"]);
    world.settle();
    world.settle();
    assert_eq!(world.warnings().len(), 2, "{:?}", world.log);
    fs::create_dir(world.path("sub")).unwrap();
    world.append("sub/b.log", "one\n");
    world.append("a.log", "two\n");
    let mut lines = world.settle_with(2);
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(world.warnings().len(), 2);
}

#[test]
fn a_last_line_without_newline_comes_after_the_silence() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\ntwo");
    assert_eq!(world.settle_for(Duration::from_millis(150)), ["one", "two"]);
    world.restart();
    world.append("a.log", "\nthree\n");
    assert_eq!(world.settle(), ["three"]);
}

#[test]
fn without_following_it_ends_at_the_end_of_all_files() {
    let mut world = World::new(&["*.log"], serde_json::json!({ "follow": false }));
    world.append("a.log", "one\ntwo");
    world.append("b.log", "");
    world.append("c.log", "three\n");
    let mut lines = world.finish();
    lines.sort();
    assert_eq!(lines, ["one", "three", "two"]);
    world.restart();
    assert_eq!(world.finish(), [""; 0]);
    world.restart();
    world.append("a.log", "\nfour\n");
    assert_eq!(world.finish(), ["four"]);
}

#[test]
fn without_following_and_without_files_it_ends_and_says_so() {
    let mut world = World::new(&["*.log"], serde_json::json!({ "follow": false }));
    assert_eq!(world.finish(), [""; 0]);
    assert_eq!(world.warnings().len(), 1);
}

#[test]
fn starting_at_the_end_skips_what_is_there_the_first_time_only() {
    let mut world = World::new(&["*.log"], serde_json::json!({ "start_at": "end" }));
    world.append("a.log", "old\n".repeat(100));
    assert_eq!(world.settle(), [""; 0]);
    world.restart();
    world.append("a.log", "one\n");
    world.append("b.log", "two\n");
    let mut lines = world.settle();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
    world.restart();
    world.append("c.log", "three\n");
    assert_eq!(world.settle(), ["three"]);
}

#[test]
fn starting_at_the_end_of_very_many_files_survives_a_kill_half_way() {
    let mut world = World::new(&["*.log"], serde_json::json!({ "start_at": "end" }));
    let padding = "x".repeat(150);
    for number in 0..12_000 {
        world.append(&format!("{padding}{number}.log"), "old\n");
    }
    world.poll(Duration::ZERO);
    assert!((2..12_000).contains(&world.position.len()), "{}", world.position.len());
    world.restart();
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.position.len(), 12_001);
}

#[test]
fn starting_at_the_end_of_nothing_reads_what_comes_while_down() {
    let mut world = World::new(&["*.log"], serde_json::json!({ "start_at": "end" }));
    world.settle();
    world.restart();
    world.append("a.log", "one\n");
    assert_eq!(world.settle(), ["one"]);
}

#[test]
fn a_line_too_long_is_cut_and_that_is_said_once() {
    let mut world = World::new(&["a.log"], serde_json::json!({ "max_line_bytes": "10B" }));
    world.append("a.log", format!("{}\nshort\n{}\n", "x".repeat(25), "y".repeat(11)));
    let lengths: Vec<_> = world.settle().iter().map(String::len).collect();
    assert_eq!(lengths, [10, 10, 5, 5, 10, 1]);
    assert_eq!(world.warnings().len(), 1);
}

#[test]
fn bytes_that_are_not_utf_8_and_holes_pass() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", b"\xff\xfe\n");
    let file = OpenOptions::new().write(true).open(world.path("a.log")).unwrap();
    file.set_len(100).unwrap();
    world.append("a.log", "x\n");
    assert_eq!(world.settle(), ["\u{fffd}\u{fffd}".to_owned(), format!("{}x", "\0".repeat(97))]);
}

#[test]
fn one_busy_file_does_not_starve_the_others() {
    let mut world = World::following(&["*.log"]);
    world.append("a.log", "x".repeat(99).repeat(100_000));
    world.append("busy.log", format!("{}\n", "x".repeat(99)).repeat(100_000));
    world.append("quiet.log", "one\n");
    for _ in 0..20 {
        world.poll(Duration::ZERO);
    }
    assert!(world.lines.contains(&"one".to_owned()));
    assert!(world.lines.len() < 100_000);
}

#[test]
fn thousands_of_files_are_read_with_few_handles() {
    let mut world = World::following(&["*.log"]);
    for number in 0..3000 {
        world.append(&format!("{number:04}.log"), format!("{number}\n"));
    }
    assert_eq!(world.settle().len(), 3000);
    // Other tests have files open in the same process.
    let is_here = |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(world.folder.path()));
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter(is_here).count();
    assert!((200..=300).contains(&open), "{open} handles");
    world.append("0007.log", "again\n");
    assert_eq!(world.settle_for(Duration::from_millis(1500)), ["again"]);
    world.restart();
    assert_eq!(world.settle(), [""; 0]);
}

#[test]
fn a_position_that_is_not_understood_is_said_and_its_file_read_again() {
    let mut world = World::following(&["a.log"]);
    world.append("a.log", "one\n");
    world.position.insert(b"nonsense".to_vec(), b"9 from the future".to_vec());
    assert_eq!(world.settle(), ["one"]);
}

/// What a writer can do to its files between two polls.
#[derive(Debug, Clone)]
enum Act {
    Write { file: u8, lines: u8 },
    WriteHalf { file: u8 },
    Rotate { file: u8 },
    Poll { max_events: u32 },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let file = 0_u8..3;
    prop_oneof![
        4 => (file.clone(), 1_u8..20).prop_map(|(file, lines)| Act::Write { file, lines }),
        1 => file.clone().prop_map(|file| Act::WriteHalf { file }),
        1 => file.prop_map(|file| Act::Rotate { file }),
        3 => (1_u32..10).prop_map(|max_events| Act::Poll { max_events }),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Files are written in pieces, rotated inside the pattern, and the source is killed and started at its last position,
    /// in any order: each line comes once.
    #[test]
    fn every_line_once_whatever_the_writers_do(acts in prop::collection::vec(act(), 1..40)) {
        let mut world = World::following(&["*.log*"]);
        let mut written = Vec::new();
        let mut rotations = 0;
        for act in acts {
            match act {
                Act::Write { file, lines } => for _ in 0..lines {
                    let line = format!("{file} {}", written.len());
                    world.append(&format!("{file}.log"), format!("{line}\n"));
                    written.push(line);
                },
                Act::WriteHalf { file } => {
                    // The half before the newline and the one behind it are two writes.
                    let line = format!("{file} {}", written.len());
                    world.append(&format!("{file}.log"), &line);
                    world.poll(Duration::ZERO);
                    world.append(&format!("{file}.log"), "\n");
                    written.push(line);
                }
                Act::Rotate { file } => if world.path(&format!("{file}.log")).exists() {
                    rotations += 1;
                    world.rename(&format!("{file}.log"), &format!("{file}.log.{rotations}"));
                },
                Act::Poll { max_events } => {
                    world.max_events = max_events;
                    world.poll(Duration::from_millis(11));
                }
                Act::Restart => world.restart(),
            }
        }
        let mut found = world.settle_with(written.len());
        let number = |line: &String| line.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
        found.sort_by_key(number);
        prop_assert_eq!(found, written);
    }
}
