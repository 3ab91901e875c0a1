//! Every metric there is, by the names of the field's metrics and of Flume's counters.

use std::fmt;
use std::sync::Arc;

use super::histogram::Observed;
use super::text::{Families, Labels};
use super::{
    AgentCounters, Call, ChannelCounts, Counter, Denied, Histogram, KafkaCounts, ReaderCounts, Refusal, StageCounters,
};
use crate::channel::Channel;
use crate::control::{Control, PipelineControl, PluginFacts, StageControl, SwapCounters};
use crate::plugin::PluginKind;

/// Limit: a version is the plugin's own text, and a label here.
const MAX_VERSION_BYTES: usize = 64;

/// What runs, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    agent: Arc<AgentCounters>,
    pipelines: Vec<PipelineSnapshot>,
    /// Pipelines that have failed while others go on.
    failed: Vec<Arc<str>>,
}

#[derive(Debug)]
struct PipelineSnapshot {
    name: Arc<str>,
    stages: Vec<StageSnapshot>,
    channels: Vec<(Arc<str>, ChannelCounts)>,
    kafka: Vec<(Arc<str>, KafkaCounts)>,
}

#[derive(Debug)]
struct StageSnapshot {
    name: Arc<str>,
    kind: PluginKind,
    generation: u64,
    plugin: PluginFacts,
    flow: Flow,
    swaps: [(&'static str, u64); 3],
    counters: Arc<StageCounters>,
}

/// Counters of which one is never more than another. Read the lesser one first, while events flow.
#[derive(Debug)]
struct Flow {
    accepted: u64,
    received: u64,
    dead_lettered: u64,
    oversize: u64,
    rejected: u64,
}

impl Flow {
    fn of(counters: &StageCounters) -> Self {
        let (accepted, dead_lettered) = (counters.accepted.get(), counters.dead_lettered.get());
        let (rejected, received) = (counters.rejected.get(), counters.received.get());
        Self { accepted, received, dead_lettered, oversize: counters.oversize.get(), rejected }
    }

    /// Rejected for another reason than its size.
    fn refused(&self) -> u64 {
        self.rejected.saturating_sub(self.oversize)
    }
}

impl Snapshot {
    pub fn of(control: &Control) -> Self {
        let pipelines = control.pipelines().iter().map(|pipeline| PipelineSnapshot::of(pipeline)).collect();
        let failed = control.ended().into_iter().filter(|ended| ended.failure.is_some());
        let failed = failed.map(|ended| ended.pipeline).collect();
        Self { agent: control.agent_counters().clone(), pipelines, failed }
    }
}

impl PipelineSnapshot {
    fn of(pipeline: &PipelineControl) -> Self {
        let channels = pipeline.channels();
        Self {
            name: pipeline.name.clone(),
            stages: pipeline.stages().iter().map(|stage| StageSnapshot::of(stage)).collect(),
            channels: channels.iter().map(|channel: &Channel| (channel.name().clone(), channel.counts())).collect(),
            kafka: pipeline.kafka().map(|kafka| kafka.counts()).unwrap_or_default(),
        }
    }
}

impl StageSnapshot {
    fn of(stage: &StageControl) -> Self {
        Self {
            name: stage.name().clone(),
            kind: stage.kind(),
            generation: stage.generation(),
            plugin: stage.plugin(),
            flow: Flow::of(stage.counters()),
            swaps: swaps(stage.swaps()),
            counters: stage.counters().clone(),
        }
    }
}

impl Snapshot {
    pub(super) fn encode_all(&self, families: &mut Families<'_>) -> fmt::Result {
        self.sources(families)?;
        self.interceptors(families)?;
        self.channels(families)?;
        self.disks(families)?;
        self.sinks(families)?;
        self.events(families)?;
        self.plugins(families)?;
        self.kafka(families)?;
        self.agent(families)
    }

    /// Stages of a kind, each with the labels of its series; `label` names the stage.
    fn stages(&self, kind: Option<PluginKind>, label: &'static str) -> impl Iterator<Item = (Labels, &StageSnapshot)> {
        self.pipelines.iter().flat_map(move |pipeline| {
            let stages = pipeline.stages.iter().filter(move |stage| kind.is_none_or(|kind| stage.kind == kind));
            stages.map(move |stage| (labels(&pipeline.name, label, &stage.name), stage))
        })
    }

    fn flow(
        &self,
        kind: PluginKind,
        label: &'static str,
        value: fn(&Flow) -> u64,
    ) -> impl Iterator<Item = (Labels, u64)> {
        self.stages(Some(kind), label).map(move |(labels, stage)| (labels, value(&stage.flow)))
    }

    fn each(
        &self,
        kind: PluginKind,
        label: &'static str,
        value: fn(&StageCounters) -> &Counter,
    ) -> impl Iterator<Item = (Labels, u64)> {
        self.stages(Some(kind), label).map(move |(labels, stage)| (labels, value(&stage.counters).get()))
    }

    fn channel_counts(&self) -> impl Iterator<Item = (Labels, &ChannelCounts)> {
        self.pipelines.iter().flat_map(|pipeline| {
            let channels = pipeline.channels.iter();
            channels.map(move |(name, counts)| (labels(&pipeline.name, "channel", name), counts))
        })
    }

    fn readers(&self) -> impl Iterator<Item = (Labels, &ReaderCounts)> {
        self.channel_counts().flat_map(|(labels, counts)| {
            let with = move |reader: &ReaderCounts| with(&labels, "reader", reader.name.clone());
            counts.readers.iter().map(move |reader| (with(reader), reader))
        })
    }

    fn sources(&self, families: &mut Families<'_>) -> fmt::Result {
        let flow = |value| self.flow(PluginKind::Source, "source", value);
        let each = |value| self.each(PluginKind::Source, "source", value);
        families.counter("source_received_events", "Events polled.", flow(|flow| flow.received))?;
        families.counter("source_accepted_events", "Events put into the channels.", flow(|flow| flow.accepted))?;
        families.counter(
            "source_received_bytes",
            "Bytes polled, headers included.",
            each(|counters| &counters.received_bytes),
        )?;
        families.counter("source_read_errors", "Calls that failed.", each(|counters| &counters.errors))?;
        families.counter(
            "source_channel_full",
            "Puts that had to wait for room.",
            each(|counters| &counters.channel_full),
        )
    }

    fn interceptors(&self, families: &mut Families<'_>) -> fmt::Result {
        let flow = |value| self.flow(PluginKind::Interceptor, "stage", value);
        families.counter("interceptor_in_events", "Events given, each once.", flow(|flow| flow.received))?;
        families.counter("interceptor_out_events", "Events that went on.", flow(|flow| flow.accepted))
    }

    fn channels(&self, families: &mut Families<'_>) -> fmt::Result {
        let gauge = |value: fn(&ChannelCounts) -> u64| {
            self.channel_counts().map(move |(labels, counts)| (labels, value(counts) as f64))
        };
        let counter = |value: fn(&ChannelCounts) -> u64| {
            self.channel_counts().map(move |(labels, counts)| (labels, value(counts)))
        };
        let reader =
            |value: fn(&ReaderCounts) -> u64| self.readers().map(move |(labels, counts)| (labels, value(counts)));
        families.gauge(
            "channel_events",
            "Events put and not settled by every reader.",
            gauge(|counts| counts.held.events),
        )?;
        families.gauge("channel_bytes", "Bytes of these events.", gauge(|counts| counts.held.bytes))?;
        families.gauge(
            "channel_capacity_events",
            "Events at which puts wait.",
            gauge(|counts| counts.capacity.events),
        )?;
        families.gauge("channel_capacity_bytes", "Bytes at which puts wait.", gauge(|counts| counts.capacity.bytes))?;
        let age = |(labels, counts): (Labels, &ChannelCounts)| Some((labels, counts.oldest_age?.as_secs_f64()));
        families.gauge(
            "channel_oldest_event_age_seconds",
            "Time since the oldest event held was put; in a file channel the oldest that was read.",
            self.channel_counts().filter_map(age),
        )?;
        families.counter(
            "channel_put_attempts",
            "Events for which room was asked.",
            counter(|counts| counts.put_attempts),
        )?;
        families.counter(
            "channel_put_events",
            "Events put; what a transaction threw away is put again.",
            counter(|counts| counts.put_events),
        )?;
        families.counter(
            "channel_take_attempts",
            "Events handed out; those that come again count again.",
            reader(|counts| counts.take_attempts),
        )?;
        families.counter("channel_taken_events", "Events settled.", reader(|counts| counts.taken_events))?;
        let lag = self.readers().map(|(labels, counts)| (labels, counts.lag_events as f64));
        families.gauge("channel_lag_events", "Events put and not settled by this reader.", lag)?;
        let pressure = |(labels, counts): (Labels, &ChannelCounts)| (labels, counts.backpressure.as_secs_f64());
        families.seconds(
            "channel_backpressure_seconds",
            "Time in which some put waited for room.",
            self.channel_counts().map(pressure),
        )
    }

    fn disks(&self, families: &mut Families<'_>) -> fmt::Result {
        let disks = || self.channel_counts().filter_map(|(labels, counts)| Some((labels, counts.disk.as_ref()?)));
        families.histogram(
            "channel_sync_seconds",
            "Time of each write and sync of a group of puts.",
            disks().filter_map(|(labels, disk)| Some((labels, disk.sync_seconds.clone()?))),
        )?;
        families.histogram(
            "channel_group_commit_events",
            "Events that one sync made durable.",
            disks().filter_map(|(labels, disk)| Some((labels, disk.group_commit_events.clone()?))),
        )?;
        families.counter(
            "channel_corrupt_frames",
            "Damaged places of the log that were passed over.",
            disks().map(|(labels, disk)| (labels, disk.corrupt_frames)),
        )?;
        families.counter(
            "channel_torn_bytes",
            "Bytes at the log's end that were never acknowledged and were left out at the start.",
            disks().map(|(labels, disk)| (labels, disk.torn_bytes)),
        )
    }

    fn sinks(&self, families: &mut Families<'_>) -> fmt::Result {
        let sinks = || self.stages(Some(PluginKind::Sink), "sink");
        let flow = |value| self.flow(PluginKind::Sink, "sink", value);
        let each = |value| self.each(PluginKind::Sink, "sink", value);
        families.counter("sink_attempted_events", "Events to be delivered, each once.", flow(|flow| flow.received))?;
        families.counter("sink_drained_events", "Events delivered.", flow(|flow| flow.accepted))?;
        families.counter(
            "sink_drained_bytes",
            "Bytes delivered, headers included.",
            each(|counters| &counters.accepted_bytes),
        )?;
        let sizes = |(labels, stage): (Labels, &StageSnapshot)| {
            let counters = &stage.counters;
            let sizes = [
                ("empty", &counters.empty_batches),
                ("underflow", &counters.underflow_batches),
                ("complete", &counters.complete_batches),
            ];
            sizes.map(|(size, counter)| (with(&labels, "size", size.into()), counter.get()))
        };
        families.counter(
            "sink_batches",
            "Deliveries that did not fail, by size: nothing left by the interceptors, less than a batch, a batch.",
            sinks().flat_map(sizes),
        )?;
        families.counter("sink_delivery_errors", "Calls that failed.", each(|counters| &counters.errors))?;
        let observed = |value: fn(&StageCounters) -> &Histogram| {
            sinks().map(move |(labels, stage)| (labels, value(&stage.counters).observed()))
        };
        families.histogram(
            "sink_delivery_seconds",
            "Time of each delivery that did not fail; a broker's answer comes later.",
            observed(|counters| &counters.deliveries),
        )?;
        let ends = self.pipelines.iter().flat_map(|pipeline| {
            let readers = pipeline.channels.iter().flat_map(|(_, counts)| &counts.readers);
            readers.flat_map(|reader| {
                let end = |(source, observed): &(Arc<str>, Observed)| {
                    let labels = with(&labels(&pipeline.name, "source", source), "sink", reader.name.clone());
                    (labels, observed.clone())
                };
                reader.end_to_end.iter().map(end)
            })
        });
        families.histogram(
            "end_to_end_seconds",
            "From the put of the oldest event of a batch to the sink's settlement of all of it.",
            ends,
        )
    }

    fn events(&self, families: &mut Families<'_>) -> fmt::Result {
        let reasons = |(labels, stage): (Labels, &StageSnapshot)| {
            let counters = &stage.counters;
            let reasons = [
                ("filtered", counters.filtered.get()),
                ("rejected", stage.flow.refused()),
                ("oversize", stage.flow.oversize),
            ];
            reasons.map(|(reason, count)| (with(&labels, "reason", reason.into()), count))
        };
        let corrupt = self.pipelines.iter().flat_map(|pipeline| {
            pipeline.channels.iter().filter_map(|(name, counts)| {
                let labels = with(&labels(&pipeline.name, "stage", name), "reason", "corrupt".into());
                Some((labels, counts.disk.as_ref()?.skipped_events))
            })
        });
        families.counter(
            "discarded_events",
            "Events that left the flow, by reason; the corrupt ones are those of a channel.",
            self.stages(None, "stage").flat_map(reasons).chain(corrupt),
        )?;
        let letters = self.stages(None, "stage").map(|(labels, stage)| (labels, stage.flow.dead_lettered));
        families.counter("dead_letter_events", "Rejected events that were set aside.", letters)
    }

    fn plugins(&self, families: &mut Families<'_>) -> fmt::Result {
        let stages = || self.stages(None, "stage");
        let results = |(labels, stage): (Labels, &StageSnapshot)| {
            Call::ALL.map(|call| (with(&labels, "result", call.label().into()), stage.counters.result(call)))
        };
        families.counter("plugin_calls", "Calls into the plugin, by how they ended.", stages().flat_map(results))?;
        let calls = stages().map(|(labels, stage)| (labels, stage.counters.calls.observed()));
        families.histogram("plugin_call_seconds", "Time of each call, waiting included.", calls)?;
        let kinds = |(labels, stage): (Labels, &StageSnapshot)| {
            stage.counters.traps_by_kind().map(|(kind, count)| (with(&labels, "kind", kind.into()), count))
        };
        families.counter("plugin_traps", "Instances that were thrown away, by cause.", stages().flat_map(kinds))?;
        let denials = |(labels, stage): (Labels, &StageSnapshot)| {
            Denied::ALL.map(|what| (with(&labels, "kind", what.label().into()), stage.counters.denials(what)))
        };
        families.counter(
            "plugin_denied",
            "What the plugin asked for and did not get: without a grant, against the contract, log lines too many.",
            stages().flat_map(denials),
        )?;
        let restarts = stages().map(|(labels, stage)| (labels, stage.counters.restarts.get()));
        families.counter("plugin_restarts", "Fresh instances in the place of others.", restarts)?;
        let memory = stages().map(|(labels, stage)| (labels, stage.counters.memory_bytes() as f64));
        families.gauge("plugin_memory_bytes", "Linear memory of the instance that was called last.", memory)?;
        let generation = stages().map(|(labels, stage)| (labels, stage.generation as f64));
        families.gauge(
            "plugin_generation",
            "The generation that serves: 1 is what the pipeline file names.",
            generation,
        )?;
        let info = stages().map(|(labels, stage)| (plugin_labels(labels, &stage.plugin), 1.0));
        families.gauge("plugin_info", "Which plugin serves.", info)?;
        let swaps = stages().flat_map(|(labels, stage)| {
            let counts = stage.swaps.into_iter();
            counts.map(move |(result, count)| (with(&labels, "result", result.into()), count)).collect::<Vec<_>>()
        });
        families.counter("swaps", "Swaps, by how they ended; one that is switched back has served first.", swaps)
    }

    fn connections(&self) -> impl Iterator<Item = (Labels, &KafkaCounts)> {
        self.pipelines.iter().flat_map(|pipeline| {
            let connections = pipeline.kafka.iter();
            connections.map(move |(name, counts)| (labels(&pipeline.name, "connection", name), counts))
        })
    }

    fn kafka(&self, families: &mut Families<'_>) -> fmt::Result {
        let results = |(labels, counts): (Labels, &KafkaCounts)| {
            let results = [("committed", counts.committed), ("aborted", counts.aborted)];
            results.map(|(result, count)| (with(&labels, "result", result.into()), count))
        };
        let transactions = || self.connections().filter(|(_, counts)| counts.transactions.is_some());
        families.counter("kafka_transactions", "Transactions, by how they ended.", transactions().flat_map(results))?;
        families.histogram(
            "kafka_transaction_seconds",
            "Time of each commit of a transaction.",
            self.connections().filter_map(|(labels, counts)| Some((labels, counts.transactions.clone()?))),
        )?;
        let rebalances = self.connections().map(|(labels, counts)| (labels, counts.rebalances));
        families.counter("kafka_rebalances", "Changes of the partitions that are ours.", rebalances)?;
        let lag = self.connections().flat_map(|(labels, counts)| {
            let topics = counts.lag.iter();
            topics.map(move |(topic, lag)| (with(&labels, "topic", topic.clone()), *lag as f64)).collect::<Vec<_>>()
        });
        families.gauge("kafka_lag_records", "Records of our partitions that were not polled yet.", lag)
    }

    fn agent(&self, families: &mut Families<'_>) -> fmt::Result {
        let refusals =
            Refusal::ALL.map(|refusal| (vec![("reason", refusal.label().into())], self.agent.refused(refusal)));
        families.counter("admin_refused", "Requests and connections that the admin endpoint has refused.", refusals)?;
        let failed = self.failed.iter().map(|pipeline| (vec![("pipeline", pipeline.clone())], 1.0));
        families.gauge("pipeline_failed", "Pipelines that have stopped with a failure; `/readyz` says why.", failed)?;
        let reload = self.agent.last_reload();
        let success = reload.is_none_or(|reload| reload.is_success);
        families.gauge(
            "config_last_reload_success",
            "Whether the pipeline files that were loaded last are in force.",
            [(Vec::new(), f64::from(u8::from(success)))],
        )?;
        let at = reload.map(|reload| (Vec::new(), reload.at_ms as f64 / 1e3));
        families.gauge("config_last_reload_timestamp_seconds", "When pipeline files were last loaded again.", at)?;
        let version = vec![("version", env!("CARGO_PKG_VERSION").into())];
        families.gauge("build_info", "Which wasmflow this is.", [(version, 1.0)])
    }
}

fn swaps(swaps: &SwapCounters) -> [(&'static str, u64); 3] {
    [("served", swaps.served.get()), ("refused", swaps.refused.get()), ("rolled-back", swaps.rolled_back.get())]
}

fn labels(pipeline: &Arc<str>, label: &'static str, name: &Arc<str>) -> Labels {
    vec![("pipeline", pipeline.clone()), (label, name.clone())]
}

fn with(labels: &Labels, label: &'static str, value: Arc<str>) -> Labels {
    let mut labels = labels.clone();
    labels.push((label, value));
    labels
}

fn plugin_labels(labels: Labels, plugin: &PluginFacts) -> Labels {
    let version = &plugin.version[..plugin.version.floor_char_boundary(MAX_VERSION_BYTES)];
    let labels = with(&labels, "name", plugin.name.as_str().into());
    let labels = with(&labels, "version", version.into());
    with(&labels, "digest", plugin.digest.as_str().into())
}

#[cfg(test)]
mod tests;
