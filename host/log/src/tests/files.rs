//! Files that are missing, renamed, doubled or somebody else's.

use std::path::{Path, PathBuf};

use super::check::{Answer, check_damaged, check_skipping, open};
use super::damage::{settle_a_little, settled_world};
use super::model::Model;
use super::world::{World, channel_path};
use crate::simulator::SimDisk;
use crate::{Note, OnCorruption, Storage};

/// A log with several segments that no reader has passed.
fn long_world() -> (World, Model) {
    let mut world = settled_world(21);
    for _ in 0..20 {
        world.put();
        world.write_all();
    }
    settle_a_little(&mut world);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    (world, model)
}

fn segments(disk: &SimDisk, channel: &str) -> Vec<PathBuf> {
    let folder = channel_path(channel);
    let mut logs: Vec<_> = disk.files().into_iter().filter(|path| path.parent() == Some(&folder)).collect();
    logs.retain(|path| path.extension().is_some_and(|kind| kind == "log"));
    logs.sort();
    logs
}

fn refused(answer: Answer) -> String {
    let Answer::Refused(text) = answer else { panic!("it was taken as whole") };
    text
}

fn rename(disk: &SimDisk, from: &Path, to: &Path) {
    let bytes = disk.bytes(from);
    disk.take_away(from);
    disk.set_bytes(to, bytes);
}

#[test]
fn a_segment_that_is_missing_renamed_doubled_or_foreign_is_refused_and_says_which() {
    let (world, model) = long_world();
    let own = segments(&world.disk, "a");
    assert!(own.len() >= 3, "{own:?}");
    let folder = channel_path("a");
    let answer = |change: &dyn Fn(&SimDisk)| {
        let disk = world.disk.after_kill();
        change(&disk);
        check_skipping(&disk.after_kill(), &world.options, &model).unwrap();
        refused(check_damaged(&disk, &world.options, &model).unwrap())
    };
    let text = answer(&|disk| disk.take_away(&own[1]));
    assert!(text.contains("are missing or damaged") && text.contains("on_corruption"), "{text}");
    let text = answer(&|disk| rename(disk, &own[1], &folder.join("0000000099-00000000000000000099.log")));
    assert!(text.contains("it was renamed"), "{text}");
    let text = answer(&|disk| disk.set_bytes(&folder.join("0000000099-00000000000000000099.log"), disk.bytes(&own[1])));
    assert!(text.contains("it was renamed"), "{text}");
    let theirs = segments(&world.disk, "b");
    let text = answer(&|disk| disk.set_bytes(&own[1], disk.bytes(&theirs[0])));
    assert!(text.contains("another channel"), "{text}");
    // The last one: the cursors have not passed it, but they know how much was durable.
    let text = answer(&|disk| disk.take_away(own.last().unwrap()));
    assert!(text.contains("damaged") || text.contains("stands at sequence"), "{text}");
    // A whole channel that was copied.
    let text = answer(&|disk| {
        disk.create_folder(&channel_path("copy")).unwrap();
        for path in disk.files().iter().filter(|path| path.parent() == Some(&folder)) {
            disk.set_bytes(&channel_path("copy").join(path.file_name().unwrap()), disk.bytes(path));
        }
    });
    assert!(text.contains("it is a copy of channel `a`"), "{text}");
}

#[test]
fn skipping_sets_the_damage_aside_counts_it_and_goes_on() {
    let (world, model) = long_world();
    let path = segments(&world.disk, "a")[1].clone();
    let mut bytes = world.disk.bytes(&path);
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[header + 20] ^= 1;
    world.disk.set_bytes(&path, bytes.clone());
    let options: Vec<_> = world
        .options
        .iter()
        .map(|options| crate::ChannelOptions { on_corruption: OnCorruption::Skip, ..options.clone() })
        .collect();
    check_skipping(&world.disk.after_kill(), &options, &model).unwrap();
    let (logs, _) = open(&world.disk, &options).unwrap();
    let log = logs.log("a").unwrap();
    let mut reader = log.reader("r").unwrap();
    while !reader.read(super::check::ALL).unwrap().is_empty() {}
    let notes = log.take_notes();
    let [Note::Skipped(damage)] = &notes[..] else { panic!("{notes:?}") };
    assert_eq!((&damage.path, damage.from), (&path, header as u64));
    assert_eq!(damage.lost_events, Some(log.status().skipped_events));
    let copy =
        channel_path("a").join("quarantine").join(format!("{}.{header}", path.file_name().unwrap().to_string_lossy()));
    assert_eq!(world.disk.bytes(&copy), bytes[damage.from as usize..damage.to as usize]);
}

