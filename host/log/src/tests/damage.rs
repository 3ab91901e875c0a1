//! Damage behind the log's back: any bit, any length, old bytes. Never a wrong event, and never silence.

use std::path::PathBuf;

use super::check::{Answer, check_damaged, check_skipping};
use super::model::Model;
use super::world::{World, channel_path};
use crate::ChannelOptions;
use crate::format::frame::{HEAD_BYTES, Head, Parsed, Seat};
use crate::simulator::{Operation, SimDisk};

/// A log of a few segments; everything is acknowledged, and the cursors say so.
pub fn settled_world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.options.iter_mut().for_each(|options| options.segment_bytes = 1500);
    world.open().unwrap();
    for _ in 0..6 {
        world.put();
        world.write_all();
    }
    for _ in 0..40 {
        world.take().unwrap();
    }
    let logs = world.logs().unwrap();
    assert!(logs.step_keeper());
    for _ in 0..8 {
        world.put();
        world.write_all();
    }
    settle_a_little(&mut world);
    world
}

/// Puts, and settles without putting more, until the cursors on disk carry the last word on what is durable in both channels.
pub fn settle_a_little(world: &mut World) {
    let log = |world: &World, channel| world.logs().unwrap().log(channel).unwrap();
    while ["a", "b"].iter().any(|channel| log(world, channel).held().events == 0) {
        world.put();
        world.write_all();
    }
    let stands = |world: &World| -> Vec<Vec<u64>> {
        let cursors = |channel| log(world, channel).readers().iter().map(|reader| reader.cursor).collect();
        ["a", "b"].into_iter().map(cursors).collect()
    };
    let before = stands(world);
    while stands(world).iter().zip(&before).any(|(now, before)| now == before) {
        world.take().unwrap();
    }
    assert!(world.logs().unwrap().step_keeper());
}

fn last_segment(disk: &SimDisk, channel: &str) -> PathBuf {
    let folder = channel_path(channel);
    let logs = disk.files().into_iter().filter(|path| path.parent() == Some(&folder));
    logs.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap()
}

fn changed(disk: &SimDisk, path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let disk = disk.after_kill();
    let mut bytes = disk.bytes(path);
    change(&mut bytes);
    disk.set_bytes(path, bytes);
    disk
}

fn must(disk: &SimDisk, options: &[ChannelOptions], model: &Model, what: &str) -> Answer {
    let answer = check_damaged(&disk.after_kill(), options, model).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    check_skipping(disk, options, model).unwrap_or_else(|wrong| panic!("{what}, skipping: {wrong}"));
    answer
}

