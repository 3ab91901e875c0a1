//! Runs of the plugin and of its references, in turn.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use wasmflow::event::{Batch, PackedBuilder};
use wasmflow::plugin::PluginKind;

use super::subject::{Passed, Silence, Subject};

/// How long a run should take, so that the clocks' grain does not count.
const RUN: Duration = Duration::from_secs(1);
/// How long the trial may take that tells how many events that is.
const TRIAL: Duration = Duration::from_millis(200);
/// The kernel counts processor time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The batch that goes in again and again.
pub struct Load {
    pub batch: Batch,
    /// Told in the report.
    pub bodies: String,
}

impl Load {
    /// # Errors
    /// When the input has no lines.
    pub fn new(input: Option<&Path>, bytes: usize, events: usize) -> anyhow::Result<Self> {
        let (bodies, told) = match input {
            None => (vec![(b'!'..=b'~').cycle().take(bytes).collect()], format!("{bytes} bytes each")),
            Some(path) => (lines(path)?, format!("the lines of {}", path.display())),
        };
        let mut packed = PackedBuilder::default();
        bodies.iter().cycle().take(events).for_each(|body| packed.push(body));
        Ok(Self { batch: Batch::new(packed.finish()), bodies: told })
    }

    pub fn count(&self) -> u64 {
        self.batch.count() as u64
    }

    /// Bytes of the bodies of one batch.
    pub fn bytes(&self) -> u64 {
        self.batch.bodies().data().len() as u64
    }
}

fn lines(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect())
}

/// What a run came to.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub passed: Passed,
    pub wall: Duration,
    /// User and system time of this process, in whole ticks.
    pub cpu: Duration,
}

/// All runs.
pub struct Measured {
    pub plugin: Vec<Run>,
    /// Events a second of a native function in the plugin's place that does nothing, and of one that copies the bodies.
    pub nothing: Vec<f64>,
    pub copy: Vec<f64>,
}

/// # Errors
/// When the plugin fails, or brings nothing.
pub async fn measure(subject: &Subject, load: &Load, events: Option<u64>, runs: u32) -> anyhow::Result<Measured> {
    let _silence = match subject.plugin.kind() {
        PluginKind::Sink => Some(Silence::begin().context("no standard output")?),
        PluginKind::Source | PluginKind::Interceptor => None,
    };
    let events = match events {
        Some(events) => events,
        None => enough(subject, load).await?,
    };
    let mut measured = Measured { plugin: Vec::new(), nothing: Vec::new(), copy: Vec::new() };
    for _ in 0..runs {
        let run = run(subject, load, events).await?;
        ensure!(run.passed.events > 0, "it brought nothing");
        measured.plugin.push(run);
        measured.nothing.push(native(load, run.passed, |batch| {
            black_box(batch.clone());
        }));
        measured.copy.push(native(load, run.passed, |batch| {
            black_box((batch.bodies().data().to_vec(), batch.bodies().ends().to_vec()));
        }));
    }
    Ok(measured)
}

/// How many events take about [`RUN`]; of a source that ends before, all it has.
async fn enough(subject: &Subject, load: &Load) -> anyhow::Result<u64> {
    let mut events = load.count();
    loop {
        let run = run(subject, load, events).await?;
        if run.passed.is_at_end {
            return Ok(run.passed.events.max(1));
        }
        if run.wall >= TRIAL {
            let wanted = run.passed.events as f64 * RUN.as_secs_f64() / run.wall.as_secs_f64();
            return Ok((wanted as u64).max(load.count()));
        }
        events *= 4;
    }
}

async fn run(subject: &Subject, load: &Load, events: u64) -> anyhow::Result<Run> {
    let (mut instance, counters) = subject.open().await.context("it could not be opened")?;
    let (start, before) = (Instant::now(), cpu_time());
    let passed = instance.run(&load.batch, events).await?;
    let (wall, cpu) = (start.elapsed(), cpu_time().saturating_sub(before));
    let memory_bytes = counters.memory_bytes();
    instance.close().await.context("it could not be closed")?;
    Ok(Run { passed: Passed { memory_bytes, ..passed }, wall, cpu })
}

/// Events a second of a native function, over as many bytes as the plugin had.
fn native(load: &Load, passed: Passed, work: impl Fn(&Batch)) -> f64 {
    // A source's batches are not those of the load: the bytes are what is compared.
    let batches = (passed.bytes / load.bytes().max(1)).clamp(1_000, 1_000_000);
    let start = Instant::now();
    (0..batches).for_each(|_| work(black_box(&load.batch)));
    let bytes_an_event = passed.bytes as f64 / passed.events as f64;
    let events = match load.bytes() {
        0 => (batches * load.count()) as f64,
        bytes => (batches * bytes) as f64 / bytes_an_event.max(f64::MIN_POSITIVE),
    };
    events / start.elapsed().as_secs_f64()
}

/// Processor time of this process so far, in user and kernel mode.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name, field 2, stands in parentheses and may hold blanks; utime and stime are fields 14 and 15.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_again_and_again_until_the_batch_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input");
        std::fs::write(&path, "a\n\nccc\n").unwrap();
        let load = Load::new(Some(&path), 100, 5).unwrap();
        let bodies: Vec<_> = load.batch.bodies().iter().map(<[u8]>::to_vec).collect();
        assert_eq!(bodies, [&b"a"[..], b"", b"ccc", b"a", b""]);
        std::fs::write(&path, "").unwrap();
        assert!(Load::new(Some(&path), 100, 5).is_err());
    }

    #[test]
    fn bodies_have_the_length_that_was_asked_for() {
        let load = Load::new(None, 250, 3).unwrap();
        assert_eq!((load.count(), load.bytes()), (3, 750));
        assert_eq!(Load::new(None, 0, 3).unwrap().bytes(), 0);
    }
}
