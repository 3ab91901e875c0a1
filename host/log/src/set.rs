//! The logs of one state folder, opened, written and closed together.

use std::path::Path;
use std::sync::Arc;

use crate::error::{OpenError, Poisoned, PutError, ReadError};
use crate::options::{ChannelOptions, Start};
use crate::put::{ChannelId, Done, Put};
use crate::reader::Reader;
use crate::report::{Held, Recovered, RecoveredChannel, RecoveredReader, Status};
use crate::storage::Storage;

/// All channel logs of one state folder. Each has a thread that writes; one more writes cursors and deletes segments.
///
/// Dropping it closes it, without telling whether that went well; [`close`](Self::close) tells.
pub struct LogSet {}

impl LogSet {
    /// Locks `root`, recovers every channel in it (also those that `channels` does not name: they are dormant, and take part
    /// in deciding which puts are whole), makes those that are new, and starts the threads.
    ///
    /// `root` is a folder of the log's own, such as `<state_dir>/channels`; `pipeline` is noted in it when it is made.
    ///
    /// # Errors
    /// When the folder is not ours to use, or acknowledged events are damaged and the policy is to stop. Nothing is changed then.
    pub fn open(
        storage: Arc<dyn Storage>,
        root: &Path,
        pipeline: &str,
        channels: Vec<ChannelOptions>,
    ) -> Result<(Self, Recovered), OpenError> {
        let _ = (storage, pipeline, channels);
        Err(OpenError::Io { path: root.into(), source: std::io::ErrorKind::Unsupported.into() })
    }

    /// The log of a channel that is open.
    pub fn log(&self, _channel: &str) -> Option<Log> {
        None
    }

    /// Gives a put to the writers of its channels and returns its number; `done` is told when it is durable in all of them.
    /// It never waits: how much may be under way is the caller's business ([`Log::held`] counts it).
    ///
    /// Puts of one source must come from one caller at a time. Their order is the order of these calls.
    ///
    /// # Errors
    /// When the put can never be taken; `done` is dropped uncalled then, and nothing was written.
    pub fn put(&self, put: Put, _done: Done) -> Result<u64, PutError> {
        Err(PutError::NoSuchChannel { channel: put.source })
    }

    /// Opens one more channel while the others run: a new one, or a dormant one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn add_channel(&self, options: ChannelOptions) -> Result<RecoveredChannel, OpenError> {
        Err(OpenError::BadName { channel: options.name })
    }

    /// Closes one channel while the others run: what it was given is written first. Its folder stays, dormant.
    ///
    /// # Errors
    /// When it was poisoned, or is now.
    pub fn retire_channel(&self, _channel: &str) -> Result<(), Poisoned> {
        Ok(())
    }

    /// Writes what was put, syncs it, writes the cursors and gives the folder free.
    ///
    /// # Errors
    /// When one of the channels was poisoned, or is now.
    pub fn close(self) -> Result<(), Poisoned> {
        Ok(())
    }
}

/// One channel of an open [`LogSet`]. Clones are the same log.
#[derive(Clone)]
pub struct Log {}

impl Log {
    pub fn name(&self) -> &Arc<str> {
        unreachable!()
    }

    pub fn id(&self) -> ChannelId {
        ChannelId::default()
    }

    /// What waits for the reader that is furthest behind, and what is on its way to disk: the measure for back-pressure.
    /// Falls as readers settle. Cheap enough to ask for every put.
    pub fn held(&self) -> Held {
        Held::default()
    }

    pub fn status(&self) -> Status {
        Status::default()
    }

    /// The readers there are, with their settled cursors.
    pub fn readers(&self) -> Vec<RecoveredReader> {
        Vec::new()
    }

    /// Opens a reader at its cursor. Each can be open once.
    ///
    /// # Errors
    /// When there is no such reader, or it is open.
    pub fn reader(&self, name: &str) -> Result<Reader, ReadError> {
        Err(ReadError::NoSuchReader { channel: self.name().clone(), reader: name.into() })
    }

    /// Makes a reader while the log runs, as [`ChannelOptions::readers`] does at the start. One that is there is left as it is.
    ///
    /// # Errors
    /// When its cursor file cannot be written.
    pub fn add_reader(&self, _name: &str, _start: Start) -> Result<(), ReadError> {
        Ok(())
    }

    /// Forgets a reader and its cursor; its events are held no longer. One that is open ends with an error.
    ///
    /// # Errors
    /// When there is no such reader, or its file cannot be changed.
    pub fn remove_reader(&self, _name: &str) -> Result<(), ReadError> {
        Ok(())
    }

    /// Has `hook` called whenever more can be read, and when the log is poisoned. As quick and as careful as
    /// [`Done`](crate::Done): it runs on the log's threads.
    pub fn on_change(&self, _hook: Box<dyn Fn() + Send + std::marker::Sync>) {}
}
