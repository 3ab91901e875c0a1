//! What the host and a plugin tell each other, in the host's own types: the WIT contract without wasmtime.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Batch;
use crate::position::Part;

/// What a plugin says about itself. Asked once, when it is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// As in `prefix-suffix`; what logs and metrics call it.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// One sentence for people.
    pub about: String,
    /// JSON Schema of the stage's `config` table; nothing accepts anything. It is JSON; whether it is a schema is for
    /// whoever compiles it to say.
    pub config_schema: Option<serde_json::Value>,
    /// A source that brings the same events again when it is opened at an older position.
    pub replays: bool,
    /// A sink whose only effect is through the host's Kafka producer.
    pub only_kafka: bool,
    /// How often `flush` is called; nothing: only to drain. At least 1 ms.
    pub tick: Option<Duration>,
}

/// A grant that a configuration will ask for, as in `allow`: `listen`, `127.0.0.1:44444`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub grant: String,
    pub value: String,
}

/// What is wrong with a configuration beyond its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON Pointer into the configuration.
    pub path: String,
    pub message: String,
}

/// An event refused for good.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The event as it was when it was refused: a batch of one row.
    pub event: Batch,
    pub reason: String,
}

/// What a source brought.
#[derive(Debug, Clone)]
pub struct Polled {
    /// May be empty: then only the position moves.
    pub batch: Batch,
    /// Events that the source refused itself, or that are larger than `max_event_bytes`.
    pub rejected: Vec<Rejected>,
    /// The parts that changed since the poll before, as they stand after these events.
    pub position: Vec<Part>,
}

/// The answer to `poll`.
#[derive(Debug, Clone)]
pub enum Progress {
    Events(Polled),
    /// Nothing came within the wait.
    Idle,
    /// Nothing will ever come again.
    Finished,
}

/// What an interceptor made of a batch.
#[derive(Debug, Clone)]
pub struct Intercepted {
    pub batch: Batch,
    pub rejected: Vec<Rejected>,
    /// Events that were neither rejected nor are in the batch any more. An interceptor that replaces all events is taken to
    /// have filtered as many as there are fewer.
    pub filtered: u64,
    /// The number of the oldest batch of which something is kept back; nothing is settled from there on.
    pub oldest_kept: Option<u64>,
}

/// Which events of which log a delivery carries: `first` to `next`, `next` not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub log: Arc<str>,
    pub first: u64,
    pub next: u64,
    /// 1 the first time.
    pub attempt: u32,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has all of it, rejected rows aside, and all that was held before; or the host's Kafka producer
    /// has been given it.
    Delivered,
    /// Taken, not yet safe: a later `Delivered` or `flush` settles it.
    Held,
    /// These rows of the batch as it was delivered must come again; the destination has the others. Strictly increasing,
    /// inside the batch and none of them rejected.
    Partly { rows: Vec<u32>, reason: String, after: Option<Duration> },
}

/// The answer to `deliver`.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub outcome: Outcome,
    pub rejected: Vec<Rejected>,
}
