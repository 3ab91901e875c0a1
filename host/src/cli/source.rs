//! `wasmflow source`: where a source of a stopped pipeline goes on.

use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use wasmflow::agent::reset::reset;
use wasmflow::config::pipeline::Pipeline;
use wasmflow::config::{Colour, DeliveryPromise, Severity, locate, nearest_hint};
use wasmflow::position::Position;

use super::{INVALID, environment, failed, logs, print, runtime};

#[derive(Subcommand)]
pub enum SourceCommand {
    /// Forget where a source stands, so that it starts as if for the first time; or say where it goes on
    #[command(after_help = EXAMPLES)]
    Reset(Reset),
}

const EXAMPLES: &str = "\
Examples:
  wasmflow source reset pipeline.toml orders --dry-run
  wasmflow source reset pipeline.toml orders
  wasmflow source reset pipeline.toml orders --part orders/0=4711 --part orders/1=0

A source's position has one part for each thing it reads; --dry-run shows them. For the Kafka source a part is TOPIC/PARTITION
and its value the next offset; a partition starts at its part or at the group's offset, whichever is greater.
What is in the channels stays there: events that the source brings again come a second time. The pipeline must not be running.";

#[derive(Args)]
pub struct Reset {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// The source
    source: String,
    /// A part of the new position, which has these parts and no others
    #[arg(long = "part", value_name = "KEY=VALUE", value_parser = part)]
    parts: Vec<(String, String)>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn part(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

impl SourceCommand {
    pub fn execute(self) -> ExitCode {
        logs::start_quiet();
        let Self::Reset(command) = self;
        command.execute()
    }
}

impl Reset {
    fn execute(self) -> ExitCode {
        let pipeline = match locate(&self.pipeline, &environment) {
            Ok(pipeline) => pipeline,
            Err(report) => {
                eprint!("{}", report.text(Severity::Warning, Colour::for_stderr()));
                return ExitCode::from(INVALID);
            }
        };
        if !pipeline.sources.contains_key(self.source.as_str()) {
            eprintln!("error: pipeline `{}` has no source `{}`", pipeline.name, self.source);
            let known: Vec<&str> = pipeline.sources.keys().map(|name| name.as_str()).collect();
            if let Some(hint) = nearest_hint(&self.source, known, "source") {
                eprintln!("  hint: {hint}");
            }
            return ExitCode::from(INVALID);
        }
        if is_in_transactions(&pipeline, &self.source) {
            eprintln!(
                "error: pipeline `{}` commits the position of `{}` to Kafka, with its events",
                pipeline.name, self.source
            );
            let name = &pipeline.name;
            eprintln!(
                "  hint: the offsets of a Kafka source are its group's: move them with `kafka-consumer-groups --reset-offsets`.\n  \
                 Other sources keep theirs in the topic `_wasmflow.{name}`: to start them anew, delete the topic and `{}`",
                pipeline.state_dir.join("progress.json").display()
            );
            return ExitCode::from(INVALID);
        }
        let position: Position = self.parts.iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
        let change = (!self.dry_run).then(|| position.clone());
        let stored = match runtime() {
            Ok(runtime) => runtime.block_on(reset(&pipeline, &self.source, change)),
            Err(error) => return failed(&error),
        };
        match stored {
            Err(error) => failed(&error),
            Ok(stored) => {
                let kept = match stored.channels.is_empty() {
                    true => "the state folder".into(),
                    false => format!("channel {}", stored.channels.join(", ")),
                };
                let (does, source) = (if self.dry_run { "would stand" } else { "stands" }, &self.source);
                let (before, after) = (parts_text(&stored.position), parts_text(&position));
                print(&format!("source {source}, kept in {kept}, stood at:\n{before}it {does} at:\n{after}"))
            }
        }
    }
}

/// Whether the source's position is committed with its events. One that feeds file channels has it on disk with them.
fn is_in_transactions(pipeline: &Pipeline, source: &str) -> bool {
    let feeds_memory = || {
        let channels = pipeline.sources[source].selector.channels();
        channels.iter().any(|channel| !pipeline.channels[channel].is_durable())
    };
    pipeline.delivery == DeliveryPromise::ExactlyOnce && feeds_memory()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn parts_text(position: &Position) -> String {
    if position.is_empty() {
        return "  its beginning\n".into();
    }
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).escape_debug().to_string();
    position.iter().map(|(key, value)| format!("  {} = {}\n", text(key), text(value))).collect()
}
