//! A pipeline as trusted: every value here has been checked, so nothing downstream checks it again.
//!
//! Names are known to exist, durations and sizes to fit, secrets to be resolved. `check` alone makes these types from a file;
//! tests may write them by hand.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::plugin::PluginOrigin;

/// Makes a name its own type, so that a channel's name cannot be handed over where a stage's is meant.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name that is known to be well formed.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same text, shared: for spans, metrics labels and `StageContext`.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        // `Arc<str>` orders and hashes as its text does, so maps keyed by a name can be asked with a `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name!(
    /// The pipeline's name: a label in logs and metrics, and the default consumer group.
    PipelineName
);
name!(
    /// A source, interceptor or sink. Unique in its pipeline, together with the channels' names.
    StageName
);
name!(
    /// A channel.
    ChannelName
);
name!(
    /// A Kafka connection, as in `[kafka.NAME]`.
    ConnectionName
);

/// A whole pipeline: what `run` starts.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub name: PipelineName,
    /// Tells agents with the same pipeline apart. Nothing: the agent makes a random id and keeps it in `state_dir`.
    pub instance: Option<Arc<str>>,
    /// Absolute. Positions and compiled plugins.
    pub state_dir: PathBuf,
    pub delivery: DeliveryPromise,
    /// How large the transactions of `exactly-once` become.
    pub transaction: TransactionSpec,
    /// Where events rejected for good go. Nothing: a rejection stops its stage.
    pub dead_letters: Option<ChannelName>,
    /// No event is ever made that is larger than this. Default 16 MiB, lowered to the smallest channel's `capacity_bytes`.
    pub max_event_bytes: usize,
    /// How long a stop waits for the channels to run empty. Default 30 s.
    pub drain_timeout: Duration,
    /// The pipeline file's folder, absolute: relative paths are resolved against it.
    pub base_dir: PathBuf,
    pub kafka: BTreeMap<ConnectionName, KafkaConnection>,
    pub channels: BTreeMap<ChannelName, ChannelSpec>,
    pub sources: BTreeMap<StageName, SourceSpec>,
    pub interceptors: BTreeMap<StageName, InterceptorSpec>,
    pub sinks: BTreeMap<StageName, SinkSpec>,
}

/// What is promised about each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryPromise {
    AtLeastOnce,
    /// Into Kafka, for those who read what is committed.
    ExactlyOnce,
}

/// When a transaction is committed: at the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionSpec {
    /// Default 1,000,000; lowered to half of the smallest channel, so that one can fill while another is committed.
    pub max_events: u64,
    /// Default 256 MiB; lowered in the same way.
    pub max_bytes: u64,
    /// Default 100 ms: a commit costs some 10 ms on a near broker, so longer gains little, and it is how late readers of what is
    /// committed see an event.
    pub interval: Duration,
}

impl Default for TransactionSpec {
    fn default() -> Self {
        Self { max_events: 1_000_000, max_bytes: 256 << 20, interval: Duration::from_millis(100) }
    }
}

/// One Kafka cluster, in librdkafka's own words.
#[derive(Debug, Clone, Default)]
pub struct KafkaConnection {
    /// Start a broker in this process instead of dialling one.
    pub embedded: bool,
    /// librdkafka options as written, without secrets: safe to log.
    pub options: BTreeMap<String, String>,
    /// librdkafka options that came from `{ env = … }` or `{ file = … }`.
    pub secrets: BTreeMap<String, SecretString>,
}

impl KafkaConnection {
    /// Every option with its value, secrets among them: for the client's configuration only, never for a log.
    pub fn exposed(&self) -> impl Iterator<Item = (&str, &str)> {
        let plain = self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let secret = self.secrets.iter().map(|(name, value)| (name.as_str(), value.expose_secret()));
        plain.chain(secret)
    }
}

/// A channel's kind and bounds.
#[derive(Debug, Clone)]
pub struct ChannelSpec {
    pub kind: ChannelKind,
    /// Of a memory channel by default 250,000: an eighth of a second at two million events a second, so a sink that waits for a broker's
    /// answer does not stall its source, and a stall is still felt soon. With exactly-once 1,000,000: the channel holds one transaction
    /// that commits and the next one, so that at five million events a second it is time that cuts them and not room.
    pub capacity_events: usize,
    /// Of a memory channel by default 64 MiB, with exactly-once 256 MiB. The bound that matters for memory: at the default event count it
    /// is reached at 268 bytes an event.
    pub capacity_bytes: usize,
}

