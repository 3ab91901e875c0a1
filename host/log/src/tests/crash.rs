//! A power cut at every operation, many times over: nothing acknowledged is lost, nothing is invented.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::check::{Verdict, check};
use super::world::World;
use crate::format::header::Header;
use crate::simulator::{Random, SimDisk};
use crate::{Note, Recovered};

/// In some 30 seconds of two cores.
const CRASH_POINTS: u64 = 1_100_000;
const NIGHTLY_CRASH_POINTS: u64 = 100_000_000;

/// What the power cuts have met: a test that met none of it would prove nothing.
#[derive(Debug, Default)]
pub struct Points {
    tried: AtomicU64,
    cut_tails: AtomicU64,
    void_puts: AtomicU64,
    segments: AtomicU64,
    /// Looked for at some points only.
    recycled: AtomicU64,
}

impl Points {
    fn count(&self, recovered: &Recovered) {
        let of = |wanted: fn(&Note) -> bool| recovered.notes.iter().filter(|note| wanted(note)).count() as u64;
        self.cut_tails.fetch_add(of(|note| matches!(note, Note::TailCut { .. })), Ordering::Relaxed);
        self.void_puts.fetch_add(of(|note| matches!(note, Note::Voided { .. })), Ordering::Relaxed);
        let segments = recovered.channels.iter().map(|channel| channel.segments as u64);
        self.segments.fetch_max(segments.max().unwrap_or(0), Ordering::Relaxed);
    }
}

pub fn crash_points() -> u64 {
    let asked = std::env::var("WASMFLOW_LOG_CRASH_POINTS").ok().and_then(|asked| asked.parse().ok());
    let soak = std::env::var_os("WASMFLOW_SOAK").is_some();
    let usual = if cfg!(debug_assertions) { CRASH_POINTS / 50 } else { CRASH_POINTS };
    asked.unwrap_or(if soak { NIGHTLY_CRASH_POINTS } else { usual })
}

pub fn first_seed() -> u64 {
    let asked = std::env::var("WASMFLOW_LOG_SEED").ok().and_then(|asked| asked.parse().ok());
    asked.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64))
}

/// Lives one world, with a power cut tried before every operation. Counts those.
pub fn live(mut world: World, points: &Arc<Points>) -> Verdict<()> {
    let failed = Arc::new(parking_lot::Mutex::new(None));
    for _life in 0..4 {
        world.choose_channels();
        watch(&world, points, &failed);
        world.open()?;
        for _ in 0..40 {
            world.step()?;
            failed.lock().take().map_or(Ok(()), Err)?;
        }
        match world.random.below(3) {
            0 => world.close()?,
            1 => world.restart_on(world.disk.after_kill()),
            _ => {
                let seed = world.random.number();
                world.restart_on(world.disk.after_power_cut(seed));
            }
        }
        world.disk.unwatch();
        failed.lock().take().map_or(Ok(()), Err)?;
    }
    Ok(())
}

fn watch(world: &World, points: &Arc<Points>, failed: &Arc<parking_lot::Mutex<Option<String>>>) {
    let (model, options, points, failed) = (world.model.clone(), world.active(), points.clone(), failed.clone());
    let mut random = world.random.clone();
    world.disk.watch(move |disk| {
        let seed = random.number();
        let result = try_one(disk, seed, &options, &model.lock(), &points);
        if let Err(problem) = result {
            failed.lock().get_or_insert(problem);
        }
    });
}

/// One power cut and what follows: a recovery, now and then one that is cut itself, and sometimes some more life.
fn try_one(
    disk: &SimDisk,
    seed: u64,
    options: &[crate::ChannelOptions],
    model: &super::model::Model,
    points: &Points,
) -> Verdict<()> {
    let mut random = Random::new(seed);
    let mut left = disk.after_power_cut(random.number());
    if random.one_in(4) {
        // Recovery is cut as well, anywhere.
        left.stop_at(random.below(60));
        _ = super::check::open(&left, options).map(|(logs, _)| logs.forget());
        left = left.after_power_cut(random.number());
        points.tried.fetch_add(1, Ordering::Relaxed);
    }
    points.tried.fetch_add(1, Ordering::Relaxed);
    if random.one_in(64) {
        points.recycled.fetch_add(u64::from(writes_over_old_events(&left)), Ordering::Relaxed);
    }
    let (logs, first) = check(&left, options, model)?;
    points.count(&first);
    logs.forget();
    if random.one_in(8) {
        // What was decided stays decided.
        let again = left.after_power_cut(random.number());
        points.tried.fetch_add(1, Ordering::Relaxed);
        let (logs, second) = check(&again, options, model)?;
        logs.forget();
        if first.sources.iter().map(|source| source.last_put).ne(second.sources.iter().map(|source| source.last_put)) {
            return Err(format!("recovery decided {:?} first, then {:?}", first.sources, second.sources));
        }
    }
    Ok(())
}

/// Whether the newest segment of a channel is in a file that was another one before.
fn writes_over_old_events(disk: &SimDisk) -> bool {
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "log");
    let mut newest = std::collections::BTreeMap::new();
    for path in disk.files().into_iter().filter(is_segment) {
        newest.insert(path.parent().map(std::path::Path::to_owned), path);
    }
    newest.into_values().any(|path| {
        let bytes = disk.bytes(&path);
        let length = bytes.len() as u64;
        Header::parse(&bytes.into(), length).is_ok_and(|header| header.recycled)
    })
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_invented_by_a_power_cut_at_any_operation() {
    let wanted = crash_points();
    let first = first_seed();
    let points = Arc::new(Points::default());
    let next = AtomicU64::new(first);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while points.tried.load(Ordering::Relaxed) < wanted {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(problem) = live(World::new(seed), &points) {
                        panic!("with WASMFLOW_LOG_SEED={seed}: {problem}");
                    }
                }
            });
        }
    });
    let (tried, seeds) = (points.tried.load(Ordering::Relaxed), next.load(Ordering::Relaxed) - first);
    let rate = tried as f64 / begun.elapsed().as_secs_f64();
    println!("{tried} crash points in {seeds} worlds from seed {first}: {rate:.0} a second; {points:?}");
    let met = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert!(met(&points.cut_tails) > tried / 1000 && met(&points.void_puts) > tried / 100 && met(&points.segments) > 4);
    assert!(met(&points.recycled) > tried / 64 / 20, "too few of them wrote over old events");
}
