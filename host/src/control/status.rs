//! What runs, as the admin endpoint and `wasmflow status` tell it.
//!
//! Names of fields are a contract: they are in the OpenAPI description, and scripts read them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::health::{self, Patience};
use super::{Control, PipelineControl, PluginFacts, StageControl};
use crate::config::pipeline::DeliveryPromise;
use crate::metrics::{Call, ChannelCounts, Denied, LastError, Rates, StageCounters};
use crate::plugin::PluginKind;
use crate::swap::{Generation, SwapRecord, SwapResult, Trigger};

/// The agent and everything in it.
#[derive(Debug, Serialize)]
pub struct AgentStatus {
    pub version: &'static str,
    pub process: u32,
    pub is_ready: bool,
    /// Why it is not.
    pub problems: Vec<String>,
    pub pipelines: Vec<PipelineStatus>,
}

#[derive(Debug, Serialize)]
pub struct PipelineStatus {
    pub name: String,
    /// `starting`, `running`, `stopping`.
    pub state: &'static str,
    /// `at-least-once`, `exactly-once`.
    pub delivery: &'static str,
    pub stages: Vec<StageStatus>,
    pub channels: Vec<ChannelStatus>,
}

/// One source, interceptor or sink.
#[derive(Debug, Serialize)]
pub struct StageStatus {
    pub pipeline: String,
    pub name: String,
    /// `source`, `interceptor`, `sink`.
    pub kind: &'static str,
    /// `running`, `paused`, `failing` (its calls do not go well), `stalled` (it has not come on for too long).
    pub state: &'static str,
    pub generation: u64,
    /// Since when this generation serves.
    pub since: String,
    pub plugin: PluginStatus,
    /// How many sources and sinks it works for: more than one for an interceptor that several name.
    pub uses: usize,
    pub counters: CounterStatus,
    pub rates: RateStatus,
    /// Of a sink: events put and not settled by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_events: Option<u64>,
    /// Of a source that reads Kafka: records of its partitions that it has not polled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    pub memory_bytes: u64,
    pub last_error: Option<ErrorStatus>,
}

/// A stage with its past.
#[derive(Debug, Serialize)]
pub struct StageDetail {
    #[serde(flatten)]
    pub stage: StageStatus,
    /// Those that are not retired: the one that serves, one that is prepared or shadowed, one that drains.
    pub generations: Vec<GenerationStatus>,
    /// The last swaps, oldest first.
    pub history: Vec<SwapStatus>,
}

#[derive(Debug, Serialize)]
pub struct GenerationStatus {
    pub number: u64,
    /// `candidate`, `shadow`, `serving`, `draining`.
    pub life: &'static str,
    /// Since when it is what it is.
    pub since: String,
    pub plugin: PluginStatus,
}

#[derive(Debug, Clone, Serialize)]
pub struct PluginStatus {
    pub name: String,
    pub version: String,
    /// SHA-256, in hexadecimal.
    pub digest: String,
    /// The standard plugin's name, or the file's path.
    pub origin: String,
}

/// Since the pipeline has started.
#[derive(Debug, Serialize)]
pub struct CounterStatus {
    pub in_events: u64,
    pub out_events: u64,
    pub filtered_events: u64,
    pub rejected_events: u64,
    pub dead_letter_events: u64,
    pub errors: u64,
    pub traps: u64,
    /// What the plugin asked for and did not get.
    pub denied: u64,
    pub restarts: u64,
    pub calls: u64,
}

/// A second, over the last ten or so.
#[derive(Debug, Serialize)]
pub struct RateStatus {
    pub in_events_per_s: f64,
    pub out_events_per_s: f64,
}

#[derive(Debug, Serialize)]
pub struct ErrorStatus {
    pub text: String,
    pub at: String,
}

#[derive(Debug, Serialize)]
pub struct ChannelStatus {
    pub name: String,
    /// `memory`, `file`.
    pub kind: &'static str,
    pub events: u64,
    pub bytes: u64,
    pub capacity_events: u64,
    pub capacity_bytes: u64,
    pub readers: Vec<ReaderStatus>,
}

#[derive(Debug, Serialize)]
pub struct ReaderStatus {
    pub name: String,
    pub lag_events: u64,
}

/// One swap of the past.
#[derive(Debug, Serialize)]
pub struct SwapStatus {
    pub at: String,
    /// `operator`, `rollback`, `file`.
    pub trigger: &'static str,
    /// The number that the candidate had, or would have had.
    pub generation: u64,
    pub plugin: Option<PluginStatus>,
    /// `serving`, `refused`, `rolled-back`.
    pub result: &'static str,
    /// Of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
    /// Why it was refused or rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<f64>,
}

impl AgentStatus {
    pub fn of(control: &Control, rates: &Rates, patience: Patience) -> Self {
        let problems: Vec<_> = health::problems(control, patience).iter().map(ToString::to_string).collect();
        let pipelines = control.pipelines();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            process: std::process::id(),
            is_ready: problems.is_empty(),
            problems,
            pipelines: pipelines.iter().map(|pipeline| PipelineStatus::of(pipeline, rates, patience)).collect(),
        }
    }
}

