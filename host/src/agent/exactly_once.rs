//! What `delivery = "exactly-once"` adds to a pipeline's parts: one line of transactions over everything that goes by memory channels, and
//! one for each sink of a file channel.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use wasmflow_log::Recovered;

use crate::agent::state_dir::{StateDir, StateDirError};
use crate::channel::{Capacity, Channel, CutLog, FileReader, MemoryChannel, Reader, WorkAhead};
use crate::config::pipeline::{ChannelName, ConnectionName, DeliveryPromise, Pipeline, SinkSpec, StageName};
use crate::kafka::{InTransactions, KafkaClients, Outbox, StageKafka, TransactionalConnection};
use crate::plugin::PluginKind;
use crate::stage::Stage;
use crate::transaction::{
    Coordinator, Participant, Parts, Progress, ReaderKey, ReaderProgress, SourceProgress, TransactionLimits,
    Transactions,
};

/// The transactions of a pipeline while it is built.
pub struct ExactlyOnce {
    kafka: Arc<KafkaClients>,
    state_dir: PathBuf,
    instance: Arc<str>,
    /// Of the memory channels, where there are any.
    shared: Option<Line>,
    /// Of the sinks that read file channels.
    readers: BTreeMap<StageName, Line>,
}

/// One line of transactions: one after another, by one transactional id.
struct Line {
    transactions: Arc<Transactions>,
    connection: TransactionalConnection,
    outbox: Arc<Outbox>,
    progress: Mutex<Progress>,
    /// Of a reader of a file channel.
    log: Mutex<Option<Arc<dyn CutLog>>>,
}

impl ExactlyOnce {
    /// Nothing for a pipeline that promises less.
    ///
    /// # Errors
    /// When the note about the progress cannot be read.
    pub fn of(pipeline: &Pipeline, kafka: &Arc<KafkaClients>, state: &StateDir) -> Result<Option<Self>, StateDirError> {
        if pipeline.delivery == DeliveryPromise::AtLeastOnce {
            return Ok(None);
        }
        let mut this = Self {
            kafka: kafka.clone(),
            state_dir: state.path().into(),
            instance: state.instance().clone(),
            shared: None,
            readers: BTreeMap::new(),
        };
        this.shared = this.shared_line(pipeline)?;
        for (name, sink) in &pipeline.sinks {
            if let Some(connection) = sink.grants.kafka.first().filter(|_| is_durable(pipeline, &sink.channel)) {
                let line = this.line(connection, Some(name.as_str()), limits_of_reader(pipeline));
                this.readers.insert(name.clone(), line);
            }
        }
        Ok(Some(this))
    }

    fn shared_line(&self, pipeline: &Pipeline) -> Result<Option<Line>, StateDirError> {
        if !feeds_memory(pipeline) {
            return Ok(None);
        }
        let mut sinks = pipeline.sinks.values().filter(|sink| !is_durable(pipeline, &sink.channel));
        // The one connection of all of them, which `validate` has made sure of.
        let Some(connection) = sinks.find_map(|sink| sink.grants.kafka.first()) else { return Ok(None) };
        let line = self.line(connection, None, limits(pipeline));
        let mut sources = pipeline.sources.iter().filter(|(name, _)| is_shared(pipeline, PluginKind::Source, name));
        if sources.any(|(_, source)| source.grants.kafka.is_empty()) {
            let topic = self.kafka.progress_topic(pipeline.name.as_str(), connection);
            let progress = SourceProgress::new(topic, pipeline.name.shared(), self.instance.clone(), &self.state_dir);
            let progress = progress.map_err(|source| self.unreadable("progress.json", source))?;
            *line.progress.lock() = Progress::Sources(progress);
        }
        Ok(Some(line))
    }

    fn line(&self, connection: &ConnectionName, reader: Option<&str>, limits: TransactionLimits) -> Line {
        let outbox = Arc::<Outbox>::default();
        let connection = self.kafka.transactional(connection, reader, &outbox);
        let progress = Mutex::new(Progress::None);
        Line { transactions: Transactions::new(limits), connection, outbox, progress, log: Mutex::default() }
    }

