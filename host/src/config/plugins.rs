//! What only the plugins can say about a pipeline file: kinds, schemas, their own checks and needs.

use std::error::Error;
use std::sync::Arc;

use super::check::{Surroundings, named};
use super::diagnostic::{Diagnostic, nearest_hint};
use super::file::{AckWord, PipelineFile};
use super::plugin_config::ConfigTable;
use super::road::Road;
use super::stage::{StageTable, stage_tables};
use super::{exactly_once, grants, schema_check};
use crate::plugin::{CheckError, Description, Engine, Plugin, PluginError, PluginKind, PluginOrigin, Problem};

/// The plugins of a file that could be loaded. Kept until the pipeline has been started, they are not compiled or read again.
pub type LoadedPlugins = Vec<Arc<Plugin>>;

/// Asks every stage's plugin about its stage.
pub async fn check(
    file: &PipelineFile,
    text: &str,
    around: Surroundings<'_>,
    engine: &Engine,
    diagnostics: &mut Vec<Diagnostic>,
) -> LoadedPlugins {
    let mut loaded = Vec::new();
    for stage in stage_tables(file) {
        let Some(origin) = stage.origin(around) else { continue };
        match load(&stage, &origin, engine).await {
            Err(problem) => diagnostics.push(*problem),
            Ok(plugin) => {
                diagnostics.extend(exactly_once::check_plugin(file, &stage, plugin.description()));
                diagnostics.extend(promise_note(file, &stage, plugin.description()));
                diagnostics.extend(configuration(&stage, &plugin, text, around).await);
                loaded.push(plugin);
            }
        }
    }
    for (name, table) in named(&file.kafka) {
        if let Some(span) = table.embedded_span() {
            let message = format!("connection `{}` is a broker inside this process", name.value);
            let hint =
                "it is for trying things out: it keeps about 5 MB a partition, in memory, until the process ends";
            diagnostics.push(Diagnostic::note("embedded-broker", span, message).hint(hint));
        }
    }
    loaded
}

async fn load(stage: &StageTable<'_>, origin: &PluginOrigin, engine: &Engine) -> Result<Arc<Plugin>, Box<Diagnostic>> {
    if let PluginOrigin::Standard { name, .. } = origin
        && !Engine::standard(stage.kind).any(|known| known == name)
    {
        return Err(Box::new(unknown_standard(stage, name)));
    }
    let plugin = engine.load(origin).await.map_err(|error| Box::new(plugin_problem(stage, origin, &error)))?;
    if plugin.kind() == stage.kind {
        return Ok(plugin);
    }
    let name = stage.plugin.map_or("", |plugin| plugin.value.as_str());
    Err(Box::new(wrong_kind(stage, name, plugin.kind())))
}

fn wrong_kind(stage: &StageTable<'_>, name: &str, kind: PluginKind) -> Diagnostic {
    let message = format!("`{name}` is a plugin for {kind}s, and `{}` is a {}", stage.name.value, stage.kind);
    let problem = Diagnostic::error("plugin-of-wrong-kind", stage.plugin_span(), message);
    problem.hint(format!("use it under [{kind}s.NAME]"))
}

/// A standard plugin of another kind is a plugin in the wrong table; else the name is wrong.
fn unknown_standard(stage: &StageTable<'_>, name: &str) -> Diagnostic {
    let other = PluginKind::ALL.into_iter().find(|kind| Engine::standard(*kind).any(|known| known == name));
    if let Some(kind) = other {
        return wrong_kind(stage, name, kind);
    }
    let message = format!("there is no standard {} plugin `{name}`", stage.kind);
    let hint = nearest_hint(name, Engine::standard(stage.kind), "one").unwrap_or_default();
    let path = "a plugin of your own is named by its path, as in `./my.wasm`";
    Diagnostic::error("unknown-plugin", stage.plugin_span(), message).hint(format!("{hint}\n{path}").trim())
}

/// The plugin's path is shown as it stands in the file.
fn plugin_problem(stage: &StageTable<'_>, origin: &PluginOrigin, error: &PluginError) -> Diagnostic {
    let written = stage.plugin.map_or("", |plugin| plugin.value.as_str());
    let reason = chain(error).replace(&origin.to_string(), written);
    let message = format!("{} cannot use its plugin: {reason}", stage.title());
    Diagnostic::error("bad-plugin", stage.plugin_span(), message).maybe_hint(error.remedy())
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The stage's `config` against the plugin's schema, then against the plugin's own check, then its needs against the grants.
async fn configuration(
    stage: &StageTable<'_>,
    plugin: &Plugin,
    text: &str,
    around: Surroundings<'_>,
) -> Vec<Diagnostic> {
    let empty = ConfigTable::default();
    let config = stage.config.map_or(&empty, |at| &at.value);
    if config.is_partial() {
        return Vec::new();
    }
    if let Some(schema) = &plugin.description().config_schema {
        let problems = schema_check::check(stage, config, schema);
        if !problems.is_empty() {
            return problems;
        }
    }
    match plugin.check(config.stage_config().redacted()).await {
        Ok(needs) => grants::lacking(stage, &needs, around, text).into_iter().collect(),
        Err(CheckError::Problems(problems)) => {
            problems.iter().filter_map(|problem| own_problem(stage, config, problem)).collect()
        }
        Err(CheckError::Plugin(error)) => vec![plugin_problem(stage, plugin.origin(), &error)],
    }
}

/// What a plugin finds wrong with a secret it finds wrong with the placeholder: `open` will see the secret itself.
fn own_problem(stage: &StageTable<'_>, config: &ConfigTable, problem: &Problem) -> Option<Diagnostic> {
    if config.is_secret(&problem.path) {
        return None;
    }
    let span = config.place(&problem.path).map(|place| place.value.clone());
    let span = span.or_else(|| stage.config.map(|at| at.span.clone())).unwrap_or_else(|| stage.name.span.clone());
    Some(Diagnostic::error("bad-config", span, format!("{}: {}", stage.title(), problem.message)))
}

/// What is promised on the way from this source, where that is less than at-least-once.
fn promise_note(file: &PipelineFile, stage: &StageTable<'_>, description: &Description) -> Option<Diagnostic> {
    if stage.kind != PluginKind::Source {
        return None;
    }
    let (_, table) = named(&file.sources).find(|(name, _)| name.span == stage.name.span)?;
    let road = Road::of(file);
    let title = stage.title();
    if !road.has_memory(table) {
        if description.replays {
            return None;
        }
        let message = format!("{title} cannot bring events again");
        let hint = "what it has taken is safe once it is on disk; what is on the way there when the process is killed is lost, \
                    unless whoever sends it waits for an answer";
        return Some(Diagnostic::note("best-effort", stage.plugin_span(), message).hint(hint));
    }
    if !description.replays {
        let message = format!("{title} is best effort: it cannot bring events again, and its channels are in memory");
        let hint = "what is in memory when the process is killed is lost; a stop by TERM or INT loses nothing";
        return Some(Diagnostic::note("best-effort", stage.plugin_span(), message).hint(hint));
    }
    let ack = table.ack.as_ref().filter(|ack| ack.value == AckWord::Put)?;
    let message = format!("{title} hears that its events are safe while they are in memory only");
    let hint = "what is in memory when the process is killed is lost; `ack = \"settled\"` waits for the sinks";
    Some(Diagnostic::note("acked-in-memory", ack.span.clone(), message).hint(hint))
}
