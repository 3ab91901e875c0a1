//! Reading: a place in the log that moves forward, and a cursor that follows it.

use std::sync::Arc;

use crate::error::ReadError;
use crate::options::ReadLimits;
use crate::put::Frame;

/// Reads one channel from a reader's cursor on. Reading does not settle.
pub struct Reader {}

impl Reader {
    /// The frames that come next, as many as fit `limits` and are durable in all channels of their puts; none when there are
    /// no more for now. It reads files: from the page cache as a rule, but it may block.
    ///
    /// The first frame may begin before [`next_sequence`](Self::next_sequence) stood, if that was in the middle of it: its
    /// first events are settled already, and it is for the caller to leave them out.
    ///
    /// # Errors
    /// When the next frame is damaged and the policy is to stop, when files cannot be read, or when the log is poisoned.
    pub fn read(&mut self, _limits: ReadLimits) -> Result<Vec<Frame>, ReadError> {
        Ok(Vec::new())
    }

    /// The sequence that is read next.
    pub fn next_sequence(&self) -> u64 {
        0
    }

    /// Goes to any sequence from the cursor to the end: back after a rollback, or forward to where a progress record stands.
    /// Held to these bounds; says where it stands.
    pub fn rewind(&mut self, sequence: u64) -> u64 {
        sequence
    }

    /// As [`Cursor::settle`].
    pub fn settle(&self, _sequence: u64) {}

    /// The reader's cursor, for whoever settles.
    pub fn cursor(&self) -> Cursor {
        Cursor {}
    }
}

/// How far a reader has settled. Clones are the same cursor.
#[derive(Clone)]
pub struct Cursor {}

impl Cursor {
    pub fn reader(&self) -> &Arc<str> {
        unreachable!()
    }

    /// Everything below `sequence` is settled. Going back is not possible, and asking for it does nothing. Soon on disk, off
    /// the path of events: after a crash the reader may stand a little before, never beyond.
    ///
    /// # Panics
    /// When `sequence` was never readable: a sink settled what it cannot have got.
    pub fn settle(&self, _sequence: u64) {}

    /// Settled so far.
    pub fn settled(&self) -> u64 {
        0
    }

    /// Raised by every `seek`.
    pub fn epoch(&self) -> u64 {
        0
    }
}