    fn unreadable(&self, note: &str, source: std::io::Error) -> StateDirError {
        StateDirError::Io { path: self.state_dir.join(note), source }
    }

    pub fn channel(
        &self,
        pipeline: &Pipeline,
        name: &ChannelName,
        number: usize,
        capacity: Capacity,
    ) -> Arc<MemoryChannel> {
        let Some(line) = self.memory_line() else { return MemoryChannel::new(name.shared(), number, capacity) };
        let is_last = pipeline.dead_letters.as_ref() == Some(name);
        let ahead = if is_last { WorkAhead::None } else { WorkAhead::NextCut };
        MemoryChannel::in_cuts(name.shared(), number, capacity, line.transactions.clock().clone(), ahead)
    }

    /// Makes a sink's reader part of transactions of its own, where it reads a file channel.
    ///
    /// # Errors
    /// When the note about its progress cannot be read.
    pub fn follow(
        &self,
        pipeline: &Pipeline,
        sink: &StageName,
        reader: &mut Reader,
        recovered: &Recovered,
    ) -> Result<(), StateDirError> {
        let Reader::File(reader) = reader else { return Ok(()) };
        let Some(line) = self.readers.get(sink) else { return Ok(()) };
        let progress = self.reader_progress(pipeline, sink, reader, recovered)?;
        let cuts = reader.in_cuts(line.transactions.clock(), line.transactions.clone());
        *line.progress.lock() = Progress::Reader(progress, cuts.clone());
        *line.log.lock() = Some(cuts);
        Ok(())
    }

    fn reader_progress(
        &self,
        pipeline: &Pipeline,
        sink: &StageName,
        reader: &FileReader,
        recovered: &Recovered,
    ) -> Result<ReaderProgress, StateDirError> {
        let SinkSpec { channel, grants, .. } = &pipeline.sinks[sink];
        let id = reader.channel().id();
        let key = ReaderKey {
            pipeline: pipeline.name.shared(),
            instance: self.instance.clone(),
            channel: channel.shared(),
            channel_id: id.to_string(),
            reader: sink.shared(),
            epoch: reader.epoch(),
        };
        let end = recovered.channels.iter().find(|channel| channel.id == id).map_or(0, |found| found.next_sequence);
        let connection = grants.kafka.first().expect("`validate` refuses a sink without a connection");
        let topic = self.kafka.progress_topic(pipeline.name.as_str(), connection);
        ReaderProgress::new(topic, key, end, &self.state_dir)
            .map_err(|source| self.unreadable(&format!("progress.{sink}.json"), source))
    }

    /// A runner's part in the transactions of its stage; none for a source that feeds file channels alone.
    pub fn participant(&self, pipeline: &Pipeline, kind: PluginKind, stage: &StageName) -> Option<Participant> {
        self.line_of(pipeline, kind, stage).map(|line| line.transactions.participant())
    }

    /// Makes a stage's Kafka side part of the transactions, or sees to it that a source which is none reads each record once all the same.
    pub fn prepare(&self, pipeline: &Pipeline, kind: PluginKind, stage: &StageName, kafka: &StageKafka) {
        match self.for_stage(pipeline, kind, stage) {
            Some(part) => kafka.take_part(part),
            None => kafka.only_fixed_partitions(
                "its partitions are its group's, and one that goes to another agent would be read twice into the file channel: use \
                 fixed partitions, a memory channel, or delivery = \"at-least-once\"",
            ),
        }
    }

    fn for_stage(&self, pipeline: &Pipeline, kind: PluginKind, stage: &StageName) -> Option<InTransactions> {
        let line = self.line_of(pipeline, kind, stage)?;
        Some(InTransactions { outbox: line.outbox.clone(), revocation: line.transactions.clone() })
    }

