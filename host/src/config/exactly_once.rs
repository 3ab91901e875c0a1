//! `delivery = "exactly-once"`: refused wherever a leg of the pipeline cannot keep it, with the leg and the reason.
//!
//! What is promised is one transaction over everything (see `transaction`), so everything has to fit into it: channels in memory,
//! sinks that do nothing but send to one Kafka connection, sources that bring again what was not committed.

use super::check::named;
use super::diagnostic::{Diagnostic, Span};
use super::file::{AckWord, ChannelWord, DeliveryWord, PipelineFile};
use super::read::At;
use super::stage::{StageTable, stage_tables};
use crate::plugin::{Description, PluginKind};

const CODE: &str = "not-exactly-once";

/// Where a file asks for it.
fn asked(file: &PipelineFile) -> Option<&Span> {
    let delivery = file.pipeline.as_ref()?.value.delivery.as_ref()?;
    (delivery.value == DeliveryWord::ExactlyOnce).then_some(&delivery.span)
}

/// What the file alone tells.
pub fn check(file: &PipelineFile) -> Vec<Diagnostic> {
    let Some(asked) = asked(file) else { return without_effect(file).into_iter().collect() };
    let mut problems = connections(file, asked);
    problems.extend(named(&file.channels).filter_map(|(name, channel)| {
        let kind = channel.r#type.as_ref().filter(|kind| kind.value == ChannelWord::File)?;
        let message =
            format!("channel `{}` is on disk; transactions from file channels are not in this version", name.value);
        Some(problem(&kind.span, message, asked).hint("use `type = \"memory\"`: the sources bring again what is lost"))
    }));
    problems.extend(named(&file.sources).filter_map(|(name, source)| {
        let ack = source.ack.as_ref().filter(|ack| ack.value == AckWord::Put)?;
        let message = format!("source `{}` hears that its events are safe before they are committed", name.value);
        Some(problem(&ack.span, message, asked).hint("leave `ack` out"))
    }));
    problems
}

/// What a stage's plugin says about itself.
pub fn check_plugin(file: &PipelineFile, stage: &StageTable<'_>, description: &Description) -> Option<Diagnostic> {
    let asked = asked(file)?;
    match stage.kind {
        PluginKind::Source if !description.replays => {
            let message = format!("{} cannot bring again what a transaction that came to nothing had", stage.title());
            let hint = "use delivery = \"at-least-once\", or a source that remembers where it was";
            Some(problem(&stage.plugin_span(), message, asked).hint(hint))
        }
        PluginKind::Sink if !description.only_kafka => {
            let message = format!("{} delivers to something that is no part of a Kafka transaction", stage.title());
            let hint = "use delivery = \"at-least-once\", or give this sink a pipeline of its own";
            Some(problem(&stage.plugin_span(), message, asked).hint(hint))
        }
        _ => None,
    }
}

/// All sinks, and all sources that read Kafka, use one connection: a transaction does not span clusters.
fn connections(file: &PipelineFile, asked: &Span) -> Vec<Diagnostic> {
    let stages = stage_tables(file);
    let uses = |stage: &'_ StageTable<'_>| -> Vec<At<String>> {
        let kafka = stage.allow.iter().flat_map(|allow| &allow.value.kafka).flat_map(|at| &at.value);
        kafka.cloned().collect()
    };
    let used: Vec<_> =
        stages.iter().filter(|stage| stage.kind != PluginKind::Interceptor).map(|s| (s, uses(s))).collect();
    let Some((_, first)) = used.iter().find(|(stage, uses)| stage.kind == PluginKind::Sink && !uses.is_empty()) else {
        return Vec::new();
    };
    let first = &first[0];
    let mut problems: Vec<_> = used
        .iter()
        .flat_map(|(stage, uses)| uses.iter().map(move |connection| (stage, connection)))
        .filter(|(_, connection)| connection.value != first.value)
        .map(|(stage, connection)| {
            let message = format!(
                "{} uses connection `{}`, and the pipeline's transactions are on `{}`",
                stage.title(),
                connection.value,
                first.value
            );
            let hint = "all sinks and all Kafka sources of the pipeline need the same connection, and only that";
            problem(&connection.span, message, asked).hint(hint)
        })
        .collect();
    problems.extend(named(&file.kafka).filter(|(name, _)| name.value == first.value).flat_map(|(name, table)| {
        let embedded = table.embedded_span().map(|span| {
            let message =
                format!("connection `{}` is a broker inside this process, which has no transactions", name.value);
            problem(&span, message, asked).hint("use a real broker")
        });
        let uncommitted = table.option_span("isolation.level", "read_uncommitted").map(|span| {
            let message = format!("connection `{}` reads what is not committed, and may never be", name.value);
            problem(&span, message, asked).hint("leave `isolation.level` out: it is `read_committed` then")
        });
        embedded.into_iter().chain(uncommitted).collect::<Vec<_>>()
    }));
    problems
}

fn without_effect(file: &PipelineFile) -> Option<Diagnostic> {
    let transaction = file.pipeline.as_ref()?.value.transaction.as_ref()?;
    let problem = Diagnostic::error("contradiction", transaction.span.clone(), "`transaction` without transactions");
    Some(problem.hint("add delivery = \"exactly-once\", or leave `transaction` out"))
}

fn problem(span: &Span, message: String, asked: &Span) -> Diagnostic {
    Diagnostic::error(CODE, span.clone(), message).related(asked.clone(), "so this cannot be kept")
}
