//! Kafka for the whole host: connections, the stages' producers and consumers, the embedded broker.
//!
//! Clients belong to a stage and outlive its plugin instances, so a swap or a fresh instance after a trap costs no rebalance
//! and finds what is in flight as it was. Only `client/` names librdkafka; everything else here is in wasmflow's words.

mod assignment;
mod client;
mod connection;
mod consumer;
mod fetch;
mod in_flight;
mod left_out;
mod options;
mod outbox;
mod producer;
mod progress;
mod reach;
mod records;
mod stage;
mod stall;
mod transactional;
mod verdict;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::pipeline::{ConnectionName, KafkaConnection};
use crate::metrics::KafkaCounts;
use connection::Connection;

pub use fetch::Fetch;
pub use in_flight::{InFlight, ProducerLost, Refused};
pub use options::{OptionProblem, Visibility, check_option};
pub use outbox::Outbox;
pub use producer::Packing;
pub use progress::{IfMissing, Progress, ProgressTopic};
pub use records::{Choice, SendOptions};
pub use stage::{InTransactions, Revocation, StageKafka, Start, Subscription};
pub use transactional::{GroupOffsets, Prepared, TransactionTrouble, TransactionalConnection, TransactionalProducer};

/// What is wrong with a `[kafka.NAME]` table. The operator's fault: reported before anything starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    #[error("connection `{connection}`: {message}")]
    Option { connection: String, option: String, message: String, hint: Option<String> },
    #[error("connection `{connection}` names no broker: set \"bootstrap.servers\", or embedded = true")]
    NoServers { connection: String },
    /// The machine's fault: no port, no thread.
    #[error("cannot start the embedded broker of connection `{connection}`: {reason}")]
    Embedded { connection: String, reason: String },
}

/// Every `[kafka.NAME]` of a pipeline, and the embedded brokers among them.
pub struct KafkaClients {
    connections: BTreeMap<Arc<str>, Arc<Connection>>,
    stages: Mutex<Vec<Weak<StageKafka>>>,
    /// Each client holds a sender: when the receiver hears that none is left, all are gone.
    clients: Mutex<Option<mpsc::Sender<()>>>,
    gone: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl KafkaClients {
    /// Checks every connection and starts embedded brokers; dials nobody yet. `instance` tells agents with the same pipeline
    /// apart: it makes the consumers static members of their groups, so that an agent that was killed and returns takes
    /// its partitions back at once.
    ///
    /// # Errors
    /// The first wrong option, or an embedded broker that cannot start.
    pub fn new(
        pipeline: &str,
        instance: &str,
        connections: &BTreeMap<ConnectionName, KafkaConnection>,
    ) -> Result<Arc<Self>, KafkaError> {
        if let Some(problem) = Self::check(connections).into_iter().next() {
            return Err(problem);
        }
        let (pipeline, instance): (Arc<str>, Arc<str>) = (pipeline.into(), instance.into());
        let (clients, gone) = mpsc::channel(1);
        let connect = |(name, spec): (&ConnectionName, &KafkaConnection)| {
            let connection = Connection::new(name.as_str(), &pipeline, &instance, spec, clients.downgrade())?;
            Ok((name.shared(), Arc::new(connection)))
        };
        Ok(Arc::new(Self {
            connections: connections.iter().map(connect).collect::<Result<_, KafkaError>>()?,
            stages: Mutex::default(),
            clients: Mutex::new(Some(clients)),
            gone: tokio::sync::Mutex::new(gone),
        }))
    }

    /// Every problem of these connections, for `validate`: options are tried on librdkafka, nothing is started.
    pub fn check(connections: &BTreeMap<ConnectionName, KafkaConnection>) -> Vec<KafkaError> {
        options::problems(connections)
    }

    /// The transactions of a pipeline on this connection, or those of one `reader` of a file channel: their id tells agents with the
    /// same pipeline apart.
    ///
    /// # Panics
    /// When the pipeline has no such connection.
    pub fn transactional(
        &self,
        connection: &ConnectionName,
        reader: Option<&str>,
        outbox: &Arc<Outbox>,
    ) -> TransactionalConnection {
        let connection = self.connections[connection.as_str()].clone();
        let id = connection.transactional_id(reader);
        TransactionalConnection::new(connection, id, outbox.clone())
    }

    /// The progress topic of a pipeline on this connection.
    ///
    /// # Panics
    /// When the pipeline has no such connection.
    pub fn progress_topic(&self, pipeline: &str, connection: &ConnectionName) -> ProgressTopic {
        ProgressTopic::new(self.connections[connection.as_str()].clone(), pipeline)
    }

    /// The Kafka side of one stage: call it once a stage, and keep it for all instances of its plugin.
    pub fn stage(self: &Arc<Self>, stage: &str, granted: &[ConnectionName]) -> Arc<StageKafka> {
        let granted = granted.iter().filter_map(|name| self.connections.get_key_value(name.as_str()));
        let granted = granted.map(|(name, connection)| (name.clone(), connection.clone())).collect();
        let stage = Arc::new(StageKafka::new(stage, granted));
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.retain(|known| known.strong_count() > 0);
        stages.push(Arc::downgrade(&stage));
        drop(stages);
        stage
    }

    /// What the clients of each connection have done.
    pub fn counts(&self) -> Vec<(Arc<str>, KafkaCounts)> {
        let stages: Vec<_> = {
            let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
            stages.iter().filter_map(Weak::upgrade).collect()
        };
        let lags: Vec<_> = stages.iter().filter_map(|stage| stage.lag()).collect();
        let counts = self.connections.iter().map(|(name, connection)| {
            let mut topics = BTreeMap::<Arc<str>, u64>::new();
            let lags = lags.iter().filter(|(connection, _)| **connection == **name).flat_map(|(_, lag)| lag);
            lags.for_each(|(topic, lag)| *topics.entry(topic.clone()).or_default() += lag);
            let has_transactions = stages.iter().any(|stage| stage.is_in_transactions());
            (name.clone(), connection.counters().counts(has_transactions, topics.into_iter().collect()))
        });
        counts.collect()
    }

    /// Closes every client: offsets are committed and groups left, within `limit` or without the brokers' answer. Deliveries
    /// are awaited by their runners before.
    pub async fn close(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let stages: Vec<_> = {
            let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
            stages.iter().filter_map(Weak::upgrade).collect()
        };
        // Together: each may wait for the same coordinator.
        let closing: Vec<_> =
            stages.into_iter().map(|stage| tokio::spawn(async move { stage.close(deadline).await })).collect();
        for stage in closing {
            // A stage that panicked is closed as far as it will be.
            let _ = stage.await;
        }
        drop(self.clients.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut gone = self.gone.lock().await;
        // Destroying clients may take for ever (rust-rdkafka#453); the process ends without them then.
        if tokio::time::timeout_at(deadline.into(), gone.recv()).await.is_err() {
            tracing::warn!("Kafka clients did not end in time");
        }
    }
}
