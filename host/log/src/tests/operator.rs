//! What an operator does with a stopped folder, and what a running one does with readers and channels that come and go.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::check::{ALL, ROOT, check, open};
use super::damage::settled_world;
use super::model::Model;
use super::world::{World, channel_path};
use crate::simulator::SimDisk;
use crate::tools::{self, Place, ToolError};
use crate::{Start, Storage};

fn stopped() -> (World, Model, Arc<dyn Storage>) {
    let mut world = settled_world(41);
    world.restart_on(world.disk.after_kill());
    let model = world.model.lock().clone();
    let storage: Arc<dyn Storage> = Arc::new(world.disk.clone());
    (world, model, storage)
}

fn contents(disk: &SimDisk) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect()
}

#[test]
fn looking_changes_nothing_and_says_what_is_there() {
    let (world, model, storage) = stopped();
    let root = Path::new(ROOT);
    let before = contents(&world.disk);
    let inspected = tools::inspect(&storage, root).unwrap();
    let verified = tools::verify(&storage, root, "a").unwrap();
    let mut exported = Vec::new();
    let damage = tools::export(&storage, root, "a", Place::Oldest, &mut |frame| {
        exported.push(frame);
        ControlFlow::Continue(())
    });
    assert!(damage.unwrap().is_empty() && verified.damage.is_empty());
    let sought = tools::seek(&storage, root, "a", "r", Place::Oldest, true).unwrap();
    tools::remove_reader(&storage, root, "a", "r", true).unwrap();
    assert_eq!(contents(&world.disk), before);

    let channel = inspected.channels.iter().find(|channel| &*channel.name == "a").unwrap();
    assert_eq!(inspected.pipeline, "test");
    assert_eq!((sought.oldest, sought.next), (channel.oldest_sequence, channel.next_sequence));
    assert_eq!(verified.frames as usize, exported.len());
    let events: u64 = exported.iter().map(|frame| u64::from(frame.events)).sum();
    assert_eq!((verified.events, channel.next_sequence - channel.oldest_sequence), (events, events));
    let (first, last) = (exported.first().unwrap(), exported.last().unwrap());
    assert_eq!((channel.oldest_time_ms, channel.newest_time_ms), (Some(first.time_ms), Some(last.time_ms)));
    let (logs, recovered) = check(&world.disk, &world.options, &model).unwrap();
    assert_eq!(recovered.sources, inspected.sources);
    logs.forget();
}

#[test]
fn verify_finds_every_damaged_range_and_counts_it() {
    let (world, _, storage) = stopped();
    let whole = tools::verify(&storage, Path::new(ROOT), "a").unwrap();
    let mut paths = world.disk.files();
    paths.retain(|path| path.starts_with(channel_path("a")) && path.extension().is_some_and(|kind| kind == "log"));
    let path = &paths[paths.len() - 2];
    let mut bytes = world.disk.bytes(path);
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[header + 90] ^= 4;
    world.disk.set_bytes(path, bytes);
    let verified = tools::verify(&storage, Path::new(ROOT), "a").unwrap();
    let [damage] = &verified.damage[..] else { panic!("{:?}", verified.damage) };
    assert_eq!((&damage.path, damage.from), (path, header as u64));
    assert_eq!(verified.events + damage.lost_events.unwrap(), whole.events);
}

#[test]
fn a_reader_is_moved_to_a_sequence_a_time_the_oldest_or_the_tail_and_its_epoch_rises() {
    let (world, _, storage) = stopped();
    let root = Path::new(ROOT);
    let mut frames = Vec::new();
    tools::export(&storage, root, "a", Place::Oldest, &mut |frame| {
        frames.push(frame);
        ControlFlow::Continue(())
    })
    .unwrap();
    let (oldest, next) = (frames[0].first_sequence, frames.last().unwrap().next_sequence());
    let latest = frames.iter().map(|frame| frame.time_ms).max().unwrap();
    let of_latest = frames.iter().find(|frame| frame.time_ms == latest).unwrap().first_sequence;
    let places = [
        (Place::Oldest, oldest),
        (Place::Sequence(oldest + 1), oldest + 1),
        (Place::Time(latest), of_latest),
        (Place::Time(latest + 1), next),
        (Place::Tail, next),
        (Place::Oldest, oldest),
    ];
    let epoch = tools::seek(&storage, root, "a", "r", Place::Oldest, true).unwrap().epoch;
    for (at, (place, expected)) in places.into_iter().enumerate() {
        let sought = tools::seek(&storage, root, "a", "r", place, false).unwrap();
        assert_eq!((sought.to, sought.epoch), (expected, epoch + at as u64), "{place:?}");
        let disk = world.disk.after_kill();
        let (logs, _) = open(&disk, &world.options).unwrap();
        let mut reader = logs.log("a").unwrap().reader("r").unwrap();
        assert_eq!((reader.next_sequence(), reader.cursor().epoch()), (expected, sought.epoch));
        let first = reader.read(ALL).unwrap().into_iter().find(|frame| frame.events > 0);
        assert!(first.is_none_or(|frame| frame.next_sequence() > expected));
        drop(reader);
        logs.forget();
    }
    for (channel, reader, place) in
        [("a", "r", Place::Sequence(next + 1)), ("a", "x", Place::Tail), ("x", "r", Place::Tail)]
    {
        assert!(tools::seek(&storage, root, channel, reader, place, false).is_err());
    }
    let _lock = storage.lock(root).unwrap();
    let refused = tools::seek(&storage, root, "a", "r", Place::Tail, false).unwrap_err();
    assert!(matches!(refused, ToolError::Open(crate::OpenError::Locked { .. })), "{refused}");
}

