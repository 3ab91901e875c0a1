//! Which librdkafka options a client gets: the operator's over our defaults, but for those that a promise hangs on.

use std::collections::BTreeMap;

use crate::config::pipeline::{ConnectionName, KafkaConnection};

use super::KafkaError;
use super::client::{ClientConfig, Role, option_names};

/// Options that the host sets itself: acknowledgements, positions and groups would break under other values. And why.
const HOST_OWNED: &[(&[&str], &str)] = &[
    (
        &["enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms", "enable.auto.offset.store"],
        "offsets are committed when their events are settled",
    ),
    (&["group.id"], "a Kafka source names its group with `config.group`"),
    (&["group.instance.id"], "it is made of `[pipeline] instance` and the source's name"),
    (&["transactional.id"], "it is made of the pipeline's and the instance's names"),
    (&["partition.assignment.strategy"], "rebalancing is cooperative"),
    (&["enable.partition.eof"], "the end of a partition is found otherwise"),
    (&["retries", "message.send.max.retries"], NEVER_GIVEN_UP),
    (&["delivery.report.only.error"], "every record's delivery report is needed"),
    (&["enable.idempotence", "enable.gapless.guarantee"], "the producer is idempotent: order hangs on it"),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "the host bounds what is in flight, and a delivery that this queue cannot hold would never go out",
    ),
    (&["test.mock.num.brokers"], "`embedded = true` starts a broker in this process"),
    (&["plugin.library.paths"], "no foreign code is loaded into the host"),
];

/// Options of which one value is right: it may be written down, and no other.
const HOST_FIXED: &[(&[&str], &[&str], &str)] = &[
    (
        &["acks", "request.required.acks"],
        &["all", "-1"],
        "it is `all`: a sink's ok means that no replica lacks the record",
    ),
    (&["message.timeout.ms", "delivery.timeout.ms"], &["0"], NEVER_GIVEN_UP),
];

const NEVER_GIVEN_UP: &str = "no record is given up, and a broker that is away is back-pressure";

/// For every client. The operator's value wins.
const COMMON: &[(&str, &str)] = &[
    // A record that waits for the linger alone must not wait for Nagle as well.
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
    // 10 s by default: a broker that is back would not be noticed for so long.
    ("reconnect.backoff.max.ms", "1000"),
];

const PRODUCER: &[(&str, &str)] = &[
    ("linger.ms", "5"),
    // As Java's producers do, so that a key finds the same partition from either side.
    ("partitioner", "murmur2_random"),
    // The host's own bound on what is in flight decides, never this queue (rule 8).
    ("queue.buffering.max.messages", "10000000"),
    ("queue.buffering.max.kbytes", "2097151"),
];

const CONSUMER: &[(&str, &str)] = &[
    // 1000 by default, which costs a factor of 2.6 to 3 (peers.md).
    ("fetch.queue.backoff.ms", "1"),
    ("fetch.error.backoff.ms", "100"),
    // With queues of their own this counts for each partition, so 64 MiB, the default, is too much.
    ("queued.max.messages.kbytes", "16384"),
    // 100,000 by default, which costs 30 MB a partition with small records and makes nothing faster: this is a tenth of a
    // second at 300,000 records a second.
    ("queued.min.messages", "30000"),
    // A topic that is made later, or gets more partitions, is found within this; 5 minutes by default.
    ("topic.metadata.refresh.interval.ms", "5000"),
    // An offset that is no longer kept is an error in words: records would be missed, or read twice, without it.
    ("auto.offset.reset", "error"),
];

/// With the embedded broker, which waits for nearly a session before each rebalance but a group's first.
const EMBEDDED_CONSUMER: &[(&str, &str)] = &[("session.timeout.ms", "3000")];

/// With the older group protocol; the newer one assigns on the broker's side and refuses these options.
const CLASSIC_GROUP: &[(&str, &str)] = &[
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Members hear of a rebalance by their heartbeats, and meanwhile commits wait behind the request to join: 3 s by
    // default, which a kill in that time would repeat.
    ("heartbeat.interval.ms", "500"),
];