fn cursor(reader: &str) -> PathBuf {
    channel_path("a").join(format!("{reader}.cursor"))
}

#[test]
fn a_cursor_with_one_bad_slot_falls_back_and_with_none_starts_at_the_oldest_event() {
    let (world, model) = long_world();
    let slots = world.disk.bytes(&cursor("r"));
    let newest = usize::from(slots[4096 + 32..4096 + 40] > slots[32..40]) * 4096;
    for (bad, lost) in [(vec![newest], false), (vec![4096 - newest], false), (vec![0, 4096], true)] {
        let disk = world.disk.after_kill();
        let mut bytes = slots.clone();
        bad.iter().for_each(|at| bytes[at + 40] ^= 1);
        disk.set_bytes(&cursor("r"), bytes);
        let (logs, recovered) = open(&disk.after_kill(), &world.options).unwrap();
        let noted =
            recovered.notes.iter().any(|note| matches!(note, Note::CursorLost { reader, .. } if **reader == *"r"));
        assert_eq!(noted, lost);
        logs.forget();
        super::check::check(&disk, &world.options, &model).unwrap().0.forget();
    }
    // Missing: the segments know that there was one.
    let disk = world.disk.after_kill();
    disk.take_away(&cursor("r"));
    let (logs, recovered) = open(&disk, &world.options).unwrap();
    assert!(recovered.notes.iter().any(|note| matches!(note, Note::CursorLost { .. })));
    let oldest = logs.log("a").unwrap().status().oldest_sequence;
    assert_eq!(logs.log("a").unwrap().reader("r").unwrap().next_sequence(), oldest);
}

#[test]
fn a_cursor_of_another_channel_is_refused_one_that_is_older_than_the_data_is_noted_and_one_ahead_is_refused() {
    let (world, model) = long_world();
    let disk = world.disk.after_kill();
    disk.set_bytes(&cursor("r"), disk.bytes(&channel_path("b").join("r.cursor")));
    let text = refused(check_damaged(&disk, &world.options, &model).unwrap());
    assert!(text.contains("another channel"), "{text}");

    let write = |disk: &SimDisk, sequence: u64, durable: Option<u64>| {
        let bytes = disk.bytes(&cursor("r"));
        let old = crate::format::cursor::Slot::parse(&bytes, "r")
            .or_else(|_| crate::format::cursor::Slot::parse(&bytes[4096..], "r"))
            .unwrap();
        let slot = crate::format::cursor::Slot {
            generation: 1000,
            sequence,
            durable_frames: durable.unwrap_or(old.durable_frames),
            ..old
        };
        let mut bytes = vec![0; 8192];
        let written = slot.write("r");
        bytes[..written.len()].copy_from_slice(&written);
        disk.set_bytes(&cursor("r"), bytes);
    };
    let disk = world.disk.after_kill();
    write(&disk, 100_000, None);
    let text = refused(check_damaged(&disk, &world.options, &model).unwrap());
    assert!(text.contains("stands at sequence 100000") && text.contains("wasmflow channel seek"), "{text}");
    let disk = world.disk.after_kill();
    write(&disk, 100_000, Some(1000));
    let text = refused(check_damaged(&disk, &world.options, &model).unwrap());
    assert!(text.contains("stands at sequence 100000"), "{text}");

    let disk = world.disk.after_kill();
    write(&disk, 0, None);
    let oldest = open(&disk.after_kill(), &world.options).unwrap().1.channels[0].oldest_sequence;
    assert!(oldest > 0);
    let (logs, recovered) = open(&disk, &world.options).unwrap();
    let expected = Note::CursorTooOld { channel: "a".into(), reader: "r".into(), lost_events: oldest };
    assert!(recovered.notes.contains(&expected), "{:?}", recovered.notes);
    assert_eq!(logs.log("a").unwrap().reader("r").unwrap().next_sequence(), oldest);
}

#[test]
fn a_channel_whose_segments_were_removed_is_not_begun_anew() {
    let (world, model) = long_world();
    for path in segments(&world.disk, "a") {
        world.disk.take_away(&path);
    }
    let text = refused(check_damaged(&world.disk, &world.options, &model).unwrap());
    assert!(text.contains("there are no segments"), "{text}");
}
