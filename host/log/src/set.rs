//! The logs of one state folder, opened, written and closed together.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::channel::{Channel, Queued};
use crate::compress::{compress, number};
use crate::error::{OpenError, Poisoned, PutError};
use crate::format::frame::{HEAD_BYTES, Meta};
use crate::format::{MAX_FRAME_BYTES, crc};
use crate::log::Log;
use crate::options::ChannelOptions;
use crate::put::{ChannelId, Done, PositionChange, Put};
use crate::report::{Recovered, RecoveredChannel, RecoveredSource};
use crate::root::Root;
use crate::source::{Order, Source};
use crate::storage::Storage;
use crate::threads::{Keeper, Writer};
use crate::track::apply;
use crate::{open, root};

/// All channel logs of one state folder. Each has a thread that writes; one more writes cursors and deletes segments.
///
/// Dropping it closes it, without telling whether that went well; [`close`](Self::close) tells.
pub struct LogSet {
    storage: Arc<dyn Storage>,
    root: Root,
    channels: Arc<RwLock<Channels>>,
    sources: Mutex<HashMap<Arc<str>, Arc<Source>>>,
    writers: Mutex<HashMap<Arc<str>, Writer>>,
    keeper: Mutex<Keeper>,
    /// Without threads whoever has the set drives it, step by step.
    threads: Threads,
}

pub type Channels = BTreeMap<Arc<str>, Arc<Channel>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    Started,
    #[cfg(any(test, feature = "simulator"))]
    None,
}

impl LogSet {
    /// Locks `root`, recovers every channel in it (also those that `channels` does not name: they are dormant, and take part
    /// in deciding which puts are whole), makes those that are new, and starts the threads.
    ///
    /// `root` is a folder of the log's own, such as `<state_dir>/channels`; `pipeline` is noted in it when it is made.
    ///
    /// # Errors
    /// When the folder is not ours to use, or acknowledged events are damaged and the policy is to stop. Nothing that was
    /// acknowledged is changed then.
    pub fn open(
        storage: Arc<dyn Storage>,
        root: &Path,
        pipeline: &str,
        channels: Vec<ChannelOptions>,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(storage, root, pipeline, channels, Threads::Started)
    }

    pub(crate) fn open_with(
        storage: Arc<dyn Storage>,
        root: &Path,
        pipeline: &str,
        options: Vec<ChannelOptions>,
        threads: Threads,
    ) -> Result<(Self, Recovered), OpenError> {
        let root = root::Root::open(&*storage, root, pipeline)?;
        let keeper = Keeper::new();
        let (channels, recovered) = open::open_all(&storage, &root, options, &keeper.caller())?;
        let sources = recovered.sources.iter().map(|source| {
            let current = open::current(&channels, source);
            let order = Order {
                last_used: source.last_used,
                position: source.position.iter().cloned().collect(),
                current,
                ..Order::default()
            };
            (source.name.clone(), Source::new(source.name.clone(), source.last_put, order))
        });
        let set = Self {
            storage,
            root,
            sources: Mutex::new(sources.collect()),
            channels: Arc::default(),
            writers: Mutex::default(),
            keeper: Mutex::new(keeper),
            threads,
        };
        channels.into_iter().for_each(|channel| set.begin(channel));
        if threads == Threads::Started {
            set.keeper.lock().start(set.channels.clone());
        }
        Ok((set, recovered))
    }

    fn begin(&self, channel: Channel) {
        let channel = Arc::new(channel);
        let name = channel.options.name.clone();
        if self.threads == Threads::Started {
            self.writers.lock().insert(name.clone(), Writer::start(channel.clone()));
        }
        self.channels.write().insert(name, channel);
    }

    /// The log of a channel that is open.
    pub fn log(&self, channel: &str) -> Option<Log> {
        self.channels.read().get(channel).map(|channel| Log::new(channel.clone()))
    }