#[test]
fn a_bit_flipped_anywhere_never_gives_a_wrong_event_and_never_goes_unnoticed() {
    let mut world = settled_world(1);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    let (mut flips, mut refused) = (0, 0);
    for path in world.disk.files() {
        for bit in 0..world.disk.bytes(&path).len() * 8 {
            // All bits of the heads and headers; of the rest every seventh.
            if bit % 7 != 0 && bit > 2400 {
                continue;
            }
            let disk = changed(&world.disk, &path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let answer = must(&disk, &world.options, &model, &format!("bit {bit} of {}", path.display()));
            flips += 1;
            refused += usize::from(answer != Answer::Whole);
        }
    }
    println!("{flips} bits flipped, {refused} of them refused");
    assert!(flips > 10_000 && refused > flips / 4);
}

#[test]
fn a_group_that_was_not_acknowledged_may_be_torn_anywhere_and_is_cut_without_a_word() {
    let mut world = settled_world(2);
    let (tell, told) = std::sync::mpsc::channel();
    // The moment before the sync: all is written, nothing is acknowledged.
    let mut writes = 0;
    world.disk.watch(move |disk| {
        writes += 1;
        _ = tell.send((writes, disk.after_kill()));
    });
    let before = world.disk.bytes(&last_segment(&world.disk, "a"));
    for _ in 0..3 {
        world.put();
    }
    let model = world.model.lock().clone();
    world.logs().unwrap().step_writer("a", false);
    world.disk.unwatch();
    let path = last_segment(&world.disk, "a");
    let torn = told.try_iter().map(|(_, disk)| disk).filter(|disk| disk.files().contains(&path)).last().unwrap();
    let bytes = torn.bytes(&path);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let from =
        bytes.iter().zip(&before).position(|(now, before)| now != before).unwrap_or(bytes.len().min(before.len()));
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let from = from.max(header);
    assert!(from + 200 < end, "{from} {end}");
    let acked = check_damaged(&torn.after_kill(), &world.options, &model).unwrap();
    assert_eq!(acked, Answer::Whole);
    for cut in from..=end {
        let disk = changed(&torn, &path, |bytes| bytes.truncate(cut));
        assert_eq!(must(&disk, &world.options, &model, &format!("cut at {cut}")), Answer::Whole);
        let disk = changed(&torn, &path, |bytes| bytes[cut..].fill(0));
        assert_eq!(must(&disk, &world.options, &model, &format!("zeros from {cut}")), Answer::Whole);
        // A hole, with good frames behind it.
        let disk = changed(&torn, &path, |bytes| {
            let to = (cut + 64).min(bytes.len());
            bytes[cut..to].fill(0);
        });
        assert_eq!(must(&disk, &world.options, &model, &format!("a hole at {cut}")), Answer::Whole);
    }
}

#[test]
fn a_file_cut_at_any_length_is_refused_or_whole() {
    let mut world = settled_world(3);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    for path in world.disk.files() {
        for length in 0..world.disk.bytes(&path).len() {
            let disk = changed(&world.disk, &path, |bytes| bytes.truncate(length));
            must(&disk, &world.options, &model, &format!("{} cut at {length}", path.display()));
        }
    }
}

/// Offsets and heads of the frames of a segment.
fn frames(bytes: &[u8], seat: Seat) -> Vec<(usize, Head)> {
    let mut at = (u32::from_le_bytes(bytes[12..16].try_into().unwrap())) as usize;
    let mut frames = Vec::new();
    while let Parsed::Head(head) =
        Head::parse(&bytes[at..], Seat { offset: at as u64, ..seat }, (bytes.len() - at) as u64)
    {
        frames.push((at, head));
        at += head.length as usize;
    }
    frames
}

fn seat(bytes: &[u8]) -> Seat {
    let number = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    Seat { id: crate::ChannelId(bytes[24..40].try_into().unwrap()), segment: number, offset: 0 }
}

#[test]
fn lengths_sequences_and_numbers_that_cannot_be_are_damage() {
    let mut world = settled_world(4);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    let path = last_segment(&world.disk, "a");
    let bytes = world.disk.bytes(&path);
    let seat = seat(&bytes);
    let frames = frames(&bytes, seat);
    assert!(!frames.is_empty());
    for (at, head) in frames {
        let mut lengths: Vec<u32> =
            vec![1, 7, 8, 72, 80, head.length - 8, head.length + 8, u32::MAX, 1 << 31, (1 << 31) - 8];
        lengths.extend((0..32).map(|bit| head.length ^ (1 << bit)));
        // With the old checksum, and with one that fits.
        for length in lengths {
            let disk = changed(&world.disk, &path, |bytes| bytes[at..at + 4].copy_from_slice(&length.to_le_bytes()));
            let answer = must(&disk, &world.options, &model, &format!("length {length} at {at}"));
            assert_ne!(answer, Answer::Whole, "length {length} at {at}");
        }
        let others = [
            Head { first_sequence: head.first_sequence + 1, ..head },
            Head { first_sequence: head.first_sequence.wrapping_sub(1), ..head },
            Head { first_sequence: u64::MAX, ..head },
            Head { frame: head.frame + 1, ..head },
            Head { frame: head.frame.wrapping_sub(1), ..head },
            Head { length: head.length + 8, ..head },
            Head { meta_len: u32::MAX, ..head },
            Head { payload_len: u32::MAX, ..head },
        ];
        for other in others {
            let disk = changed(&world.disk, &path, |bytes| {
                let meta = bytes[at + HEAD_BYTES as usize..at + head.payload_at() as usize].to_vec();
                let mut written = Vec::new();
                other.write(Seat { offset: at as u64, ..seat }, &meta, &mut written);
                bytes[at..at + written.len()].copy_from_slice(&written);
            });
            let answer = must(&disk, &world.options, &model, &format!("{other:?} at {at}"));
            assert_ne!(answer, Answer::Whole, "{other:?} at {at}");
        }
    }
}

#[test]
fn old_bytes_behind_the_end_are_not_taken_for_frames() {
    let mut world = settled_world(5);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    let path = last_segment(&world.disk, "a");
    let bytes = world.disk.bytes(&path);
    let last = *frames(&bytes, seat(&bytes)).last().unwrap();
    let end = last.0 + last.1.length as usize;
    for donor in world.disk.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log")) {
        let donor_bytes = world.disk.bytes(&donor);
        for (at, head) in frames(&donor_bytes, seat(&donor_bytes)) {
            let old = &donor_bytes[at..at + head.length as usize];
            let disk = changed(&world.disk, &path, |bytes| {
                bytes.resize(bytes.len().max(end + old.len()), 0);
                bytes[end..end + old.len()].copy_from_slice(old);
            });
            // Nobody was ever told of what stands there: it is cut, and the log is whole.
            assert_eq!(
                must(&disk, &world.options, &model, &format!("old frame from {}", donor.display())),
                Answer::Whole
            );
        }
    }
}

