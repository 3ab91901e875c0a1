//! How fast the log is on a disk, beside what the disk gives to plain sequential writes with a sync for each.
//!
//! `cargo run --release -p wasmflow-log --example speed -- FOLDER [GIGABYTES]`; with a size it also measures a recovery of a
//! log that large, whose reader is at its start.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmflow_log::{ChannelOptions, Disk, Leg, LogSet, PositionChange, Put, ReadLimits, Start, Sync};

const EVENTS: u32 = 1000;
const EVENT_BYTES: usize = 100;
const TIME: Duration = Duration::from_secs(4);
/// Puts a source has under way.
const UNDER_WAY: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: speed FOLDER [GIGABYTES]")?;
    let folder = tempfile::tempdir_in(folder)?;
    let batch = EVENTS as usize * EVENT_BYTES;
    for puts in [1, UNDER_WAY] {
        let raw = raw(folder.path(), batch * puts)?;
        println!("raw: {:.0} MB/s in writes of {} KB, each synced", raw, batch * puts / 1000);
    }
    for sources in [1, 4] {
        let (rate, syncs) = log(&folder.path().join(format!("log{sources}")), sources)?;
        println!("log, {sources} sources: {rate:.0} MB/s, {syncs:.0} syncs/s");
    }
    if let Some(gigabytes) = arguments.next() {
        recovery(&folder.path().join("large"), gigabytes.parse()?)?;
    }
    Ok(())
}

fn raw(folder: &Path, bytes: usize) -> std::io::Result<f64> {
    let mut file = std::fs::File::create(folder.join("raw"))?;
    let data = vec![7; bytes];
    let (begun, mut written) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        file.write_all(&data)?;
        file.sync_data()?;
        written += bytes;
    }
    std::fs::remove_file(folder.join("raw"))?;
    Ok(written as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

fn put(source: &str, columns: &[Bytes]) -> Put {
    Put {
        source: source.into(),
        position: PositionChange::default(),
        time_ms: 1,
        legs: vec![Leg { channel: "events".into(), events: EVENTS, columns: columns.to_vec() }],
    }
}

fn columns() -> Vec<Bytes> {
    let ends: Vec<u8> = (1..=EVENTS).flat_map(|end| (end * EVENT_BYTES as u32).to_le_bytes()).collect();
    vec![vec![7; EVENTS as usize * EVENT_BYTES].into(), ends.into()]
}

fn log(folder: &Path, sources: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut options = ChannelOptions::new("events");
    options.readers.push(("sink".into(), Start::Oldest));
    let (logs, _) = LogSet::open(Arc::new(Disk), folder, "speed", vec![options])?;
    let log = logs.log("events").expect("it was just opened");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for source in 0..sources {
            let logs = &logs;
            scope.spawn(move || {
                let (tell, told) = mpsc::channel();
                let (columns, name) = (columns(), format!("source{source}"));
                for number in 0.. {
                    if begun.elapsed() > TIME {
                        break;
                    }
                    let tell = tell.clone();
                    logs.put(put(&name, &columns), Box::new(move |outcome| drop(tell.send(outcome))))
                        .expect("it is taken");
                    if number >= UNDER_WAY {
                        told.recv().expect("it is told").expect("it is durable");
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut reader = log.reader("sink").expect("it is there");
            while begun.elapsed() < TIME {
                let frames = reader.read(ReadLimits { events: 10_000, bytes: 8 << 20 }).expect("it is readable");
                match frames.last() {
                    Some(last) => reader.settle(last.next_sequence()),
                    None => std::thread::sleep(Duration::from_micros(200)),
                }
            }
        });
    });
    let (status, seconds) = (log.status(), begun.elapsed().as_secs_f64());
    logs.close()?;
    Ok((status.written_bytes as f64 / 1e6 / seconds, status.syncs as f64 / seconds))
}

fn recovery(folder: &Path, gigabytes: u64) -> Result<(), Box<dyn std::error::Error>> {
    let open = || {
        let mut options = ChannelOptions::new("events");
        options.readers.push(("sink".into(), Start::Oldest));
        options.sync = Sync::Os;
        LogSet::open(Arc::new(Disk), folder, "speed", vec![options])
    };
    let (logs, _) = open()?;
    let columns = columns();
    for _ in 0..gigabytes * 10_000 {
        let (tell, told) = mpsc::channel();
        logs.put(put("source", &columns), Box::new(move |outcome| drop(tell.send(outcome))))?;
        told.recv()??;
    }
    logs.close()?;
    let begun = Instant::now();
    let (logs, recovered) = open()?;
    let channel = &recovered.channels[0];
    println!("recovery: {:?} for {} segments, {} MB", begun.elapsed(), channel.segments, channel.bytes / 1_000_000);
    let mut reader = logs.log("events").expect("it was just opened").reader("sink")?;
    let (begun, mut bytes) = (Instant::now(), 0);
    loop {
        let frames = reader.read(ReadLimits { events: 100_000, bytes: 16 << 20 })?;
        let Some(last) = frames.last() else { break };
        bytes += frames.iter().flat_map(|frame| &frame.columns).map(Bytes::len).sum::<usize>();
        reader.settle(last.next_sequence());
    }
    println!("reading it: {:.0} MB/s", bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
    Ok(())
}