    /// Gives a put to the writers of its channels and returns its number; `done` is told when it is durable in all of them.
    /// It never waits: how much may be under way is the caller's business ([`Log::held`] counts it).
    ///
    /// Puts of one source must come from one caller at a time. Their order is the order of these calls.
    ///
    /// # Errors
    /// When the put can never be taken; `done` is dropped uncalled then, and nothing was written.
    pub fn put(&self, put: Put, done: Done) -> Result<u64, PutError> {
        let channels = self.channels_of(&put)?;
        let ids: Vec<ChannelId> = channels.iter().map(|channel| channel.id).collect();
        let payloads: Vec<Payload> =
            put.legs.iter().zip(&channels).map(|(leg, channel)| Payload::new(&leg.columns, channel)).collect();
        let source = self.source(&put.source);
        let mut order = source.order.lock();
        if let Some(poisoned) = &order.failed {
            return Err(poisoned.clone().into());
        }
        let changes = order.changes(&ids, &put.position);
        let metas: Vec<Vec<u8>> = (payloads.iter().zip(&ids).zip(&changes))
            .map(|((payload, id), change)| payload.meta(&put.source, &ids, *id, change))
            .collect();
        check_sizes(&channels, &payloads, &metas)?;
        order.last_used += 1;
        apply(&mut order.position, &put.position);
        order.current.clone_from(&ids);
        let under_way = order.add(&source, &channels, done);
        let legs = put.legs.into_iter().zip(payloads).zip(metas).zip(changes).zip(&channels);
        for ((((leg, payload), meta), position), channel) in legs {
            channel.enqueue(Queued {
                put: under_way.clone(),
                events: leg.events,
                time_ms: put.time_ms,
                columns: leg.columns,
                stored: payload.stored,
                compression: payload.compression,
                payload_crc: payload.crc,
                payload_len: payload.bytes as u32,
                meta,
                channels: ids.clone(),
                position,
            });
        }
        Ok(under_way.number)
    }

    fn channels_of(&self, put: &Put) -> Result<Vec<Arc<Channel>>, PutError> {
        let open = self.channels.read();
        let mut channels: Vec<Arc<Channel>> = Vec::with_capacity(put.legs.len());
        for leg in &put.legs {
            let name = || leg.channel.clone();
            let channel = open.get(&leg.channel).ok_or_else(|| PutError::NoSuchChannel { channel: name() })?;
            if channels.iter().any(|other| other.id == channel.id) {
                return Err(PutError::BadLegs { channel: name() });
            }
            if let Some(poisoned) = channel.poisoned() {
                return Err(poisoned.into());
            }
            let bytes = leg.columns.iter().map(|column| column.len() as u64).sum();
            if bytes > MAX_FRAME_BYTES {
                return Err(PutError::TooLarge { channel: name(), bytes, limit: MAX_FRAME_BYTES });
            }
            channels.push(channel.clone());
        }
        if channels.is_empty() { Err(PutError::BadLegs { channel: "".into() }) } else { Ok(channels) }
    }

    fn source(&self, name: &Arc<str>) -> Arc<Source> {
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(name) {
            return source.clone();
        }
        let source = Source::new(name.clone(), 0, Order::default());
        sources.insert(name.clone(), source.clone());
        source
    }

    /// A source as of its newest put, whether that is durable yet or not; nothing when no open channel has ever had one of its puts.
    pub fn source_now(&self, name: &str) -> Option<RecoveredSource> {
        let source = self.sources.lock().get(name)?.clone();
        let order = source.order.lock();
        let open = self.channels.read();
        let current = open.values().filter(|channel| order.current.contains(&channel.id));
        Some(RecoveredSource {
            name: source.name.clone(),
            last_put: source.complete(),
            last_used: order.last_used,
            position: order.position.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            channels: current.map(|channel| channel.options.name.clone()).collect(),
        })
    }

