//! The pipeline file as written: one struct a table, one field a key, in the words that the reference and `schema` print.
//!
//! Each declaration makes the struct, its reader and its JSON Schema (see `read::table!`). A field is `None` where the key is
//! absent or was refused; `check` decides what follows.

use std::time::Duration;

use serde_json::{Value as Json, json};
use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::kafka_table::KafkaTable;
use super::pipeline::HostPort;
use super::plugin_config::ConfigTable;
use super::quantity::{self, QuantityError};
use super::read::{At, Count, Named, Node, Reader, Value, choice, entries, table};

/// The newest format of the file that this version reads.
pub const FORMAT: u64 = 1;

table! {
    /// A pipeline file.
    pub struct PipelineFile {
        /// The pipeline itself.
        pipeline: required PipelineTable,
        /// Kafka connections, by name, in librdkafka's own words.
        kafka: optional Named<KafkaTable>,
        /// Channels, by name: where events wait between sources and sinks.
        channels: optional Named<ChannelTable>,
        /// Sources, by name: they bring events in.
        sources: optional Named<SourceTable>,
        /// Interceptors, by name: sources and sinks send their events through them.
        interceptors: optional Named<InterceptorTable>,
        /// Sinks, by name: they take events out of a channel.
        sinks: optional Named<SinkTable>,
    }
    later ["sink_groups"]
}

table! {
    /// The pipeline itself.
    pub struct PipelineTable {
        /// The format of this file.
        format: optional Count<1, 1_000_000> = "1",
        /// The pipeline's name, in logs and metrics, and the default Kafka consumer group.
        name: required String,
        /// Tells agents with the same pipeline apart; default: a random id that is kept in `state_dir`.
        instance: optional String,
        /// The folder for positions; default: `wasmflow/NAME` in the user's state folder.
        state_dir: optional String,
        /// What is promised about each event.
        delivery: optional DeliveryWord = "at-least-once",
        /// With `delivery = "exactly-once"`: how large a transaction becomes.
        transaction: optional TransactionTable,
        /// The channel for events that are rejected for good. Without it a rejection stops its stage.
        dead_letters: optional String,
        /// No event is made that is larger than this; lowered to the smallest `capacity_bytes` of a channel.
        max_event_bytes: optional Size<1, MAX_BATCH_BYTES> = "16MiB",
        /// How long a stop waits for the channels to run empty.
        drain_timeout: optional Time<0, DAY_MS> = "30s",
    }
    later []
}

choice! {
    /// What is promised about each event.
    pub enum DeliveryWord { AtLeastOnce = "at-least-once", ExactlyOnce = "exactly-once", }
    later []
}

table! {
    /// How large a transaction becomes: it is committed at the first of these.
    pub struct TransactionTable {
        /// Events; lowered to half of what the smallest channel holds.
        max_events: optional Count<1, 1_000_000_000> = "1000000",
        /// Bytes; lowered to half of what the smallest channel holds.
        max_bytes: optional Size<1, MAX_BYTES> = "256MiB",
        /// Time from the first event: how late readers of what is committed see it, at most.
        interval: optional Time<1, HOUR_MS> = "100ms",
    }
    later []
}

table! {
    /// Where events wait between sources and sinks.
    pub struct ChannelTable {
        /// Where the channel keeps its events.
        r#type: optional ChannelWord = "memory",
        /// A put waits while the channel holds this many events; default: 250000, with `delivery = "exactly-once"` and of a file channel 1000000.
        capacity_events: optional Count<1, 1_000_000_000>,
        /// A put waits while the channel holds this many bytes; default: 64MiB, with `delivery = "exactly-once"` 256MiB, of a file channel 1GiB.
        capacity_bytes: optional Size<1, MAX_BYTES>,
        /// File: when a put is safe. `always`: once it is synced to disk. `interval`: once it is written; it is synced within
        /// `sync_interval`, and a power cut may lose that much. `os`: once it is written; a power cut may lose more.
        sync: optional SyncWord = "always",
        /// File, with `sync = "interval"`: how much time a power cut may cost.
        sync_interval: optional Time<1, HOUR_MS> = "1s",
        /// File: how events are compressed on disk.
        compression: optional CompressionWord = "none",
        /// File: how long, or up to how many bytes, events stay that every sink has passed, as in `"7d"` or `"10GiB"`, or both
        /// limits as in `{ age = "7d", bytes = "10GiB" }`. Without it they go at once.
        retain: optional RetainValue,
        /// File: the size of one file. Files are deleted whole.
        segment_bytes: optional Size<65_536, MAX_SEGMENT_BYTES> = "64MiB",
        /// File: puts wait rather than leave the file system with less free space than this.
        min_free: optional Size<0, MAX_BYTES> = "64MiB",
        /// File: what follows when events that were safe cannot be read any more. `skip` sets them aside, counts them and goes on.
        on_corruption: optional CorruptionWord = "fail",
    }
    later ["connection", "topic"]
}

