//! `wasmflow source reset`: where a source of a stopped pipeline goes on.

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use wasmflow_log::{Disk, Leg, LogSet, Part, PositionChange, Put};

use super::logs::{self, LogsError};
use super::state_dir::{StateDir, StateDirError};
use crate::channel::file::empty_columns;
use crate::config::pipeline::Pipeline;
use crate::position::Position;
use crate::position_store::{Kept, PositionError, PositionStore};

/// What is stored for a source, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub position: Position,
    /// The file channels that keep it; none: the position store.
    pub channels: Vec<Arc<str>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    #[error(transparent)]
    Position(#[from] PositionError),
    #[error(transparent)]
    Logs(#[from] LogsError),
    #[error("cannot write the position into the file channels")]
    Put(#[from] wasmflow_log::PutError),
    #[error(transparent)]
    Poisoned(#[from] wasmflow_log::Poisoned),
}

/// Puts `change` in place of what is stored for `source`, in one put where file channels keep it. Nothing: only looks.
/// Answers what was stored before.
///
/// # Errors
/// When the pipeline runs, or what is stored cannot be read or written.
pub async fn reset(pipeline: &Pipeline, source: &str, change: Option<Position>) -> Result<Stored, ResetError> {
    let state = StateDir::open(&pipeline.state_dir, pipeline.instance.as_deref())?;
    let store = PositionStore::open(state.path(), source)?;
    let root = state.path().join(logs::FOLDER);
    let kept = store.kept();
    let stored = match &kept {
        Kept::Here(position) => Stored { position: position.clone(), channels: Vec::new() },
        Kept::InChannels(_) if !root.exists() => Stored { position: Position::default(), channels: Vec::new() },
        Kept::InChannels(_) => {
            let name = pipeline.name.as_str();
            let (set, recovered) = LogSet::open(Arc::new(Disk), &root, name, logs::all_options(pipeline))
                .map_err(|error| LogsError::Open(Box::new(error)))?;
            let logged = recovered.source(source);
            let stored = Stored {
                position: logged.map(|logged| logged.position.iter().cloned().collect()).unwrap_or_default(),
                channels: logged.map(|logged| logged.channels.clone()).unwrap_or_default(),
            };
            if let Some(position) = &change {
                put_whole(&set, source, position, &stored.channels)?;
            }
            set.close()?;
            stored
        }
    };
    if let Some(position) = &change
        && stored.channels.is_empty()
    {
        store.replace(position)?;
    }
    store.close().await;
    Ok(stored)
}

fn put_whole(set: &LogSet, source: &str, position: &Position, channels: &[Arc<str>]) -> Result<(), ResetError> {
    let open: Vec<_> = channels.iter().filter(|channel| set.log(channel).is_some()).collect();
    if open.is_empty() {
        return Ok(());
    }
    let part = |(key, value): (&Bytes, &Bytes)| Part { key: key.clone(), value: Some(value.clone()) };
    let legs = open.into_iter().map(|channel| Leg { channel: channel.clone(), events: 0, columns: empty_columns() });
    let put = Put {
        source: source.into(),
        position: PositionChange::Whole(position.iter().map(part).collect()),
        time_ms: crate::channel::file::now_ms(),
        legs: legs.collect(),
    };
    let (told, answer) = mpsc::channel();
    set.put(put, Box::new(move |outcome| drop(told.send(outcome))))?;
    // A log that goes away without an answer has been poisoned, and says so when it is closed.
    answer.recv().unwrap_or(Ok(()))?;
    Ok(())
}
