//! Disks that are full or failing: back-pressure or poison, and never a loss.

use super::check::check;
use super::world::World;
use crate::simulator::{Fault, Operation, Random};

/// Runs a world in which the given fault happens while it runs, restarts it on what is left, and compares.
fn with_fault(seed: u64, fault: Fault, power_cut: bool) -> Result<(), String> {
    let mut world = World::new(seed);
    world.open()?;
    for _ in 0..10 {
        world.step()?;
    }
    world.disk.fail(fault);
    for _ in 0..30 {
        world.step()?;
    }
    world.disk.heal();
    for _ in 0..10 {
        world.step()?;
    }
    let seed = world.random.number();
    let left = if power_cut { world.disk.after_power_cut(seed) } else { world.disk.after_kill() };
    world.restart_on(left);
    let model = world.model.lock().clone();
    let (logs, _) = check(&world.disk.after_kill(), &world.options, &model)?;
    logs.forget();
    // And it goes on.
    world.open()?;
    for _ in 0..20 {
        world.step()?;
    }
    world.write_all();
    world.close()?;
    let model = world.model.lock().clone();
    let (logs, _) = check(&world.disk, &world.options, &model)?;
    logs.forget();
    Ok(())
}

#[test]
fn any_operation_may_fail_once_or_for_ever_and_nothing_acknowledged_is_lost() {
    let mut random = Random::new(super::crash::first_seed());
    let rounds = super::crash::crash_points() / 400_000 + 1;
    for operation in Operation::ALL {
        for times in [1, 3, u64::MAX] {
            for errno in [Some(Fault::EIO), Some(Fault::ENOSPC), Some(Fault::EINTR), None] {
                for skip in 0..6 * rounds {
                    let seed = random.number();
                    // A call that is interrupted, or cut short, for ever, is no disk.
                    let times = if errno == Some(Fault::EINTR) || errno.is_none() { times.min(3) } else { times };
                    let fault = Fault { operation, skip, times, errno };
                    for power_cut in [false, true] {
                        with_fault(seed, fault, power_cut)
                            .unwrap_or_else(|wrong| panic!("seed {seed}, {fault:?}, power cut {power_cut}: {wrong}"));
                    }
                }
            }
        }
    }
}

#[test]
fn a_sync_that_failed_is_not_believed_when_the_next_one_says_yes() {
    let mut world = World::new(3);
    world.open().unwrap();
    world.disk.fail(Fault { operation: Operation::Sync, skip: 0, times: 1, errno: Some(Fault::EIO) });
    for _ in 0..5 {
        world.put();
    }
    world.write_all();
    world.put();
    world.write_all();
    let model = world.model.lock();
    let failed: Vec<_> = model.puts.iter().filter(|put| put.failed).collect();
    assert!(!failed.is_empty());
    // After the failure nothing is acknowledged in that channel, however well the disk does.
    let channel = ["a", "b"].into_iter().find(|channel| {
        world
            .logs()
            .unwrap()
            .log(channel)
            .unwrap()
            .status()
            .poisoned
            .is_some_and(|poisoned| *poisoned.channel == **channel)
    });
    let channel = channel.expect("one is poisoned");
    assert!(model.puts.iter().filter(|put| put.acked).all(|put| put.legs.iter().all(|(leg, _)| *leg != channel)));
}

#[test]
fn a_full_disk_is_back_pressure_and_the_puts_go_on_by_themselves_when_there_is_room() {
    let mut world = World::new(11);
    world.options.iter_mut().for_each(|options| options.preallocate = true);
    world.open().unwrap();
    for _ in 0..10 {
        world.put();
    }
    world.write_all();
    world.disk.set_capacity(world.disk.used() + 100);
    for _ in 0..20 {
        world.put();
    }
    world.write_all();
    let waiting = |world: &World| {
        ["a", "b"].iter().any(|name| world.logs().unwrap().log(name).unwrap().status().waiting.is_some())
    };
    assert!(waiting(&world));
    let acked = |world: &World| world.model.lock().puts.iter().filter(|put| put.acked).count();
    assert!(acked(&world) < 30 && world.model.lock().puts.iter().all(|put| !put.failed));
    // A crash on the full disk loses nothing either.
    let model = world.model.lock().clone();
    let left = world.disk.after_power_cut(5);
    left.set_capacity(u64::MAX);
    check(&left, &world.options, &model).unwrap().0.forget();
    world.disk.set_capacity(u64::MAX);
    world.write_all();
    assert!(!waiting(&world));
    assert_eq!(acked(&world), 30);
}

#[test]
fn a_full_disk_makes_cursors_lag_and_nothing_else() {
    let mut world = super::damage::settled_world(12);
    world.disk.fail(Fault { operation: Operation::Write, skip: 0, times: u64::MAX, errno: Some(Fault::ENOSPC) });
    for _ in 0..20 {
        world.take().unwrap();
    }
    assert!(world.logs().unwrap().step_keeper());
    world.disk.heal();
    assert!(world.logs().unwrap().step_keeper());
    world.close().unwrap();
    let settled = world.model.lock().readers[&("a", "r")].settled;
    let (logs, _) = super::check::open(&world.disk, &world.options).unwrap();
    assert_eq!(logs.log("a").unwrap().reader("r").unwrap().next_sequence(), settled);
}

#[test]
fn a_folder_that_cannot_be_written_or_is_full_is_refused_and_nothing_is_changed() {
    let mut world = super::damage::settled_world(13);
    world.close().unwrap();
    let model = world.model.lock().clone();
    let before: Vec<_> = world.disk.files().iter().map(|path| (path.clone(), world.disk.bytes(path))).collect();
    for (operation, errno) in
        [(Operation::Create, 30), (Operation::Create, Fault::ENOSPC), (Operation::Write, Fault::ENOSPC)]
    {
        let disk = world.disk.after_kill();
        disk.fail(Fault { operation, skip: 0, times: u64::MAX, errno: Some(errno) });
        let error = super::check::open(&disk, &world.options).map(|(logs, _)| logs.forget()).unwrap_err();
        assert!(error.contains("cannot use"), "{error}");
        for (path, bytes) in &before {
            assert_eq!(disk.bytes(path), *bytes, "{}", path.display());
        }
        disk.heal();
        check(&disk, &world.options, &model).unwrap().0.forget();
    }
}
