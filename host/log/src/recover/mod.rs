//! Recovery: what a folder holds, which puts are whole, and the segments from which the channels go on.
//!
//! Three steps, over all channels of the folder together:
//!
//! 1. *Scan* (`folder.rs`, `tail.rs`, `cursors.rs`): headers and the chain of all segments, the last segment of each channel
//!    frame by frame, the cursors. Nothing is changed, but what is about to be relied on is synced, and read from the disk
//!    and not from memory: after a failed sync the two differ.
//! 2. *Decide* (`decide.rs`): a put that some channel has and another of its channels has not is void, unless something says
//!    that it was complete once.
//! 3. *Commit* (`commit.rs`): each channel gets a new segment, whose header says where the one before ended, which frames are
//!    void, and the position. Only then may anybody read.
//!
//! Crash: the first two steps change nothing, and give the same answer for a channel whether its new segment is there already
//! or not. So recovery can be stopped anywhere and begun again.

pub mod commit;
pub mod cursors;
pub mod decide;
pub mod folder;
pub mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::channel::Spare;
use crate::error::{Damage, OpenError};
use crate::format::header::{End, Lossy};
use crate::options::{ChannelOptions, OnCorruption};
use crate::put::ChannelId;
use crate::report::Note;
use crate::track::{Tracks, Voids};
use cursors::FoundCursor;

/// A gap for sequences that may have been given to events that are lost: no number is ever given twice.
pub const SEQUENCE_JUMP: u64 = 1 << 32;

/// How to look at a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// For the tools: nothing is written, not even synced.
    Only,
    /// As `Only`, and a cursor that is ahead is no error: somebody is about to move it.
    PastCursors,
    /// Before going on from there.
    ToGoOn,
}

/// A segment file that is part of the log.
#[derive(Debug, Clone)]
pub struct SegmentInfo {
    pub number: u64,
    pub path: PathBuf,
    pub header_bytes: u64,
    pub base_frame: u64,
    pub base_sequence: u64,
    /// Where the segment before ended: sequences between that and the base were never used, or are lost.
    pub previous_sequence: u64,
    pub created_ms: u64,
    pub file_bytes: u64,
    /// As stated by the next segment, or as found.
    pub end: End,
}

/// What was found of one channel.
#[derive(Debug)]
pub struct ChannelScan {
    pub name: Arc<str>,
    pub path: PathBuf,
    pub on_corruption: OnCorruption,
    /// Nothing: there is no segment yet.
    pub id: Option<ChannelId>,
    pub segments: Vec<SegmentInfo>,
    /// The greatest number of any segment file, whatever is in it.
    pub last_number: u64,
    pub lossy: Lossy,
    /// Where the channel goes on: behind `segments`' last end, or further if numbers there may have been used.
    pub next_frame: u64,
    pub next_sequence: u64,
    pub tracks: Tracks,
    pub voids: Voids,
    pub cursors: Vec<FoundCursor>,
    pub notes: Vec<Note>,
    /// Acknowledged events that cannot be read.
    pub damage: Vec<Damage>,
    /// Files that were being made.
    pub leftovers: Vec<PathBuf>,
    /// Files of segments that nobody needs any more.
    pub spares: Vec<Spare>,
    #[cfg(any(test, feature = "simulator"))]
    pub sabotage: crate::options::Sabotage,
}

impl ChannelScan {
    pub fn new(options: &ChannelOptions, path: PathBuf) -> Self {
        Self {
            name: options.name.clone(),
            path,
            on_corruption: options.on_corruption,
            id: None,
            segments: Vec::new(),
            last_number: 0,
            lossy: Lossy::Nothing,
            next_frame: 0,
            next_sequence: 0,
            tracks: Tracks::new(),
            voids: Voids::new(),
            cursors: Vec::new(),
            notes: Vec::new(),
            damage: Vec::new(),
            leftovers: Vec::new(),
            spares: Vec::new(),
            #[cfg(any(test, feature = "simulator"))]
            sabotage: options.sabotage,
        }
    }

    pub fn oldest_sequence(&self) -> u64 {
        self.segments.first().map_or(self.next_sequence, |segment| segment.base_sequence)
    }

    /// A cursor below this has not passed what is gone.
    fn floor(&self) -> u64 {
        self.segments.first().map_or(self.next_sequence, |segment| segment.previous_sequence.min(segment.base_sequence))
    }

    /// From where a reader stands to the end, with the sequences between that no event has.
    pub fn events_behind(&self, cursor: &FoundCursor) -> u64 {
        self.next_sequence.saturating_sub(cursor.sequence)
    }

    pub fn end(&self) -> End {
        self.segments.last().map_or(End::default(), |segment| segment.end)
    }

    fn foreign(&self, path: &Path, detail: impl Into<String>) -> OpenError {
        OpenError::Foreign { channel: self.name.clone(), path: path.into(), detail: detail.into() }
    }

    /// Whether the tests of the tests want this channel to cut where it should refuse.
    fn cuts_instead(&self) -> bool {
        #[cfg(any(test, feature = "simulator"))]
        return self.sabotage == crate::options::Sabotage::CutInsteadOfRefuse;
        #[cfg(not(any(test, feature = "simulator")))]
        false
    }

    fn believes(&self) -> bool {
        #[cfg(any(test, feature = "simulator"))]
        return self.sabotage == crate::options::Sabotage::BelieveLength;
        #[cfg(not(any(test, feature = "simulator")))]
        false
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io { path, source }
}