choice! {
    /// Where a channel keeps its events.
    pub enum ChannelWord { Memory = "memory", File = "file", }
    later ["kafka"]
}

choice! {
    /// When a put into a file channel is safe.
    pub enum SyncWord { Always = "always", Interval = "interval", Os = "os", }
    later []
}

choice! {
    /// How a file channel compresses events.
    pub enum CompressionWord { None = "none", Lz4 = "lz4", Zstd = "zstd", }
    later []
}

choice! {
    /// What follows when a file channel is damaged.
    pub enum CorruptionWord { Fail = "fail", Skip = "skip", }
    later []
}

table! {
    /// How long events stay that every sink has passed.
    pub struct RetainTable {
        /// At most this long.
        age: optional Time<1, YEARS_MS>,
        /// At most this many bytes.
        bytes: optional Size<1, MAX_BYTES>,
    }
    later []
}

choice! {
    /// Where a sink starts that its channel does not know.
    pub enum StartWord { Tail = "tail", Oldest = "oldest", }
    later []
}

table! {
    /// Brings events in.
    pub struct SourceTable {
        /// A standard plugin by name, or a path to a `.wasm` file, relative to this file.
        plugin: required String,
        /// The plugin's file must have this digest, as `wasmflow plugin inspect` prints it: `sha256:…`.
        digest: optional String,
        /// Every event goes to all of these channels. Either this or `selector`.
        channels: optional Vec<At<String>>,
        /// Chooses the channels of each event.
        selector: optional SelectorTable,
        /// Interceptors that every event passes, in this order, before the channels.
        interceptors: optional Vec<At<String>>,
        /// A batch has at most this many events.
        batch_events: optional Count<1, MAX_BATCH_EVENTS> = "1000",
        /// A batch has at most this many bytes.
        batch_bytes: optional Size<1, MAX_BATCH_BYTES> = "1MiB",
        /// When the source hears that its events are safe: once they are settled, or once they are in the channels.
        ack: optional AckWord = "settled",
        /// The plugin's own configuration.
        config: optional ConfigTable,
        /// What the plugin may do beyond computing; nothing that does not stand here.
        allow: optional AllowTable,
        /// Bounds on the plugin.
        limits: optional LimitsTable,
        /// What happens after a failure that may go well later.
        retry: optional RetryTable,
    }
    later ["workers", "max_rate"]
}

choice! {
    /// When a source hears that its events are safe.
    pub enum AckWord { Settled = "settled", Put = "put", }
    later []
}

table! {
    /// Chooses the channels of each event.
    pub struct SelectorTable {
        /// `multiplexing` goes by a header's value; `replicating` is what `channels` does.
        r#type: required SelectorWord,
        /// The header whose value decides.
        header: optional String,
        /// Channels for each value of the header.
        routes: optional Routes,
        /// Channels for events without the header, or with a value that no route names.
        default: optional Vec<At<String>>,
        /// With `replicating`: every event goes to all of these.
        channels: optional Vec<At<String>>,
    }
    later []
}

choice! {
    /// How a selector chooses.
    pub enum SelectorWord { Multiplexing = "multiplexing", Replicating = "replicating", }
    later ["load-balancing"]
}

table! {
    /// Changes events on their way.
    pub struct InterceptorTable {
        /// A standard plugin by name, or a path to a `.wasm` file, relative to this file.
        plugin: required String,
        /// The plugin's file must have this digest, as `wasmflow plugin inspect` prints it: `sha256:…`.
        digest: optional String,
        /// How many instances share the work: each has a piece of each batch, and the order of the events stays.
        workers: optional Count<1, 1024> = "1",
        /// The plugin's own configuration.
        config: optional ConfigTable,
        /// What the plugin may do beyond computing; nothing that does not stand here.
        allow: optional AllowTable,
        /// Bounds on the plugin.
        limits: optional LimitsTable,
        /// What happens after a failure that may go well later.
        retry: optional RetryTable,
    }
    later []
}

