//! `wasmflow plugin inspect`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value as Json, json};
use wasmflow::config::needs_line;
use wasmflow::plugin::{CheckError, Engine, Need, Plugin};

use super::named::{named, refused};
use super::{Global, INVALID, chain, failed, logs, pretty, print, runtime};

/// Shows what a plugin says about itself, how it is configured, what it imports, and the grants that a configuration needs.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// A standard plugin by name, or a path to a `.wasm` file
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// A stage's `config` table as TOML, to see the grants that it needs
    #[arg(long, value_name = "TOML", default_value = "")]
    config: String,
    /// Print one JSON document, with the whole schema, instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  wasmflow plugin inspect search-replace
  wasmflow plugin inspect tail --config 'files = [\"logs/*.log\"]'
  wasmflow plugin inspect ./target/wasm32-wasip2/release/my_sink.wasm --json";

impl Inspect {
    pub fn execute(self, global: &Global) -> ExitCode {
        logs::start_quiet();
        let config = match toml::from_str::<Json>(&self.config) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("error: --config is not TOML: {error}");
                return ExitCode::from(INVALID);
            }
        };
        match (global.engine(), runtime()) {
            (Ok(engine), Ok(runtime)) => runtime.block_on(self.inspect(&engine, &config)),
            (Err(error), _) => failed(&error),
            (_, Err(error)) => failed(&error),
        }
    }

    async fn inspect(&self, engine: &Engine, config: &Json) -> ExitCode {
        let plugins = match named(&self.plugin, engine).await {
            Ok(plugins) => plugins,
            Err(error) => return refused(&error),
        };
        let mut views = Vec::new();
        for plugin in plugins {
            let needs = plugin.check(&config.to_string()).await;
            views.push(View { plugin, needs });
        }
        match (self.json, views.as_slice()) {
            (false, _) => print(&views.iter().map(View::text).collect::<Vec<_>>().join("\n")),
            (true, [only]) => print(&pretty(&only.json())),
            (true, _) => print(&pretty(&views.iter().map(View::json).collect())),
        }
    }
}

struct View {
    plugin: Arc<Plugin>,
    needs: Result<Vec<Need>, CheckError>,
}

impl View {
    fn text(&self) -> String {
        let description = self.plugin.description();
        let mut text = format!("{} {} {}\n", self.plugin.kind(), description.name, description.version);
        text += &format!("  {}\n\n", description.about);
        text += &format!("  origin   {}\n", self.origin());
        text += &format!("  world    {}\n", self.plugin.world());
        text += &format!("  digest   sha256:{}\n", self.plugin.digest());
        text += &format!("  size     {} bytes\n", self.plugin.size_bytes());
        text += &format!("  traits   {}\n", or_none(&self.traits().join(", ")));
        if let Some(tick) = description.tick {
            text += &format!("  tick     {} ms\n", tick.as_millis());
        }
        text += &format!("\nConfiguration:\n{}", configuration(description.config_schema.as_ref()));
        text += &format!("\nGrants:\n{}", self.grants());
        text += "\nImports:\n";
        for import in self.plugin.imports() {
            text += &format!("  {import}\n");
        }
        text
    }

    fn origin(&self) -> String {
        match self.plugin.origin().path() {
            None => "a standard plugin, embedded in wasmflow".into(),
            Some(path) => path.display().to_string(),
        }
    }

    fn traits(&self) -> Vec<&'static str> {
        let description = self.plugin.description();
        let traits = [("replays", description.replays), ("only-kafka", description.only_kafka)];
        traits.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
    }

    fn grants(&self) -> String {
        match &self.needs {
            Ok(needs) => format!("  {}\n", needs_line(needs).unwrap_or_else(|| "none with this configuration".into())),
            Err(CheckError::Problems(problems)) => {
                let mut text = "  they depend on the configuration: name one with --config TOML\n".to_owned();
                for problem in problems {
                    let place = problem.path.trim_start_matches('/');
                    let place = if place.is_empty() { String::new() } else { format!("`{place}`: ") };
                    text += &format!("    {place}{}\n", problem.message);
                }
                text
            }
            Err(CheckError::Plugin(error)) => format!("  not known: {}\n", chain(error)),
        }
    }

    fn json(&self) -> Json {
        let description = self.plugin.description();
        let grants = self.needs.as_ref().ok().map(|needs| {
            needs.iter().map(|need| json!({ "grant": need.grant, "value": need.value })).collect::<Vec<_>>()
        });
        json!({
            "kind": self.plugin.kind().to_string(),
            "name": description.name,
            "version": description.version,
            "about": description.about,
            "world": self.plugin.world(),
            "digest": format!("sha256:{}", self.plugin.digest()),
            "size_bytes": self.plugin.size_bytes(),
            "traits": self.traits(),
            "tick_ms": description.tick.map(|tick| tick.as_millis() as u64),
            "imports": self.plugin.imports(),
            "needs": grants,
            "allow": self.needs.as_ref().ok().and_then(|needs| needs_line(needs)),
            "config_schema": description.config_schema,
        })
    }
}

/// The keys of a configuration, one a line. The whole schema is in `--json`.
fn configuration(schema: Option<&Json>) -> String {
    let Some(schema) = schema else { return "  anything: the plugin has no schema\n".into() };
    let Some(properties) = schema["properties"].as_object().filter(|properties| !properties.is_empty()) else {
        return "  none\n".into();
    };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let width = properties.keys().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (key, property) in properties {
        let default = match (&property["default"], required.contains(&key.as_str())) {
            (_, true) => " (required)".to_owned(),
            (Json::Null, false) => String::new(),
            (default, false) => format!(" (default {default})"),
        };
        let about = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        text += &format!("  {key:width$}  {about}{default}\n");
    }
    text
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
