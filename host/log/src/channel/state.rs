//! What readers, and whoever asks, see of a channel: its segments, how far it may be read, its readers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::error::Poisoned;
use crate::format::cursor::Slot;
use crate::format::header::{End, Header};
use crate::report::{Held, Note, Waiting};
use crate::source::UnderWay;
use crate::track::{Void, Voids};

/// A place between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    pub segment: u64,
    pub at: End,
}

#[derive(Debug, Clone)]
pub struct LiveSegment {
    pub number: u64,
    pub path: PathBuf,
    pub header_bytes: u64,
    pub base_frame: u64,
    pub base_sequence: u64,
    pub created_ms: u64,
    pub file_bytes: u64,
    /// Frame bytes in all segments before.
    pub bytes_before: u64,
    /// Nothing: it is being written.
    pub end: Option<End>,
}

impl LiveSegment {
    /// A segment that was just made.
    pub fn begun(header: &Header, path: PathBuf, bytes_before: u64) -> Self {
        Self {
            number: header.number,
            path,
            header_bytes: header.length,
            base_frame: header.base_frame,
            base_sequence: header.base_sequence,
            created_ms: header.created_ms,
            file_bytes: header.length,
            bytes_before,
            end: None,
        }
    }

    pub fn start(&self) -> Spot {
        let at = End { offset: self.header_bytes, frame: self.base_frame, sequence: self.base_sequence };
        Spot { segment: self.number, at }
    }
}

/// Invariant: settled <= read <= readable <= written, for each reader; with `sync = "always"` readable <= synced.
pub struct State {
    /// Without gaps in their numbers but where damage was passed over; the last is being written.
    pub segments: VecDeque<LiveSegment>,
    /// Readers may go up to here.
    pub readable: Spot,
    pub written: Spot,
    pub synced: End,
    /// Written, and readable once the put is complete; with the place behind each.
    pub under_way: VecDeque<(Spot, Arc<UnderWay>)>,
    pub voids: Voids,
    /// Sequences between segments that no event has.
    pub gaps: Vec<(u64, u64)>,
    /// When a cursor last told the disk how much is durable.
    pub watermark_ms: u64,
    pub readers: Vec<ReaderState>,
    pub cache: Cache,
    /// Given to the writer and not yet written.
    pub queued: Held,
    pub poisoned: Option<Poisoned>,
    pub waiting: Option<Waiting>,
    pub notes: Vec<Note>,
    pub syncs: u64,
    pub written_bytes: u64,
    pub last_sync: Duration,
    pub skipped_events: u64,
    pub skipped_places: u64,
}

pub struct ReaderState {
    pub name: Arc<str>,
    /// Everything below is settled.
    pub settled: u64,
    /// The place behind the last frame that is settled whole, as far as frames were read here.
    pub settled_spot: Spot,
    /// Read and not yet settled: for each frame its end.
    pub taken: VecDeque<Spot>,
    /// Nothing above was ever given out.
    pub read: u64,
    /// As on disk.
    pub slot: Slot,
    /// When `settled` first went beyond the slot.
    pub dirty_since: Option<u64>,
    pub open: bool,
    pub removed: bool,
    pub unclaimed: bool,
}

impl State {
    /// Of a channel that was just opened; `segments` end with the one that was made for it.
    pub fn new(segments: VecDeque<LiveSegment>, voids: Voids, cache_bytes: u64) -> Self {
        let written = segments.back().expect("one was made").start();
        let pairs = segments.iter().zip(segments.iter().skip(1));
        let gaps = pairs.filter_map(|(before, next)| {
            let end = before.end.map_or(next.base_sequence, |end| end.sequence);
            (end < next.base_sequence).then_some((end, next.base_sequence))
        });
        Self {
            gaps: gaps.collect(),
            segments,
            readable: written,
            written,
            synced: written.at,
            under_way: VecDeque::new(),
            voids,
            watermark_ms: 0,
            readers: Vec::new(),
            cache: Cache::new(cache_bytes),
            queued: Held::default(),
            poisoned: None,
            waiting: None,
            notes: Vec::new(),
            syncs: 0,
            written_bytes: 0,
            last_sync: Duration::ZERO,
            skipped_events: 0,
            skipped_places: 0,
        }
    }

