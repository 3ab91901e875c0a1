//! Whether what runs comes on: what turns `/readyz` bad, each with its reason.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Control, PipelineControl, StageControl};
use crate::channel::Channel;
use crate::metrics::{ChannelCounts, ReaderCounts};
use crate::plugin::PluginKind;
use crate::source::POLL_WAIT;

/// How long a stage may have something to do, or fail, without coming on. Retries wait up to 30 s by default, and a call may take
/// 60 s: an agent that was bad for less would flutter.
pub const STALL: Duration = Duration::from_secs(60);

/// Above this a disk is slow: puts that wait for it are what a source sees.
const SLOW_DISK: Duration = Duration::from_secs(1);

/// How long is too long.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

/// Why the agent is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub pipeline: Arc<str>,
    /// A stage or a channel; nothing for the pipeline itself.
    pub place: Option<String>,
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place} of pipeline `{}`: {}", self.pipeline, self.reason),
            None => write!(f, "pipeline `{}`: {}", self.pipeline, self.reason),
        }
    }
}

/// Everything that keeps the agent from being ready, in the order of the pipelines.
pub fn problems(control: &Control, patience: Patience) -> Vec<Problem> {
    let mut problems: Vec<_> = control.ended().into_iter().filter_map(|ended| ended.problem()).collect();
    for pipeline in control.pipelines() {
        let problem = |place: Option<String>, reason| Problem { pipeline: pipeline.name.clone(), place, reason };
        if !pipeline.is_running() {
            let reason = if pipeline.is_stopping() { "it is stopping" } else { "it is starting" };
            problems.push(problem(None, reason.into()));
        }
        for stage in pipeline.stages() {
            let place = format!("{} `{}`", stage.kind(), stage.name());
            problems.extend(stage_reason(&stage, patience).map(|reason| problem(Some(place), reason)));
        }
        for channel in pipeline.channels() {
            channel_reasons(&pipeline, &channel, patience).into_iter().for_each(|(place, reason)| {
                problems.push(problem(Some(place), reason));
            });
        }
    }
    problems
}

/// One word for a stage.
pub fn state(stage: &StageControl, patience: Patience) -> &'static str {
    let counters = stage.counters();
    match () {
        () if stage.is_paused() => "paused",
        () if stalled(stage, patience).is_some() => "stalled",
        () if counters.failing_for().is_some() => "failing",
        () => "running",
    }
}

/// How long a call has been under way, if that is too long. A source may wait in its own for what is to come.
fn stalled(stage: &StageControl, Patience(patience): Patience) -> Option<Duration> {
    let may_wait = if stage.kind() == PluginKind::Source { POLL_WAIT } else { Duration::ZERO };
    stage.counters().calling_for().filter(|time| *time >= patience + may_wait)
}

fn stage_reason(stage: &StageControl, Patience(patience): Patience) -> Option<String> {
    let counters = stage.counters();
    if let Some(time) = stalled(stage, Patience(patience)) {
        return Some(format!("a call has been under way for {}", seconds(time)));
    }
    let kafka = stage.serving().context.kafka.clone();
    if let Some((connection, time)) =
        kafka.and_then(|kafka| kafka.unreachable_for()).filter(|(_, time)| *time >= patience)
    {
        return Some(format!("no broker of connection `{connection}` has answered for {}", seconds(time)));
    }
    let time = counters.failing_for().filter(|time| *time >= patience)?;
    let error = counters.last_error().map_or_else(String::new, |error| format!(": {}", error.text));
    Some(format!("its calls have failed for {}{error}", seconds(time)))
}

fn channel_reasons(pipeline: &PipelineControl, channel: &Channel, patience: Patience) -> Vec<(String, String)> {
    let place = format!("channel `{}`", channel.name());
    let counts = channel.counts();
    let mut reasons = Vec::new();
    if let Some(failure) = channel.failure() {
        reasons.push((place.clone(), failure.to_string()));
    }
    reasons.extend(disk_reason(&counts).map(|reason| (place.clone(), reason)));
    for reader in &counts.readers {
        reasons.extend(
            reader_reason(pipeline, reader, patience).map(|reason| (format!("sink `{}`", reader.name), reason)),
        );
    }
    reasons
}

fn disk_reason(counts: &ChannelCounts) -> Option<String> {
    let disk = counts.disk.as_ref()?;
    if let Some(reason) = &disk.waits_for_space {
        return Some(format!("puts wait for space on disk: {reason}"));
    }
    let waits = disk.answers_wait.filter(|time| *time >= SLOW_DISK)?;
    Some(format!("the disk is slow: puts have waited {} for it", seconds(waits)))
}

/// A sink comes on when it settles something, or when a call of it goes well: it may hold what it was given for a while.
fn reader_reason(pipeline: &PipelineControl, reader: &ReaderCounts, Patience(patience): Patience) -> Option<String> {
    let waits = reader.waits?;
    let sink = pipeline.stage(&reader.name).filter(|stage| stage.kind() == PluginKind::Sink);
    let is_well = sink.as_ref().and_then(|sink| sink.counters().well_before());
    let waits = waits.min(is_well.unwrap_or(waits));
    let (lag, time) = (reader.lag_events, seconds(waits));
    let why = if sink.is_some_and(|sink| sink.is_paused()) { "it is paused: " } else { "" };
    (waits >= patience).then(|| format!("{why}no progress for {time}, with {lag} events waiting"))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
