//! One `[kafka.NAME]`: the options of its clients, and its broker where that is embedded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::client::{Client, EmbeddedBroker, Role};
use super::producer::Packing;
use super::{KafkaError, options};
use crate::config::pipeline::KafkaConnection;
use crate::metrics::KafkaCounters;
use crate::plugin::Failure;

/// One record in a request.
const ALONE: &[(&str, &str)] = &[("batch.num.messages", "1"), ("linger.ms", "0")];

/// A connection of a pipeline, from which stages make their clients.
pub(super) struct Connection {
    name: Arc<str>,
    pipeline: Arc<str>,
    instance: Arc<str>,
    spec: KafkaConnection,
    embedded: Option<Arc<EmbeddedBroker>>,
    /// Given to every client, so that the pipeline knows when all are gone.
    clients: mpsc::WeakSender<()>,
    counters: Arc<KafkaCounters>,
}

impl Connection {
    /// # Errors
    /// For an embedded broker that cannot start.
    pub(super) fn new(
        name: &str,
        pipeline: &Arc<str>,
        instance: &Arc<str>,
        spec: &KafkaConnection,
        clients: mpsc::WeakSender<()>,
    ) -> Result<Self, KafkaError> {
        let embedded = spec.embedded.then(|| start_embedded(name)).transpose()?.map(Arc::new);
        let (pipeline, instance) = (pipeline.clone(), instance.clone());
        Ok(Self {
            name: name.into(),
            pipeline,
            instance,
            spec: spec.clone(),
            embedded,
            clients,
            counters: Arc::default(),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the clients of this connection have done.
    pub(super) fn counters(&self) -> &Arc<KafkaCounters> {
        &self.counters
    }

    #[cfg(test)]
    pub(super) fn broker(&self) -> &Arc<EmbeddedBroker> {
        self.embedded.as_ref().expect("tests embed their broker")
    }

    /// The largest record that producers take, key and headers included.
    pub(super) fn record_bytes(&self) -> usize {
        options::record_bytes(&self.spec)
    }

    pub(super) fn producer(&self, stage: &str, packing: Packing) -> Result<Client, Failure> {
        self.client(stage, Role::Producer, if packing == Packing::Together { &[] } else { ALONE })
    }

    /// Stable across restarts: whoever has it fences whoever had it before.
    pub(super) fn transactional_id(&self, reader: Option<&str>) -> String {
        let id = format!("{}.{}", self.pipeline, self.instance);
        reader.map_or(id.clone(), |reader| format!("{id}.{reader}"))
    }

    /// A producer for transactions of this id. A record is given up before the broker gives up its transaction.
    pub(super) fn transactional_producer(&self, id: &str, packing: Packing) -> Result<Client, Failure> {
        let timeout = self.transaction_timeout().as_millis();
        let (timeout, message) = (timeout.to_string(), (timeout * 3 / 4).max(1).to_string());
        let mut extra = vec![
            ("transactional.id", id),
            ("transaction.timeout.ms", timeout.as_str()),
            ("message.timeout.ms", message.as_str()),
        ];
        if packing != Packing::Together {
            extra.extend(ALONE);
        }
        self.client("transactions", Role::Producer, &extra)
    }

    /// How long the broker lets a transaction be open: the operator's value, or librdkafka's.
    pub(super) fn transaction_timeout(&self) -> Duration {
        let value = self.spec.options.get("transaction.timeout.ms").and_then(|value| value.trim().parse().ok());
        Duration::from_millis(value.unwrap_or(60_000))
    }

    /// A consumer outside any group, for the host's own reading. `isolation` is librdkafka's `isolation.level`.
    pub(super) fn reader(&self, id: &str, isolation: &str) -> Result<Client, Failure> {
        // A group's name is needed to have an event queue; nothing is ever committed to it.
        let extra = [("group.id", "wasmflow"), ("isolation.level", isolation)];
        self.client(id, Role::Consumer, &extra)
    }

    /// The group that a consumer joins; an empty name means the pipeline's.
    pub(super) fn group<'g>(&'g self, group: &'g str) -> &'g str {
        if group.is_empty() { &self.pipeline } else { group }
    }

    /// A member of the group; an empty name means the pipeline's.
    pub(super) fn consumer(&self, stage: &str, group: &str) -> Result<Client, Failure> {
        let (group, member) = (self.group(group), self.member(stage));
        let member = member.as_ref().map(|member| ("group.instance.id", member.as_str()));
        let extra: Vec<_> = [("group.id", group)].into_iter().chain(member).collect();
        self.client(stage, Role::Consumer, &extra)
    }

    /// What a stage is called in its groups, each time anew.
    fn member(&self, stage: &str) -> Option<String> {
        // The embedded group ends with the process; nobody comes back to it.
        self.embedded.is_none().then(|| format!("{}.{stage}", self.instance))
    }

    /// What a stage is called in a group that gives it what it had before without a look at what it asks for now.
    pub(super) fn kept_member(&self, stage: &str) -> Option<String> {
        self.member(stage).filter(|_| options::has_classic_groups(&self.spec))
    }

    /// Makes the topics that a consumer names, where the broker makes topics on demand: else the consumer would find them
    /// missing until somebody sends to them.
    pub(super) fn make_topics(&self, topics: &[String]) {
        if let Some(broker) = &self.embedded {
            let named = topics.iter().filter(|topic| !topic.starts_with('^'));
            named.for_each(|topic| broker.make_topic(topic, EMBEDDED_PARTITIONS));
        }
    }

    fn client(&self, stage: &str, role: Role, extra: &[(&str, &str)]) -> Result<Client, Failure> {
        let servers = self.embedded.as_ref().map(|broker| broker.servers());
        let id = format!("wasmflow.{}.{stage}", self.pipeline);
        let mut all = Vec::new();
        if !self.spec.options.contains_key("client.id") {
            all.push(("client.id", id.as_str()));
        }
        all.extend_from_slice(extra);
        let config = options::client_config(&self.name, &self.spec, role, servers.as_deref(), &all)
            .map_err(|error| Failure::Fatal(error.to_string()))?;
        let clients = self.clients.upgrade().ok_or_else(|| Failure::Fatal("the pipeline is stopping".into()))?;
        // The embedded broker goes after the last client that talks to it.
        let alive = Arc::new((clients, self.embedded.clone()));
        Client::start(role, config, alive)
            .map_err(|reason| Failure::Fatal(format!("connection `{}`: {reason}", self.name)))
    }
}

/// As many as the embedded broker gives a topic that is first named by a producer.
const EMBEDDED_PARTITIONS: i32 = 4;

fn start_embedded(name: &str) -> Result<EmbeddedBroker, KafkaError> {
    let broker =
        EmbeddedBroker::start().map_err(|reason| KafkaError::Embedded { connection: name.to_owned(), reason })?;
    tracing::warn!(
        connection = name,
        servers = broker.servers(),
        "embedded Kafka broker: for trying things out and for tests. It keeps the newest 5 MB or 100,000 records of a partition, \
         in memory, and nothing once this process ends; use a real broker for everything else"
    );
    Ok(broker)
}