    /// Opens one more channel while the others run: a new one, or a dormant one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn add_channel(&self, options: ChannelOptions) -> Result<RecoveredChannel, OpenError> {
        let name = options.name.clone();
        if self.channels.read().contains_key(&name) {
            return Err(OpenError::NamedTwice { channel: name });
        }
        let (channel, recovered) = open::open_one(&self.storage, &self.root, options, &self.keeper.lock().caller())?;
        self.begin(channel);
        Ok(recovered)
    }

    /// Closes one channel while the others run: what it was given is written first. Its folder stays, dormant.
    ///
    /// No source may put into it any more.
    ///
    /// # Errors
    /// When it was poisoned, or is now.
    pub fn retire_channel(&self, channel: &str) -> Result<(), Poisoned> {
        let Some(retired) = self.channels.write().remove(channel) else { return Ok(()) };
        if let Some(writer) = self.writers.lock().remove(channel) {
            writer.stop();
        }
        retired.close()
    }

    /// Writes what was put, syncs it, writes the cursors and gives the folder free.
    ///
    /// # Errors
    /// When one of the channels was poisoned, or is now.
    pub fn close(self) -> Result<(), Poisoned> {
        self.stop()
    }

    fn stop(&self) -> Result<(), Poisoned> {
        let writers: Vec<Writer> = self.writers.lock().drain().map(|(_, writer)| writer).collect();
        writers.iter().for_each(Writer::ask_to_stop);
        writers.into_iter().for_each(Writer::stop);
        self.keeper.lock().stop();
        let channels = std::mem::take(&mut *self.channels.write());
        let outcomes: Vec<_> = channels.values().map(|channel| channel.close()).collect();
        outcomes.into_iter().collect()
    }
}

impl Drop for LogSet {
    fn drop(&mut self) {
        // An invariant may be broken: what is on disk is better than what would be written now.
        if !std::thread::panicking() {
            _ = self.stop();
        }
    }
}

/// What the log does with its threads, one step at a time, for tests that decide the order themselves.
#[cfg(any(test, feature = "simulator"))]
impl LogSet {
    /// As [`open`](Self::open), without threads.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_stepwise(
        storage: Arc<dyn Storage>,
        root: &Path,
        pipeline: &str,
        channels: Vec<ChannelOptions>,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(storage, root, pipeline, channels, Threads::None)
    }

    /// A turn of a channel's writer: all that waits, with a sync if `sync` or the mode asks for it. Says whether it got on.
    pub fn step_writer(&self, channel: &str, sync: bool) -> bool {
        let channel = self.channels.read().get(channel).cloned();
        channel.is_some_and(|channel| matches!(channel.turn(sync), crate::channel::append::Turn::Wrote))
    }

    /// A turn of the keeper over all channels. Says whether all went well.
    pub fn step_keeper(&self) -> bool {
        let channels: Vec<_> = self.channels.read().values().cloned().collect();
        channels.iter().all(|channel| channel.upkeep(crate::channel::upkeep::Due::Moved).is_ok())
    }

    /// Forgets everything without writing, as a process does that is killed.
    pub fn forget(self) {
        self.channels.write().clear();
    }
}

fn check_sizes(channels: &[Arc<Channel>], payloads: &[Payload], metas: &[Vec<u8>]) -> Result<(), PutError> {
    for ((meta, payload), channel) in metas.iter().zip(payloads).zip(channels) {
        let bytes = HEAD_BYTES + meta.len() as u64 + payload.bytes;
        if bytes > MAX_FRAME_BYTES {
            let channel = channel.options.name.clone();
            return Err(PutError::TooLarge { channel, bytes, limit: MAX_FRAME_BYTES });
        }
    }
    Ok(())
}

/// A leg's columns as they are stored.
struct Payload {
    lengths: Vec<(u32, u32)>,
    stored: Vec<Bytes>,
    compression: u32,
    crc: u32,
    bytes: u64,
}

impl Payload {
    /// Compressing and summing is done here, in the thread that puts, so that the writer has nothing to do but to write.
    fn new(columns: &[Bytes], channel: &Channel) -> Self {
        let stored = compress(columns, channel.options.compression);
        let lengths =
            columns.iter().zip(&stored).map(|(put, stored)| (put.len() as u32, stored.len() as u32)).collect();
        let crc = stored.iter().fold(0, |sum, column| crc(sum, column));
        let bytes = stored.iter().map(|column| column.len() as u64).sum();
        Self { lengths, stored, compression: number(channel.options.compression), crc, bytes }
    }

    fn meta(&self, source: &Arc<str>, ids: &[ChannelId], own: ChannelId, position: &PositionChange) -> Vec<u8> {
        let meta = Meta {
            source: Bytes::copy_from_slice(source.as_bytes()),
            others: ids.iter().copied().filter(|id| *id != own).collect(),
            position: position.clone(),
            columns: self.lengths.clone(),
        };
        meta.write()
    }
}

/// Where the files of a channel are.
pub(crate) fn channel_folder(root: &Path, channel: &str) -> PathBuf {
    root.join(channel)
}