/// librdkafka lists only options that have a value, under their first names: what operators set and it does not tell.
const UNLISTED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.rack",
    "compression.level",
    "compression.type",
    "debug",
    "https.ca.location",
    "linger.ms",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "partitioner",
    "request.timeout.ms",
    "sasl.mechanism",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
];

/// Set last: what [`HOST_OWNED`] refuses to others.
const OWN_PRODUCER: &[(&str, &str)] = &[("enable.idempotence", "true"), ("message.timeout.ms", "0")];
const OWN_CONSUMER: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Reading an end in a batch makes librdkafka believe that the record behind it was read too: after the next rebalance
    // it would skip one. Where the end is, is asked instead.
    ("enable.partition.eof", "false"),
];

/// Limit: librdkafka's default of `message.max.bytes`.
const RECORD_BYTES: usize = 1_000_000;

/// The largest record that this connection's producers take, key and headers included.
pub fn record_bytes(connection: &KafkaConnection) -> usize {
    let value = connection.options.get("message.max.bytes").and_then(|value| value.trim().parse().ok());
    value.unwrap_or(RECORD_BYTES)
}

/// Whether groups go by the older protocol: their members make the assignments.
pub fn has_classic_groups(connection: &KafkaConnection) -> bool {
    connection.options.get("group.protocol").is_none_or(|protocol| protocol != "consumer")
}

/// A client's options, all of them: `servers` where a broker is embedded, `extra` for what only this client has.
///
/// # Errors
/// The first option that librdkafka does not take.
pub fn client_config(
    name: &str,
    connection: &KafkaConnection,
    role: Role,
    servers: Option<&str>,
    extra: &[(&str, &str)],
) -> Result<ClientConfig, KafkaError> {
    let mut config = ClientConfig::new();
    let mut set = |option: &str, value: &str| {
        let visibility = Visibility::of(connection, option);
        config.set(option, value).map_err(|message| refused(option, message, visibility).on(name, option))
    };
    let (defaults, own) = match role {
        Role::Producer => (PRODUCER, OWN_PRODUCER),
        Role::Consumer => (CONSUMER, OWN_CONSUMER),
    };
    for (option, value) in COMMON.iter().chain(defaults) {
        set(option, value)?;
    }
    if role == Role::Consumer && servers.is_some() {
        for (option, value) in EMBEDDED_CONSUMER {
            set(option, value)?;
        }
    }
    if role == Role::Consumer && has_classic_groups(connection) {
        for (option, value) in CLASSIC_GROUP {
            set(option, value)?;
        }
    }
    for (option, value) in connection.exposed() {
        set(option, value)?;
    }
    if let Some(servers) = servers {
        set("bootstrap.servers", servers)?;
        // On demand is what the embedded broker is for.
        set("allow.auto.create.topics", "true")?;
    }
    for (option, value) in own.iter().chain(extra) {
        set(option, value)?;
    }
    Ok(config)
}

/// Every problem of these connections. Options are tried on librdkafka; nothing is dialled.
pub fn problems(connections: &BTreeMap<ConnectionName, KafkaConnection>) -> Vec<KafkaError> {
    connections.iter().flat_map(|(name, connection)| connection_problems(name.as_str(), connection)).collect()
}

fn connection_problems(name: &str, connection: &KafkaConnection) -> Vec<KafkaError> {
    let checked = connection.exposed().filter_map(|(option, value)| {
        let visible = Visibility::of(connection, option);
        check_option(option, value, visible).err().map(|problem| problem.on(name, option))
    });
    let mut problems: Vec<_> = checked.collect();
    let has_servers = ["bootstrap.servers", "metadata.broker.list"]
        .iter()
        .any(|option| connection.exposed().any(|(known, value)| known == *option && !value.trim().is_empty()));
    if !has_servers && !connection.embedded {
        problems.push(KafkaError::NoServers { connection: name.to_owned() });
    }
    problems
}

/// What is wrong with one option, in words that name no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionProblem {
    pub message: String,
    pub hint: Option<String>,
}

