//! Sources, interceptors and sinks: from their tables to what the runners are given.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Surroundings, named};
use super::diagnostic::{Diagnostic, Span, nearest_hint};
use super::file::{
    AckWord, AllowTable, InterceptorTable, LimitsTable, PipelineFile, RetryTable, SinkTable, SourceTable, StartWord,
    ThenWord,
};
use super::grants;
use super::pipeline::{
    AckRule, AfterRetries, ChannelName, InterceptorSpec, Limits, RetryPolicy, SinkSpec, SourceSpec, StageConfig,
    StageName, Start,
};
use super::plugin_config::ConfigTable;
use super::read::{At, Named, not_in_this_version};
use super::road::{Road, channels_of, selector};
use crate::plugin::{Digest, PluginKind, PluginOrigin};

/// The stages that could be built.
pub struct Stages {
    pub sources: BTreeMap<StageName, SourceSpec>,
    pub interceptors: BTreeMap<StageName, InterceptorSpec>,
    pub sinks: BTreeMap<StageName, SinkSpec>,
}

/// What all three kinds of stage have in common, as written.
pub struct StageTable<'f> {
    pub kind: PluginKind,
    pub name: &'f At<String>,
    pub plugin: Option<&'f At<String>>,
    digest: Option<&'f At<String>>,
    pub config: Option<&'f At<ConfigTable>>,
    pub allow: Option<&'f At<AllowTable>>,
    limits: Option<&'f At<LimitsTable>>,
    retry: Option<&'f At<RetryTable>>,
}

/// Every stage of the file.
pub fn stage_tables(file: &PipelineFile) -> Vec<StageTable<'_>> {
    macro_rules! stage {
        ($kind:ident, $name:ident, $table:ident) => {
            StageTable {
                kind: PluginKind::$kind,
                name: $name,
                plugin: $table.plugin.as_ref(),
                digest: $table.digest.as_ref(),
                config: $table.config.as_ref(),
                allow: $table.allow.as_ref(),
                limits: $table.limits.as_ref(),
                retry: $table.retry.as_ref(),
            }
        };
    }
    let sources = named(&file.sources).map(|(name, table)| stage!(Source, name, table));
    let interceptors = named(&file.interceptors).map(|(name, table)| stage!(Interceptor, name, table));
    let sinks = named(&file.sinks).map(|(name, table)| stage!(Sink, name, table));
    sources.chain(interceptors).chain(sinks).collect()
}

impl<'f> StageTable<'f> {
    /// Of a stage that runs: its table is behind us.
    pub fn running(kind: PluginKind, name: &'f At<String>) -> Self {
        Self { kind, name, plugin: None, digest: None, config: None, allow: None, limits: None, retry: None }
    }
}

impl StageTable<'_> {
    /// How messages call the stage.
    pub fn title(&self) -> String {
        format!("{} `{}`", self.kind, self.name.value)
    }

    /// The plugin's place, or else the stage's.
    pub fn plugin_span(&self) -> Span {
        self.plugin.map_or(self.name.span.clone(), |plugin| plugin.span.clone())
    }

    /// How long a call may take, and where that is written.
    pub fn call_limit(&self) -> (Duration, Option<&Span>) {
        let written = self.limits.and_then(|table| table.value.call.as_ref());
        (limits(self).call, written.map(|at| &at.span))
    }

    /// Where the plugin's bytes are; nothing where the file does not say so, or names a kind of place that is for later.
    pub fn origin(&self, around: Surroundings<'_>) -> Option<PluginOrigin> {
        let written = self.plugin?.value.as_str();
        if written.is_empty() || is_registry(written) {
            return None;
        }
        Some(match (origin(written, self.kind, around), self.digest) {
            // A digest that is none has been reported; nothing is loaded in its place.
            (PluginOrigin::File(path), Some(digest)) => {
                PluginOrigin::Pinned { path, digest: Digest::parse(&digest.value)? }
            }
            (origin, _) => origin,
        })
    }

    fn check(&self, diagnostics: &mut Vec<Diagnostic>) {
        if let Some(plugin) = self.plugin.filter(|plugin| plugin.value.is_empty()) {
            diagnostics.push(Diagnostic::error("unknown-plugin", plugin.span.clone(), "the plugin's name is empty"));
        }
        if let Some(plugin) = self.plugin.filter(|plugin| is_registry(&plugin.value)) {
            let problem = not_in_this_version(plugin.span.clone(), "a plugin from a registry");
            diagnostics.push(problem.hint("name a standard plugin, or the path of a `.wasm` file"));
        }
        if let Some(digest) = self.digest {
            diagnostics.extend(self.digest_problem(digest));
        }
        if let Some(retry) = self.retry {
            diagnostics.extend(retry_problem(retry));
        }
    }

    fn digest_problem(&self, digest: &At<String>) -> Option<Diagnostic> {
        if Digest::parse(&digest.value).is_none() {
            let problem =
                Diagnostic::error("bad-digest", digest.span.clone(), "a digest is `sha256:` and 64 hexadecimal digits");
            return Some(problem.hint("`wasmflow plugin inspect FILE` prints it"));
        }
        let is_file = self.plugin.is_some_and(|plugin| is_path(&plugin.value) || is_registry(&plugin.value));
        (!is_file).then(|| {
            let message = "a standard plugin is part of wasmflow and has no digest of its own to pin";
            Diagnostic::error("bad-digest", digest.span.clone(), message).hint("leave `digest` out, or name a file")
        })
    }
}

