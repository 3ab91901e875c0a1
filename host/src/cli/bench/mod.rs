//! `wasmflow plugin bench`.

mod measure;
mod report;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use clap::builder::PossibleValuesParser;
use wasmflow::config::{Colour, FileReport, Grants, Severity, StageConfig, lacking_grants, misfits};
use wasmflow::config::{stage_config, stage_grants};
use wasmflow::plugin::{CheckError, Engine, Plugin, PluginKind};

use super::named::{named, refused};
use super::{FAILED, Global, INVALID, chain, environment, failed, logs, pretty, print, runtime};
use measure::Load;
use subject::Subject;

/// Measures what a plugin costs: gives an interceptor or a sink batches as fast as it takes them, or takes batches from a source, on
/// one thread, without channels and other stages. Beside it, in turn, runs what cannot be beaten: a native function that does nothing,
/// and one that copies the bodies once.
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Bench {
    /// A standard plugin by name, or a path to a `.wasm` file
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// Which, where a standard name is that of several plugins
    #[arg(long, value_parser = PossibleValuesParser::new(["source", "interceptor", "sink"]))]
    kind: Option<String>,
    /// The stage's `config` table as TOML, as in a pipeline file
    #[arg(long, value_name = "TOML", default_value = "")]
    config: String,
    /// The stage's `allow` table as TOML: there are no grants without it
    #[arg(long, value_name = "TOML", default_value = "")]
    allow: String,
    /// Events of a run; default: as many as take about a second
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    /// Length of each body
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    bytes: u32,
    /// The lines of this file are the bodies, again and again: for a plugin that reads what is in them
    #[arg(long, value_name = "FILE", conflicts_with = "bytes")]
    input: Option<PathBuf>,
    /// Events of a batch; in a pipeline it is the stage's `batch_events`
    #[arg(long, value_name = "EVENTS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Runs; the median counts, and the least and the greatest are told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Every run has a fresh instance; opening it is not counted. What a sink prints is thrown away. A plugin that needs a Kafka connection
has to be measured in a pipeline: `wasmflow run` with `stress` before it, or `null` behind it, and `wasmflow status`.

How to read it: a call costs about half a microsecond, whatever the batch, and every column that the plugin asks for or sets is copied
once. So a plugin that only sets a header costs the same for a batch of ten and of ten thousand; one that rewrites bodies costs some
ten times the copy, which is one call to memcpy within the processor's cache. One that lies a hundred times behind the copy mostly uses
the row form (`events`, `set-events`, `from-events`), which allocates for every field of every event: use columns instead (`bodies`,
`header`). Larger batches make calls rarer, not bytes cheaper.

Examples:
  wasmflow plugin bench prefix-suffix --kind interceptor --config 'prefix = \"<\"'
  wasmflow plugin bench ./my.wasm --bytes 1024 --batch 5000
  wasmflow plugin bench ./parse.wasm --input access.log --json
  wasmflow plugin bench tail --config 'files = [\"logs/a.log\"]
follow = false' --allow 'dirs = [{ path = \"logs\" }]'

Exit codes: 0 measured; 1 the plugin failed; 2 wrong usage, configuration or grants.";

impl Bench {
    pub fn execute(self, global: &Global) -> ExitCode {
        logs::start_quiet();
        match (global.engine(), runtime()) {
            (Ok(engine), Ok(runtime)) => runtime.block_on(self.bench(&engine)),
            (Err(error), _) => failed(&error),
            (_, Err(error)) => failed(&error),
        }
    }

    async fn bench(&self, engine: &Engine) -> ExitCode {
        let plugin = match self.plugin(engine).await {
            Ok(plugin) => plugin,
            Err(code) => return code,
        };
        let (config, grants) = match self.tables() {
            Ok(tables) => tables,
            Err(report) => {
                eprint!("{}", report.text(Severity::Warning, Colour::for_stderr()));
                return ExitCode::from(INVALID);
            }
        };
        if let Err(problem) = check(&plugin, &config, &grants).await {
            eprintln!("error: {problem}");
            return ExitCode::from(INVALID);
        }
        let load = match Load::new(self.input.as_deref(), self.bytes as usize, self.batch as usize) {
            Ok(load) => load,
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::from(INVALID);
            }
        };
        let subject = Subject::new(plugin, config, grants);
        match measure::measure(&subject, &load, self.events, self.runs).await {
            Ok(measured) if self.json => print(&pretty(&report::json(&subject, &load, &measured))),
            Ok(measured) => print(&report::text(&subject, &load, &measured)),
            Err(error) => {
                eprintln!("error: {}", wasmflow::config::mask(&format!("{error:#}")));
                ExitCode::from(FAILED)
            }
        }
    }

    async fn plugin(&self, engine: &Engine) -> Result<Arc<Plugin>, ExitCode> {
        let plugins = named(&self.plugin, engine).await.map_err(|error| refused(&error))?;
        let is_meant = |kind: PluginKind| self.kind.as_ref().is_none_or(|wanted| *wanted == kind.to_string());
        let found: Vec<_> = plugins.into_iter().filter(|plugin| is_meant(plugin.kind())).collect();
        match found.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                eprintln!("error: `{}` is no {}", self.plugin, self.kind.as_deref().unwrap_or("plugin"));
                Err(ExitCode::from(INVALID))
            }
            several => {
                let kinds: Vec<_> = several.iter().map(|plugin| plugin.kind().to_string()).collect();
                eprintln!("error: `{}` is the name of several plugins: {}", self.plugin, kinds.join(" and "));
                eprintln!("  hint: say which with --kind {}", kinds[0]);
                Err(ExitCode::from(INVALID))
            }
        }
    }

    fn tables(&self) -> Result<(StageConfig, Grants), Box<FileReport>> {
        let here = std::env::current_dir().unwrap_or_default();
        let config = stage_config(Path::new("--config"), &self.config, &here, &environment)?;
        Ok((config, stage_grants(Path::new("--allow"), &self.allow, &here, &environment)?))
    }
}

/// As `validate` would: the configuration by its schema and by the plugin itself, then the grants.
async fn check(plugin: &Plugin, config: &StageConfig, grants: &Grants) -> Result<(), String> {
    let name = &plugin.description().name;
    if let Some(schema) = &plugin.description().config_schema {
        let problems = misfits(plugin.kind(), name, config, schema);
        if !problems.is_empty() {
            return Err(format!(
                "{}\n  hint: give the stage's `config` table with --config TOML",
                problems.join("\n  ")
            ));
        }
    }
    let needs = match plugin.check(config.redacted()).await {
        Ok(needs) => needs,
        Err(CheckError::Plugin(error)) => return Err(chain(&error)),
        Err(CheckError::Problems(problems)) => {
            let problems: Vec<_> =
                problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
            return Err(problems.join("\n  "));
        }
    };
    if needs.iter().any(|need| need.grant == "kafka") || !grants.kafka.is_empty() {
        return Err("it needs a Kafka connection, and there is none outside a pipeline\n  \
                    hint: measure it in a pipeline, with `wasmflow run` and `wasmflow status`"
            .into());
    }
    match lacking_grants(&needs, grants) {
        None => Ok(()),
        Some((names, line)) => {
            let table = line.trim_start_matches("allow = { ").trim_end_matches(" }").to_owned();
            Err(format!("it needs {names}, which it is not allowed\n  hint: --allow '{table}'"))
        }
    }
}