impl ChannelSpec {
    /// With the default bounds of the kind. A file channel is there to outlast an outage of what its sinks deliver to, so it
    /// holds more: 1,000,000 events and 1 GiB.
    pub fn of(kind: ChannelKind, promise: DeliveryPromise) -> Self {
        let (capacity_events, capacity_bytes) = match (kind, promise) {
            (ChannelKind::Memory, DeliveryPromise::AtLeastOnce) => (250_000, 64 << 20),
            (ChannelKind::Memory, DeliveryPromise::ExactlyOnce) => (1_000_000, 256 << 20),
            (ChannelKind::File(_), _) => (1_000_000, 1 << 30),
        };
        ChannelSpec { kind, capacity_events, capacity_bytes }
    }

    pub fn is_durable(&self) -> bool {
        matches!(self.kind, ChannelKind::File(_))
    }
}

impl Default for ChannelSpec {
    fn default() -> Self {
        ChannelSpec::of(ChannelKind::Memory, DeliveryPromise::AtLeastOnce)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    Memory,
    File(FileSpec),
}

/// How a file channel keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSpec {
    pub sync: SyncRule,
    pub compression: Compression,
    /// How long segments stay that every reader has passed.
    pub retain: Retain,
    /// Default 64 MiB: a segment is the unit of deletion and of preallocation.
    pub segment_bytes: u64,
    /// Default 64 MiB: puts wait rather than leave the file system with less.
    pub min_free_bytes: u64,
    pub on_corruption: OnCorruption,
}

impl Default for FileSpec {
    fn default() -> Self {
        FileSpec {
            sync: SyncRule::Always,
            compression: Compression::None,
            retain: Retain::default(),
            segment_bytes: 64 << 20,
            min_free_bytes: 64 << 20,
            on_corruption: OnCorruption::Fail,
        }
    }
}

/// The log's own words, since they mean the same here.
pub use wasmflow_log::{Compression, OnCorruption, Retain, Start, Sync as SyncRule};

/// A source and its road to the channels.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    pub plugin: PluginOrigin,
    pub config: StageConfig,
    pub grants: Grants,
    pub limits: Limits,
    pub retry: RetryPolicy,
    pub selector: SelectorSpec,
    /// In the order they are called.
    pub interceptors: Vec<StageName>,
    /// Default 1,000.
    pub batch_events: u32,
    /// Default 1 MiB.
    pub batch_bytes: u32,
    pub ack: AckRule,
}

/// When a source is told that its events are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckRule {
    /// Once all readers of its channels have settled the events: a memory channel then loses nothing.
    #[default]
    Settled,
    /// Once the events are in the channels: Flume's way. What a memory channel holds at a kill is lost.
    Put,
}

/// Which channels an event goes to. Every name in here exists, and no list names a channel twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorSpec {
    /// All of them, in one put.
    Replicating(Vec<ChannelName>),
    /// By a header's value.
    Multiplexing {
        header: String,
        routes: BTreeMap<String, Vec<ChannelName>>,
        /// For an event without the header, or with a value that no route names. Empty: such an event is filtered.
        default: Vec<ChannelName>,
    },
}

impl SelectorSpec {
    /// Every channel an event can reach, each once, in order of first mention.
    pub fn channels(&self) -> Vec<ChannelName> {
        let mentioned: Vec<&ChannelName> = match self {
            SelectorSpec::Replicating(channels) => channels.iter().collect(),
            SelectorSpec::Multiplexing { routes, default, .. } => routes.values().flatten().chain(default).collect(),
        };
        let mut channels = Vec::new();
        for channel in mentioned {
            if !channels.contains(channel) {
                channels.push(channel.clone());
            }
        }
        channels
    }
}

/// An interceptor. Stages that name it share this, each with an instance of its own.
#[derive(Debug, Clone)]
pub struct InterceptorSpec {
    pub plugin: PluginOrigin,
    /// Instances that share the work of each use.
    pub workers: u32,
    pub config: StageConfig,
    pub grants: Grants,
    pub limits: Limits,
    pub retry: RetryPolicy,
}

/// A sink and the channel it reads.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    pub plugin: PluginOrigin,
    /// Instances that share the channel's cursor.
    pub workers: u32,
    pub config: StageConfig,
    pub grants: Grants,
    pub limits: Limits,
    pub retry: RetryPolicy,
    pub channel: ChannelName,
    /// In the order they are called.
    pub interceptors: Vec<StageName>,
    /// Default 1,000.
    pub batch_events: u32,
    /// Default 1 MiB.
    pub batch_bytes: u32,
    /// How long a take waits for a fuller batch. Default 0: what is there is taken.
    pub batch_wait: Duration,
    /// Where the sink starts in a file channel that does not know it. Default: at the next event put.
    pub start_at: Start,
}

