//! A wall clock that jumps: nothing is lost by it, and nothing stands still.

use std::time::Duration;

use super::check::check;
use super::world::World;

const YEAR_MS: u64 = 365 * 24 * 3_600_000;

/// A world of short segments that keeps what was passed for a minute.
fn world() -> World {
    let mut world = World::new(71);
    let retain = crate::Retain { age: Some(Duration::from_secs(60)), bytes: None };
    world.options.iter_mut().for_each(|options| (options.segment_bytes, options.retain) = (1500, retain));
    world.disk.set_clock(10 * YEAR_MS);
    world.open().unwrap();
    put_and_take(&mut world);
    world
}

fn put_and_take(world: &mut World) {
    for _ in 0..20 {
        world.put();
        world.write_all();
        world.take().unwrap();
    }
}

/// What is left agrees with the model, now and after a start.
fn assert_whole(mut world: World) {
    world.close().unwrap();
    let model = world.model.lock().clone();
    check(&world.disk, &world.options, &model).unwrap().0.forget();
}

#[test]
fn a_clock_that_jumps_ahead_lets_go_only_of_what_every_reader_has_passed() {
    let mut world = world();
    world.disk.set_clock(30 * YEAR_MS);
    assert!(world.logs().unwrap().step_keeper());
    put_and_take(&mut world);
    assert!(world.logs().unwrap().step_keeper());
    assert_whole(world);
}

#[test]
fn a_clock_that_jumps_back_keeps_longer_and_holds_up_nothing() {
    let mut world = world();
    let segments = |world: &World| world.logs().unwrap().log("a").unwrap().status().segments;
    let before = segments(&world);
    world.disk.set_clock(0);
    assert!(world.logs().unwrap().step_keeper());
    assert_eq!(segments(&world), before, "an age is never less than nothing");
    put_and_take(&mut world);
    // Cursors go on being written: their age is how far the clock has moved, either way.
    let settled = world.model.lock().readers[&("a", "r")].settled;
    world.disk.set_clock(2000);
    assert!(world.logs().unwrap().step_keeper());
    let left = world.disk.after_power_cut(7);
    let (logs, _) = super::check::open(&left, &world.options).unwrap();
    assert_eq!(logs.log("a").unwrap().reader("r").unwrap().next_sequence(), settled);
    logs.forget();
    assert_whole(world);
}