#[test]
fn a_removed_reader_holds_nothing_and_starts_anew_where_its_options_say() {
    let (mut world, _, storage) = stopped();
    let root = Path::new(ROOT);
    tools::remove_reader(&storage, root, "a", "s", false).unwrap();
    assert!(tools::remove_reader(&storage, root, "a", "s", false).is_err());
    // Without it in the options it is gone; with it, it is new.
    let with: Vec<_> = world.options.clone();
    world.options[0].readers.retain(|(name, _)| **name != *"s");
    let (logs, _) = open(&world.disk.after_kill(), &world.options).unwrap();
    assert_eq!(logs.log("a").unwrap().readers().len(), 1);
    logs.forget();
    let mut anew = with;
    anew[0].readers.iter_mut().for_each(|reader| reader.1 = Start::Tail);
    let (logs, recovered) = open(&world.disk, &anew).unwrap();
    assert!(recovered.notes.iter().all(|note| note.is_normal()), "{:?}", recovered.notes);
    let log = logs.log("a").unwrap();
    let reader = log.readers().into_iter().find(|reader| &*reader.name == "s").unwrap();
    assert_eq!((reader.cursor, reader.epoch), (log.status().next_sequence, 1));
}

#[test]
fn passed_segments_are_retained_by_size_and_by_age() {
    let retained = |retain: crate::Retain, later_ms: u64| {
        let mut world = World::new(43);
        world.options.iter_mut().for_each(|options| (options.segment_bytes, options.retain) = (1500, retain));
        world.open().unwrap();
        for _ in 0..40 {
            world.put();
            world.write_all();
        }
        let readable = |world: &World| world.logs().unwrap().log("a").unwrap().readable_from(0);
        assert!(readable(&world) > 20);
        while world.logs().unwrap().log("a").unwrap().held().events > 0 {
            world.take().unwrap();
        }
        world.disk.set_clock(1_000_000 + later_ms);
        assert!(world.logs().unwrap().step_keeper());
        let log = world.logs().unwrap().log("a").unwrap();
        (log.status().segments, log.status().file_bytes)
    };
    use std::time::Duration;
    let (all, _) = retained(crate::Retain { age: Some(Duration::from_secs(60)), bytes: None }, 1000);
    assert!(all > 4);
    assert_eq!(retained(crate::Retain { age: Some(Duration::from_secs(60)), bytes: None }, 61_000).0, 1);
    assert_eq!(retained(crate::Retain::default(), 0).0, 1);
    let (some, bytes) = retained(crate::Retain { age: None, bytes: Some(4000) }, 0);
    assert!((2..all).contains(&some) && bytes <= 4000 + 2 * 1500, "{some} segments, {bytes} bytes");
    // With both, each is a limit.
    assert_eq!(retained(crate::Retain { age: Some(Duration::from_secs(60)), bytes: Some(4000) }, 61_000).0, 1);
}

#[test]
fn a_recovery_may_be_cut_at_each_of_its_steps_and_decides_the_same() {
    for seed in 50..62 {
        let mut world = settled_world(seed);
        for _ in 0..6 {
            world.put();
        }
        world.logs().unwrap().step_writer("a", false);
        let model = world.model.lock().clone();
        let left = world.disk.after_power_cut(seed);
        let (logs, decided) = check(&left.after_kill(), &world.options, &model).unwrap();
        logs.forget();
        let whole = left.after_kill();
        open(&whole, &world.options).unwrap().0.forget();
        for step in 0..=whole.operations() {
            let again = left.after_kill();
            again.stop_at(step);
            _ = open(&again, &world.options).map(|(logs, _)| logs.forget());
            for cut in 0..8 {
                let again = if cut == 0 { again.after_kill() } else { again.after_power_cut(cut) };
                let (logs, recovered) = check(&again, &world.options, &model)
                    .unwrap_or_else(|wrong| panic!("seed {seed}, cut at step {step}: {wrong}"));
                let puts = |recovered: &crate::Recovered| -> Vec<_> {
                    recovered.sources.iter().map(|source| (source.name.clone(), source.last_put)).collect()
                };
                assert_eq!(puts(&recovered), puts(&decided), "seed {seed}, cut at step {step}");
                logs.forget();
            }
        }
    }
}
