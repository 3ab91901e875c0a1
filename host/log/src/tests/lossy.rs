//! `sync = "interval"` and `"os"`: a killed process loses nothing, a power cut loses the end and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{ALL, check, open};
use super::model::{Model, READERS, columns};
use super::world::World;
use crate::simulator::SimDisk;
use crate::{ChannelOptions, Sync};

fn lossy_world(seed: u64) -> World {
    let mut world = World::new(seed);
    let sync = if seed.is_multiple_of(2) { Sync::Os } else { Sync::Interval(Duration::from_secs(1)) };
    world.options.iter_mut().for_each(|options| options.sync = sync);
    world
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        let mut world = lossy_world(seed);
        for _life in 0..3 {
            world.open().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
            for _ in 0..50 {
                world.step().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
            }
            let model = world.model.lock().clone();
            let checked = check(&world.disk.after_kill(), &world.options, &model);
            checked.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}")).0.forget();
            world.restart_on(world.disk.after_kill());
        }
    }
}

/// What is left in each channel is right, in order, and without holes but at the end of a life; no sequence is used twice.
fn check_prefix(
    disk: &SimDisk,
    options: &[ChannelOptions],
    model: &Model,
    names: &mut BTreeMap<(&'static str, u64), usize>,
) -> Result<(), String> {
    let (logs, _) = open(disk, options)?;
    for (channel, reader) in READERS {
        let mut reading = logs.log(channel).unwrap().reader(reader).map_err(|error| error.to_string())?;
        let mut before = None;
        for frame in reading.read(ALL).map_err(|error| error.to_string())? {
            let at: usize = std::str::from_utf8(&frame.columns[0]).unwrap().parse().unwrap();
            let put = &model.puts[at];
            if frame.columns != columns(at) || (put.source, put.number) != (&*frame.source, frame.put) {
                return Err(format!("{channel}/{reader} gets a frame that nobody put: {frame:?}"));
            }
            if before.is_some_and(|before| before >= at) {
                return Err(format!("{channel}/{reader} gets put number {at} out of turn"));
            }
            before = Some(at);
            if frame.events > 0 && *names.entry((channel, frame.first_sequence)).or_insert(at) != at {
                return Err(format!("sequence {} of {channel} is given to two events", frame.first_sequence));
            }
        }
    }
    logs.forget();
    Ok(())
}

#[test]
fn a_power_cut_takes_the_end_gives_no_sequence_twice_and_never_stops_the_start() {
    for seed in 0..400 {
        let mut world = lossy_world(seed);
        let mut names = BTreeMap::new();
        for _life in 0..3 {
            let (logs, _) = open(&world.disk, &world.options).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
            logs.forget();
            world.open_lossy().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
            for _ in 0..50 {
                world.step_unchecked();
            }
            // What readers may have seen before the cut keeps its names.
            let model = world.model.lock().clone();
            let seen = check_prefix(&world.disk.after_kill(), &world.options, &model, &mut names);
            seen.unwrap_or_else(|wrong| panic!("seed {seed}, before the cut: {wrong}"));
            let cut = world.random.number();
            let left = world.disk.after_power_cut(cut);
            let kept = check_prefix(&left.after_kill(), &world.options, &model, &mut names);
            kept.unwrap_or_else(|wrong| panic!("seed {seed}, after the cut: {wrong}"));
            world.restart_on(left);
        }
    }
}
