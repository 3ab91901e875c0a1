//! Stages that several tests and benchmarks share, as text below the `[pipeline]` table.

use crate::broker::USER;

/// A memory channel `events` read by a sink that prints each body as a line.
pub const CONSOLE: &str = r#"
    [channels.events]
    type = "memory"

    [sinks.console]
    plugin = "prefix-suffix"
    channel = "events"
    config = { prefix = "" }
"#;

/// A memory channel `refused` for dead letters, whose sink prints each body behind `refused `.
pub const LETTERS: &str = r#"
    [channels.refused]
    type = "memory"

    [sinks.letters]
    plugin = "prefix-suffix"
    channel = "refused"
    config = { prefix = "refused " }
"#;

/// A memory channel `events` whose events are delivered nowhere.
pub const NOWHERE: &str = r#"
    [channels.events]
    type = "memory"

    [sinks.nowhere]
    plugin = "null"
    channel = "events"
"#;

/// A memory channel `events` whose events' bodies are lines of files in the folder `out`.
pub const FILES: &str = r#"
    [channels.events]
    type = "memory"

    [sinks.files]
    plugin = "file-roll"
    channel = "events"
    config = { dir = "out", roll_interval = "0" }
    allow = { dirs = [{ path = "out", write = true }] }
"#;

/// `linger.ms` of [`lingering`].
pub const LINGER_MS: u64 = 5;

/// The settings of a connection to the broker, all others as librdkafka has them.
pub fn connection(broker: &str) -> String {
    format!("\"bootstrap.servers\" = \"{broker}\"")
}

/// The settings of a connection as [`USER`], at a listener that asks for a password.
pub fn connection_as_user(address: &str) -> String {
    let (user, password) = USER;
    format!(
        r#"{}
    "security.protocol" = "sasl_plaintext"
    "sasl.mechanism" = "PLAIN"
    "sasl.username" = "{user}"
    "sasl.password" = "{password}""#,
        connection(address)
    )
}

/// As [`connection`], with the linger stated.
pub fn lingering(broker: &str) -> String {
    format!("{}\n    \"linger.ms\" = \"{LINGER_MS}\"", connection(broker))
}

/// A memory channel `events` whose events go to the topic, over a connection with these settings.
pub fn topic_sink(connection: &str, topic: &str) -> String {
    format!(
        r#"
    [kafka.main]
    {connection}

    [channels.events]
    type = "memory"

    [sinks.topic]
    plugin = "kafka"
    channel = "events"
    config = {{ topic = "{topic}", partition_header = "kafka.partition" }}
    allow = {{ kafka = ["main"] }}
"#
    )
}

/// A copy of the topic `from` as it is at the start, each body between `<` and `>`, partition by partition into `to`.
pub fn topic_to_topic(broker: &str, from: &str, to: &str) -> String {
    format!(
        r#"{}
    [sources.in]
    plugin = "kafka"
    channels = ["events"]
    config = {{ topics = ["{from}"], follow = false }}
    allow = {{ kafka = ["main"] }}
    interceptors = ["affix"]
{AFFIX}"#,
        topic_sink(&connection(broker), to)
    )
}

/// The interceptor `affix`, which puts `<` and `>` around each body.
pub const AFFIX: &str = r#"
    [interceptors.affix]
    plugin = "prefix-suffix"
    config = { prefix = "<", suffix = ">" }
"#;

/// A `tail` source of the logs in the folder `logs`, before `sink`, which defines the channel `events`; `config` are further keys.
pub fn tail_to(config: &str, sink: &str) -> String {
    format!(
        r#"{sink}
    [sources.log]
    plugin = "tail"
    channels = ["events"]
    config = {{ files = ["logs/*.log"], file_header = false, {config} }}
    allow = {{ dirs = [{{ path = "logs" }}] }}
"#
    )
}

/// A `netcat` source before `sink`, which defines the channel `events`.
pub fn netcat_to(port: u16, sink: &str) -> String {
    format!(
        r#"{sink}
    [sources.netcat]
    plugin = "netcat"
    channels = ["events"]
    config = {{ bind = "127.0.0.1:{port}" }}
    allow = {{ listen = ["127.0.0.1:{port}"] }}
"#
    )
}

/// All sources that wait: `netcat`, `kafka` and a `tail` of the folder `logs`, onto the console.
pub fn netcat_and_topic_to_console(port: u16, broker: &str, topic: &str) -> String {
    format!(
        r#"{}
    [kafka.main]
    "bootstrap.servers" = "{broker}"

    [sources.topic]
    plugin = "kafka"
    channels = ["events"]
    config = {{ topics = ["{topic}"] }}
    allow = {{ kafka = ["main"] }}

    [sources.log]
    plugin = "tail"
    channels = ["events"]
    config = {{ files = ["logs/*.log"] }}
    allow = {{ dirs = [{{ path = "logs" }}] }}
"#,
        netcat_to(port, CONSOLE)
    )
}
