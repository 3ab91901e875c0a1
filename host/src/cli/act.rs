//! `wasmflow swap`, `rollback`, `pause` and `resume`: acting on a stage of a running agent.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use wasmflow::admin::MAX_UPLOAD_BYTES;

use super::agents::Ask;
use super::logs::printable;
use super::{INVALID, failed, pretty, print, runtime};

/// Gives a running stage another plugin, another configuration, or both, between two batches: nothing is lost, repeated or
/// reordered. What served before serves on when any step fails, and is switched back when the new one misbehaves afterwards.
#[derive(Args)]
#[command(after_help = SWAP_EXAMPLES)]
pub struct Swap {
    /// The stage; `wasmflow status` lists them
    #[arg(value_name = "[PIPELINE/]STAGE")]
    stage: String,
    /// A standard plugin's name, or the path of a component; without it the plugin stays
    #[arg(required_unless_present = "config")]
    plugin: Option<String>,
    /// The stage's `config` table as a TOML file of its own; without it the configuration stays
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For an interceptor: compare what the new plugin makes of N live batches, before it is switched to
    #[arg(long, value_name = "N")]
    shadow: Option<u64>,
    /// Refuse the swap when the new plugin made anything else of them
    #[arg(long, requires = "shadow")]
    require_equal: bool,
    /// How long the new plugin is compared with the one before, after the switch; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    watch: Duration,
    /// When to answer
    #[arg(long, value_enum, default_value_t = Until::Watch)]
    wait_for: Until,
    /// Send the component to the agent, which else reads it from the path itself
    #[arg(long, requires = "plugin")]
    upload: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ask: Ask,
}

/// When a swap is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// When the new plugin is in its place
    Switch,
    /// When it has had its first batch, within the time of `--watch`
    FirstBatch,
    /// When it has been watched
    Watch,
}

const SWAP_EXAMPLES: &str = "\
A shadow sees live batches beside the plugin that serves, has no network, no Kafka and no folder to write to, and what it makes of
them is compared and thrown away. A source or a sink cannot be shadowed: its effects are outside. It is drained and closed first,
so its events pause for as long as that takes. A capability that the pipeline file does not grant is refused.

Examples:
  wasmflow swap enrich ./enrich-2.wasm
  wasmflow swap orders/enrich ./enrich-2.wasm --shadow 100 --require-equal
  wasmflow swap enrich --config enrich.toml          # the same plugin, another configuration
  wasmflow rollback enrich                           # back to what served before

Exit codes: 0 swapped; 1 refused or switched back, no agent answers; 2 wrong usage, or no such stage.";

/// Goes back to the plugin and configuration that served before.
#[derive(Args)]
#[command(after_help = "\
Example:
  wasmflow rollback orders/enrich

Exit codes: 0 rolled back; 1 refused, as where nothing served before; 2 wrong usage, or no such stage.")]
pub struct Rollback {
    #[command(flatten)]
    one: One,
}

/// Has a stage take no batch until it is resumed. What it has begun it ends; its channel fills, and stops its sources when it is full.
#[derive(Args)]
#[command(after_help = "\
Examples:
  wasmflow pause orders/warehouse
  wasmflow resume orders/warehouse

A stage that is paused with events waiting makes the agent not ready after a while (`run --stall-after`). An agent that is told to
stop goes on with it.")]
pub struct Pause {
    #[command(flatten)]
    one: One,
}

/// Has a paused stage go on.
#[derive(Args)]
pub struct Resume {
    #[command(flatten)]
    one: One,
}

#[derive(Args)]
struct One {
    /// The stage; `wasmflow status` lists them
    #[arg(value_name = "[PIPELINE/]STAGE")]
    stage: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ask: Ask,
}

impl Swap {
    pub fn execute(self) -> ExitCode {
        run(self.act())
    }

