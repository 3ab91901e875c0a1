//! The set of files that is followed: looked at in intervals, read in turns.
//!
//! ```text
//!  look (which have something new) ─▶ scan (which files there are) ─▶ queue ─▶ turns ─▶ lines + changed parts
//!    ▲ each interval                    ▲ each interval                └── more: back to the end of the queue
//! ```
//!
//! Nothing here waits except [`Tail::poll`], and only as long as it may. A position moves in the very poll that brings the
//! lines before it, so what the host has stored is never ahead of what it was given.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use wasmflow_sdk::disk::{Disk, Identity};
use wasmflow_sdk::log::Level;

use crate::bookmark::Bookmark;
use crate::changes::{Change, Changes, STARTED, UNDER_WAY};
use crate::file::{Step, TailedFile};
use crate::journal::Journal;
use crate::lines::{Bounds, Lines, Sizes};
use crate::pattern::Pattern;
use crate::scan::Scanner;

/// Limit: files held open at once, well within the host's 1024 handles of an instance. Others are opened for each turn.
const MAX_OPEN: usize = 256;
/// Scans, and looks at files that have been quiet for long, take at most one part in this many of the time.
const COLD_SHARE: u32 = 50;
/// Looks at files that have changed lately take at most one part in this many of the time.
const HOT_SHARE: u32 = 10;
/// Limit: the events of one batch, whatever is asked for: each may be of another file, with a part of the position.
const MAX_BATCH_EVENTS: usize = 8192;
/// Limit: the bytes of one batch, whatever is asked for; the memory of an instance holds it twice on its way out.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// What is followed, and how.
pub struct Options {
    pub patterns: Vec<Pattern>,
    pub start_at_end: bool,
    pub follow: bool,
    pub idle_flush: Duration,
    pub max_line_bytes: usize,
    pub poll_interval: Duration,
    pub file_header: bool,
}

pub enum Polled {
    Lines(Lines, Vec<Change>),
    Idle,
    Finished,
}

/// Which files a look is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Temperature {
    /// Changed lately.
    Hot,
    Cold,
}

/// The files that are followed.
pub struct Tail {
    pub(crate) options: Options,
    pub(crate) disk: Disk,
    pub(crate) scanner: Scanner,
    pub(crate) files: HashMap<Identity, TailedFile>,
    pub(crate) journal: Journal,
    /// Files with something to read, in the order of their turns.
    ready: VecDeque<Identity>,
    /// Files with a handle, the longest open first.
    open: VecDeque<Identity>,
    pub(crate) changes: Changes,
    /// Of the poll before.
    sizes: Sizes,
    /// Files found now are there since before the source was first started.
    pub(crate) first_scan: bool,
    next_look: Instant,
    next_scan: Instant,
    next_cold: Instant,
}