    fn line_of(&self, pipeline: &Pipeline, kind: PluginKind, stage: &StageName) -> Option<&Line> {
        match self.readers.get(stage) {
            Some(line) => Some(line),
            None => self.memory_line().filter(|_| is_shared(pipeline, kind, stage)),
        }
    }

    /// Of the memory channels: where no source feeds one, there is at most that of the dead letters, and it is part of the transactions of
    /// the one sink that reads a file channel.
    fn memory_line(&self) -> Option<&Line> {
        self.shared.as_ref().or_else(|| self.readers.values().next())
    }

    pub fn coordinators(
        self,
        pipeline: &Pipeline,
        channels: &BTreeMap<ChannelName, Channel>,
        sources: &[Arc<Stage>],
    ) -> Vec<Coordinator> {
        // Stable: the channel of the dead letters comes last.
        let mut channels: Vec<_> = channels.iter().collect();
        channels.sort_by_key(|(name, _)| pipeline.dead_letters.as_ref() == Some(*name));
        let memory = channels.into_iter().filter_map(|(_, channel)| match channel {
            Channel::Memory(channel) => Some(channel.clone() as Arc<dyn CutLog>),
            Channel::File(_) => None,
        });
        let kafka = |stage: &Arc<Stage>| Some((stage.name.clone(), stage.context.kafka.clone()?));
        let sources = sources.iter().filter_map(kafka).collect();
        let mut memory: Vec<_> = memory.collect();
        let shared = self.shared.map(|line| line.coordinator(std::mem::take(&mut memory), sources));
        let readers = self.readers.into_values().map(|line| {
            let logs = line.log.lock().take().into_iter().chain(std::mem::take(&mut memory)).collect();
            line.coordinator(logs, BTreeMap::new())
        });
        shared.into_iter().chain(readers).collect()
    }
}

impl Line {
    fn coordinator(self, logs: Vec<Arc<dyn CutLog>>, sources: BTreeMap<Arc<str>, Arc<StageKafka>>) -> Coordinator {
        Coordinator::new(Parts {
            transactions: self.transactions,
            connection: self.connection,
            outbox: self.outbox,
            logs,
            sources,
            progress: self.progress.into_inner(),
        })
    }
}

/// Whether any source does. Else a memory channel can only be that of the dead letters.
fn feeds_memory(pipeline: &Pipeline) -> bool {
    pipeline.sources.keys().any(|source| is_shared(pipeline, PluginKind::Source, source))
}

/// Whether a stage's events go by memory channels.
fn is_shared(pipeline: &Pipeline, kind: PluginKind, stage: &StageName) -> bool {
    let is_memory = |channel: &ChannelName| !is_durable(pipeline, channel);
    match kind {
        PluginKind::Source => pipeline.sources[stage].selector.channels().iter().any(is_memory),
        PluginKind::Sink => is_memory(&pipeline.sinks[stage].channel),
        PluginKind::Interceptor => false,
    }
}

fn is_durable(pipeline: &Pipeline, channel: &ChannelName) -> bool {
    pipeline.channels.get(channel).is_some_and(|spec| spec.is_durable())
}

/// No larger than half of the smallest memory channel: one transaction fills while another is committed.
fn limits(pipeline: &Pipeline) -> TransactionLimits {
    let spec = pipeline.transaction;
    let half = |capacities: &mut dyn Iterator<Item = usize>| {
        capacities.min().map_or(u64::MAX, |least| (least as u64 / 2).max(1))
    };
    let memory = || pipeline.channels.values().filter(|channel| !channel.is_durable());
    TransactionLimits {
        max_events: spec.max_events.min(half(&mut memory().map(|channel| channel.capacity_events))),
        max_bytes: spec.max_bytes.min(half(&mut memory().map(|channel| channel.capacity_bytes))),
        interval: spec.interval,
    }
}

/// A file channel keeps what is under way, whatever its size.
fn limits_of_reader(pipeline: &Pipeline) -> TransactionLimits {
    let spec = pipeline.transaction;
    TransactionLimits { max_events: spec.max_events, max_bytes: spec.max_bytes, interval: spec.interval }
}
