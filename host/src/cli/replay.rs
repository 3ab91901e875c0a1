//! `wasmflow replay`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value as Json;
use wasmflow::plugin::{Engine, PluginOrigin};
use wasmflow::replay::{Bundle, Given, PluginBytes, Replayed, replay};

use super::{FAILED, Global, INVALID, chain, failed, logs, runtime};

/// Gives a plugin once more what it failed on. A running agent keeps that in `replay/` of the pipeline's state folder, and says so in its
/// log; the file is all that is needed, also on another machine.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Try this plugin in place of the bundle's, as a mended one
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The stage's `config` table as TOML, in place of the bundle's, which is without secrets
    #[arg(long, value_name = "TOML")]
    config: Option<String>,
}

const EXAMPLES: &str = "\
The plugin gets no grant but `random` and `wall_clock`, whatever the stage had: it computes, and reaches nothing.

Examples:
  wasmflow replay state/orders/replay/1790000000000-0001-guard.json
  wasmflow replay bundle.json --plugin ./target/wasm32-wasip2/release/guard.wasm

Exit codes: 0 it failed in the same way; 1 it did not; 2 the bundle or the plugin cannot be used.";

impl Replay {
    pub fn execute(self, global: &Global) -> ExitCode {
        logs::start_quiet();
        let bundle = match self.read() {
            Ok(bundle) => bundle,
            Err(problem) => {
                eprintln!("error: bundle `{}`: {problem}", self.bundle.display());
                return ExitCode::from(INVALID);
            }
        };
        match (global.engine(), runtime()) {
            (Ok(engine), Ok(runtime)) => runtime.block_on(self.replay(&engine, &bundle)),
            (Err(error), _) => failed(&error),
            (_, Err(error)) => failed(&error),
        }
    }

    fn read(&self) -> Result<Bundle, String> {
        let text = std::fs::read_to_string(&self.bundle).map_err(|error| format!("it cannot be read: {error}"))?;
        let mut bundle = Bundle::parse(&text).map_err(|error| chain(&error))?;
        if let Some(config) = &self.config {
            let config: Json = toml::from_str(config).map_err(|error| format!("--config is not TOML: {error}"))?;
            bundle.config = config.to_string();
        }
        Ok(bundle)
    }

    async fn replay(&self, engine: &Engine, bundle: &Bundle) -> ExitCode {
        eprintln!("{}", heading(bundle));
        eprintln!("recorded: {}: {}", bundle.failure.0, bundle.failure.1);
        let replayed = match replay(engine, bundle, self.plugin.clone().map(PluginOrigin::File)).await {
            Ok(replayed) => replayed,
            Err(error) => {
                eprintln!("error: {}", chain(&error));
                if let Some(remedy) = error.remedy() {
                    eprintln!("  hint: {remedy}");
                }
                return ExitCode::from(INVALID);
            }
        };
        let (now, verdict, code) = match replayed {
            Replayed::Again(text) => (text, "it failed in the same way", 0),
            Replayed::Otherwise(kind, text) => (format!("{kind}: {text}"), "it failed in another way", FAILED),
            Replayed::Failed(text) => (text, "the plugin answered an error, which is no trap", FAILED),
            Replayed::Well(text) => (text, "it went well", FAILED),
        };
        eprintln!("now:      {now}\n{verdict}");
        ExitCode::from(code)
    }
}

fn heading(bundle: &Bundle) -> String {
    let given = match &bundle.given {
        Given::Events(events) => format!("{} events", events.len()),
        Given::Position(_) => "polled at its position".into(),
    };
    let plugin = match &bundle.bytes {
        PluginBytes::Inside(_) => "its plugin is in the bundle",
        PluginBytes::Elsewhere => "its plugin is not in the bundle",
    };
    let mut text = format!(
        "{} `{}` of pipeline `{}`, generation {}, plugin {} (sha256:{}): {given}; {plugin}",
        bundle.kind, bundle.stage, bundle.pipeline, bundle.generation, bundle.plugin, bundle.digest
    );
    if let Some(allow) = &bundle.allow {
        text += &format!("\nit had {allow}");
    }
    if bundle.config.contains("<secret>") {
        text += "\nits configuration is without secrets; --config gives it others";
    }
    text
}