impl PipelineStatus {
    pub fn of(pipeline: &PipelineControl, rates: &Rates, patience: Patience) -> Self {
        let channels: Vec<_> = pipeline
            .channels()
            .iter()
            .map(|channel| (channel.name().clone(), channel.is_durable(), channel.counts()))
            .collect();
        let lags = lags(channels.iter().map(|(_, _, counts)| counts));
        let stage = |stage: &Arc<StageControl>| StageStatus::with(stage, &lags, rates, patience);
        Self {
            name: pipeline.name.to_string(),
            state: state(pipeline),
            delivery: match pipeline.delivery {
                DeliveryPromise::AtLeastOnce => "at-least-once",
                DeliveryPromise::ExactlyOnce => "exactly-once",
            },
            stages: pipeline.stages().iter().map(stage).collect(),
            channels: channels
                .iter()
                .map(|(name, durable, counts)| ChannelStatus::of(name, *durable, counts))
                .collect(),
        }
    }
}

fn state(pipeline: &PipelineControl) -> &'static str {
    match (pipeline.is_running(), pipeline.is_stopping()) {
        (true, _) => "running",
        (false, true) => "stopping",
        (false, false) => "starting",
    }
}

fn lags<'c>(channels: impl Iterator<Item = &'c ChannelCounts>) -> HashMap<Arc<str>, u64> {
    let readers = channels.flat_map(|counts| &counts.readers);
    readers.map(|reader| (reader.name.clone(), reader.lag_events)).collect()
}

impl StageStatus {
    fn with(stage: &StageControl, lags: &HashMap<Arc<str>, u64>, rates: &Rates, patience: Patience) -> Self {
        let counters = stage.counters();
        let rate = rates.of(stage.pipeline(), stage.name(), counters);
        let lag = lags.get(stage.name()).copied();
        Self {
            pipeline: stage.pipeline().to_string(),
            name: stage.name().to_string(),
            kind: stage.kind().interface(),
            state: health::state(stage, patience),
            generation: stage.generation(),
            since: time(stage.since()),
            plugin: PluginStatus::of(&stage.plugin()),
            uses: stage.uses(),
            counters: CounterStatus::of(counters),
            rates: RateStatus { in_events_per_s: rounded(rate.0), out_events_per_s: rounded(rate.1) },
            lag_events: lag.filter(|_| stage.kind() == PluginKind::Sink),
            lag_records: stage.serving().context.kafka.as_ref().and_then(|kafka| kafka.lag_records()),
            memory_bytes: counters.memory_bytes(),
            last_error: counters.last_error().map(|error| ErrorStatus::of(&error)),
        }
    }
}

impl StageDetail {
    /// Of a stage of this pipeline.
    pub fn of(pipeline: &PipelineControl, stage: &StageControl, rates: &Rates, patience: Patience) -> Self {
        let counts: Vec<_> = pipeline.channels().iter().map(|channel| channel.counts()).collect();
        Self {
            stage: StageStatus::with(stage, &lags(counts.iter()), rates, patience),
            generations: stage.generations().iter().map(GenerationStatus::of).collect(),
            history: stage.history().iter().map(SwapStatus::of).collect(),
        }
    }
}

impl GenerationStatus {
    fn of(generation: &Generation) -> Self {
        let (number, life) = (generation.number, generation.life().word());
        Self { number, life, since: time(generation.since), plugin: PluginStatus::of(&generation.plugin) }
    }
}

impl PluginStatus {
    pub fn of(facts: &PluginFacts) -> Self {
        let PluginFacts { name, version, digest, origin } = facts.clone();
        Self { name, version, digest, origin }
    }
}

impl CounterStatus {
    fn of(counters: &StageCounters) -> Self {
        Self {
            in_events: counters.received.get(),
            out_events: counters.accepted.get(),
            filtered_events: counters.filtered.get(),
            rejected_events: counters.rejected.get(),
            dead_letter_events: counters.dead_lettered.get(),
            errors: counters.errors.get(),
            traps: counters.traps.get(),
            denied: Denied::ALL.iter().map(|what| counters.denials(*what)).sum(),
            restarts: counters.restarts.get(),
            calls: Call::ALL.iter().map(|call| counters.result(*call)).sum(),
        }
    }
}

impl ErrorStatus {
    fn of(error: &LastError) -> Self {
        Self { text: error.text.clone(), at: time(error.at) }
    }
}

impl ChannelStatus {
    fn of(name: &Arc<str>, durable: bool, counts: &ChannelCounts) -> Self {
        let reader = |name: &Arc<str>, lag_events| ReaderStatus { name: name.to_string(), lag_events };
        Self {
            name: name.to_string(),
            kind: if durable { "file" } else { "memory" },
            events: counts.held.events,
            bytes: counts.held.bytes,
            capacity_events: counts.capacity.events,
            capacity_bytes: counts.capacity.bytes,
            readers: counts.readers.iter().map(|counts| reader(&counts.name, counts.lag_events)).collect(),
        }
    }
}

impl SwapStatus {
    fn of(record: &SwapRecord) -> Self {
        let (result, step, reason) = match &record.result {
            SwapResult::Serving => ("serving", None, None),
            SwapResult::Refused(error) => ("refused", Some(error.step.word()), Some(error.reason.clone())),
            SwapResult::RolledBack(reason) => ("rolled-back", None, Some(reason.clone())),
        };
        Self {
            at: time(record.at),
            trigger: match record.trigger {
                Trigger::Operator => "operator",
                Trigger::Rollback => "rollback",
                Trigger::File => "file",
            },
            generation: record.generation,
            plugin: record.plugin.as_ref().map(PluginStatus::of),
            result,
            step,
            reason,
            pause_ms: record.pause.map(milliseconds),
            gap_ms: record.gap.map(milliseconds),
        }
    }
}

/// As in `2026-11-21T10:00:00Z`.
pub fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// With three decimals: a pause is told to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
