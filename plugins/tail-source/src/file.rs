//! One file that is followed: its bookmark, its handle while it has one, and what was last seen of it.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use wasmflow_sdk::disk::{Disk, Handle, Identity};

use crate::bookmark::Bookmark;
use crate::lines::Lines;
use crate::reader::{Turn, Unfinished, turn};

/// How long a file that cannot be read is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long after its last change a file is looked at as often as possible.
const HOT_FOR: Duration = Duration::from_secs(60);

/// A file that is followed.
///
/// It is *quiet* (nothing new when it was last looked at), or *ready* (queued for a turn); and it is *present* (under a name
/// that matches) or *absent* (renamed out of the patterns, or deleted), where only an open handle can bring its rest.
pub struct TailedFile {
    pub identity: Identity,
    pub bookmark: Bookmark,
    /// The bookmark's path, as the header carries it.
    path: Rc<str>,
    handle: Option<Handle>,
    /// Known from the position, and not found since.
    pub restored: bool,
    pub absent_since: Option<Instant>,
    /// Files whose name it has taken and that have something left: that comes first, so the lines of one name stay in order.
    ///
    /// Invariant: set when this file is found, to files that were known before, so none waits for itself.
    pub behind: Vec<Identity>,
    pub queued: bool,
    /// The last line is to be brought without its newline.
    pub bring_rest: bool,
    /// Where reading stops for good, for a source that does not follow.
    pub end: u64,
    /// The last turn ended in the middle: another one needs no look at the file before it, unless it comes to the end.
    midway: bool,
    /// Up to where the file was read, brought or not, and its modification time before that.
    seen: Option<(u64, u128)>,
    changed_at: Instant,
    retry_at: Option<Instant>,
    /// Its trouble has been told.
    pub complained: bool,
    /// A line of it was cut, which has been told.
    pub cut_told: bool,
}

/// What a turn came to.
pub enum Step {
    /// There may be more: it stays ready.
    More,
    /// Nothing more for now.
    Quiet,
    /// It was read again from its start on, for this reason, from this offset.
    Restarted(&'static str, u64),
    /// Its name belongs to another file by now.
    Elsewhere,
}

impl TailedFile {
    pub fn new(identity: Identity, bookmark: Bookmark, now: Instant) -> Self {
        TailedFile {
            identity,
            path: bookmark.path.as_str().into(),
            bookmark,
            handle: None,
            restored: false,
            absent_since: None,
            behind: Vec::new(),
            queued: false,
            bring_rest: false,
            end: u64::MAX,
            midway: false,
            seen: None,
            changed_at: now,
            retry_at: None,
            complained: false,
            cut_told: false,
        }
    }

    pub fn path(&self) -> &Rc<str> {
        &self.path
    }

    pub fn rename(&mut self, path: &str) {
        self.bookmark.path = path.to_owned();
        self.path = path.into();
    }

    pub fn is_open(&self) -> bool {
        self.handle.is_some()
    }

    pub fn close(&mut self) {
        self.handle = None;
    }

    pub fn is_hot(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.changed_at) < HOT_FOR || self.has_rest()
    }

    /// A line without its newline has been seen behind the bookmark.
    pub fn has_rest(&self) -> bool {
        self.seen.is_some_and(|(end, _)| end > self.bookmark.offset)
    }

    /// Nothing was left to read when it was last looked at; of a file of the position nobody knows.
    pub fn is_read_up(&self) -> bool {
        self.restored || (!self.queued && self.seen.is_some())
    }

