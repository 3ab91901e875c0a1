//! The plugin: when a file begins, when it is rolled, and what is answered.

use std::io;

use wasmflow_sdk::disk::{Disk, child};
use wasmflow_sdk::prelude::*;

use crate::config::Config;
use crate::name::{self, Names};
use crate::open_file::{AppendError, OpenFile};
use crate::recovery::{self, Finished};
use crate::text::lines;
use crate::trouble::{failure, reason};

/// How often it is looked whether a file has reached its age.
const TICK: std::time::Duration = std::time::Duration::from_millis(250);

/// The sink. Between two calls there is at most one file open, and it ends with a whole batch.
pub struct FileRoll {
    config: Config,
    names: Names,
    disk: Disk,
    /// When the sink was opened, in milliseconds since 1970 by the file system's clock.
    start: u64,
    /// The number of the next file.
    next: u64,
    current: Option<OpenFile>,
    /// Files that could not be finished yet.
    left: Vec<String>,
}

impl Sink for FileRoll {
    type Config = Config;
    const ABOUT: &'static str = "Writes events as lines to files that are rolled by time, size or count.";
    const TICK: Option<std::time::Duration> = Some(TICK);

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        let problems = config.problems();
        if problems.is_empty() { Ok(vec![Need::new("dirs", config.grant())]) } else { Err(problems) }
    }

    fn open(config: Config) -> Result<Self, Failure> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem.into());
        }
        let names = Names { prefix: config.prefix.clone(), extension: config.extension.clone() };
        let disk = Disk::new();
        let mut sink = FileRoll { config, names, disk, start: 0, next: 1, current: None, left: Vec::new() };
        sink.disk.make_folder(&sink.config.dir).map_err(|error| sink.trouble("make the folder", "", &error))?;
        sink.start = sink.probe().map_err(|error| sink.trouble("make files in", "", &error))?;
        sink.recover().map_err(|error| sink.trouble("finish the files of the last run in", "", &error))?;
        Ok(sink)
    }

    fn deliver(&mut self, batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        if batch.is_empty() {
            return Ok(Outcome::Delivered);
        }
        let events = batch.count() as u64;
        let lines = lines(self.config.format, batch);
        if self.current.as_ref().is_some_and(|file| self.is_due(file) || self.would_burst(file, &lines, events)) {
            self.roll()?;
        }
        self.append(&lines, events)?;
        if self.current.as_ref().is_some_and(|file| self.is_full(file)) {
            // The batch is safe: what goes wrong from here on must not bring it again.
            self.roll().unwrap_or_else(|failure| log::warn(format!("{}; it is tried again", reason(&failure))));
        }
        Ok(Outcome::Delivered)
    }

    fn flush(&mut self, drain: bool) -> Result<bool, Failure> {
        if drain || self.current.as_ref().is_some_and(|file| self.is_due(file)) {
            self.roll()?;
        }
        self.finish_left()?;
        Ok(true)
    }

    fn close(&mut self) {
        if let Err(failure) = self.roll() {
            log::warn(format!(
                "a file stays open, and is finished when the sink is opened again: {}",
                reason(&failure)
            ));
        }
    }
}

impl FileRoll {
    /// Puts the lines into the current file, or into a new one.
    fn append(&mut self, lines: &[u8], events: u64) -> Result<(), Failure> {
        let mut file = match self.current.take() {
            Some(file) => file,
            None => self.create().map_err(|error| self.trouble("make a file in", "", &error))?,
        };
        match file.append(&self.disk, lines, events, self.config.sync) {
            Ok(()) => {
                self.current = Some(file);
                Ok(())
            }
            Err(AppendError::CutBack(error)) => {
                let failure = self.trouble("write to", &name::open(file.finished()), &error);
                self.current = Some(file);
                Err(failure)
            }
            Err(AppendError::Spoilt(error)) => {
                self.left.push(file.finished().to_owned());
                Err(self.trouble("write to", &name::open(file.finished()), &error))
            }
        }
    }

    fn create(&mut self) -> io::Result<OpenFile> {
        loop {
            let finished = self.names.finished(self.start, self.next);
            self.next += 1;
            match OpenFile::create(&self.disk, &self.config.dir, finished, self.config.sync) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
    }

    fn is_due(&self, file: &OpenFile) -> bool {
        !self.config.roll_interval.is_zero() && file.opened.elapsed() >= *self.config.roll_interval
    }

    fn is_full(&self, file: &OpenFile) -> bool {
        self.config.roll_bytes.is_some_and(|limit| file.bytes >= limit.0)
            || self.config.roll_events.is_some_and(|limit| file.events >= limit)
    }

    /// A batch is never divided, so it begins a file of its own rather than take one over a limit.
    fn would_burst(&self, file: &OpenFile, lines: &[u8], events: u64) -> bool {
        self.config.roll_bytes.is_some_and(|limit| file.bytes + lines.len() as u64 > limit.0)
            || self.config.roll_events.is_some_and(|limit| file.events + events > limit)
    }

    /// Gives the current file its final name, if there is one.
    fn roll(&mut self) -> Result<(), Failure> {
        if let Some(file) = self.current.take() {
            self.left.push(file.finished().to_owned());
        }
        self.finish_left()
    }

    fn finish_left(&mut self) -> Result<(), Failure> {
        while let Some(finished) = self.left.last().cloned() {
            match recovery::finish(&self.disk, &self.config.dir, &finished, self.config.sync) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => log::error(format!(
                    "`{}` has been renamed or deleted while it was written: no two writers may share folder and prefix",
                    child(&self.config.dir, &name::open(&finished))
                )),
                Err(error) => return Err(self.trouble("finish", &finished, &error)),
            }
            self.left.pop();
        }
        Ok(())
    }

    /// Finishes what a crash has left open.
    fn recover(&self) -> io::Result<()> {
        let leftovers = recovery::leftovers(&self.disk, &self.config.dir, &self.names)?;
        for finished in leftovers.open {
            let outcome = recovery::finish(&self.disk, &self.config.dir, &finished, self.config.sync)?;
            let path = child(&self.config.dir, &finished);
            log::info(match outcome {
                Finished::Named { cut: 0 } => format!("finished `{path}`, which was left open"),
                Finished::Named { cut } => {
                    format!("finished `{path}`, without {cut} bytes of a batch not written whole")
                }
                Finished::Empty => format!("removed `{path}`, which was left open without a whole batch"),
            });
        }
        for orphan in leftovers.marks {
            self.disk.remove(&child(&self.config.dir, &name::mark(&orphan)))?;
        }
        Ok(())
    }

    /// Makes sure that files can be made, and learns the time from one: the wall clock would be a grant of its own.
    fn probe(&self) -> io::Result<u64> {
        let path = child(&self.config.dir, &self.names.probe());
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path)?;
                self.disk.create(&path)
            }
            made => made,
        }?;
        let modified = file.stat()?.modified;
        self.disk.remove(&path)?;
        Ok((modified / 1_000_000) as u64)
    }

    fn trouble(&self, action: &str, name: &str, error: &io::Error) -> Failure {
        let path = if name.is_empty() { self.config.dir.clone() } else { child(&self.config.dir, name) };
        failure(action, &path, error, &self.config)
    }
}