    pub fn advance_readable(&mut self) -> bool {
        let mut moved = false;
        while let Some((spot, _)) = self.under_way.pop_front_if(|(_, put)| put.is_complete()) {
            self.readable = spot;
            moved = true;
        }
        moved
    }

    pub fn segment(&self, number: u64) -> Option<&LiveSegment> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get(at)
    }

    /// The first segment with a greater number.
    pub fn segment_after(&self, number: u64) -> Option<&LiveSegment> {
        self.segments.get(self.segments.partition_point(|segment| segment.number <= number))
    }

    /// Frame bytes in front of a place.
    fn bytes_before(&self, spot: Spot) -> u64 {
        match self.segment(spot.segment) {
            Some(segment) => segment.bytes_before + spot.at.offset.saturating_sub(segment.header_bytes),
            None => self.segments.front().map_or(0, |oldest| oldest.bytes_before),
        }
    }

    /// Whether a cursor is ahead of its file.
    pub fn has_moved(&self) -> bool {
        self.live_readers().any(|reader| reader.dirty_since.is_some())
    }

    /// Of readers that count.
    pub fn live_readers(&self) -> impl Iterator<Item = &ReaderState> {
        self.readers.iter().filter(|reader| !reader.removed)
    }

    pub fn held(&self) -> Held {
        let mut held = Held::default();
        let written = self.bytes_before(self.written);
        for reader in self.live_readers() {
            held.events = held.events.max(self.events_behind(reader));
            held.bytes = held.bytes.max(written.saturating_sub(self.bytes_before(reader.settled_spot)));
        }
        Held { events: held.events + self.queued.events, bytes: held.bytes + self.queued.bytes }
    }

    pub fn events_behind(&self, reader: &ReaderState) -> u64 {
        self.events_between(reader.settled, self.written.at.sequence)
    }

    /// Events with sequences in a range: less what is void, and the gaps between segments.
    pub fn events_between(&self, from: u64, to: u64) -> u64 {
        let from = from.max(self.segments.front().map_or(0, |oldest| oldest.base_sequence));
        let overlap = |begin: u64, end: u64| end.min(to).saturating_sub(begin.max(from));
        let void = |void: &Void| overlap(void.sequence, void.sequence + u64::from(void.events));
        let voids: u64 = self.voids.values().map(void).sum();
        let gaps: u64 = self.gaps.iter().map(|(begin, end)| overlap(*begin, *end)).sum();
        overlap(from, to).saturating_sub(voids + gaps)
    }

    /// Behind the last event that can be read: what is void, or left out, at the end does not count.
    pub fn readable_end(&self) -> u64 {
        let voids = self.voids.values().map(|void| (void.sequence, void.sequence + u64::from(void.events)));
        let mut nothing: Vec<(u64, u64)> = voids.chain(self.gaps.iter().copied()).collect();
        nothing.sort_unstable_by_key(|(_, end)| *end);
        let behind = |end: u64, (from, to): (u64, u64)| if to == end { from } else { end };
        nothing.into_iter().rev().fold(self.readable.at.sequence, behind)
    }

    /// Asserts what must hold whatever happens.
    ///
    /// # Panics
    /// When it does not: then the log would do harm by going on.
    pub fn check(&self, always_synced: bool) {
        let readable = self.readable.at;
        assert!(readable.frame <= self.written.at.frame, "readable {readable:?} beyond written {:?}", self.written);
        assert!(
            !always_synced || readable.frame <= self.synced.frame,
            "readable {readable:?} beyond synced {:?}",
            self.synced
        );
        for (before, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            let end = before.end.expect("only the last is being written");
            assert!(end.frame <= next.base_frame && end.sequence <= next.base_sequence, "{before:?}, then {next:?}");
        }
        for reader in self.live_readers() {
            let (settled, read) = (reader.settled, reader.read);
            assert!(
                reader.slot.sequence <= settled
                    && settled <= read
                    && read <= readable.sequence.max(reader.slot.sequence),
                "reader `{}`: cursor {}, settled {settled}, read {read}, readable {}",
                reader.name,
                reader.slot.sequence,
                readable.sequence
            );
        }
    }
}
