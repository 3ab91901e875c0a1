//! `delivery = "exactly-once"`: refused wherever a leg of the pipeline cannot keep it, with the leg and the reason.
//!
//! What is promised is one transaction over all that goes by memory channels, and one for each sink of a file channel (see
//! `transaction`), so everything has to fit into one of these: sinks that do nothing but send to one Kafka connection, and sources that
//! bring again what was not committed, or not on disk.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::named;
use super::diagnostic::{Diagnostic, Span};
use super::file::{AckWord, ChannelTable, ChannelWord, DeliveryWord, PipelineFile, SinkTable, SourceTable, SyncWord};
use super::pipeline::DeliveryPromise;
use super::quantity::show_duration;
use super::read::At;
use super::road::channels_of;
use super::stage::{StageTable, stage_tables};
use crate::plugin::{Description, PluginKind};

const CODE: &str = "not-exactly-once";

/// librdkafka's `transaction.timeout.ms`.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// A file that asks for it, and where.
struct Asked<'f> {
    file: &'f PipelineFile,
    span: &'f Span,
}

/// What the file alone tells.
pub fn check(file: &PipelineFile) -> Vec<Diagnostic> {
    let Some(asked) = Asked::by(file) else { return without_effect(file).into_iter().collect() };
    let mut problems = asked.connections();
    problems.extend(named(&file.channels).filter_map(|(name, channel)| asked.unsynced(name, channel)));
    for (name, source) in named(&file.sources) {
        problems.extend(asked.acked_early(name, source));
        problems.extend(asked.two_ways(name, source));
        problems.extend(asked.assigned_by_group(name, source));
    }
    problems.extend(named(&file.sinks).filter_map(|(name, sink)| asked.side_by_side(name, sink)));
    problems.extend(asked.dead_letters());
    problems.extend(asked.slow_stages());
    problems
}

/// What a stage's plugin says about itself.
pub fn check_plugin(file: &PipelineFile, stage: &StageTable<'_>, description: &Description) -> Option<Diagnostic> {
    let asked = Asked::by(file)?;
    match stage.kind {
        PluginKind::Source if !description.replays => {
            let source = named(&file.sources).find(|(name, _)| name.span == stage.name.span);
            let lost = match source.is_some_and(|(_, source)| asked.feeds(source, Kind::Memory)) {
                true => "what a transaction that came to nothing had",
                false => "what was on its way to the disk when the process ended",
            };
            let message = format!("{} cannot bring again {lost}", stage.title());
            let hint = "use delivery = \"at-least-once\", or a source that remembers where it was";
            Some(asked.problem(&stage.plugin_span(), message).hint(hint))
        }
        PluginKind::Sink if !description.only_kafka => {
            let message = format!("{} delivers to something that is no part of a Kafka transaction", stage.title());
            let hint = "use delivery = \"at-least-once\", or give this sink a pipeline of its own";
            Some(asked.problem(&stage.plugin_span(), message).hint(hint))
        }
        _ => None,
    }
}

/// Where a channel keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    File,
}

/// What the file promises its users.
pub fn promise(file: &PipelineFile) -> DeliveryPromise {
    match Asked::by(file) {
        Some(_) => DeliveryPromise::ExactlyOnce,
        None => DeliveryPromise::AtLeastOnce,
    }
}

impl<'f> Asked<'f> {
    fn by(file: &'f PipelineFile) -> Option<Self> {
        let delivery = file.pipeline.as_ref()?.value.delivery.as_ref()?;
        (delivery.value == DeliveryWord::ExactlyOnce).then_some(Self { file, span: &delivery.span })
    }

    fn problem(&self, span: &Span, message: String) -> Diagnostic {
        Diagnostic::error(CODE, span.clone(), message).related(self.span.clone(), "so this cannot be kept")
    }

    /// Nothing for a channel that is not there, which is said elsewhere.
    fn kind(&self, channel: &At<String>) -> Option<Kind> {
        let (_, table) = named(&self.file.channels).find(|(name, _)| name.value == channel.value)?;
        let is_file = table.r#type.as_ref().is_some_and(|kind| kind.value == ChannelWord::File);
        Some(if is_file { Kind::File } else { Kind::Memory })
    }

    fn feeds(&self, source: &SourceTable, kind: Kind) -> bool {
        channels_of(source).any(|channel| self.kind(channel) == Some(kind))
    }

