//! Progress in the topic `_wasmflow.<pipeline>`: how far everything is that Kafka's own groups do not count, written in the transactions
//! that bring it about.
//!
//! ```text
//! key    ["<pipeline>","<instance>","source","<source>","<part's key, base64>"]       value {"format":1,"part":"<part's value, base64>"}
//! key    ["<pipeline>","<instance>","reader","<channel's id>","<reader>",<epoch>]     value {"format":1,"next":<sequence>}
//! ```

mod note;
mod reader;
mod sources;

pub use reader::{ReaderKey, ReaderProgress};
pub use sources::SourceProgress;

use std::sync::Arc;

use serde_json::Value;

use crate::channel::ReaderCuts;

const FORMAT: u64 = 1;

/// What the transactions of one coordinator write besides the offsets of groups.
pub enum Progress {
    /// Nothing: all sources are consumers of Kafka's.
    None,
    /// The positions of sources.
    Sources(SourceProgress),
    /// The place of one reader of a file channel.
    Reader(ReaderProgress, Arc<ReaderCuts>),
}

impl Progress {
    /// A transaction is committed with what was written here: from now on it must be there.
    pub(super) async fn committed(&mut self) {
        match self {
            Self::None => {}
            Self::Sources(progress) => progress.committed().await,
            Self::Reader(progress, _) => progress.committed().await,
        }
    }
}

/// Reads a value of this format.
fn decode(value: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(value).ok()?;
    (value.get("format")?.as_u64()? == FORMAT).then_some(value)
}

/// Why a record of ours is refused that [`decode`] does not read.
fn not_understood(topic: &str) -> String {
    let reason = "a record of this agent cannot be understood: it is of a newer version, or somebody else's";
    format!("progress topic `{topic}`: {reason}")
}
