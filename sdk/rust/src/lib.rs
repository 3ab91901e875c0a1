//! Write wasmflow sources, interceptors and sinks in Rust: a struct, one trait, one export line.
//!
//! ```
//! use wasmflow_sdk::prelude::*;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// What to put behind each body.
//!     #[serde(default = "bang")]
//!     mark: String,
//! }
//!
//! fn bang() -> String {
//!     "!".into()
//! }
//!
//! struct Shout {
//!     mark: String,
//! }
//!
//! impl Interceptor for Shout {
//!     type Config = Config;
//!     const ABOUT: &'static str = "Makes each body upper case and marks its end.";
//!
//!     fn open(config: Config) -> Result<Self, Failure> {
//!         Ok(Shout { mark: config.mark })
//!     }
//!
//!     fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
//!         let mark = self.mark.as_bytes();
//!         batch.map_bodies_adding(mark.len(), |body, out| {
//!             out.extend(body.iter().map(u8::to_ascii_uppercase));
//!             append(out, mark);
//!         })?;
//!         Ok(())
//!     }
//! }
//!
//! wasmflow_sdk::export_interceptor!(Shout);
//!
//! // The test of it, by plain `cargo test`: outside the sandbox a batch is in memory.
//! let mut shout = Shout::open(Config { mark: bang() })?;
//! let mut batch = Batch::from_bodies(["hello", "flume"]);
//! shout.intercept(&mut batch)?;
//! assert_eq!(batch.bodies().iter().collect::<Vec<_>>(), [b"HELLO!", b"FLUME!"]);
//! # Ok::<(), Failure>(())
//! ```
//!
//! Build it as a `cdylib` with `cargo build --release --target wasm32-wasip2`; the `.wasm` file is the plugin. A crate is one
//! plugin, named `shout-interceptor`: `describe` says `shout` and the crate's version.
//!
//! - **Config.** The `config` table of the stage comes as `Config`, by serde. Its JSON Schema, with the doc comments as
//!   descriptions, is served by `describe`, so the host points at a misfit in the pipeline file before anything starts. What
//!   a schema cannot say belongs into `check`, with the grants that this config needs. [`ByteSize`](config::ByteSize) and
//!   [`Duration`](config::Duration) are written with their units.
//! - **Speed.** A plugin is called once a batch, and a batch is a handle: what you do not ask for does not cross into the
//!   sandbox. Columns come and go packed, each in one copy; [`map_bodies`](batch::Batch::map_bodies) and
//!   [`PackedBuilder`](packed::PackedBuilder) keep it at that, and [`append`](append::append) adds short pieces several times as fast
//!   as `extend_from_slice`; [`surround_bodies`](batch::Batch::surround_bodies) costs little more than a copy. A loop over events belongs into a
//!   function of its own: among other code it has its variables in memory. [`events`](batch::Batch::events) is row form: an allocation
//!   for every field, for where clarity matters more.
//! - **What the host does for you.** Transactions, positions, waiting, retrying and stopping. Answer what happened with a
//!   [`Failure`](failure::Failure); never retry or sleep in a loop of your own. A panic is a trap: the host throws the instance
//!   away and tries again with a fresh one, so keep nothing in memory that must survive.

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod slot;

pub mod append;

pub mod packed;

mod surround;

pub mod batch;

pub mod failure;

pub mod position;

pub mod source;

pub mod interceptor;

pub mod sink;

pub mod describe;

pub mod config;

#[cfg(feature = "disk")]
pub mod disk;

#[cfg(feature = "regex")]
pub mod pattern;

pub mod log;

#[cfg(feature = "net")]
pub mod net;

pub mod console;

pub mod json;

pub mod kafka;

pub use {schemars, serde, serde_json};

/// What nearly every plugin needs.
pub mod prelude {
    pub use crate::append::{append, append_all};
    pub use crate::batch::{Batch, Event, Header, Misfit, Rejection};
    pub use crate::config::{ByteSize, Duration};
    pub use crate::describe::{Need, Problem};
    pub use crate::failure::{Failure, Retry};
    pub use crate::interceptor::Interceptor;
    pub use crate::log;
    pub use crate::packed::{Column, Packed, PackedBuilder};
    pub use crate::position::{Part, Position};
    pub use crate::sink::{Delivery, Outcome, Sink};
    pub use crate::source::{Polled, Progress, Source};
    pub use schemars::{self, JsonSchema};
    pub use serde::{self, Deserialize, Serialize};
}
