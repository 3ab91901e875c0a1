//! The tests of the tests: a log that is broken on purpose is caught by the very checks that the real one passes.

use std::sync::Arc;

use super::check::{Answer, check_damaged};
use super::crash::{Points, live};
use super::damage::settled_world;
use super::world::World;
use crate::options::Sabotage;

fn sabotaged(seed: u64, sabotage: Sabotage) -> World {
    let mut world = World::new(seed);
    world.options.iter_mut().for_each(|options| options.sabotage = sabotage);
    world
}

#[test]
fn a_log_that_skips_the_sync_is_caught_by_the_power_cuts() {
    let points = Arc::new(Points::default());
    let caught = (0..20).find_map(|seed| live(sabotaged(seed, Sabotage::SkipSync), &points).err());
    let caught = caught.expect("nobody noticed");
    assert!(caught.contains("was acknowledged") || caught.contains("never gets"), "{caught}");
    // The same worlds are fine without the sabotage.
    (0..3).for_each(|seed| live(sabotaged(seed, Sabotage::None), &points).unwrap());
}

/// Flips bits of the events in the last segment of a log that is otherwise in order.
fn flip_and_check(seed: u64, sabotage: Sabotage) -> Vec<Result<Answer, String>> {
    let mut world = settled_world(seed);
    let model = world.model.lock().clone();
    world.restart_on(world.disk.after_kill());
    let mut options = world.options.clone();
    options.iter_mut().for_each(|options| options.sabotage = sabotage);
    let path = world
        .disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/state/channels/a"))
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    let path = path.max().unwrap();
    let bytes = world.disk.bytes(&path);
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let flip = |at: usize| {
        let disk = world.disk.after_kill();
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        disk.set_bytes(&path, bytes);
        let check = || check_damaged(&disk, &options, &model);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).unwrap_or_else(|_| Err("it panics".into()))
    };
    (header..header + 120).map(flip).collect()
}

const SEEDS: std::ops::Range<u64> = 30..40;

#[test]
fn the_real_log_gives_everything_or_refuses() {
    for seed in SEEDS {
        let answers = flip_and_check(seed, Sabotage::None);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
}

#[test]
fn a_log_that_cuts_instead_of_refusing_is_caught_by_a_flipped_bit() {
    let caught = SEEDS.flat_map(|seed| flip_and_check(seed, Sabotage::CutInsteadOfRefuse)).find_map(Result::err);
    let caught = caught.expect("nobody noticed");
    assert!(caught.contains("was acknowledged") || caught.contains("never gets"), "{caught}");
}

#[test]
fn a_log_that_believes_lengths_and_checksums_is_caught_by_a_flipped_bit() {
    let caught = SEEDS.flat_map(|seed| flip_and_check(seed, Sabotage::BelieveLength)).find_map(Result::err);
    caught.expect("nobody noticed");
}
