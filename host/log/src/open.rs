//! From what recovery found to channels that run.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::channel::Channel;
use crate::channel::append::Core;
use crate::channel::state::{LiveSegment, ReaderState, State};
use crate::error::OpenError;
use crate::format::header::Header;
use crate::names;
use crate::options::{ChannelOptions, OnCorruption};
use crate::put::ChannelId;
use crate::reader::locate;
use crate::recover::commit::{Committed, commit};
use crate::recover::decide::decide;
use crate::recover::folder::scan;
use crate::recover::{ChannelScan, Look, SegmentInfo};
use crate::report::{Note, Recovered, RecoveredChannel, RecoveredReader, RecoveredSource};
use crate::root::Root;
use crate::set::channel_folder;
use crate::storage::Storage;

type CallKeeper = Arc<dyn Fn() + Send + std::marker::Sync>;

/// Recovers all channels of a folder and opens those that have options.
pub fn open_all(
    storage: &Arc<dyn Storage>,
    root: &Root,
    options: Vec<ChannelOptions>,
    call_keeper: &CallKeeper,
) -> Result<(Vec<Channel>, Recovered), OpenError> {
    check_names(&options)?;
    let (mut scans, options) = scan_all(&**storage, &root.path, options, Look::ToGoOn)?;
    let sources = decide(&mut scans);
    for scan in &scans {
        if let Some(damage) = scan.damage.first().filter(|_| scan.on_corruption == OnCorruption::Fail) {
            return Err(damage.clone().into());
        }
    }
    let mut recovered = Recovered { sources, ..Recovered::default() };
    if storage.is_network(&root.path) {
        recovered.notes.push(Note::NetworkFileSystem { path: root.path.clone() });
    }
    let mut channels = Vec::new();
    for (scan, (options, dormant)) in scans.iter_mut().zip(options) {
        let described = if dormant {
            // Nothing is written there but what others rely on.
            if scan.tracks.values().any(|track| track.void.1 > 0) {
                commit(&**storage, scan, &options)?;
            }
            describe_dormant(scan)
        } else {
            let channel = open_channel(storage, scan, options, call_keeper)?;
            let described = describe_open(&channel);
            channels.push(channel);
            described
        };
        recovered.notes.append(&mut scan.notes);
        // A folder that is no channel, such as `lost+found`.
        if !described.dormant || scan.id.is_some() {
            recovered.channels.push(described);
        }
    }
    Ok((channels, recovered))
}

/// Opens one more channel while others run.
pub fn open_one(
    storage: &Arc<dyn Storage>,
    root: &Root,
    options: ChannelOptions,
    call_keeper: &CallKeeper,
) -> Result<(Channel, RecoveredChannel), OpenError> {
    check_names(std::slice::from_ref(&options))?;
    let path = channel_folder(&root.path, &options.name);
    make_folder(&**storage, &root.path, &path)?;
    let mut scans = [scan(&**storage, &path, &options, Look::ToGoOn)?];
    // It was whole when it was closed, or when this set was opened: nothing of it is pending but what is complete.
    for track in scans[0].tracks.values_mut() {
        track.complete_up_to(track.last_put);
    }
    let scan = &mut scans[0];
    if let Some(damage) = scan.damage.first().filter(|_| scan.on_corruption == OnCorruption::Fail) {
        return Err(damage.clone().into());
    }
    let channel = open_channel(storage, scan, options, call_keeper)?;
    let described = describe_open(&channel);
    Ok((channel, described))
}

/// The channels that have the whole position of a source.
pub fn current(channels: &[Channel], source: &RecoveredSource) -> Vec<ChannelId> {
    let has_all = |channel: &&Channel| {
        channel.core.lock().tracks.get(&source.name).is_some_and(|track| track.complete == source.last_put)
    };
    channels.iter().filter(has_all).map(|channel| channel.id).collect()
}

fn check_names(options: &[ChannelOptions]) -> Result<(), OpenError> {
    for (at, channel) in options.iter().enumerate() {
        let readers = channel.readers.iter().map(|(reader, _)| reader);
        if let Some(bad) = std::iter::once(&channel.name).chain(readers).find(|name| !names::is_usable(name)) {
            return Err(OpenError::BadName { channel: bad.clone() });
        }
        if options[..at].iter().any(|other| other.name == channel.name) {
            return Err(OpenError::NamedTwice { channel: channel.name.clone() });
        }
    }
    Ok(())
}

type Scanned = (Vec<ChannelScan>, Vec<(ChannelOptions, bool)>);

/// Scans the channels that are asked for, and those that are there besides.
pub fn scan_all(
    storage: &dyn Storage,
    root: &Path,
    options: Vec<ChannelOptions>,
    look: Look,
) -> Result<Scanned, OpenError> {
    let io = |path: &Path, source| OpenError::Io { path: path.into(), source };
    let mut all: Vec<(ChannelOptions, bool)> = options.into_iter().map(|options| (options, false)).collect();
    let entries = storage.list(root).map_err(|error| io(root, error))?;
    for entry in entries.into_iter().filter(|entry| entry.is_folder) {
        if all.iter().all(|(options, _)| *options.name != *entry.name) {
            let mut dormant = ChannelOptions::new(entry.name);
            dormant.on_corruption = OnCorruption::Skip;
            all.push((dormant, true));
        }
    }
    let mut scans: Vec<ChannelScan> = Vec::with_capacity(all.len());
    for (options, dormant) in &all {
        let path = channel_folder(root, &options.name);
        if !dormant && look == Look::ToGoOn {
            make_folder(storage, root, &path)?;
        }
        let scan = scan(storage, &path, options, look)?;
        if let Some(twin) = scans.iter().find(|other| scan.id.is_some() && other.id == scan.id) {
            let detail = format!("it is a copy of channel `{}`", twin.name);
            return Err(OpenError::Foreign { channel: options.name.clone(), path, detail });
        }
        scans.push(scan);
    }
    Ok((scans, all))
}

