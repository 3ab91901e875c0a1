//! What the log tells about itself: after recovery, and while it runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Damage, Poisoned};
use crate::put::ChannelId;

/// What was found in a folder when it was opened.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Every source that any channel knows.
    pub sources: Vec<RecoveredSource>,
    pub channels: Vec<RecoveredChannel>,
    /// What the operator should be told, in no order.
    pub notes: Vec<Note>,
}

impl Recovered {
    pub fn source(&self, name: &str) -> Option<&RecoveredSource> {
        self.sources.iter().find(|source| &*source.name == name)
    }
}

/// A source as its durable channels know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredSource {
    pub name: Arc<str>,
    /// The newest put that is durable in all its channels; 0 when there is none.
    pub last_put: u64,
    /// The greatest number that any put had, whether it became durable or not. Numbers go on behind it.
    pub last_used: u64,
    /// The whole position as of that put.
    pub position: Vec<(Bytes, Bytes)>,
    /// The channels of that put, those that still exist.
    pub channels: Vec<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredChannel {
    pub name: Arc<str>,
    pub id: ChannelId,
    /// Not among the options: an earlier pipeline file had it.
    pub dormant: bool,
    pub oldest_sequence: u64,
    /// The sequence that the next event gets.
    pub next_sequence: u64,
    pub segments: usize,
    pub bytes: u64,
    pub readers: Vec<RecoveredReader>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredReader {
    pub name: Arc<str>,
    /// The next sequence it takes.
    pub cursor: u64,
    /// Before it; of an open channel without the sequences that no event has.
    pub events: u64,
    /// Raised by every `seek`, so that a progress record of before does not move it back.
    pub epoch: u64,
    /// Not among the options: it holds its events until somebody removes it.
    pub unclaimed: bool,
}

/// Something that recovery, or a reader that goes on behind damage, has done or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The end of the log that nobody was ever told is durable. Normal after a crash.
    TailCut { channel: Arc<str>, bytes: u64 },
    /// Puts that did not reach all their channels: taken back here. The source brings them again.
    Voided { channel: Arc<str>, source: Arc<str>, puts: Vec<u64>, events: u64 },
    /// A power cut took puts that `sync` had allowed it to take.
    WindowLost { channel: Arc<str>, source: Arc<str>, puts: u64 },
    /// The reader starts at the oldest event, so it will see events again.
    CursorLost { channel: Arc<str>, reader: Arc<str> },
    /// The reader's next events are gone: it goes on at the oldest there is.
    CursorTooOld { channel: Arc<str>, reader: Arc<str>, lost_events: u64 },
    /// Damage that was passed over, by the policy. A copy is in `quarantine`, where it could be read.
    Skipped(Damage),
    /// Locks and syncs of network file systems promise less than those of local ones.
    NetworkFileSystem { path: PathBuf },
}

impl Note {
    /// Whether nothing is amiss: for the log level.
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::TailCut { .. } | Self::Voided { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TailCut { channel, bytes } => {
                write!(f, "channel `{channel}`: {bytes} bytes at the end were never acknowledged and are left out")
            }
            Self::Voided { channel, source, puts, events } => write!(
                f,
                "channel `{channel}`: {} puts of source `{source}` with {events} events had not reached all their channels \
                 and are taken back",
                puts.len()
            ),
            Self::WindowLost { channel, source, puts } => write!(
                f,
                "channel `{channel}`: {puts} puts of source `{source}` were lost before they were synced, as its `sync` allows"
            ),
            Self::CursorLost { channel, reader } => write!(
                f,
                "channel `{channel}`: the cursor of reader `{reader}` is lost, so it starts at the oldest event and will \
                 see events again"
            ),
            Self::CursorTooOld { channel, reader, lost_events } => write!(
                f,
                "channel `{channel}`: {lost_events} events that reader `{reader}` had not taken are gone; it goes on at the \
                 oldest there is"
            ),
            Self::Skipped(damage) => write!(f, "passed over: {damage}"),
            Self::NetworkFileSystem { path } => write!(
                f,
                "`{}` is on a network file system, whose locks and syncs promise less than those of a local one",
                path.display()
            ),
        }
    }
}

/// What a channel holds for the reader that is furthest behind; what has been put and not yet written counts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    pub events: u64,
    /// As stored.
    pub bytes: u64,
}

/// A channel's log at this moment, for metrics and `status`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub held: Held,
    /// Of all segment files, retained ones too.
    pub file_bytes: u64,
    pub segments: usize,
    pub oldest_sequence: u64,
    /// The sequence that the next event written gets.
    pub next_sequence: u64,
    /// Behind the last event that can be read: a reader that has taken up to here has taken all there is. What is void, or left
    /// out, at the end does not count.
    pub readable_sequence: u64,
    pub syncs: u64,
    pub written_bytes: u64,
    /// Time the last write and sync of a group of puts took.
    pub last_sync: std::time::Duration,
    /// Lost to damage that was passed over since the start.
    pub skipped_events: u64,
    /// How often damage was passed over since the start.
    pub skipped_places: u64,
    /// Puts wait for space; they go on by themselves once there is some.
    pub waiting: Option<Waiting>,
    pub poisoned: Option<Poisoned>,
}

/// Why puts wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub since_ms: u64,
    /// As in "no space left on device".
    pub reason: String,
}
