//! The logs behind a pipeline's file channels: opened before anything runs, watched while it runs, closed behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use wasmflow_log::{ChannelOptions, Disk, LogSet, OpenError, Recovered, RecoveredChannel, RecoveredReader};

use crate::config::pipeline::{ChannelKind, ChannelName, FileSpec, Pipeline};

/// The folder of the file channels, in the state folder.
pub const FOLDER: &str = "channels";
/// How often it is looked whether puts wait for space: often enough for a log line, too seldom to cost anything.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Limit: how long somebody may look at a log that is to be closed.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What becomes of readers on disk that no sink of the pipeline is any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReaderRemoval {
    /// The pipeline does not start: they may be there by a slip of the pen, and would hold their channel until it is full.
    #[default]
    Refuse,
    /// They are given up, with what they have not delivered.
    Remove,
}

/// Why the logs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error(transparent)]
    Open(Box<OpenError>),
    #[error(
        "channel `{channel}` has a reader `{reader}` with {events} events before it, and no sink of that name reads the channel; \
         name a sink `{reader}`, or give up what it has not delivered with `wasmflow run --remove-readers`"
    )]
    UnknownReader { channel: Arc<str>, reader: Arc<str>, events: u64 },
    #[error("cannot remove reader `{reader}` of channel `{channel}`")]
    Remove { channel: Arc<str>, reader: Arc<str>, source: Box<wasmflow_log::ReadError> },
}

/// Opens the logs of the pipeline's file channels, and of those that earlier pipeline files had. Nothing: there are none.
///
/// # Errors
/// When the folder is not ours to use, cannot be read, or has a reader that the pipeline does not know.
pub async fn open(
    pipeline: &Pipeline,
    state_dir: &Path,
    removal: ReaderRemoval,
) -> Result<(Option<Arc<LogSet>>, Recovered), LogsError> {
    let root = state_dir.join(FOLDER);
    let options = all_options(pipeline);
    if options.is_empty() && !root.exists() {
        return Ok((None, Recovered::default()));
    }
    let name = pipeline.name.to_string();
    let opened = tokio::task::spawn_blocking(move || LogSet::open(Arc::new(Disk), &root, &name, options)).await;
    let (logs, recovered) =
        opened.expect("opening logs does not panic").map_err(|error| LogsError::Open(Box::new(error)))?;
    for note in &recovered.notes {
        match note.is_normal() {
            true => info!("{note}"),
            false => warn!("{note}"),
        }
    }
    recovered.channels.iter().for_each(report);
    for channel in recovered.channels.iter().filter(|channel| !channel.dormant) {
        for reader in channel.readers.iter().filter(|reader| reader.unclaimed) {
            unclaimed(&logs, channel, reader, removal)?;
        }
    }
    Ok((Some(Arc::new(logs)), recovered))
}

/// Opens the log of a file channel that the running pipeline did not have: a new one, or one that an earlier file had.
///
/// # Errors
/// As [`open`].
pub async fn add(
    logs: &Arc<LogSet>,
    pipeline: &Pipeline,
    name: &ChannelName,
    file: FileSpec,
    removal: ReaderRemoval,
) -> Result<RecoveredChannel, LogsError> {
    let (set, options) = (logs.clone(), options(pipeline, name, file));
    let added = tokio::task::spawn_blocking(move || set.add_channel(options)).await;
    let added = added.expect("opening a log does not panic").map_err(|error| LogsError::Open(Box::new(error)))?;
    report(&added);
    for reader in added.readers.iter().filter(|reader| reader.unclaimed) {
        if let Err(error) = unclaimed(logs, &added, reader, removal) {
            retire(logs, name).await;
            return Err(error);
        }
    }
    Ok(added)
}

/// Closes the log of a file channel that the pipeline no longer has; its folder stays.
pub async fn retire(logs: &Arc<LogSet>, name: &ChannelName) {
    let (set, channel) = (logs.clone(), name.shared());
    let retired = tokio::task::spawn_blocking(move || set.retire_channel(&channel)).await;
    if let Err(poisoned) = retired.expect("closing a log does not panic") {
        error!(channel = %name, error = %poisoned, cause = %poisoned.source, "file channel not closed in order");
    }
}

/// What the pipeline file says of its file channels.
pub fn all_options(pipeline: &Pipeline) -> Vec<ChannelOptions> {
    let options = pipeline.channels.iter().filter_map(|(name, spec)| match spec.kind {
        ChannelKind::File(file) => Some(options(pipeline, name, file)),
        ChannelKind::Memory => None,
    });
    options.collect()
}