    async fn act(self) -> Result<ExitCode, ExitCode> {
        let mut order = json!({ "watch_ms": self.watch.as_millis() as u64, "require_equal": self.require_equal });
        order["wait_for"] = match self.wait_for {
            Until::Switch => "switch",
            Until::FirstBatch => "first-batch",
            Until::Watch => "watch",
        }
        .into();
        if let Some(batches) = self.shadow {
            order["shadow"] = batches.into();
        }
        if let Some(path) = &self.config {
            order["config_toml"] = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?.into();
            order["config_file"] = absolute(path)?.into();
        }
        let target = self.ask.target(&self.stage).await?;
        if let Some(plugin) = &self.plugin {
            let is_path = plugin.contains('/') || plugin.ends_with(".wasm");
            match is_path && (self.upload || !target.is_local()) {
                true => order["plugin_base64"] = BASE64_STANDARD.encode(component(Path::new(plugin))?).into(),
                false if is_path => order["plugin"] = absolute(Path::new(plugin))?.into(),
                false => order["plugin"] = plugin.as_str().into(),
            }
        }
        let report = target.act("swap", &order).await?;
        Ok(print(&if self.json { pretty(&report) } else { report_text(&report) }))
    }
}

impl Rollback {
    pub fn execute(self) -> ExitCode {
        run(self.one.act("rollback", report_text))
    }
}

impl Pause {
    pub fn execute(self) -> ExitCode {
        run(self.one.act("pause", |stage| format!("{} is paused\n", named(stage))))
    }
}

impl Resume {
    pub fn execute(self) -> ExitCode {
        run(self.one.act("resume", |stage| format!("{} goes on\n", named(stage))))
    }
}

impl One {
    async fn act(self, verb: &str, text: impl Fn(&Value) -> String) -> Result<ExitCode, ExitCode> {
        let answer = self.ask.target(&self.stage).await?.act(verb, &json!({})).await?;
        Ok(print(&if self.json { pretty(&answer) } else { text(&answer) }))
    }
}

fn run(act: impl Future<Output = Result<ExitCode, ExitCode>>) -> ExitCode {
    match runtime() {
        Err(error) => failed(&error),
        Ok(runtime) => runtime.block_on(act).unwrap_or_else(|code| code),
    }
}

/// The agent has another working folder.
fn absolute(path: &Path) -> Result<String, ExitCode> {
    let absolute = path.canonicalize().map_err(|error| unreadable(path, &error))?;
    absolute.into_os_string().into_string().map_err(|path| {
        eprintln!("error: the path {} is not UTF-8", path.display());
        ExitCode::from(INVALID)
    })
}

fn component(path: &Path) -> Result<Vec<u8>, ExitCode> {
    let bytes = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if bytes > MAX_UPLOAD_BYTES as u64 {
        eprintln!(
            "error: `{}` has {bytes} bytes, more than the {MAX_UPLOAD_BYTES} that an agent takes",
            path.display()
        );
        return Err(ExitCode::from(INVALID));
    }
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ExitCode {
    eprintln!("error: cannot read `{}`: {error}", path.display());
    ExitCode::from(INVALID)
}

fn named(stage: &Value) -> String {
    format!("{} {}", text(&stage["kind"]), text(&stage["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), printable)
}

fn report_text(report: &Value) -> String {
    let plugin = |plugin: &Value| {
        format!("{} {} ({:.12})", text(&plugin["name"]), text(&plugin["version"]), text(&plugin["digest"]))
    };
    let mut lines = vec![format!(
        "{}: generation {} serves: {} in place of {}",
        text(&report["stage"]),
        report["generation"],
        plugin(&report["after"]),
        plugin(&report["before"])
    )];
    if !report["shadow"].is_null() {
        let shadow = &report["shadow"];
        lines.push(format!(
            "shadow: of {} events in {} batches {} came out otherwise, {} were dropped, {} added; {} ms a batch, before {} ms",
            shadow["events"],
            shadow["batches"],
            shadow["changed"],
            shadow["dropped"],
            shadow["added"],
            shadow["candidate_mean_ms"],
            shadow["serving_mean_ms"]
        ));
        for (name, count) in shadow["headers"].as_object().into_iter().flatten() {
            lines.push(format!("  header {}: differs on {count} events", printable(name)));
        }
    }
    lines.push(format!("pause: {} ms", report["pause_ms"]));
    if let (Some(gap), Some(usual)) = (report["gap_ms"].as_f64(), report["usual_gap_p99_ms"].as_f64()) {
        lines.push(format!(
            "between two batches: {gap} ms; at 99 of 100 moments before it would have been {usual} ms or less"
        ));
    }
    lines.push(match report["watch"].as_str() {
        Some("passed") => "watched: it does as well as the one before".into(),
        Some("running") => "watched: not over yet; `wasmflow status STAGE` tells how it ends".into(),
        _ => format!("watched: {}", text(&report["watch"])),
    });
    lines.join("\n") + "\n"
}