impl OptionProblem {
    fn on(self, connection: &str, option: &str) -> KafkaError {
        KafkaError::Option {
            connection: connection.to_owned(),
            option: option.to_owned(),
            message: self.message,
            hint: self.hint,
        }
    }
}

/// Whether an option's value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    Shown,
    Secret,
}

impl Visibility {
    fn of(connection: &KafkaConnection, option: &str) -> Self {
        if connection.secrets.contains_key(option) { Self::Secret } else { Self::Shown }
    }
}

/// Tries one option of a `[kafka.NAME]` table on librdkafka, and on what the host keeps to itself. Starts nothing.
///
/// # Errors
/// For an option that librdkafka does not know, a value that it does not take, and what is the host's own.
pub fn check_option(option: &str, value: &str, visibility: Visibility) -> Result<(), OptionProblem> {
    if let Some(reason) = owned_by_host(option, value) {
        let message = format!("`{option}` is for wasmflow to set: {reason}");
        return Err(OptionProblem { message, hint: Some("leave it out".to_owned()) });
    }
    ClientConfig::new().set(option, value).map_err(|explanation| refused(option, explanation, visibility))
}

fn owned_by_host(option: &str, value: &str) -> Option<&'static str> {
    let fixed = HOST_FIXED.iter().find(|(options, _, _)| options.contains(&option));
    if let Some((_, right, reason)) = fixed {
        return (!right.contains(&value.trim())).then_some(reason);
    }
    HOST_OWNED.iter().find(|(options, _)| options.contains(&option)).map(|(_, reason)| *reason)
}

/// librdkafka's explanation repeats the value, so a secret's is replaced.
fn refused(option: &str, explanation: String, visibility: Visibility) -> OptionProblem {
    let unknown = explanation.starts_with("No such configuration property");
    let message = match (unknown, visibility) {
        (true, _) => format!("librdkafka has no option `{option}`"),
        (false, Visibility::Secret) => format!("librdkafka does not take the value of `{option}`"),
        (false, Visibility::Shown) => format!("`{option}`: {explanation}"),
    };
    let hint = unknown.then(|| nearest_option(option)).flatten().map(|known| format!("did you mean `{known}`?"));
    OptionProblem { message, hint }
}

fn nearest_option(option: &str) -> Option<String> {
    let near = |known: &String| strsim::damerau_levenshtein(known, option);
    let known = option_names().into_iter().chain(UNLISTED.iter().map(|&option| option.to_owned()));
    known.min_by_key(near).filter(|known| near(known) <= 2.max(option.len() / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(options: &[(&str, &str)]) -> BTreeMap<ConnectionName, KafkaConnection> {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let connection = KafkaConnection { options, ..KafkaConnection::default() };
        BTreeMap::from([(ConnectionName::from("main"), connection)])
    }

    fn words(options: &[(&str, &str)]) -> Vec<String> {
        problems(&connection(options)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_librdkafka_takes_is_no_problem() {
        assert!(words(&[("bootstrap.servers", "a:9092"), ("compression.type", "lz4"), ("acks", "all")]).is_empty());
    }

    #[test]
    fn all_problems_of_a_connection_are_told_at_once() {
        let found = words(&[("linger.ms", "soon"), ("group.id", "mine"), ("acks", "1")]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.last().is_some_and(|text| text.contains("names no broker")));
    }

    #[test]
    fn an_unknown_option_is_answered_with_the_nearest() {
        let found = problems(&connection(&[("bootstrap.server", "a:9092")]));
        let KafkaError::Option { message, hint, .. } = &found[0] else { panic!("{found:?}") };
        assert_eq!(message, "librdkafka has no option `bootstrap.server`");
        assert_eq!(hint.as_deref(), Some("did you mean `bootstrap.servers`?"));
    }

    #[test]
    fn a_refused_secret_is_not_shown() {
        let mut connections = connection(&[("bootstrap.servers", "a:9092")]);
        let main = connections.get_mut("main").expect("it was just made");
        main.secrets.insert("security.protocol".into(), "hunter2".to_owned().into());
        let found = problems(&connections);
        assert_eq!(found.len(), 1);
        assert!(!found[0].to_string().contains("hunter2"), "{found:?}");
    }
}