/// A stage's own configuration, as JSON: once for the guest, once for everybody else.
#[derive(Clone)]
pub struct StageConfig {
    resolved: SecretString,
    redacted: Arc<str>,
}

impl StageConfig {
    /// `redacted` is `resolved` with a placeholder for each secret.
    pub fn new(resolved: impl Into<String>, redacted: impl Into<Arc<str>>) -> Self {
        StageConfig { resolved: SecretString::from(resolved.into()), redacted: redacted.into() }
    }

    /// A configuration without secrets.
    pub fn plain(json: impl Into<String>) -> Self {
        let json = json.into();
        StageConfig { redacted: json.as_str().into(), resolved: SecretString::from(json) }
    }

    /// With secrets: for the plugin's `open` only.
    pub fn json(&self) -> &str {
        self.resolved.expose_secret()
    }

    /// Without secrets: for `check`, logs and errors.
    pub fn redacted(&self) -> &str {
        &self.redacted
    }
}

impl fmt::Debug for StageConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

/// Two configurations are the same when what the guest would be opened with is.
impl PartialEq for StageConfig {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

/// What a stage may do beyond computing. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Addresses the plugin may connect to.
    pub net: Vec<HostPort>,
    /// Addresses the plugin may listen on.
    pub listen: Vec<HostPort>,
    pub dirs: Vec<DirGrant>,
    /// Environment variables the plugin can read.
    pub env: Vec<String>,
    /// Command lines the plugin may start, each exactly as written.
    pub exec: Vec<String>,
    pub kafka: Vec<ConnectionName>,
    pub random: bool,
    pub wall_clock: bool,
}

/// A host as written (a name, or an address without brackets) and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A folder the guest sees under `as_written`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirGrant {
    /// Absolute, resolved against the pipeline file's folder.
    pub path: PathBuf,
    /// The path inside the guest: as it stands in the pipeline file.
    pub as_written: String,
    pub write: bool,
}

/// Bounds on one instance and on one call into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance. Default 64 MiB.
    pub memory_bytes: usize,
    /// Computing time of one call. Default 1 s.
    pub cpu: Duration,
    /// Time of one call, waiting included; for `poll` on top of its own wait. Default 60 s.
    pub call: Duration,
    /// How old an instance may grow before a fresh one takes its place. Default 1 h; a source's none.
    pub age: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: 64 << 20,
            cpu: Duration::from_secs(1),
            call: Duration::from_secs(60),
            age: Some(Duration::from_secs(3600)),
        }
    }
}

/// What happens after a failure that may go well later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first wait; each next one is twice as long. Default 100 ms.
    pub initial: Duration,
    /// The longest wait. Default 30 s.
    pub max: Duration,
    /// How often a call is tried again. 0, the default: for ever.
    pub attempts: u32,
    pub then: AfterRetries,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
            attempts: 0,
            then: AfterRetries::Stop,
        }
    }
}

/// What follows when the attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterRetries {
    #[default]
    Stop,
    DeadLetter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_never_shows_its_secret_in_debug() {
        let config = StageConfig::new(r#"{"password":"canary"}"#, r#"{"password":"<secret>"}"#);
        assert_eq!(format!("{config:?}"), r#"{"password":"<secret>"}"#);
        assert_eq!(config.json(), r#"{"password":"canary"}"#);
    }

    #[test]
    fn a_map_keyed_by_a_name_can_be_asked_with_text() {
        let map = BTreeMap::from([(ChannelName::new("events"), 1)]);
        assert_eq!(map.get("events"), Some(&1));
    }

    #[test]
    fn an_ip6_address_is_printed_in_brackets() {
        assert_eq!(HostPort { host: "::1".into(), port: 80 }.to_string(), "[::1]:80");
    }

    #[test]
    fn a_selector_names_each_channel_once() {
        let list = |names: &[&str]| names.iter().map(|n| ChannelName::new(*n)).collect::<Vec<_>>();
        let selector = SelectorSpec::Multiplexing {
            header: "level".into(),
            routes: BTreeMap::from([("error".into(), list(&["alerts", "events"]))]),
            default: list(&["events"]),
        };
        assert_eq!(selector.channels(), list(&["alerts", "events"]));
    }
}
