//! The progress topic of a pipeline: made by the host, written in its transactions, read back when they begin.
//!
//! It has one partition and is compacted. It is read by those who see only what is committed, up to the high watermark as it was
//! after the transactional id had been taken: what this agent has committed lies before it. Never "to the end": an open
//! transaction of another agent holds that back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::client::{Client, ClientError, Code, Messages, PartitionQueue, TopicOffset, offset};
use super::connection::Connection;
use super::records::{Choice, Records, SendOptions};
use super::transactional::{TransactionTrouble, TransactionalProducer};
use crate::event::{Batch, Event};

/// Limit: one question to a broker.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Limit: reading the topic: transactions of other agents that hold it back end by their timeout, which is a minute by default.
const READ_WAIT: Duration = Duration::from_secs(90);

/// Records asked of librdkafka in one call.
const READ_AT_ONCE: usize = 500;

/// Between two looks for records.
const PAUSE: Duration = Duration::from_millis(5);

const KEY: &str = "key";
const NULL: &str = "null";

/// What a reader of the topic has found.
#[derive(Debug)]
pub struct Progress {
    /// Tells this cluster from another at the same address.
    pub cluster: String,
    /// Tells this topic from one of the same name before it; nothing where there was none.
    pub topic_id: Option<String>,
    /// The newest value of each key that has one.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is to be done where the topic is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    Make,
    Say,
}

/// The progress topic of one pipeline.
pub struct ProgressTopic {
    connection: Arc<Connection>,
    topic: Arc<str>,
}

impl ProgressTopic {
    pub(super) fn new(connection: Arc<Connection>, pipeline: &str) -> Self {
        Self { connection, topic: format!("_wasmflow.{pipeline}").into() }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.topic
    }

    /// Reads everything that is committed by now.
    ///
    /// # Errors
    /// `Again` while the brokers are away.
    pub async fn read(&self, if_missing: IfMissing) -> Result<Progress, TransactionTrouble> {
        let (connection, topic) = (self.connection.clone(), self.topic.clone());
        let read = tokio::task::spawn_blocking(move || Reading { connection, topic }.read(if_missing));
        read.await.expect("reading the progress topic does not panic")
    }

    /// Adds records to the open transaction of `producer`; a null value takes a key away. Whether they have arrived shows when it is
    /// committed.
    ///
    /// # Errors
    /// `Stop` for a record that no broker would take.
    pub fn send(
        &self,
        producer: &TransactionalProducer,
        records: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), TransactionTrouble> {
        let event = |(key, value): (Vec<u8>, Option<Vec<u8>>)| {
            let mut headers = vec![(KEY.into(), key)];
            if value.is_none() {
                headers.push((NULL.into(), b"true".to_vec()));
            }
            Event { headers, body: value.unwrap_or_default() }
        };
        let events: Vec<_> = records.into_iter().map(event).collect();
        let options = SendOptions {
            topic: Choice::Fixed(self.topic.to_string()),
            key_header: Some(KEY.into()),
            partition_header: None,
            timestamp_header: None,
            null_header: Some(NULL.into()),
            forward_headers: Some(Vec::new()),
        };
        let (records, refused) = Records::new(&Batch::from_events(&events), &options, self.connection.record_bytes());
        if let Some((_, reason)) = refused.first() {
            return Err(TransactionTrouble::Stop(format!("progress topic `{}`: {reason}", self.topic)));
        }
        // Its answer is the commit's.
        drop(producer.send(Arc::new(records)));
        Ok(())
    }
}

/// One reading, on a thread that may block.
struct Reading {
    connection: Arc<Connection>,
    topic: Arc<str>,
}

impl Reading {
    fn read(&self, if_missing: IfMissing) -> Result<Progress, TransactionTrouble> {
        // To readers of what is committed the end is where the oldest open transaction begins.
        let all = self.client("read_uncommitted")?;
        let away = || self.again("no broker answers");
        let cluster = all.cluster_id(ANSWER_WAIT).ok_or_else(away)?;
        let mut topic_id = self.topic_id(&all)?;
        if topic_id.is_none() && if_missing == IfMissing::Make {
            all.make_compacted_topic(&self.topic, ANSWER_WAIT).map_err(|error| self.trouble("make", &error))?;
            topic_id = self.topic_id(&all)?;
            if topic_id.is_none() {
                return Err(self.again("it has been made and is not there yet"));
            }
        }
        let mut progress = Progress { cluster, topic_id, records: BTreeMap::new() };
        if progress.topic_id.is_some() {
            let ends = all.watermarks(&self.topic, 0, ANSWER_WAIT);
            let (low, high) = ends.map_err(|error| self.trouble("read", &error))?;
            if low < high {
                self.read_until(high, &mut progress.records)?;
            }
        }
        Ok(progress)
    }

    fn topic_id(&self, client: &Client) -> Result<Option<String>, TransactionTrouble> {
        client.topic_id(&self.topic, ANSWER_WAIT).map_err(|error| self.trouble("find", &error))
    }

    fn read_until(&self, end: i64, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), TransactionTrouble> {
        let client = self.client("read_committed")?;
        let failed = |error: ClientError| self.trouble("read", &error);
        let mut queue = PartitionQueue::split(&client, &self.topic, 0, &Arc::<Notify>::default()).map_err(failed)?;
        let partition = [TopicOffset::new(&*self.topic, 0, offset::BEGINNING)];
        client.assign(&partition).map_err(failed)?;
        let deadline = Instant::now() + READ_WAIT;
        let mut reports = Vec::new();
        while client.positions(&partition).first().is_none_or(|position| position.offset < end) {
            if Instant::now() > deadline {
                return Err(self.again("it cannot be read to its end: a transaction of another agent is open there"));
            }
            take(&mut queue, records).map_err(|text| self.again(&text))?;
            client.poll(PAUSE, &mut reports);
        }
        take(&mut queue, records).map_err(|text| self.again(&text))?;
        client.unassign(&partition).map_err(failed)?;
        Ok(())
    }

    fn client(&self, isolation: &str) -> Result<Client, TransactionTrouble> {
        let client = self.connection.reader("progress", isolation);
        client.map_err(|failure| TransactionTrouble::Stop(failure.to_string()))
    }

    fn again(&self, reason: &str) -> TransactionTrouble {
        TransactionTrouble::Again(format!("progress topic `{}`: {reason}", self.topic))
    }

    fn trouble(&self, what: &str, error: &ClientError) -> TransactionTrouble {
        match error.code {
            Code::TOPIC_AUTHORIZATION | Code::CLUSTER_AUTHORIZATION => TransactionTrouble::Stop(format!(
                "not allowed to {what} the progress topic `{}`: grant Create, Read, Write and Describe on it ({error})",
                self.topic
            )),
            _ => self.again(&format!("cannot {what} it: {error}")),
        }
    }
}

fn take(queue: &mut PartitionQueue, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), String> {
    let mut messages = Messages::default();
    queue.read(&mut messages, READ_AT_ONCE);
    while let Some(message) = messages.front() {
        if message.code() != Code::OK {
            return Err(message.error_text());
        }
        if let Some(key) = message.key() {
            match message.value() {
                Some(value) => records.insert(key.to_vec(), value.to_vec()),
                None => records.remove(key),
            };
        }
        messages.pop();
    }
    Ok(())
}