fn options(pipeline: &Pipeline, name: &ChannelName, file: FileSpec) -> ChannelOptions {
    let readers = pipeline.sinks.iter().filter(|(_, sink)| sink.channel == *name);
    ChannelOptions {
        segment_bytes: file.segment_bytes,
        sync: file.sync,
        compression: file.compression,
        retain: file.retain,
        min_free_bytes: file.min_free_bytes,
        on_corruption: file.on_corruption,
        readers: readers.map(|(reader, sink)| (reader.shared(), sink.start_at)).collect(),
        ..ChannelOptions::new(name.shared())
    }
}

fn report(channel: &RecoveredChannel) {
    let events = channel.readers.iter().map(|reader| reader.events).max().unwrap_or(0);
    match channel.dormant {
        true if events > 0 => {
            warn!(channel = %channel.name, events, "a file channel that the pipeline no longer has keeps events nobody takes");
        }
        true => {}
        false => {
            info!(channel = %channel.name, id = %channel.id, events, segments = channel.segments, "file channel opened")
        }
    }
}

fn unclaimed(
    logs: &LogSet,
    channel: &RecoveredChannel,
    reader: &RecoveredReader,
    removal: ReaderRemoval,
) -> Result<(), LogsError> {
    let (name, reader_name) = (channel.name.clone(), reader.name.clone());
    let events = reader.events;
    if removal == ReaderRemoval::Refuse {
        return Err(LogsError::UnknownReader { channel: name, reader: reader_name, events });
    }
    if let Some(log) = logs.log(&name) {
        log.remove_reader(&reader_name).map_err(|source| LogsError::Remove {
            channel: name.clone(),
            reader: reader_name.clone(),
            source: Box::new(source),
        })?;
    }
    warn!(channel = %name, reader = %reader_name, events, "reader removed, with what it had not delivered");
    Ok(())
}

/// Tells the operator while puts wait for space, and when damage is passed over.
#[derive(Debug, Default)]
pub struct LogWatch {
    /// Whether puts of a channel wait, and how many of its events were passed over.
    known: BTreeMap<Arc<str>, (bool, u64)>,
}

impl LogWatch {
    /// Looks once; every [`WATCH_INTERVAL`] is enough.
    pub fn look<'c>(&mut self, logs: &LogSet, channels: impl Iterator<Item = &'c Arc<str>>) {
        for name in channels {
            let Some(log) = logs.log(name) else { continue };
            let (waits, skipped) = self.known.entry(name.clone()).or_default();
            let status = log.status();
            match (&status.waiting, *waits) {
                (Some(waiting), false) => {
                    warn!(channel = %name, reason = waiting.reason, "puts wait for space on disk; they go on once there is some");
                }
                (None, true) => info!(channel = %name, "there is space again"),
                _ => {}
            }
            *waits = status.waiting.is_some();
            if status.skipped_events > *skipped {
                let events = status.skipped_events - *skipped;
                warn!(channel = %name, events, "damaged events passed over; what could be copied is in `quarantine`");
                *skipped = status.skipped_events;
            }
        }
    }
}

/// The logs, once nobody looks at them any more: whoever asks how they fare has them for a moment.
async fn alone(mut logs: Arc<LogSet>) -> Option<LogSet> {
    let end = Instant::now() + LOOK_TIMEOUT;
    loop {
        logs = match Arc::try_unwrap(logs) {
            Ok(logs) => return Some(logs),
            Err(_) if Instant::now() >= end => return None,
            Err(logs) => logs,
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes what is not yet on disk, and gives the folder free.
pub async fn close(logs: Arc<LogSet>, channels: Vec<Arc<str>>) {
    for name in channels {
        let Some(status) = logs.log(&name).map(|log| log.status()) else { continue };
        let (written_bytes, syncs, events) = (status.written_bytes, status.syncs, status.held.events);
        info!(channel = %name, events, written_bytes, syncs, "file channel closed");
    }
    let Some(logs) = alone(logs).await else { return };
    let closed = tokio::task::spawn_blocking(move || logs.close()).await;
    if let Err(poisoned) = closed.expect("closing logs does not panic") {
        error!(channel = %poisoned.channel, error = %poisoned, cause = %poisoned.source, "file channel not closed in order");
    }
}
