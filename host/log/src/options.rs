//! What the operator decides about a channel's log.

use std::sync::Arc;
use std::time::Duration;

/// One channel of a [`LogSet`](crate::LogSet). [`new`](Self::new) gives the defaults.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// The channel's name; its folder is named after it.
    pub name: Arc<str>,
    /// The size of a segment file. A segment is the unit of deletion; a frame that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Whether the space of a segment is taken before it is used, so that a full disk is met where it can wait.
    pub preallocate: bool,
    pub sync: Sync,
    pub compression: Compression,
    pub retain: Retain,
    /// A segment is only begun while the file system has this much left afterwards; else puts wait.
    pub min_free_bytes: u64,
    pub on_corruption: OnCorruption,
    /// The readers the pipeline has, and where each starts when it is new. A reader on disk that is not named here keeps its
    /// cursor and holds its events until it is removed.
    pub readers: Vec<(Arc<str>, Start)>,
    /// A cursor is written to disk once it is this many events ahead of its file ...
    pub cursor_lag_events: u64,
    /// ... or once it has moved and its file is this old.
    pub cursor_lag: Duration,
    /// Frames this young are kept in memory for readers that keep up, so they need not read them back.
    pub cache_bytes: u64,
    /// Breaks the log on purpose, to see whether the tests notice.
    #[cfg(any(test, feature = "simulator"))]
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl ChannelOptions {
    /// The defaults: 64 MiB segments that are preallocated, a sync for every put, no compression, nothing retained, 64 MiB
    /// of free space, stop on corruption, no readers, cursors on disk within 100 ms or 100,000 events, 8 MiB of cache.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            segment_bytes: 64 << 20,
            preallocate: true,
            sync: Sync::Always,
            compression: Compression::None,
            retain: Retain::default(),
            min_free_bytes: 64 << 20,
            on_corruption: OnCorruption::Fail,
            readers: Vec::new(),
            cursor_lag_events: 100_000,
            cursor_lag: Duration::from_millis(100),
            cache_bytes: 8 << 20,
            #[cfg(any(test, feature = "simulator"))]
            sabotage: Sabotage::None,
        }
    }
}

/// When a put counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sync {
    /// After `fdatasync`, one for all puts that wait. A power cut loses nothing that was acknowledged.
    #[default]
    Always,
    /// When it is written; synced this long after at most. A killed process loses nothing, a power cut up to this much.
    Interval(Duration),
    /// When it is written; synced when a segment is full. A power cut loses what the operating system had not yet written.
    Os,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    Lz4,
    /// Level 1.
    Zstd,
}

/// How long segments stay that every reader has passed, for replay. With neither they go at once; with both, each is a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retain {
    pub age: Option<Duration>,
    /// Of passed segments, together.
    pub bytes: Option<u64>,
}

/// What happens when acknowledged events cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorruption {
    /// Stop and say what is damaged.
    #[default]
    Fail,
    /// Copy the damaged range to the folder `quarantine`, count what is lost, and go on behind it.
    Skip,
}

/// Where a new reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the next event put.
    Tail,
    /// At the oldest event kept.
    #[default]
    Oldest,
}

/// How much one read brings. One frame comes always, however large; more come while they stay within both limits.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub events: u64,
    /// Of columns, as they are given out.
    pub bytes: u64,
}

/// Known ways of getting it wrong, for the tests of the tests.
#[cfg(any(test, feature = "simulator"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    #[default]
    None,
    /// Say durable without having synced.
    SkipSync,
    /// Cut a damaged segment where the damage begins, instead of refusing it.
    CutInsteadOfRefuse,
    /// Take a frame's length as it stands there, and its checksum as good.
    BelieveLength,
}