    fn file_sinks(&self) -> impl Iterator<Item = &'f (At<String>, SinkTable)> {
        let is_file = |sink: &SinkTable| sink.channel.as_ref().is_some_and(|at| self.kind(at) == Some(Kind::File));
        named(&self.file.sinks).filter(move |(_, sink)| is_file(sink))
    }

    /// After a power cut the disk may know less than Kafka does; the sources would bring it again under other numbers.
    fn unsynced(&self, name: &At<String>, channel: &ChannelTable) -> Option<Diagnostic> {
        let sync = channel.sync.as_ref().filter(|sync| sync.value != SyncWord::Always)?;
        let message =
            format!("channel `{}` can lose in a power cut what has been delivered, and get it again", name.value);
        Some(self.problem(&sync.span, message).hint("leave `sync` out: it is `always` then"))
    }

    fn acked_early(&self, name: &At<String>, source: &SourceTable) -> Option<Diagnostic> {
        let ack = source.ack.as_ref().filter(|ack| ack.value == AckWord::Put && self.feeds(source, Kind::Memory))?;
        let message = format!("source `{}` hears that its events are safe before they are committed", name.value);
        Some(self.problem(&ack.span, message).hint("leave `ack` out"))
    }

    /// A cut is what came before; what workers deliver side by side is in no order.
    fn side_by_side(&self, name: &At<String>, sink: &SinkTable) -> Option<Diagnostic> {
        let workers = sink.workers.as_ref().filter(|workers| workers.value.0 > 1)?;
        let message = format!("the {} workers of sink `{}` deliver in no order", workers.value.0, name.value);
        Some(self.problem(&workers.span, message).hint("leave `workers` out"))
    }

    /// Its position would be in the transactions and on disk, and after a crash one of the two is behind.
    fn two_ways(&self, name: &At<String>, source: &SourceTable) -> Option<Diagnostic> {
        let durable = channels_of(source).find(|channel| self.kind(channel) == Some(Kind::File))?;
        if !self.feeds(source, Kind::Memory) {
            return None;
        }
        let message = format!(
            "source `{}` feeds memory channels and file channels, so channel `{}` would get events twice after a crash",
            name.value, durable.value
        );
        Some(self.problem(&durable.span, message).hint("let it feed channels of one type"))
    }

    /// A partition that goes to another agent leaves its position behind on this one's disk. A plugin that is not ours is found out when
    /// it subscribes.
    fn assigned_by_group(&self, name: &At<String>, source: &SourceTable) -> Option<Diagnostic> {
        let plugin = source.plugin.as_ref().filter(|plugin| plugin.value == "kafka")?;
        let has_partitions = source
            .config
            .as_ref()
            .is_some_and(|at| at.value.is_partial() || at.value.resolved().get("partitions").is_some());
        if has_partitions || !self.feeds(source, Kind::File) {
            return None;
        }
        let message = format!(
            "source `{}` has partitions by its group, and one that goes to another agent would be read twice into the file channel",
            name.value
        );
        let hint = "use a memory channel, or fixed `partitions` in its `config`";
        Some(self.problem(&plugin.span, message).hint(hint))
    }

    /// Each sink of a file channel has transactions of its own, and the dead letters can be in one of them only.
    fn dead_letters(&self) -> Vec<Diagnostic> {
        let Some(letters) = self.file.pipeline.as_ref().and_then(|at| at.value.dead_letters.as_ref()) else {
            return Vec::new();
        };
        let mut sinks = self.file_sinks();
        let Some((first, _)) = sinks.next() else { return Vec::new() };
        let hint = "leave `dead_letters` out, so that a rejected event stops its stage; or use memory channels, or several pipelines";
        let no_part = |why: String| {
            let message = format!("dead letters cannot be part of the transactions of sink `{}`: {why}", first.value);
            self.problem(&letters.span, message).hint(hint)
        };
        let memory = named(&self.file.sources).find(|(_, source)| self.feeds(source, Kind::Memory));
        let reasons = [
            (self.kind(letters) == Some(Kind::File)).then(|| format!("channel `{}` is on disk", letters.value)),
            sinks.next().map(|(second, _)| format!("sink `{}` has transactions of its own", second.value)),
            memory.map(|(source, _)| format!("source `{}` feeds a memory channel", source.value)),
        ];
        reasons.into_iter().flatten().map(no_part).collect()
    }

    /// A call that may take longer than the broker lets a transaction be open makes it come to nothing.
    fn slow_stages(&self) -> Vec<Diagnostic> {
        let by_sinks = named(&self.file.sinks).flat_map(|(_, sink)| sink.interceptors.iter().flat_map(|at| &at.value));
        let in_memory = named(&self.file.sources).filter(|(_, source)| self.feeds(source, Kind::Memory));
        let by_sources = in_memory.flat_map(|(_, source)| source.interceptors.iter().flat_map(|at| &at.value));
        let interceptors: BTreeSet<_> = by_sinks.chain(by_sources).map(|at| at.value.as_str()).collect();
        let stages = stage_tables(self.file).into_iter().filter(|stage| match stage.kind {
            PluginKind::Source => false,
            PluginKind::Interceptor => interceptors.contains(stage.name.value.as_str()),
            PluginKind::Sink => true,
        });
        let (timeout, written) = self.transaction_timeout();
        let slow = |stage: StageTable<'_>| {
            let (call, at) = stage.call_limit();
            // Both are a minute by default; only who has set one of them wants to hear of it.
            let span = at.or(written.as_ref())?;
            (call >= timeout).then(|| {
                let message = format!(
                    "a call of {} may take {}, and a transaction is given up after {}",
                    stage.title(),
                    show_duration(call),
                    show_duration(timeout)
                );
                let problem = Diagnostic::warning("slower-than-transaction", span.clone(), message);
                problem.hint(
                    "make `limits.call` of the stage shorter, or \"transaction.timeout.ms\" of the connection longer",
                )
            })
        };
        stages.filter_map(slow).collect()
    }

    /// The shortest of the connections that sinks use, and where it is written.
    fn transaction_timeout(&self) -> (Duration, Option<Span>) {
        let used: BTreeSet<_> = stage_tables(self.file)
            .iter()
            .filter(|stage| stage.kind == PluginKind::Sink)
            .flat_map(uses)
            .map(|at| at.value.clone())
            .collect();
        let written =
            named(&self.file.kafka).filter(|(name, _)| used.contains(&name.value)).filter_map(|(_, table)| {
                let (timeout, span) = table.option("transaction.timeout.ms")?;
                Some((Duration::from_millis(timeout.parse().ok()?), Some(span)))
            });
        written.min_by_key(|(timeout, _)| *timeout).unwrap_or((TRANSACTION_TIMEOUT, None))
    }

    /// A transaction does not span clusters: one connection for whatever goes by memory channels, and one for each sink of a file channel.
    fn connections(&self) -> Vec<Diagnostic> {
        let stages = stage_tables(self.file);
        let mut problems = Vec::new();
        let mut used = BTreeSet::new();
        // Where the only memory channel is that of the dead letters, its sinks share the transactions of the file channel's.
        let has_letters = self.file.pipeline.as_ref().is_some_and(|at| at.value.dead_letters.is_some());
        let is_one_line = has_letters && !named(&self.file.sources).any(|(_, source)| self.feeds(source, Kind::Memory));
        let is_shared =
            |stage: &&StageTable<'_>| (is_one_line && stage.kind == PluginKind::Sink) || self.is_shared(stage);
        let shared: Vec<_> = stages.iter().filter(is_shared).collect();
        let first = shared.iter().filter(|stage| stage.kind == PluginKind::Sink).flat_map(|stage| uses(stage)).next();
        if let Some(first) = first {
            used.insert(&first.value);
            let hint = "all sinks and all Kafka sources of the pipeline need the same connection, and only that";
            problems.extend(shared.iter().flat_map(|stage| self.others(stage, first, "the pipeline's", hint)));
        }
        let file_sinks: Vec<_> = self.file_sinks().map(|(name, _)| &name.span).collect();
        for stage in stages.iter().filter(|stage| file_sinks.contains(&&stage.name.span)) {
            let Some(first) = uses(stage).next() else { continue };
            used.insert(&first.value);
            problems.extend(self.others(
                stage,
                first,
                "its",
                "a sink of a file channel needs one connection, and only that",
            ));
        }
        let sources = stages.iter().filter(|stage| stage.kind == PluginKind::Source);
        let read: BTreeSet<_> = sources.flat_map(uses).map(|at| &at.value).collect();
        for (name, table) in named(&self.file.kafka) {
            if let Some(span) = table.embedded_span().filter(|_| used.contains(&name.value)) {
                let what = "is a broker inside this process, which has no transactions";
                problems
                    .push(self.problem(&span, format!("connection `{}` {what}", name.value)).hint("use a real broker"));
            }
            let is_used = used.contains(&name.value) || read.contains(&name.value);
            if let Some(span) = table.option_span("isolation.level", "read_uncommitted").filter(|_| is_used) {
                let message = format!("connection `{}` reads what is not committed, and may never be", name.value);
                let hint = "leave `isolation.level` out: it is `read_committed` then";
                problems.push(self.problem(&span, message).hint(hint));
            }
        }
        problems
    }

    /// Whether a stage's events go by memory channels.
    fn is_shared(&self, stage: &StageTable<'_>) -> bool {
        let is_stage = |name: &At<String>| name.span == stage.name.span;
        match stage.kind {
            PluginKind::Source => {
                named(&self.file.sources).any(|(name, source)| is_stage(name) && !self.feeds(source, Kind::File))
            }
            PluginKind::Sink => !self.file_sinks().any(|(name, _)| is_stage(name)),
            PluginKind::Interceptor => false,
        }
    }

    fn others(&self, stage: &StageTable<'_>, first: &At<String>, whose: &str, hint: &str) -> Vec<Diagnostic> {
        let other = |connection: &&At<String>| connection.value != first.value;
        let problem = |connection: &At<String>| {
            let message = format!(
                "{} uses connection `{}`, and {whose} transactions are on `{}`",
                stage.title(),
                connection.value,
                first.value
            );
            self.problem(&connection.span, message).hint(hint)
        };
        uses(stage).filter(other).map(problem).collect()
    }
}

/// The connections that a stage is granted.
fn uses<'s>(stage: &'s StageTable<'_>) -> impl Iterator<Item = &'s At<String>> {
    stage.allow.iter().flat_map(|allow| &allow.value.kafka).flat_map(|at| &at.value)
}

fn without_effect(file: &PipelineFile) -> Option<Diagnostic> {
    let transaction = file.pipeline.as_ref()?.value.transaction.as_ref()?;
    let problem = Diagnostic::error("contradiction", transaction.span.clone(), "`transaction` without transactions");
    Some(problem.hint("add delivery = \"exactly-once\", or leave `transaction` out"))
}
