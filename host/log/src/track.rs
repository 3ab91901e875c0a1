//! What one channel knows of a source: which of its puts are here, which are whole everywhere, and the position.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::put::{ChannelId, Part, PositionChange};

pub type Tracks = BTreeMap<Arc<str>, SourceTrack>;

/// A frame that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Void {
    pub sequence: u64,
    pub events: u32,
}

/// By the frame's number.
pub type Voids = BTreeMap<u64, Void>;

/// Invariant: `complete` < every pending put <= `last_put`; pending puts rise.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SourceTrack {
    /// The greatest number ever used for a put of this source, as far as this channel knows.
    pub last_put: u64,
    /// The newest put here that is durable in all its channels, and the channels it went to.
    pub complete: u64,
    pub channels: Vec<ChannelId>,
    /// As of `complete`.
    pub position: BTreeMap<Bytes, Bytes>,
    /// Written here, and not yet known to be durable everywhere. Not many: a source has a few puts under way.
    pub pending: VecDeque<PendingPut>,
    /// Puts above the first and up to the second number were taken back by the last recovery that did so.
    pub void: (u64, u64),
    /// The newest put of the source that anything in this channel says is complete, whether it is here or not.
    pub evidence: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PendingPut {
    pub put: u64,
    /// All channels of the put, this one among them.
    pub channels: Vec<ChannelId>,
    pub frame: u64,
    pub sequence: u64,
    pub events: u32,
    pub position: PositionChange,
}

impl SourceTrack {
    pub fn add(&mut self, put: PendingPut) {
        self.last_put = self.last_put.max(put.put);
        self.pending.push_back(put);
    }

    /// Takes note that the source's puts up to this one are durable in all their channels.
    pub fn complete_up_to(&mut self, put: u64) {
        self.evidence = self.evidence.max(put);
        while let Some(first) = self.pending.pop_front_if(|first| first.put <= put) {
            self.complete = first.put;
            self.apply(&first.position);
            self.channels = first.channels;
        }
    }

    /// Whether the put, one of this channel's, is in it.
    pub fn has(&self, put: u64) -> bool {
        put <= self.complete || self.pending.iter().any(|pending| pending.put == put)
    }

    pub fn apply(&mut self, change: &PositionChange) {
        apply(&mut self.position, change);
    }

    pub fn position_as_change(&self) -> PositionChange {
        whole(&self.position)
    }
}

/// Moves a position.
pub fn apply(position: &mut BTreeMap<Bytes, Bytes>, change: &PositionChange) {
    let parts = match change {
        PositionChange::Parts(parts) => parts,
        PositionChange::Whole(parts) => {
            position.clear();
            parts
        }
    };
    for part in parts {
        // Copied: a part lives as long as its source, and must not hold a whole read buffer in memory.
        let key = Bytes::copy_from_slice(&part.key);
        match &part.value {
            Some(value) => position.insert(key, Bytes::copy_from_slice(value)),
            None => position.remove(&key),
        };
    }
}

/// All parts of a position.
pub fn whole(position: &BTreeMap<Bytes, Bytes>) -> PositionChange {
    let part = |(key, value): (&Bytes, &Bytes)| Part { key: key.clone(), value: Some(value.clone()) };
    PositionChange::Whole(position.iter().map(part).collect())
}