table! {
    /// Takes events out of a channel and delivers them.
    pub struct SinkTable {
        /// A standard plugin by name, or a path to a `.wasm` file, relative to this file.
        plugin: required String,
        /// The plugin's file must have this digest, as `wasmflow plugin inspect` prints it: `sha256:…`.
        digest: optional String,
        /// The channel that the sink reads. Every sink of a channel gets all of its events.
        channel: required String,
        /// Interceptors that every event passes, in this order, before the sink.
        interceptors: optional Vec<At<String>>,
        /// A batch has at most this many events.
        batch_events: optional Count<1, MAX_BATCH_EVENTS> = "1000",
        /// A batch has at most this many bytes.
        batch_bytes: optional Size<1, MAX_BATCH_BYTES> = "1MiB",
        /// How long the sink waits for a fuller batch.
        batch_wait: optional Time<0, HOUR_MS> = "0ms",
        /// Where the sink starts in a file channel that does not know it yet: at the next event put, or at the oldest kept.
        start_at: optional StartWord = "tail",
        /// How many instances deliver side by side, each a batch: events arrive in no order then.
        workers: optional Count<1, 1024> = "1",
        /// The plugin's own configuration.
        config: optional ConfigTable,
        /// What the plugin may do beyond computing; nothing that does not stand here.
        allow: optional AllowTable,
        /// Bounds on the plugin.
        limits: optional LimitsTable,
        /// What happens after a failure that may go well later.
        retry: optional RetryTable,
    }
    later ["when_behind"]
}

table! {
    /// Capabilities. Without a line here a plugin can compute, and nothing else.
    pub struct AllowTable {
        /// Addresses to connect to, as in `"localhost:3306"`.
        net: optional Vec<At<HostPort>>,
        /// Addresses to listen on, as in `"127.0.0.1:44444"`.
        listen: optional Vec<At<HostPort>>,
        /// Folders, seen by the plugin under the path as it is written here.
        dirs: optional Vec<At<DirTable>>,
        /// Environment variables to read, by name.
        env: optional Vec<At<String>>,
        /// Command lines to start, each exactly as written.
        exec: optional Vec<At<String>>,
        /// Kafka connections to use, by name.
        kafka: optional Vec<At<String>>,
        /// Random numbers.
        random: optional bool = "false",
        /// The time of day.
        wall_clock: optional bool = "false",
    }
    later []
}

table! {
    /// A folder that a plugin may see.
    pub struct DirTable {
        /// The folder, relative to this file.
        path: required String,
        /// Whether the plugin may change it.
        write: optional bool = "false",
    }
    later []
}

table! {
    /// Bounds on one instance of a plugin and on each call into it.
    pub struct LimitsTable {
        /// Memory of one instance.
        memory: optional Size<65_536, MAX_MEMORY> = "64MiB",
        /// Computing time of one call.
        cpu: optional Time<10, HOUR_MS> = "1s",
        /// Time of one call, waiting included.
        call: optional Time<10, DAY_MS> = "60s",
        /// Age at which an instance is replaced between two batches; "0s": never. A source's has none where none is written.
        age: optional Time<0, YEARS_MS> = "1h",
    }
    later ["events", "rate"]
}

table! {
    /// What happens after a failure that may go well later.
    pub struct RetryTable {
        /// The first wait; each next one is twice as long.
        initial: optional Time<1, DAY_MS> = "100ms",
        /// The longest wait.
        max: optional Time<1, DAY_MS> = "30s",
        /// How often it is tried again; 0: for ever.
        attempts: optional Count<0, 1_000_000> = "0",
        /// What follows when the attempts are used up.
        then: optional ThenWord = "stop",
    }
    later []
}

choice! {
    /// What follows when the attempts are used up.
    pub enum ThenWord { Stop = "stop", DeadLetter = "dead-letter", }
    later []
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const MAX_BATCH_EVENTS: u64 = 1_000_000;
/// Limit: columns count bytes in 32 bits, and a batch is held in memory several times over.
const MAX_BATCH_BYTES: u64 = 1 << 30;
const MAX_BYTES: u64 = 1 << 40;
const MAX_SEGMENT_BYTES: u64 = 4 << 30;
const YEARS_MS: u64 = 100 * 366 * DAY_MS;
/// Limit: what 32-bit WebAssembly can address.
const MAX_MEMORY: u64 = 4 << 30;

/// A duration, a size, or a table with both.
#[derive(Debug, Clone)]
pub struct RetainValue(pub RetainTable);

impl Value for RetainValue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.get_ref().as_table().is_some() {
            return RetainTable::read(node, reader).map(RetainValue);
        }
        let is_size = node.get_ref().as_str().is_some_and(|text| quantity::parse_size(text).is_ok());
        let mut table = RetainTable { age: None, bytes: None };
        match is_size {
            true => table.bytes = Some(At { value: Size::read(node, reader)?, span: node.span() }),
            false => table.age = Some(At { value: Time::read(node, reader)?, span: node.span() }),
        }
        Some(RetainValue(table))
    }

    fn schema() -> Json {
        json!({ "anyOf": [Time::<1, YEARS_MS>::schema(), Size::<1, MAX_BYTES>::schema(), RetainTable::schema()] })
    }
}

