//! What goes in, a [`Put`], and what comes out, a [`Frame`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Poisoned;

/// Events of one source on their way into one or several channels, with the change of the source's position: all or nothing.
#[derive(Debug, Clone)]
pub struct Put {
    pub source: Arc<str>,
    pub position: PositionChange,
    /// Milliseconds since 1970, for `seek` by time. Nothing else depends on it.
    pub time_ms: u64,
    /// Every durable channel of the source, also those that get no events of this put: so each channel has the source's
    /// whole position.
    pub legs: Vec<Leg>,
}

/// What one channel gets of a [`Put`].
#[derive(Debug, Clone)]
pub struct Leg {
    pub channel: Arc<str>,
    pub events: u32,
    /// Opaque to the log, and given back as they were put. Written without being copied.
    pub columns: Vec<Bytes>,
}

/// Called once for each put that was accepted: when it is durable in all its channels, or when that can never be said.
/// Calls for one source come in the order of its puts. It runs on the log's own threads, so it must be quick, must not block,
/// and must not call back into the log.
pub type Done = Box<dyn FnOnce(Result<(), Poisoned>) + Send>;

/// One part of a source's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub key: Bytes,
    /// Nothing means that the part is gone.
    pub value: Option<Bytes>,
}

/// How a put moves the position of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PositionChange {
    /// These parts changed.
    Parts(Vec<Part>),
    /// These are all parts there are now: what `source reset` puts.
    Whole(Vec<Part>),
}

impl Default for PositionChange {
    fn default() -> Self {
        Self::Parts(Vec::new())
    }
}

/// A frame as a reader gets it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Sequence number of the first event; the others follow on. With the channel's id it names an event for ever.
    pub first_sequence: u64,
    /// May be 0: a put that brought only a position.
    pub events: u32,
    pub source: Arc<str>,
    /// The put's number, rising with each put of the source.
    pub put: u64,
    pub time_ms: u64,
    /// How the put moved the source's position.
    pub position: PositionChange,
    pub columns: Vec<Bytes>,
}

impl Frame {
    /// What to settle when the whole frame is settled.
    pub fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.events)
    }
}

/// Random when a channel is created and part of everything it writes, so a file can never pass for another channel's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChannelId(pub [u8; 16]);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
