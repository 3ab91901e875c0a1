//! A small world: sources that put, writers, readers and a keeper, moved step by step in an order that follows from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::check::{self, ROOT, Verdict};
use super::model::{Model, READERS};
use crate::simulator::{Random, SimDisk};
use crate::{ChannelOptions, LogSet, ReadLimits, Reader, Recovered, Start, Sync};

pub struct World {
    pub disk: SimDisk,
    pub options: Vec<ChannelOptions>,
    pub model: Arc<Mutex<Model>>,
    pub random: Random,
    /// This life's pipeline file has channel `a` only; the other is dormant.
    only_a: bool,
    logs: Option<LogSet>,
    readers: BTreeMap<(&'static str, &'static str), Reader>,
}

/// Two channels with segments of a few frames.
pub fn options(random: &mut Random) -> Vec<ChannelOptions> {
    let channel = |name: &'static str, random: &mut Random| {
        let mut options = ChannelOptions::new(name);
        options.segment_bytes = 1000 + random.below(4) * 1000;
        options.min_free_bytes = 0;
        options.cache_bytes = random.below(2) * 2000;
        options.preallocate = !random.one_in(4);
        options.compression = match random.below(6) {
            0 => crate::Compression::Lz4,
            1 => crate::Compression::Zstd,
            _ => crate::Compression::None,
        };
        let readers = READERS.iter().filter(|(channel, _)| *channel == name);
        options.readers = readers.map(|(_, reader)| ((*reader).into(), Start::Oldest)).collect();
        options
    };
    vec![channel("a", random), channel("b", random)]
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let options = options(&mut random);
        Self::with(seed, options)
    }

    pub fn with(seed: u64, options: Vec<ChannelOptions>) -> Self {
        let random = Random::new(seed ^ 0x5eed);
        let model = Arc::new(Mutex::new(Model::default()));
        let disk = SimDisk::new(seed);
        Self { disk, options, only_a: false, model, random, logs: None, readers: BTreeMap::new() }
    }

    /// Another life may begin with another pipeline file.
    pub fn choose_channels(&mut self) {
        self.only_a = self.random.one_in(5);
    }

    /// The channels of this life.
    pub fn active(&self) -> Vec<ChannelOptions> {
        self.options.iter().filter(|options| !self.only_a || &*options.name == "a").cloned().collect()
    }

    pub fn logs(&self) -> Option<&LogSet> {
        self.logs.as_ref()
    }

    /// Opens the log and makes the model agree with what recovery decided, which the checker has to find in order.
    pub fn open(&mut self) -> Verdict<Recovered> {
        self.open_with(true)
    }

    /// Where acknowledged puts may be gone.
    pub fn open_lossy(&mut self) -> Verdict<Recovered> {
        self.open_with(false)
    }

    fn open_with(&mut self, lossless: bool) -> Verdict<Recovered> {
        let (logs, recovered) = check::open(&self.disk, &self.active())?;
        let mut model = self.model.lock();
        for put in &mut model.puts {
            let last = recovered.source(put.source).map_or(0, |source| source.last_put);
            if put.number == 0 || put.number > last {
                if put.acked && lossless {
                    return Err(format!("put {} of `{}` was acknowledged and is gone", put.number, put.source));
                }
                put.void = true;
            } else if !put.void {
                put.acked = true;
            }
        }
        for (channel, reader) in READERS {
            let Some(log) = logs.log(channel) else { continue };
            let reading = log.reader(reader).map_err(|error| error.to_string())?;
            let known = model.readers.entry((channel, reader)).or_default();
            if lossless && reading.next_sequence() > known.settled {
                return Err(format!("{channel}/{reader} opens at {}", reading.next_sequence()));
            }
            known.settled = reading.next_sequence();
            self.readers.insert((channel, reader), reading);
        }
        drop(model);
        self.logs = Some(logs);
        Ok(recovered)
    }

    /// The process is gone; what it wrote is as `disk` has it.
    pub fn restart_on(&mut self, disk: SimDisk) {
        self.readers.clear();
        if let Some(logs) = self.logs.take() {
            logs.forget();
        }
        self.disk = disk;
    }

    /// A clean end.
    pub fn close(&mut self) -> Verdict<()> {
        self.readers.clear();
        let closed = self.logs.take().map_or(Ok(()), LogSet::close);
        closed.map_err(|error| error.to_string())
    }

    pub fn step(&mut self) -> Verdict<()> {
        match self.random.below(12) {
            0..4 => self.put(),
            4..7 => self.write(),
            7..10 => self.take()?,
            10 => {
                if let Some(logs) = &self.logs {
                    logs.step_keeper();
                }
            }
            _ => self.disk.set_clock(self.random.below(4_000_000)),
        }
        Ok(())
    }

    pub fn put(&mut self) {
        let Some(logs) = &self.logs else { return };
        let time = self.random.below(2_000_000);
        let open: &[&str] = if self.only_a { &["a"] } else { &["a", "b"] };
        let (put, at) = self.model.lock().next_put(&mut self.random, time, open);
        let model = self.model.clone();
        let done = Box::new(move |outcome: Result<(), crate::Poisoned>| {
            let put = &mut model.lock().puts[at];
            assert!(!put.acked && !put.failed, "told twice");
            *(if outcome.is_ok() { &mut put.acked } else { &mut put.failed }) = true;
        });
        match logs.put(put, done) {
            Ok(number) => self.model.lock().puts[at].number = number,
            Err(_) => self.model.lock().puts[at].void = true,
        }
    }

    pub fn write(&mut self) {
        let channel = ["a", "b"][self.random.below(2) as usize];
        let lossy = self.options.iter().any(|options| &*options.name == channel && options.sync != Sync::Always);
        let sync = lossy && self.random.one_in(4);
        if let Some(logs) = &self.logs {
            logs.step_writer(channel, sync);
        }
    }

    /// A step after which nobody asks whether all is in order.
    pub fn step_unchecked(&mut self) {
        _ = self.step();
    }

    /// Both writers, until nothing waits.
    pub fn write_all(&mut self) {
        if let Some(logs) = &self.logs {
            while logs.step_writer("a", false) | logs.step_writer("b", false) {}
        }
    }

    pub fn take(&mut self) -> Verdict<()> {
        let key = READERS[self.random.below(READERS.len() as u64) as usize];
        let Some(reader) = self.readers.get_mut(&key) else { return Ok(()) };
        if self.random.one_in(8) {
            reader.rewind(reader.cursor().settled());
        }
        let limits = ReadLimits { events: 1 + self.random.below(8), bytes: 1 << 20 };
        let Ok(frames) = reader.read(limits) else { return Ok(()) };
        let mut model = self.model.lock();
        for frame in &frames {
            let at: usize = std::str::from_utf8(&frame.columns[0]).unwrap().parse().unwrap();
            let put = &model.puts[at];
            if !put.acked || (put.source, put.number) != (&*frame.source, frame.put) {
                return Err(format!("{key:?} gets put number {at} before it is durable everywhere"));
            }
            model.sequences.insert((key.0, at), frame.first_sequence);
        }
        for frame in &frames {
            if self.random.one_in(3) {
                break;
            }
            // Whole, or the first event of it.
            let whole = frame.events == 0 || !self.random.one_in(4);
            let to = if whole { frame.next_sequence() } else { frame.first_sequence + 1 };
            model.settle(key, to);
            reader.settle(to);
            if !whole {
                break;
            }
        }
        Ok(())
    }
}

/// Where the channels are.
pub fn channel_path(channel: &str) -> std::path::PathBuf {
    std::path::Path::new(ROOT).join(channel)
}