/// A size within bounds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let bytes = quantity(node, reader, "a size", "64MiB", quantity::parse_size)?;
        if (MIN..=MAX).contains(&bytes) {
            return Some(Size(bytes));
        }
        out_of_range(node, reader, &quantity::show_size(MIN), &quantity::show_size(MAX));
        None
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9][0-9_.]* *([KMGT]i?|k)?B$", "examples": ["64MiB"] })
    }
}

/// A duration within bounds in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN_MS: u64, const MAX_MS: u64>(pub Duration);

impl<const MIN_MS: u64, const MAX_MS: u64> Value for Time<MIN_MS, MAX_MS> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let duration = quantity(node, reader, "a duration", "5s", quantity::parse_duration)?;
        let (min, max) = (Duration::from_millis(MIN_MS), Duration::from_millis(MAX_MS));
        if (min..=max).contains(&duration) {
            return Some(Time(duration));
        }
        out_of_range(node, reader, &quantity::show_duration(min), &quantity::show_duration(max));
        None
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9][0-9_.]* *(us|ms|s|m|min|h|d)$", "examples": ["5s"] })
    }
}

fn out_of_range(node: &Node<'_>, reader: &mut Reader<'_>, min: &str, max: &str) {
    let message = format!("`{}` must be between {min} and {max}", reader.key());
    reader.push(Diagnostic::error("out-of-range", node.span(), message));
}

/// A string with a number and a unit. A bare number is told about units rather than about strings.
fn quantity<T>(
    node: &Node<'_>,
    reader: &mut Reader<'_>,
    what: &str,
    example: &str,
    parse: fn(&str) -> Result<T, QuantityError>,
) -> Option<T> {
    let text = match node.get_ref().as_integer() {
        Some(integer) => integer.to_string(),
        None => reader.string(node, &format!("\"{example}\""))?,
    };
    let key = reader.key();
    let (code, message) = match parse(&text) {
        Ok(value) => return Some(value),
        Err(QuantityError::Negative) => ("negative", format!("`{key}` must not be negative")),
        Err(QuantityError::MissingUnit) => ("missing-unit", format!("`{key}` lacks a unit")),
        Err(QuantityError::UnknownUnit) => ("unknown-unit", format!("`{key}` has a unit that is not known")),
        Err(QuantityError::Overflow) => ("out-of-range", format!("`{key}` is too large to count")),
        Err(QuantityError::NotANumber) => ("wrong-type", format!("`{key}` must be {what}, a number with a unit")),
    };
    let units = if what == "a size" { "B, KiB, MiB, GiB, TiB, KB, MB, GB, TB" } else { "us, ms, s, min, h, d" };
    let hint = format!("write {what} as in `{key} = \"{example}\"`; units are {units}");
    reader.push(Diagnostic::error(code, node.span(), message).hint(hint));
    None
}

impl Value for HostPort {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.string(node, "[\"localhost:3306\"]")?;
        let address = parse_host_port(&text);
        if address.is_none() {
            let message = format!("`{text}` is not a host and a port");
            let hint = "as in \"localhost:3306\", \"10.0.0.7:80\" or \"[::1]:9000\"";
            reader.push(Diagnostic::error("bad-address", node.span(), message).hint(hint));
        }
        address
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": ":[0-9]{1,5}$", "examples": ["localhost:3306"] })
    }
}

/// `host:port`, where an IPv6 address stands in brackets.
pub fn parse_host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => host,
    };
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@');
    let is_bare_ip6 = host.contains(':') && !text.starts_with('[');
    (is_host && !is_bare_ip6).then(|| HostPort { host: host.to_owned(), port })
}

/// A selector's routes: header value to channels, in the order of the file. A value may be any text.
#[derive(Debug, Clone)]
pub struct Routes(pub Vec<(At<String>, Vec<At<String>>)>);

impl Value for Routes {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let table: &DeTable<'_> = reader.table(node)?;
        let read = |(value, node): (At<String>, &Node<'_>)| {
            let channels = reader.within(value.clone(), |reader| Value::read(node, reader))?;
            Some((value, channels))
        };
        Some(Routes(entries(table).into_iter().filter_map(read).collect()))
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": <Vec<At<String>>>::schema() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let parsed = |text| parse_host_port(text).map(|address| address.to_string());
        assert_eq!(parsed("localhost:3306").as_deref(), Some("localhost:3306"));
        assert_eq!(parsed("[::1]:80").as_deref(), Some("[::1]:80"));
        for wrong in ["localhost", ":80", "::1:80", "[x]:80", "host:99999", "http://host:80", "a b:1", ""] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
