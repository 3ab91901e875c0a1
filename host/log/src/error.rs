//! What can go wrong, by what the caller does about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a folder of logs was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the folder, or a folder above it is read-only, and so on: the cause says which.
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is in use by {holder}", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("`{}` belongs to the pipeline `{found}`, not to `{pipeline}`", path.display())]
    OtherPipeline { path: PathBuf, found: String, pipeline: String },
    /// Written by a later wasmflow: run that one, or give this one another folder.
    #[error("`{}` has format {found}; this wasmflow reads up to format {known}", path.display())]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    /// A folder or file that is not ours where ours should be.
    #[error("`{}` cannot be a part of channel `{channel}`: {detail}", path.display())]
    Foreign { channel: Arc<str>, path: PathBuf, detail: String },
    /// Acknowledged events cannot be read any more, and the policy is to stop.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Going on would skip events: the cursor says that the reader has settled what is not there.
    #[error(
        "reader `{reader}` of channel `{channel}` stands at sequence {cursor}, but the newest event there is {end}: \
         segments were lost or replaced; move it with `wasmflow channel seek` once that is understood"
    )]
    CursorAhead { channel: Arc<str>, reader: Arc<str>, cursor: u64, end: u64 },
    #[error("channel `{channel}` is named twice")]
    NamedTwice { channel: Arc<str> },
    #[error("channel `{channel}` cannot be a folder's name")]
    BadName { channel: Arc<str> },
}

/// A range of a channel's log that cannot be read any more although it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "channel `{channel}` is damaged in `{}`, bytes {from} to {to}: {detail}; lost: {}, behind sequence {sequence}; \
     see `wasmflow channel verify`, and set `on_corruption = \"skip\"` to go on behind it",
    path.display(), lost_text(*lost_events)
)]
pub struct Damage {
    pub channel: Arc<str>,
    pub path: PathBuf,
    pub from: u64,
    pub to: u64,
    /// The first sequence number that is lost.
    pub sequence: u64,
    /// By the gap in the sequence; nothing when there is no telling.
    pub lost_events: Option<u64>,
    pub detail: String,
}

fn lost_text(events: Option<u64>) -> String {
    events.map_or("an unknown number of events".into(), |events| format!("{events} events"))
}

/// Why a put was not accepted: nothing of it was written, and its [`Done`](crate::Done) is not called.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PutError {
    /// Cut it, or give it up.
    #[error("a put of {bytes} bytes into channel `{channel}` is over the limit of {limit} bytes")]
    TooLarge { channel: Arc<str>, bytes: u64, limit: u64 },
    #[error("there is no channel `{channel}`")]
    NoSuchChannel { channel: Arc<str> },
    #[error("a put names channel `{channel}` twice, or none at all")]
    BadLegs { channel: Arc<str> },
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// A write or a sync failed (or the logs were closed), so nothing that follows would be safe. Stop, report, and open the
/// folder anew: what is on disk then is the truth. Nothing that failed is tried again and believed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("channel `{channel}` takes nothing any more: cannot {action}")]
pub struct Poisoned {
    pub channel: Arc<str>,
    /// As in "cannot sync segment 4".
    pub action: Arc<str>,
    pub source: Arc<io::Error>,
}

/// Why a reader cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("cannot read `{}` of channel `{channel}`", path.display())]
    Io { channel: Arc<str>, path: PathBuf, source: Arc<io::Error> },
    #[error("channel `{channel}` has no reader `{reader}`")]
    NoSuchReader { channel: Arc<str>, reader: Arc<str> },
    #[error("reader `{reader}` of channel `{channel}` is in use already")]
    InUse { channel: Arc<str>, reader: Arc<str> },
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}
