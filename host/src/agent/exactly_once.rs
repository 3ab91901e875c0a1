//! What `delivery = "exactly-once"` adds to a pipeline's parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::state_dir::{StateDir, StateDirError};
use crate::channel::{Capacity, Channel, MemoryChannel, WorkAhead};
use crate::config::pipeline::{ChannelName, ConnectionName, DeliveryPromise, Pipeline};
use crate::kafka::{InTransactions, KafkaClients, Outbox, TransactionalConnection};
use crate::stage::Stage;
use crate::transaction::{AgentProgress, Coordinator, Participant, Parts, TransactionLimits, Transactions};

/// The transactions of a pipeline while it is built.
pub struct ExactlyOnce {
    transactions: Arc<Transactions>,
    connection: TransactionalConnection,
    outbox: Arc<Outbox>,
    progress: Option<AgentProgress>,
}

impl ExactlyOnce {
    /// Nothing for a pipeline that promises less.
    ///
    /// # Errors
    /// When the note about the progress cannot be read.
    pub fn of(pipeline: &Pipeline, kafka: &KafkaClients, state: &StateDir) -> Result<Option<Self>, StateDirError> {
        if pipeline.delivery == DeliveryPromise::AtLeastOnce {
            return Ok(None);
        }
        let Some(name) = connection(pipeline) else { return Ok(None) };
        let outbox = Arc::<Outbox>::default();
        let connection = kafka.transactional(name, &outbox);
        let io = |source| StateDirError::Io { path: state.path().join("progress.json"), source };
        let topic = kafka.progress_topic(pipeline.name.as_str(), name);
        let progress = || AgentProgress::new(topic, pipeline.name.shared(), state.instance().clone(), state.path());
        let is_needed = pipeline.sources.values().any(|source| source.grants.kafka.is_empty());
        let progress = is_needed.then(progress).transpose().map_err(io)?;
        Ok(Some(Self { transactions: Transactions::new(limits(pipeline)), connection, outbox, progress }))
    }

    pub fn channel(
        &self,
        pipeline: &Pipeline,
        name: &ChannelName,
        number: usize,
        capacity: Capacity,
    ) -> Arc<MemoryChannel> {
        let ahead = if pipeline.dead_letters.as_ref() == Some(name) { WorkAhead::None } else { WorkAhead::NextCut };
        MemoryChannel::in_cuts(name.shared(), number, capacity, self.transactions.clock().clone(), ahead)
    }

    pub fn participant(&self) -> Participant {
        self.transactions.participant()
    }

    pub fn for_stage(&self) -> InTransactions {
        InTransactions { outbox: self.outbox.clone(), revocation: self.transactions.clone() }
    }

    pub fn coordinator(
        self,
        pipeline: &Pipeline,
        channels: &BTreeMap<ChannelName, Channel>,
        sources: &[Arc<Stage>],
    ) -> Coordinator {
        // Stable: the channel of the dead letters comes last.
        let mut channels: Vec<_> = channels.iter().collect();
        channels.sort_by_key(|(name, _)| pipeline.dead_letters.as_ref() == Some(*name));
        let channels = channels.into_iter().filter_map(|(_, channel)| match channel {
            Channel::Memory(channel) => Some(channel.clone()),
            // `validate` refuses those.
            Channel::File(_) => None,
        });
        let kafka = |stage: &Arc<Stage>| Some((stage.name.clone(), stage.context.kafka.clone()?));
        Coordinator::new(Parts {
            transactions: self.transactions,
            connection: self.connection,
            outbox: self.outbox,
            channels: channels.collect(),
            sources: sources.iter().filter_map(kafka).collect(),
            progress: self.progress,
        })
    }
}

/// The one connection of all sinks, which `validate` has made sure of.
fn connection(pipeline: &Pipeline) -> Option<&ConnectionName> {
    pipeline.sinks.values().flat_map(|sink| &sink.grants.kafka).next()
}

/// No larger than half of the smallest channel: one transaction fills while another is committed.
fn limits(pipeline: &Pipeline) -> TransactionLimits {
    let spec = pipeline.transaction;
    let half = |capacities: &mut dyn Iterator<Item = usize>| {
        capacities.min().map_or(u64::MAX, |least| (least as u64 / 2).max(1))
    };
    TransactionLimits {
        max_events: spec.max_events.min(half(&mut pipeline.channels.values().map(|channel| channel.capacity_events))),
        max_bytes: spec.max_bytes.min(half(&mut pipeline.channels.values().map(|channel| channel.capacity_bytes))),
        interval: spec.interval,
    }
}
