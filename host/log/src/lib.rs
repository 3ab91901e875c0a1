//! The segmented log behind wasmflow's `file` channels: puts that are whole or not there, across channels and crashes.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::{Arc, mpsc};
//! use wasmflow_log::{ChannelOptions, Disk, Leg, LogSet, PositionChange, Put, ReadLimits, Start};
//!
//! let folder = tempfile::tempdir()?;
//! let mut events = ChannelOptions::new("events");
//! events.readers.push(("console".into(), Start::Oldest));
//! let (logs, _recovered) = LogSet::open(Arc::new(Disk), folder.path(), "students", vec![events])?;
//!
//! let (durable, told) = mpsc::channel();
//! let put = Put {
//!     source: "students".into(),
//!     position: PositionChange::default(),
//!     time_ms: 1,
//!     legs: vec![Leg { channel: "events".into(), events: 2, columns: vec!["ab".into(), "cd".into()] }],
//! };
//! logs.put(put, Box::new(move |outcome| drop(durable.send(outcome))))?;
//! told.recv()??; // on disk, in every channel of the put
//!
//! let mut reader = logs.log("events").unwrap().reader("console")?;
//! let frames = reader.read(ReadLimits { events: 1000, bytes: 1 << 20 })?;
//! assert_eq!(frames[0].columns, ["ab", "cd"]);
//! reader.settle(frames[0].next_sequence());
//! logs.close()?;
//! # Ok(()) }
//! ```
//!
//! What is guaranteed:
//!
//! - A put is one frame in each of its channels, under one checksum, and is there whole in all of them or in none.
//! - What [`Done`] was told is durable is there after any crash (with [`Sync::Always`]; the other modes name their window).
//! - A reader gets each frame once it is durable in all channels of its put, in order, and again only from its cursor on.
//! - A cursor on disk is never beyond what was settled; it may lag, so a crash can repeat and never lose.
//! - Any failed write or sync poisons the channel: nothing is durable after it until the folder is opened anew.
//! - Bytes are never believed: a length is bounded before it is used, a frame names its channel, segment and place.

mod cache;
mod channel;
mod compress;
#[doc(hidden)]
pub mod decoders;
mod error;
mod format;
mod log;
mod names;
mod open;
mod options;
mod put;
mod quarantine;
mod reader;
mod recover;
mod report;
mod root;
mod segment;
mod set;
#[cfg(any(test, feature = "simulator"))]
pub mod simulator;
mod source;
pub mod storage;
#[cfg(test)]
mod tests;
mod threads;
pub mod tools;
mod track;

pub use error::{Damage, OpenError, Poisoned, PutError, ReadError};
pub use log::Log;
pub use options::{ChannelOptions, Compression, OnCorruption, ReadLimits, Retain, Start, Sync};
pub use put::{ChannelId, Done, Frame, Leg, Part, PositionChange, Put};
pub use reader::{Cursor, Reader};
pub use report::{Held, Note, Recovered, RecoveredChannel, RecoveredReader, RecoveredSource, Status, Waiting};
pub use set::LogSet;
pub use storage::{Disk, Storage};
