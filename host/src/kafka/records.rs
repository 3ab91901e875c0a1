//! How an event becomes a record: where topic, key, partition, timestamp and null come from.

/// How a value is found for each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The same for all.
    Fixed(String),
    /// The event's header of this name; an event without it is refused.
    Header(String),
    /// The event's header of this name, or else this value.
    HeaderOr { name: String, fallback: String },
}

/// How the events of one `send` become records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOptions {
    pub topic: Choice,
    /// The header that holds the record key; an event without it has a null key.
    pub key_header: Option<String>,
    /// The header that holds the partition number.
    pub partition_header: Option<String>,
    /// The header that holds the timestamp in milliseconds since 1970; nothing: the time of sending.
    pub timestamp_header: Option<String>,
    /// An event that carries this header has a null value (a tombstone).
    pub null_header: Option<String>,
    /// The headers that become record headers; nothing means all but those above and those whose name begins with
    /// `kafka.`.
    pub forward_headers: Option<Vec<String>>,
}
