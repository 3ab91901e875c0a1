//! What an operator does with the folder of a pipeline that is stopped. Each locks the folder; nothing deletes events.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Damage, OpenError, ReadError};
use crate::put::{ChannelId, Frame};
use crate::report::{Note, RecoveredReader, RecoveredSource};
use crate::storage::Storage;

/// A stopped folder as it is. What recovery would do at the next start is among the notes, and not done.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub pipeline: String,
    pub format: u32,
    pub sources: Vec<RecoveredSource>,
    pub channels: Vec<InspectedChannel>,
    pub notes: Vec<Note>,
}

#[derive(Debug, Clone)]
pub struct InspectedChannel {
    pub name: Arc<str>,
    pub path: PathBuf,
    pub id: ChannelId,
    pub segments: usize,
    pub bytes: u64,
    pub oldest_sequence: u64,
    pub next_sequence: u64,
    pub oldest_time_ms: Option<u64>,
    pub newest_time_ms: Option<u64>,
    pub readers: Vec<RecoveredReader>,
    /// Found without reading everything: in headers, the chain, and the last segment.
    pub damage: Vec<Damage>,
}

/// The outcome of reading everything.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    pub frames: u64,
    pub events: u64,
    pub bytes: u64,
    pub damage: Vec<Damage>,
}

/// Where to move a reader, or to begin an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Sequence(u64),
    /// The first frame put at this time or later, in milliseconds since 1970.
    Time(u64),
    Oldest,
    Tail,
}

/// What `seek` did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    pub from: u64,
    pub to: u64,
    pub oldest: u64,
    pub next: u64,
    /// The reader's epoch afterwards.
    pub epoch: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("there is no channel `{channel}` in `{}`", root.display())]
    NoSuchChannel { channel: String, root: PathBuf },
    #[error("channel `{channel}` has no reader `{reader}`")]
    NoSuchReader { channel: String, reader: String },
    #[error("sequence {sequence} of channel `{channel}` is not there: it holds {oldest} up to {next}")]
    OutOfRange { channel: String, sequence: u64, oldest: u64, next: u64 },
}

/// Looks at headers, cursors and the last segment of each channel.
///
/// # Errors
/// When the folder cannot be used, is in use, or is not ours.
pub fn inspect(storage: &Arc<dyn Storage>, root: &Path) -> Result<Inspection, ToolError> {
    let _ = storage;
    Err(unsupported(root))
}

/// Reads everything in one channel, or in all, and lists what is damaged.
///
/// # Errors
/// As [`inspect`].
pub fn verify(storage: &Arc<dyn Storage>, root: &Path, channel: &str) -> Result<Verification, ToolError> {
    let _ = (storage, channel);
    Err(unsupported(root))
}

/// Gives every frame of a channel from a place on, until `each` breaks. Damage is passed over and returned.
///
/// # Errors
/// As [`inspect`], or when the place is not there.
pub fn export(
    storage: &Arc<dyn Storage>,
    root: &Path,
    channel: &str,
    from: Place,
    each: &mut dyn FnMut(Frame) -> ControlFlow<()>,
) -> Result<Vec<Damage>, ToolError> {
    let _ = (storage, channel, from, each);
    Err(unsupported(root))
}

/// Moves a reader and raises its epoch. With `dry_run` it only says what it would do.
///
/// # Errors
/// When there is no such reader or place, or the cursor cannot be written.
pub fn seek(
    storage: &Arc<dyn Storage>,
    root: &Path,
    channel: &str,
    reader: &str,
    to: Place,
    dry_run: bool,
) -> Result<Sought, ToolError> {
    let _ = (storage, channel, reader, to, dry_run);
    Err(unsupported(root))
}

/// Removes a reader, so that it holds no events any more. With `dry_run` it only says where it stands.
///
/// # Errors
/// When there is no such reader, or its file cannot be changed.
pub fn remove_reader(
    storage: &Arc<dyn Storage>,
    root: &Path,
    channel: &str,
    reader: &str,
    dry_run: bool,
) -> Result<RecoveredReader, ToolError> {
    let _ = (storage, channel, reader, dry_run);
    Err(unsupported(root))
}

fn unsupported(root: &Path) -> ToolError {
    OpenError::Io { path: root.into(), source: std::io::ErrorKind::Unsupported.into() }.into()
}