    /// How long nothing has come, and nobody has known the file under a name.
    pub fn lost_for(&self, now: Instant) -> Duration {
        self.absent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since.max(self.changed_at)))
    }

    /// Whether there is something to read, or a last line has waited for its newline long enough.
    ///
    /// Without a handle the answer is about the file that has the name now; the turn finds out whether it is this one.
    pub fn look(&mut self, disk: &Disk, now: Instant, idle_flush: Duration) -> bool {
        if self.retry_at.is_some_and(|at| now < at) || (self.handle.is_none() && self.absent_since.is_some()) {
            return false;
        }
        let stat = match &self.handle {
            Some(handle) => handle.stat(),
            None => disk.stat(&self.path),
        };
        let Ok(stat) = stat else {
            // It is gone, or the turn meets the same error and tells it.
            return stat.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        };
        if self.seen != Some((stat.size, stat.modified)) {
            return true;
        }
        self.bring_rest = self.has_rest() && now.saturating_duration_since(self.changed_at) >= idle_flush;
        self.bring_rest
    }

    /// Opens the file by its name, and makes sure that it is still this file.
    ///
    /// # Errors
    /// Of the disk; `NotFound` also where the name belongs to another file.
    pub fn open(&mut self, disk: &Disk) -> io::Result<()> {
        if self.handle.is_none() {
            let handle = disk.open(&self.path)?;
            if handle.identity()? != self.identity {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.handle = Some(handle);
        }
        Ok(())
    }

    /// One turn at the open file.
    ///
    /// # Errors
    /// Of the disk; what was brought before it stays brought.
    pub fn step(&mut self, now: Instant, lines: &mut Lines) -> io::Result<Step> {
        let Some(handle) = &self.handle else { return Ok(Step::Elsewhere) };
        let before = self.bookmark.offset;
        // Before reading, so that a change in between is seen by the next look.
        let looked = if std::mem::take(&mut self.midway) { None } else { Some(handle.stat()?) };
        if looked.is_some_and(|stat| stat.size < before) {
            self.bookmark.restart();
            return Ok(Step::Restarted("is shorter than what was read of it", before));
        }
        let unfinished = if self.bring_rest { Unfinished::Bring } else { Unfinished::Leave };
        let ended = turn(handle, &mut self.bookmark, self.end, unfinished, lines);
        lines.end_run(&self.path);
        (self.complained, self.retry_at) = (false, None);
        let ended = ended?;
        self.midway = ended == Turn::More;
        let Some(stat) = looked else {
            // Whatever it came to, it may have come to the end: the next turn looks first.
            return Ok(Step::More);
        };
        match ended {
            Turn::More => Ok(Step::More),
            Turn::Rewritten => {
                self.bookmark.restart();
                Ok(Step::Restarted("has other bytes where it was read", before))
            }
            Turn::End(end) => {
                if self.seen.is_none_or(|(seen, _)| seen != end) {
                    self.changed_at = now;
                }
                self.seen = Some((end, stat.modified));
                self.bring_rest = false;
                Ok(Step::Quiet)
            }
        }
    }

    /// Leaves the file alone for a while after an error. A handle is given up only where the file can be found again.
    pub fn rest_after_error(&mut self, now: Instant) {
        self.retry_at = Some(now + RETRY_AFTER);
        self.seen = None;
        if self.absent_since.is_none() {
            self.handle = None;
        }
    }

    /// Goes to the end of the file as it stands.
    ///
    /// # Errors
    /// Of the disk; the bookmark is then as before.
    pub fn skip_to_end(&mut self, disk: &Disk) -> io::Result<()> {
        self.open(disk)?;
        let handle = self.handle.as_ref().expect("just opened");
        let size = handle.stat()?.size;
        let head = handle.read(0, wasmflow_sdk::disk::CHUNK_BYTES.min(size as usize))?;
        let before = Bookmark::tail_length(size);
        let tail = handle.read(size - before, before as usize)?;
        self.bookmark.skip_to(size, &head, &tail);
        Ok(())
    }

    /// Whether the file at this bookmark's path is the one that the bookmark was made of, to judge by its bytes.
    pub fn has_bytes_of(&self, disk: &Disk, path: &str) -> bool {
        let check = || -> io::Result<bool> {
            let handle = disk.open(path)?;
            let head = handle.read(0, self.bookmark.head.length as usize)?;
            let tail = handle.read(self.bookmark.tail_start(), self.bookmark.tail.length as usize)?;
            Ok(self.bookmark.head.begins(&head) && self.bookmark.tail.begins(&tail))
        };
        self.bookmark.offset > 0 && check().unwrap_or(false)
    }
}
