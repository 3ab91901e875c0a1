//! `wasmflow validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use wasmflow::config::{Colour, LoadedFile, Pipeline, Severity, load};

use super::{Global, INVALID, environment, failed, logs, pretty, print, runtime};

/// Checks pipeline files without running them: syntax, names, plugins, their configuration and grants. Nothing outside the
/// files and the plugins is touched: no server is asked.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Validate {
    /// Pipeline files, as they would be run together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON document to standard output instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Errors, warnings and notes go to standard error, with file, line, column and a remedy.

Examples:
  wasmflow validate pipeline.toml
  wasmflow validate --json pipelines/*.toml | jq '.files[].problems[].message'

Exit codes: 0 all files are valid; 2 at least one is not.";

impl Validate {
    pub fn execute(self, global: &Global) -> ExitCode {
        logs::start_quiet();
        let engine = match global.engine() {
            Ok(engine) => engine,
            Err(error) => return failed(&error),
        };
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&error),
        };
        let loaded = runtime.block_on(load(&self.files, &environment, &engine));
        let printed = if self.json { print_json(&loaded) } else { print_text(&loaded) };
        if loaded.iter().all(|file| file.report.is_valid()) { printed } else { ExitCode::from(INVALID) }
    }
}

fn print_text(loaded: &[LoadedFile]) -> ExitCode {
    let mut summary = String::new();
    for file in loaded {
        eprint!("{}", file.report.text(Severity::Note, Colour::for_stderr()));
        let path = file.report.file.path.display();
        match &file.pipeline {
            Some(pipeline) => {
                summary += &format!("{path}: pipeline `{}` is valid: {}\n", pipeline.name, parts(pipeline))
            }
            None => summary += &format!("{path}: not valid, {}\n", counted(file.report.errors(), "error")),
        }
    }
    print(&summary)
}

fn parts(pipeline: &Pipeline) -> String {
    let parts = [
        (pipeline.sources.len(), "source"),
        (pipeline.interceptors.len(), "interceptor"),
        (pipeline.channels.len(), "channel"),
        (pipeline.sinks.len(), "sink"),
    ];
    let counted: Vec<String> = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, part)| counted(n, part)).collect();
    counted.join(", ")
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn print_json(loaded: &[LoadedFile]) -> ExitCode {
    let files: Vec<_> = loaded
        .iter()
        .map(|file| {
            let mut object = file.report.json();
            object["pipeline"] = json!(file.pipeline.as_ref().map(|pipeline| pipeline.name.as_str()));
            object
        })
        .collect();
    let valid = loaded.iter().all(|file| file.report.is_valid());
    print(&pretty(&json!({ "valid": valid, "files": files })))
}
