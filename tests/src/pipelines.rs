//! Stages that several tests and benchmarks share, as text below the `[pipeline]` table.

/// A memory channel `events` read by a sink that prints each body as a line.
pub const CONSOLE: &str = r#"
    [channels.events]
    type = "memory"

    [sinks.console]
    plugin = "prefix-suffix"
    channel = "events"
    config = { prefix = "" }
"#;

/// A memory channel `events` whose events are delivered nowhere.
pub const NOWHERE: &str = r#"
    [channels.events]
    type = "memory"

    [sinks.nowhere]
    plugin = "null"
    channel = "events"
"#;

/// `linger.ms` of [`topic_sink`].
pub const LINGER_MS: u64 = 5;

/// A memory channel `events` whose events go to the topic.
pub fn topic_sink(broker: &str, topic: &str) -> String {
    format!(
        r#"
    [kafka.main]
    "bootstrap.servers" = "{broker}"
    "linger.ms" = "{LINGER_MS}"

    [channels.events]
    type = "memory"

    [sinks.topic]
    plugin = "kafka"
    channel = "events"
    config = {{ topic = "{topic}" }}
    allow = {{ kafka = ["main"] }}
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
