//! The youngest frames in memory, so that readers that keep up need not read them back. Costs nothing to fill: the columns are
//! those that were put.

use std::collections::VecDeque;

use crate::channel::state::Spot;
use crate::put::Frame;

/// Invariant: frames follow on, and the last is the last one written.
pub struct Cache {
    frames: VecDeque<Cached>,
    bytes: u64,
    limit: u64,
}

pub struct Cached {
    pub frame: Frame,
    pub number: u64,
    /// The place behind it.
    pub after: Spot,
    bytes: u64,
}

impl Cache {
    pub fn new(limit: u64) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, limit }
    }

    pub fn push(&mut self, number: u64, after: Spot, frame: Frame) {
        if self.frames.back().is_some_and(|last| last.number + 1 != number) {
            self.frames.clear();
            self.bytes = 0;
        }
        let bytes = frame.columns.iter().map(|column| column.len() as u64).sum::<u64>() + 256;
        self.bytes += bytes;
        self.frames.push_back(Cached { frame, number, after, bytes });
        while self.bytes > self.limit {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    pub fn get(&self, number: u64) -> Option<&Cached> {
        let first = self.frames.front()?.number;
        self.frames.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}
