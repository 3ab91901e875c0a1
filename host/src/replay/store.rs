//! The bundles of one pipeline: written by a thread of their own, few and small.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::bundle::{Bundle, PluginBytes};

/// Limit: bundles of a pipeline; the oldest makes room.
const MAX_BUNDLES: usize = 32;
/// Limit: bytes of all of them, plugins included.
const MAX_BYTES: u64 = 128 << 20;
/// Limit: events of one. Those of a larger batch are not kept before the guilty one is alone.
const MAX_EVENTS_BYTES: usize = 8 << 20;
/// Limit: bundles written at once, and then one in so long: a plugin that fails on everything must not keep the disk busy.
const BURST: u32 = 8;
const ONE_IN: Duration = Duration::from_secs(10);
/// Limit: bundles that wait for the thread.
const MAX_WAITING: usize = 4;

/// Keeps bundles in a folder. Dropping it waits until all that were taken are written.
#[derive(Debug)]
pub struct Bundles {
    dir: PathBuf,
    /// Begins with the first bundle: most pipelines never have one, and there may be thousands of them.
    writer: Mutex<Option<Writer>>,
    allowance: Mutex<Allowance>,
}

#[derive(Debug)]
struct Writer {
    queue: SyncSender<Bundle>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.refilled) >= ONE_IN {
            self.left += 1;
            self.refilled += ONE_IN;
        }
        if self.left == BURST {
            self.refilled = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

impl Bundles {
    pub fn new(state_dir: &Path) -> Self {
        let allowance = Mutex::new(Allowance { left: BURST, refilled: Instant::now() });
        Self { dir: state_dir.join("replay"), writer: Mutex::default(), allowance }
    }

    /// Keeps a bundle, if there is room for another of this size now. Never waits.
    pub fn keep(&self, bundle: impl FnOnce() -> Bundle, bytes: usize) {
        if bytes > MAX_EVENTS_BYTES || !self.allowance.lock().take(Instant::now()) {
            return;
        }
        let mut writer = self.writer.lock();
        if writer.is_none() {
            match Writer::start(self.dir.clone()) {
                Ok(started) => *writer = Some(started),
                Err(error) => warn!(%error, "what plugins fail on is not kept"),
            }
        }
        if let Some(writer) = &*writer {
            // When the disk is slower than the plugin fails, the ones that wait are enough.
            let _ = writer.queue.try_send(bundle());
        }
    }
}

impl Writer {
    fn start(dir: PathBuf) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let thread =
            std::thread::Builder::new().name("wasmflow-replay".into()).spawn(move || write_all(&dir, &waiting))?;
        Ok(Self { queue, thread })
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        if let Some(Writer { queue, thread }) = self.writer.get_mut().take() {
            drop(queue);
            let _ = thread.join();
        }
    }
}

fn write_all(dir: &Path, waiting: &Receiver<Bundle>) {
    let mut number = 0_u32;
    for mut bundle in waiting {
        number += 1;
        bundle.bytes = plugin_bytes(&bundle);
        match write(dir, &bundle, number) {
            Ok(path) => {
                let (stage, events) = (&bundle.stage, bundle.given.count());
                warn!(stage, events, "what the plugin failed on is kept: wasmflow replay {}", path.display());
            }
            Err(error) => {
                warn!(stage = bundle.stage, %error, dir = %dir.display(), "what the plugin failed on cannot be kept")
            }
        }
        if let Err(error) = make_room(dir) {
            warn!(%error, dir = %dir.display(), "old bundles cannot be removed");
        }
    }
}

/// The plugin's file, if it still is what runs.
fn plugin_bytes(bundle: &Bundle) -> PluginBytes {
    let Some(path) = bundle.plugin.path() else { return PluginBytes::Elsewhere };
    match fs::read(path) {
        Ok(bytes) if format!("{:x}", Sha256::digest(&bytes)) == bundle.digest => PluginBytes::Inside(bytes),
        _ => PluginBytes::Elsewhere,
    }
}

/// Writes aside and renames, so that nobody reads half a bundle.
fn write(dir: &Path, bundle: &Bundle, number: u32) -> io::Result<PathBuf> {
    if let Err(error) = DirBuilder::new().mode(0o700).create(dir)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    // By their names they are in the order of their times.
    let path = dir.join(format!("{since:013}-{number:04}-{}.json", bundle.stage));
    let aside = path.with_extension("aside");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bundle.to_json().to_string().as_bytes())?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

fn make_room(dir: &Path) -> io::Result<()> {
    let mut kept: Vec<(PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        kept.push((entry.path(), entry.metadata()?.len()));
    }
    kept.sort();
    let mut bytes: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
    let mut count = kept.len();
    for (path, size) in kept {
        if count <= MAX_BUNDLES && bytes <= MAX_BYTES {
            break;
        }
        fs::remove_file(path)?;
        count -= 1;
        bytes -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_in_ten_seconds() {
        let start = Instant::now();
        let mut allowance = Allowance { left: BURST, refilled: start };
        assert_eq!((0..100).filter(|_| allowance.take(start)).count(), 8);
        assert!(allowance.take(start + ONE_IN));
        assert!(!allowance.take(start + ONE_IN));
        assert_eq!((0..100).filter(|_| allowance.take(start + 1000 * ONE_IN)).count(), 8);
    }

    #[test]
    fn the_oldest_make_room() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..40 {
            fs::write(dir.path().join(format!("{number:04}.json")), "x").unwrap();
        }
        make_room(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!((left.len(), left[0].to_str().unwrap()), (MAX_BUNDLES, "0008.json"));
        File::create(dir.path().join("0039.json")).unwrap().set_len(MAX_BYTES).unwrap();
        make_room(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
