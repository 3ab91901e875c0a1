//! From a file as written to a pipeline as trusted: everything that can be known without asking a plugin.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::diagnostic::{Diagnostic, Span};
use super::file::{FORMAT, PipelineFile, PipelineTable};
use super::pipeline::{ChannelName, ConnectionName, KafkaConnection, Pipeline, PipelineName, TransactionSpec};
use super::read::{At, Environment, Named, name_problem};
use super::road::Road;
use super::{exactly_once, stage, state_dir};

/// Limit: the largest event where the file says nothing; plugins cut or refuse what is larger.
const MAX_EVENT_BYTES: u64 = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The code of the one problem after which nothing else of a file is looked at.
pub const NEWER_FORMAT: &str = "newer-format";

/// Codes of problems after which a value that stands in the file is taken to be absent.
const VALUE_REFUSED: &[&str] = &["wrong-type", "undefined-variable", "bad-variable"];

/// What the checks look at beside the file.
#[derive(Clone, Copy)]
pub struct Surroundings<'s> {
    /// The pipeline file's folder, absolute.
    pub base_dir: &'s Path,
    pub environment: &'s Environment,
}

/// Checks a file that could be read, and makes of it what can be made.
///
/// The pipeline is to be trusted only if nothing in `diagnostics` is an error afterwards, the reading's own included: a part
/// that is wrong is left out of it.
pub fn check(file: &PipelineFile, around: Surroundings<'_>, diagnostics: &mut Vec<Diagnostic>) -> Option<Pipeline> {
    let At { value: table, span } = file.pipeline.as_ref()?;
    if let Some(problem) = newer_format(table) {
        // What a newer format has added would look like mistakes here.
        *diagnostics = vec![problem];
        return None;
    }
    // What could not be read is not there now: what only follows from that is not said.
    let is_whole = !diagnostics.iter().any(|d| VALUE_REFUSED.contains(&d.code));
    names_are_unique(file, diagnostics);
    parts_are_there(file, span, diagnostics);
    let road = Road::of(file);
    road.check(table, is_whole, diagnostics);
    diagnostics.extend(exactly_once::check(file));
    for name in [&table.name, &table.instance].into_iter().flatten() {
        diagnostics.extend(name_problem(name));
    }
    let stages = stage::build(file, &road, around, diagnostics);
    let name = table.name.as_ref()?;
    let state_dir =
        state_dir::resolve(table, span, &name.value, around).map_err(|problem| diagnostics.push(problem)).ok()?;
    Some(Pipeline {
        name: PipelineName::new(name.value.as_str()),
        instance: table.instance.as_ref().map(|at| at.value.as_str().into()),
        state_dir,
        delivery: exactly_once::promise(file),
        transaction: transaction(table),
        dead_letters: table.dead_letters.as_ref().map(|at| ChannelName::new(at.value.as_str())),
        max_event_bytes: max_event_bytes(table, &road),
        drain_timeout: table.drain_timeout.as_ref().map_or(DRAIN_TIMEOUT, |at| at.value.0),
        base_dir: around.base_dir.to_owned(),
        kafka: connections(file),
        channels: road.channel_specs(),
        sources: stages.sources,
        interceptors: stages.interceptors,
        sinks: stages.sinks,
    })
}

fn newer_format(table: &PipelineTable) -> Option<Diagnostic> {
    let format = table.format.as_ref().filter(|format| format.value.0 > FORMAT)?;
    let message = format!("this file has format {}, and this wasmflow reads format {FORMAT}", format.value.0);
    let hint = "use the version of wasmflow that the file was written for, or a newer one";
    Some(Diagnostic::error(NEWER_FORMAT, format.span.clone(), message).hint(hint))
}

fn transaction(table: &PipelineTable) -> TransactionSpec {
    let mut spec = TransactionSpec::default();
    let Some(table) = table.transaction.as_ref().map(|at| &at.value) else { return spec };
    spec.max_events = table.max_events.as_ref().map_or(spec.max_events, |at| at.value.0);
    spec.max_bytes = table.max_bytes.as_ref().map_or(spec.max_bytes, |at| at.value.0);
    spec.interval = table.interval.as_ref().map_or(spec.interval, |at| at.value.0);
    spec
}

/// By default 16 MiB, lowered to what the smallest channel can hold: a default never contradicts the file.
fn max_event_bytes(table: &PipelineTable, road: &Road<'_>) -> usize {
    let written = table.max_event_bytes.as_ref().map(|at| at.value.0);
    written.unwrap_or(MAX_EVENT_BYTES.min(road.smallest_capacity_bytes())) as usize
}

fn connections(file: &PipelineFile) -> BTreeMap<ConnectionName, KafkaConnection> {
    let tables = named(&file.kafka);
    tables.map(|(name, table)| (ConnectionName::new(name.value.as_str()), table.connection())).collect()
}

/// The entries of an optional table of names.
pub fn named<T>(table: &Option<At<Named<T>>>) -> impl Iterator<Item = &(At<String>, T)> {
    table.iter().flat_map(|at| at.value.iter())
}

/// Sources, interceptors, sinks and channels share one space of names: `swap`, metrics and logs use them bare.
fn names_are_unique(file: &PipelineFile, diagnostics: &mut Vec<Diagnostic>) {
    let mut all: Vec<(&'static str, &At<String>)> = Vec::new();
    all.extend(named(&file.channels).map(|(name, _)| ("a channel", name)));
    all.extend(named(&file.sources).map(|(name, _)| ("a source", name)));
    all.extend(named(&file.interceptors).map(|(name, _)| ("an interceptor", name)));
    all.extend(named(&file.sinks).map(|(name, _)| ("a sink", name)));
    all.sort_by_key(|(_, name)| name.span.start);
    let mut seen: BTreeMap<&str, (&'static str, &At<String>)> = BTreeMap::new();
    for (kind, name) in all {
        let Some((first_kind, first)) = seen.get(name.value.as_str()) else {
            seen.insert(&name.value, (kind, name));
            continue;
        };
        let message = format!("`{}` names {first_kind} and {kind}", name.value);
        let problem = Diagnostic::error("name-used-twice", name.span.clone(), message);
        let hint = "the stages and channels of a pipeline need different names: rename one of them";
        diagnostics.push(problem.related(first.span.clone(), "used here first").hint(hint));
    }
}

fn parts_are_there(file: &PipelineFile, span: &Span, diagnostics: &mut Vec<Diagnostic>) {
    let parts = [
        ("channel", "channels", file.channels.as_ref().is_none_or(|at| at.value.0.is_empty()), "type = \"memory\""),
        ("source", "sources", file.sources.as_ref().is_none_or(|at| at.value.0.is_empty()), "plugin = …"),
        ("sink", "sinks", file.sinks.as_ref().is_none_or(|at| at.value.0.is_empty()), "plugin = …"),
    ];
    for (part, key, is_missing, line) in parts {
        if is_missing {
            let problem = Diagnostic::error("missing-part", span.clone(), format!("the pipeline has no {part}"));
            diagnostics.push(problem.hint(format!("add a table [{key}.NAME] with `{line}`")));
        }
    }
}
