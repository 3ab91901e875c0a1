//! `wasmflow:plugin/kafka`: the host's Kafka clients, as a plugin sees them.
//!
//! The clients are the stage's; a handle is only the guest's word that it has asked for one. So an instance that traps takes
//! no client with it, and the next one finds consumer and producer as they were.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Resource;

use super::events::{self, Batch};
use super::{Export, State};
use crate::kafka::{self, StageKafka};
use crate::plugin;
use crate::plugin::bindings::wasmflow::plugin::errors::{Failure, Retry};
use crate::plugin::bindings::wasmflow::plugin::kafka::{
    Choice, Fetch, Fetched, Host, HostConsumer, HostProducer, SendOptions, Start, Subscription,
};
use crate::plugin::bindings::wasmflow::plugin::positions::Part;

/// A `producer` handle: the connection it sends on.
pub struct Producer {
    connection: String,
}

/// A `consumer` handle. A stage has one consumer; a second subscription takes the place of the first.
pub struct Consumer;

impl Host for State {}

impl HostProducer for State {
    fn open(&mut self, connection: String) -> wasmtime::Result<Result<Resource<Producer>, Failure>> {
        let opened = self.stage_kafka(&connection).and_then(|kafka| kafka.open_producer(&connection));
        match opened {
            Ok(()) => Ok(Ok(self.table.push(Producer { connection })?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    fn send(
        &mut self,
        producer: Resource<Producer>,
        batch: Resource<Batch>,
        options: SendOptions,
    ) -> wasmtime::Result<Result<(), Failure>> {
        if !matches!(self.export, Export::Deliver | Export::Flush) {
            return Ok(Err(Failure::Fatal("`send` works only inside `deliver` and `flush`".into())));
        }
        let connection = self.table.get(&producer)?.connection.clone();
        let events = events::events_of(self, &batch)?.clone();
        let staged = self
            .stage_kafka(&connection)
            .and_then(|kafka| kafka.stage_send(&connection, &events, &kafka::SendOptions::from(options)));
        match staged {
            Ok(refused) if refused.is_empty() => Ok(Ok(())),
            Ok(refused) => Ok(events::refuse(self, &batch, refused)?.map_err(Failure::Reject)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    fn drop(&mut self, producer: Resource<Producer>) -> wasmtime::Result<()> {
        self.table.delete(producer)?;
        Ok(())
    }
}

impl HostConsumer for State {
    async fn subscribe(&mut self, subscription: Subscription) -> wasmtime::Result<Result<Resource<Consumer>, Failure>> {
        let subscribed = match (self.stage_kafka(&subscription.connection).cloned(), subscription.try_into()) {
            (Ok(kafka), Ok(subscription)) => kafka.subscribe(subscription).await,
            (Err(failure), _) => Err(failure),
            (_, Err(reason)) => Err(plugin::Failure::Fatal(reason)),
        };
        match subscribed {
            Ok(()) => Ok(Ok(self.table.push(Consumer)?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    async fn poll(
        &mut self,
        _consumer: Resource<Consumer>,
        max_events: u32,
        max_bytes: u32,
        wait_ms: u32,
    ) -> wasmtime::Result<Result<Fetch, Failure>> {
        let Some(kafka) = self.kafka.clone() else { return Ok(Err(not_granted("").into())) };
        // No more than what this call may bring; half of the bytes are for headers and the ends of columns.
        let bound = self.batches.bound;
        let max_events = max_events.min(u32::try_from(bound.events).unwrap_or(u32::MAX));
        let max_bytes = max_bytes.min(u32::try_from(bound.bytes / 2).unwrap_or(u32::MAX));
        let fetch = kafka.poll(max_events, max_bytes, Duration::from_millis(wait_ms.into())).await;
        Ok(match fetch {
            Ok(kafka::Fetch::Records { batch, position }) => {
                let position = position.into_iter();
                let position = position.map(|part| Part { key: part.key.to_vec(), value: part.value.map(Vec::from) });
                Ok(Fetch::Records(Fetched { batch: events::give(self, batch)?, position: position.collect() }))
            }
            Ok(kafka::Fetch::Idle) => Ok(Fetch::Idle),
            Ok(kafka::Fetch::AtEnd) => Ok(Fetch::AtEnd),
            Err(failure) => Err(failure.into()),
        })
    }

    fn drop(&mut self, consumer: Resource<Consumer>) -> wasmtime::Result<()> {
        self.table.delete(consumer)?;
        Ok(())
    }
}

impl State {
    fn stage_kafka(&self, connection: &str) -> Result<&Arc<StageKafka>, plugin::Failure> {
        self.kafka.as_ref().ok_or_else(|| not_granted(connection))
    }
}

fn not_granted(connection: &str) -> plugin::Failure {
    plugin::Failure::Fatal(format!(
        "the stage is granted no Kafka connection: add allow = {{ kafka = [\"{connection}\"] }}"
    ))
}

impl From<plugin::Failure> for Failure {
    fn from(failure: plugin::Failure) -> Self {
        match failure {
            plugin::Failure::Retry { reason, after } => {
                let after_ms = after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
                Self::Retry(Retry { reason, after_ms })
            }
            plugin::Failure::Reject(reason) => Self::Reject(reason),
            plugin::Failure::Fatal(reason) => Self::Fatal(reason),
        }
    }
}

impl From<SendOptions> for kafka::SendOptions {
    fn from(options: SendOptions) -> Self {
        Self {
            topic: match options.topic {
                Choice::Fixed(topic) => kafka::Choice::Fixed(topic),
                Choice::Header(name) => kafka::Choice::Header(name),
                Choice::HeaderOr(or) => kafka::Choice::HeaderOr { name: or.name, fallback: or.fallback },
            },
            key_header: options.key_header,
            partition_header: options.partition_header,
            timestamp_header: options.timestamp_header,
            null_header: options.null_header,
            forward_headers: options.forward_headers,
        }
    }
}

impl TryFrom<Subscription> for kafka::Subscription {
    type Error = String;

    fn try_from(subscription: Subscription) -> Result<Self, String> {
        let partitions = subscription.partitions.map(|partitions| {
            let numbered = partitions.into_iter().map(|partition| {
                let number = i32::try_from(partition.number);
                let number = number.map_err(|_| format!("{} is no partition number", partition.number))?;
                Ok((partition.topic, number))
            });
            numbered.collect::<Result<Vec<_>, String>>()
        });
        Ok(Self {
            connection: subscription.connection,
            group: subscription.group,
            topics: subscription.topics,
            partitions: partitions.transpose()?,
            start: match subscription.start {
                Start::Earliest => kafka::Start::Earliest,
                Start::Latest => kafka::Start::Latest,
            },
        })
    }
}