fn is_path(written: &str) -> bool {
    written.contains('/') || written.ends_with(".wasm")
}

fn is_registry(written: &str) -> bool {
    written.contains("://")
}

/// A name is a standard plugin's; what has a slash or ends in `.wasm` is a path.
pub fn origin(written: &str, kind: PluginKind, around: Surroundings<'_>) -> PluginOrigin {
    if is_path(written) {
        return PluginOrigin::File(around.base_dir.join(written));
    }
    PluginOrigin::Standard { name: written.to_owned(), kind }
}

/// Checks the stages and builds those that can be built.
pub fn build(
    file: &PipelineFile,
    road: &Road<'_>,
    around: Surroundings<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Stages {
    let tables = stage_tables(file);
    for table in &tables {
        table.check(diagnostics);
        diagnostics.extend(grants::check(table, file));
    }
    check_interceptors(file, diagnostics);
    diagnostics.extend(named(&file.sinks).filter_map(|(_, table)| workers_of_one(table)));
    let of_kind = |kind| tables.iter().filter(move |table| table.kind == kind);
    let sources = of_kind(PluginKind::Source).zip(named(&file.sources));
    let interceptors = of_kind(PluginKind::Interceptor).zip(named(&file.interceptors));
    let sinks = of_kind(PluginKind::Sink).zip(named(&file.sinks));
    let name = |table: &StageTable<'_>| StageName::new(table.name.value.as_str());
    Stages {
        sources: sources
            .filter_map(|(stage, (_, table))| Some((name(stage), source(stage, table, road, around)?)))
            .collect(),
        interceptors: interceptors
            .filter_map(|(stage, (_, table))| Some((name(stage), interceptor(stage, table, around)?)))
            .collect(),
        sinks: sinks.filter_map(|(stage, (_, table))| Some((name(stage), sink(stage, table, road, around)?))).collect(),
    }
}

fn source(
    stage: &StageTable<'_>,
    table: &SourceTable,
    road: &Road<'_>,
    around: Surroundings<'_>,
) -> Option<SourceSpec> {
    let (default_events, default_bytes) = road.default_batch(channels_of(table));
    Some(SourceSpec {
        plugin: stage.origin(around)?,
        config: config(stage),
        grants: grants::trusted(stage.allow, around),
        limits: limits(stage),
        retry: retry(stage.retry),
        selector: selector(table)?,
        interceptors: interceptor_names(&table.interceptors),
        batch_events: table.batch_events.as_ref().map_or(default_events, |at| at.value.0 as u32),
        batch_bytes: table.batch_bytes.as_ref().map_or(default_bytes, |at| at.value.0 as u32),
        ack: match table.ack.as_ref().map(|at| at.value) {
            Some(AckWord::Put) => AckRule::Put,
            Some(AckWord::Settled) | None => AckRule::Settled,
        },
    })
}

fn interceptor(stage: &StageTable<'_>, table: &InterceptorTable, around: Surroundings<'_>) -> Option<InterceptorSpec> {
    Some(InterceptorSpec {
        plugin: stage.origin(around)?,
        workers: table.workers.as_ref().map_or(1, |at| at.value.0 as u32),
        config: config(stage),
        grants: grants::trusted(stage.allow, around),
        limits: limits(stage),
        retry: retry(stage.retry),
    })
}

fn sink(stage: &StageTable<'_>, table: &SinkTable, road: &Road<'_>, around: Surroundings<'_>) -> Option<SinkSpec> {
    let channel = table.channel.as_ref()?;
    let (default_events, default_bytes) = road.default_batch(std::iter::once(channel));
    Some(SinkSpec {
        plugin: stage.origin(around)?,
        workers: table.workers.as_ref().map_or(1, |at| at.value.0 as u32),
        config: config(stage),
        grants: grants::trusted(stage.allow, around),
        limits: limits(stage),
        retry: retry(stage.retry),
        channel: ChannelName::new(channel.value.as_str()),
        interceptors: interceptor_names(&table.interceptors),
        batch_events: table.batch_events.as_ref().map_or(default_events, |at| at.value.0 as u32),
        batch_bytes: table.batch_bytes.as_ref().map_or(default_bytes, |at| at.value.0 as u32),
        batch_wait: table.batch_wait.as_ref().map_or(std::time::Duration::ZERO, |at| at.value.0),
        start_at: match table.start_at.as_ref().map(|at| at.value) {
            Some(StartWord::Tail) | None => Start::Tail,
            Some(StartWord::Oldest) => Start::Oldest,
        },
    })
}

fn config(stage: &StageTable<'_>) -> StageConfig {
    stage.config.map_or_else(|| ConfigTable::default().stage_config(), |at| at.value.stage_config())
}

fn limits(stage: &StageTable<'_>) -> Limits {
    let default = Limits::default();
    // A source's instance is its open files and its clients' connections: it is replaced by age only where that is written.
    let age = default.age.filter(|_| stage.kind != PluginKind::Source);
    let Some(table) = stage.limits.map(|at| &at.value) else { return Limits { age, ..default } };
    Limits {
        memory_bytes: table.memory.as_ref().map_or(default.memory_bytes, |at| at.value.0 as usize),
        cpu: table.cpu.as_ref().map_or(default.cpu, |at| at.value.0),
        call: table.call.as_ref().map_or(default.call, |at| at.value.0),
        age: table.age.as_ref().map_or(age, |at| Some(at.value.0).filter(|age| !age.is_zero())),
    }
}

/// Where one of the two waits is left out, its default gives way to the one that is written.
fn retry(table: Option<&At<RetryTable>>) -> RetryPolicy {
    let default = RetryPolicy::default();
    let Some(table) = table.map(|at| &at.value) else { return default };
    let (initial, max) = (table.initial.as_ref().map(|at| at.value.0), table.max.as_ref().map(|at| at.value.0));
    RetryPolicy {
        initial: initial.unwrap_or(max.map_or(default.initial, |max| max.min(default.initial))),
        max: max.unwrap_or(initial.map_or(default.max, |initial| initial.max(default.max))),
        attempts: table.attempts.as_ref().map_or(default.attempts, |at| at.value.0 as u32),
        then: match table.then.as_ref().map(|at| at.value) {
            Some(ThenWord::DeadLetter) => AfterRetries::DeadLetter,
            Some(ThenWord::Stop) | None => AfterRetries::Stop,
        },
    }
}

fn retry_problem(retry: &At<RetryTable>) -> Option<Diagnostic> {
    let (initial, max) = (retry.value.initial.as_ref()?, retry.value.max.as_ref()?);
    let problem = || Diagnostic::error("contradiction", max.span.clone(), "`max` is shorter than `initial`");
    (max.value.0 < initial.value.0).then(|| problem().related(initial.span.clone(), "the first wait"))
}

/// Several instances would write the same files.
fn workers_of_one(table: &SinkTable) -> Option<Diagnostic> {
    let workers = table.workers.as_ref().filter(|workers| workers.value.0 > 1)?;
    table.plugin.as_ref().filter(|plugin| plugin.value == "file-roll")?;
    let message = "`file-roll` writes one file after the other: it has one worker";
    Some(Diagnostic::error("workers", workers.span.clone(), message).hint("leave `workers` out"))
}

fn interceptor_names(names: &Option<At<Vec<At<String>>>>) -> Vec<StageName> {
    names.iter().flat_map(|at| &at.value).map(|at| StageName::new(at.value.as_str())).collect()
}

/// References to interceptors name one; an interceptor that nobody names does nothing.
fn check_interceptors(file: &PipelineFile, diagnostics: &mut Vec<Diagnostic>) {
    let by_sources = named(&file.sources).filter_map(|(_, table)| table.interceptors.as_ref());
    let by_sinks = named(&file.sinks).filter_map(|(_, table)| table.interceptors.as_ref());
    let references: Vec<&At<String>> = by_sources.chain(by_sinks).flat_map(|at| &at.value).collect();
    let known: Vec<&str> = file.interceptors.iter().flat_map(|at: &At<Named<_>>| at.value.names()).collect();
    for reference in &references {
        if !known.contains(&reference.value.as_str()) {
            let message = format!("there is no interceptor `{}`", reference.value);
            let problem = Diagnostic::error("unknown-interceptor", reference.span.clone(), message);
            let hint = nearest_hint(&reference.value, known.iter().copied(), "interceptor");
            diagnostics
                .push(problem.maybe_hint(hint.or_else(|| Some(format!("add [interceptors.{}]", reference.value)))));
        }
    }
    for (name, _) in named(&file.interceptors) {
        if !references.iter().any(|reference| reference.value == name.value) {
            let message = format!("no source and no sink sends its events through interceptor `{}`", name.value);
            let warning = Diagnostic::warning("unused-interceptor", name.span.clone(), message);
            diagnostics.push(warning.hint(format!("add `interceptors = [\"{}\"]` to a source or a sink", name.value)));
        }
    }
}