fn make_folder(storage: &dyn Storage, root: &Path, path: &Path) -> Result<(), OpenError> {
    let made = storage.create_folder(path).and_then(|()| storage.sync_folder(root));
    made.map_err(|source| OpenError::Io { path: path.into(), source })
}

fn open_channel(
    storage: &Arc<dyn Storage>,
    scan: &mut ChannelScan,
    options: ChannelOptions,
    call_keeper: &CallKeeper,
) -> Result<Channel, OpenError> {
    let Committed { header, file, path, readers } = commit(&**storage, scan, &options)?;
    let id = header.id;
    let segments = live_segments(&scan.segments, &header, path);
    let state = State::new(segments, header.voids.clone(), options.cache_bytes);
    let core = Core::new(file, header);
    let channel = Channel {
        id,
        path: scan.path.clone(),
        storage: storage.clone(),
        queue: Mutex::default(),
        wake: Default::default(),
        core: Mutex::new(core),
        state: Mutex::new(state),
        upkeep: Mutex::default(),
        spares: Mutex::new(std::mem::take(&mut scan.spares)),
        hooks: Mutex::default(),
        sync_hook: Mutex::default(),
        call_keeper: call_keeper.clone(),
        options,
    };
    for reader in readers {
        channel.add_known_reader(reader.name, reader.slot, reader.unclaimed);
    }
    Ok(channel)
}

/// The segments that were found, and the new one.
fn live_segments(found: &[SegmentInfo], header: &Header, path: PathBuf) -> VecDeque<LiveSegment> {
    let mut bytes_before = 0;
    let mut segments = VecDeque::with_capacity(found.len() + 1);
    for segment in found {
        segments.push_back(LiveSegment {
            number: segment.number,
            path: segment.path.clone(),
            header_bytes: segment.header_bytes,
            base_frame: segment.base_frame,
            base_sequence: segment.base_sequence,
            created_ms: segment.created_ms,
            file_bytes: segment.file_bytes,
            bytes_before,
            end: Some(segment.end),
        });
        bytes_before += segment.end.offset.saturating_sub(segment.header_bytes);
    }
    segments.push_back(LiveSegment::begun(header, path, bytes_before));
    segments
}

impl Channel {
    /// Takes up a reader whose cursor file is there.
    pub(crate) fn add_known_reader(&self, name: Arc<str>, slot: crate::format::cursor::Slot, unclaimed: bool) {
        let mut state = self.state.lock();
        let settled_spot = locate(self, &state, slot.sequence);
        state.readers.push(ReaderState {
            name,
            settled: slot.sequence,
            settled_spot,
            taken: Default::default(),
            read: slot.sequence,
            slot,
            dirty_since: None,
            open: false,
            removed: false,
            unclaimed,
        });
    }

    pub(crate) fn recovered_readers(&self) -> Vec<RecoveredReader> {
        let state = self.state.lock();
        let readers = state.live_readers().map(|reader| RecoveredReader {
            name: reader.name.clone(),
            cursor: reader.settled,
            events: state.events_behind(reader),
            epoch: reader.slot.epoch,
            unclaimed: reader.unclaimed,
        });
        readers.collect()
    }
}

fn describe_open(channel: &Channel) -> RecoveredChannel {
    let readers = channel.recovered_readers();
    let state = channel.state.lock();
    RecoveredChannel {
        name: channel.options.name.clone(),
        id: channel.id,
        dormant: false,
        oldest_sequence: state.segments.front().map_or(0, |oldest| oldest.base_sequence),
        next_sequence: state.written.at.sequence,
        segments: state.segments.len(),
        bytes: state.segments.iter().map(|segment| segment.file_bytes).sum(),
        readers,
    }
}

fn describe_dormant(scan: &ChannelScan) -> RecoveredChannel {
    let cursors = scan.cursors.iter().filter(|cursor| !cursor.is_removed());
    let readers = cursors.map(|cursor| RecoveredReader {
        name: cursor.reader.clone(),
        cursor: cursor.sequence,
        events: scan.events_behind(cursor),
        epoch: cursor.slot.map_or(0, |slot| slot.epoch),
        unclaimed: true,
    });
    RecoveredChannel {
        name: scan.name.clone(),
        id: scan.id.unwrap_or_default(),
        dormant: true,
        oldest_sequence: scan.oldest_sequence(),
        next_sequence: scan.next_sequence,
        segments: scan.segments.len(),
        bytes: scan.segments.iter().map(|segment| segment.file_bytes).sum(),
        readers: readers.collect(),
    }
}