impl Tail {
    /// Goes on from the parts of a position. A part that cannot be read is told and left out: its file is then read again.
    pub fn new<'p>(options: Options, disk: Disk, position: impl Iterator<Item = (&'p [u8], &'p [u8])>) -> Self {
        let now = Instant::now();
        let scanner = Scanner::new(options.patterns.clone());
        let mut tail = Tail {
            options,
            disk,
            scanner,
            files: HashMap::new(),
            journal: Journal::default(),
            ready: VecDeque::new(),
            open: VecDeque::new(),
            changes: Changes::default(),
            sizes: Sizes::default(),
            first_scan: true,
            next_look: now,
            next_scan: now,
            next_cold: now,
        };
        let (mut is_first, mut under_way) = (true, false);
        for (key, value) in position {
            match key {
                STARTED => under_way = value == UNDER_WAY,
                _ => tail.restore(key, value, now),
            }
            is_first = false;
        }
        // Files that a position does not know have come since it was stored.
        tail.options.start_at_end &= is_first || under_way;
        tail
    }

    fn restore(&mut self, key: &[u8], value: &[u8], now: Instant) {
        let identity = std::str::from_utf8(key).ok().and_then(Identity::parse);
        let (Some(identity), Some(bookmark)) = (identity, Bookmark::decode(value)) else {
            let text = String::from_utf8_lossy(value);
            return self
                .journal
                .say(Level::Error, format!("a stored position is not understood, its file is read again: {text}"));
        };
        let mut file = TailedFile::new(identity, bookmark, now);
        file.restored = true;
        self.files.insert(identity, file);
    }

    /// What there is to log since the last time.
    pub fn take_log(&mut self) -> Vec<(Level, String)> {
        self.journal.take()
    }

    /// Brings what is there, or waits for the first of it.
    pub fn poll(&mut self, max_events: usize, max_bytes: usize, wait: Duration) -> Polled {
        if max_events == 0 {
            return Polled::Idle;
        }
        let deadline = Instant::now() + wait;
        let bounds = Bounds {
            max_events: max_events.min(MAX_BATCH_EVENTS),
            max_bytes: max_bytes.min(MAX_BATCH_BYTES),
            max_line_bytes: self.options.max_line_bytes,
            with_offsets: self.options.file_header,
        };
        loop {
            let now = Instant::now();
            self.look_when_due(now);
            let lines = self.turns(bounds, now);
            let changes = self.changes.take(&self.files);
            if lines.count() > 0 || !changes.is_empty() {
                return Polled::Lines(lines, changes);
            }
            if !self.options.follow && self.ready.is_empty() {
                return Polled::Finished;
            }
            let now = Instant::now();
            if now >= deadline {
                return Polled::Idle;
            }
            std::thread::sleep(self.next_look.min(deadline).saturating_duration_since(now));
        }
    }

    /// Scans and looks, each at most once an interval however often this is asked.
    fn look_when_due(&mut self, now: Instant) {
        if now < self.next_look {
            return;
        }
        // First the files that are known, so that the rest of a renamed one comes before what has taken its name.
        if self.options.follow {
            self.look_at_files(now);
            self.forget_lost(now);
        }
        if now >= self.next_scan && (self.options.follow || self.first_scan) {
            self.find_files(now);
            self.next_scan = self.pause_after(now, COLD_SHARE);
        }
    }

    fn look_at_files(&mut self, now: Instant) {
        let started = Instant::now();
        self.look(now, Temperature::Hot);
        self.next_look = self.pause_after(started, HOT_SHARE);
        if now >= self.next_cold {
            let started = Instant::now();
            self.look(now, Temperature::Cold);
            self.next_cold = self.pause_after(started, COLD_SHARE);
        }
    }

    fn look(&mut self, now: Instant, temperature: Temperature) {
        let due = |file: &&mut TailedFile| !file.queued && file.is_hot(now) == (temperature == Temperature::Hot);
        for file in self.files.values_mut().filter(due) {
            if file.look(&self.disk, now, self.options.idle_flush) {
                file.queued = true;
                self.ready.push_back(file.identity);
            }
        }
    }

    /// When to do again what was begun then and is done now.
    fn pause_after(&self, started: Instant, share: u32) -> Instant {
        let now = Instant::now();
        now + self.options.poll_interval.max((now - started) * share)
    }

    /// Puts a file at the end of the queue unless it is in it.
    pub(crate) fn enqueue(&mut self, identity: Identity) {
        if let Some(file) = self.files.get_mut(&identity).filter(|file| !file.queued) {
            file.queued = true;
            self.ready.push_back(identity);
        }
    }

    /// Gives each ready file its turn, round after round, until there is no room or nothing more to read.
    fn turns(&mut self, bounds: Bounds, now: Instant) -> Lines {
        let mut lines = match self.ready.is_empty() {
            true => return Lines::new(bounds),
            false => Lines::as_many_as(self.sizes, bounds),
        };
        while !lines.is_full() {
            let Some(identity) = self.ready.pop_front() else { break };
            if self.is_behind_another(identity) || self.turn(identity, now, &mut lines) {
                self.ready.push_back(identity);
            } else if let Some(file) = self.files.get_mut(&identity) {
                file.queued = false;
            }
        }
        self.sizes = lines.sizes();
        lines
    }

    /// Whether the file has taken the name of one that still has something to read.
    fn is_behind_another(&mut self, identity: Identity) -> bool {
        let Some(mut behind) = self.files.get_mut(&identity).map(|file| std::mem::take(&mut file.behind)) else {
            return false;
        };
        behind.retain(|before| self.files.get(before).is_some_and(|file| file.queued));
        let waits = !behind.is_empty();
        self.files.get_mut(&identity).expect("looked up above").behind = behind;
        waits
    }

    /// One file's turn; says whether it stays ready.
    fn turn(&mut self, identity: Identity, now: Instant, lines: &mut Lines) -> bool {
        let step = self.step(identity, now, lines);
        let Some(file) = self.files.get_mut(&identity) else { return false };
        match step {
            Ok(Step::More) => true,
            Ok(Step::Quiet | Step::Elsewhere) => false,
            Ok(Step::Restarted(why, offset)) => {
                self.changes.brought(identity);
                let line = format!("`{}` {why} (up to byte {offset}): it is read from its start", file.path());
                self.journal.say(Level::Warn, line);
                true
            }
            // The next scan tells whether it was renamed, replaced or deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                if !std::mem::replace(&mut file.complained, true) {
                    let line = format!("cannot read `{}`: {error}; it is tried again every 10 s", file.path());
                    self.journal.say(Level::Warn, line);
                }
                file.rest_after_error(now);
                false
            }
        }
    }

    fn step(&mut self, identity: Identity, now: Instant, lines: &mut Lines) -> io::Result<Step> {
        self.open(identity)?;
        let Some(file) = self.files.get_mut(&identity) else { return Ok(Step::Elsewhere) };
        let (offset, cut) = (file.bookmark.offset, lines.cut);
        let step = file.step(now, lines);
        if file.bookmark.offset != offset {
            self.changes.brought(identity);
        }
        if lines.cut > cut && !std::mem::replace(&mut file.cut_told, true) {
            let limit = self.options.max_line_bytes;
            let line =
                format!("`{}` has lines over `max_line_bytes` ({limit} bytes): they are cut into events", file.path());
            self.journal.say(Level::Warn, line);
        }
        step
    }

    /// Opens a file for its turn; where too many are open, another one is closed first.
    pub(crate) fn open(&mut self, identity: Identity) -> io::Result<()> {
        let Some(file) = self.files.get(&identity) else { return Ok(()) };
        if file.is_open() || file.absent_since.is_some() {
            return Ok(());
        }
        self.open.retain(|open| self.files.get(open).is_some_and(TailedFile::is_open));
        if self.open.len() >= MAX_OPEN {
            self.close_one();
        }
        self.files.get_mut(&identity).expect("looked up above").open(&self.disk)?;
        self.open.push_back(identity);
        Ok(())
    }

    /// Closes the file that is least likely to be missed: at its end and still under a name; else one that can at least be
    /// opened again; else the one that was opened first.
    fn close_one(&mut self) {
        let files = &self.files;
        let is_idle =
            |identity: &Identity| files.get(identity).is_none_or(|file| file.absent_since.is_none() && !file.queued);
        let is_present = |identity: &Identity| files.get(identity).is_none_or(|file| file.absent_since.is_none());
        let index = self.open.iter().position(is_idle).or_else(|| self.open.iter().position(is_present)).unwrap_or(0);
        if let Some(file) = self.open.remove(index).and_then(|identity| self.files.get_mut(&identity)) {
            file.close();
        }
    }
}