#[test]
fn a_read_that_fails_is_tried_again_and_then_told() {
    let mut world = settled_world(6);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    let fault = |times, errno| crate::simulator::Fault { operation: Operation::Read, skip: 0, times, errno };
    let options: Vec<_> = world.options.iter().map(|o| ChannelOptions { cache_bytes: 0, ..o.clone() }).collect();
    for skip in 0..40 {
        for errno in [Some(crate::simulator::Fault::EIO), Some(crate::simulator::Fault::EINTR), None] {
            let disk = world.disk.after_kill();
            disk.fail(crate::simulator::Fault { skip, ..fault(1, errno) });
            assert_eq!(check_damaged(&disk, &options, &model), Ok(Answer::Whole), "read {skip} with {errno:?}");
        }
        let disk = world.disk.after_kill();
        disk.fail(crate::simulator::Fault { skip, ..fault(u64::MAX, Some(crate::simulator::Fault::EIO)) });
        // It says so, wherever that is; that many reads there may not be.
        match check_damaged(&disk, &options, &model) {
            Ok(answer) => assert!(skip > 10 || answer != Answer::Whole, "read {skip}"),
            Err(wrong) => assert!(wrong.contains("does not open") || wrong.contains("cannot read"), "{wrong}"),
        }
    }
}

#[test]
fn rot_in_the_last_frame_is_refused_once_a_cursor_vouches_for_it_though_no_reader_moved() {
    let mut world = settled_world(7);
    let before = world.disk.bytes(&last_segment(&world.disk, "a"));
    world.put();
    world.put();
    world.write_all();
    assert!(world.logs().unwrap().step_keeper());
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    let path = last_segment(&world.disk, "a");
    let bytes = world.disk.bytes(&path);
    let last = frames(&bytes, seat(&bytes)).last().unwrap().0;
    assert!(bytes.len() != before.len() || bytes != before);
    let disk = changed(&world.disk, &path, |bytes| bytes[last + 90] ^= 1);
    assert_ne!(must(&disk, &world.options, &model, "the last frame"), Answer::Whole);
}
