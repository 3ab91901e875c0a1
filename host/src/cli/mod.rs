//! The command line: what can be asked of `wasmflow`, and what each answer exits with.

mod act;
mod admin;
mod agents;
mod bench;
mod channel;
mod compile;
mod hardening;
mod inspect;
mod logs;
mod named;
mod replay;
mod run;
mod source;
mod status;
mod validate;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use wasmflow::plugin::{Engine, EngineOptions, PluginError};

/// Exit code for what failed while it ran.
const FAILED: u8 = 1;
/// Exit code for wrong usage or an invalid file: nothing was started. clap uses the same.
const INVALID: u8 = 2;

/// Streams events through sandboxed WebAssembly plugins: sources, interceptors, channels and sinks, wired by a TOML file.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

const EXAMPLES: &str = "\
Examples:
  wasmflow validate pipeline.toml      everything that can be known without running it
  wasmflow run pipeline.toml           run it until it ends, or until Ctrl-C
  wasmflow status                      what runs, how fast, and what last went wrong
  wasmflow swap enrich ./new.wasm      another plugin for a running stage
  wasmflow plugin inspect tail         what a standard plugin does, its configuration and its grants
  wasmflow plugin inspect ./my.wasm    the same of a plugin of your own
  wasmflow plugin bench ./my.wasm      what its calls cost

A first pipeline, `pipeline.toml`:

  [pipeline]
  name = \"count\"

  [channels.events]
  type = \"memory\"

  [sources.numbers]
  plugin = \"seq\"
  config = { total = 3 }
  channels = [\"events\"]

  [sinks.console]
  plugin = \"logger\"
  channel = \"events\"

Exit codes: 0 done; 1 failed while running; 2 wrong usage or an invalid file (nothing was started).";

#[derive(Args)]
pub struct Global {
    /// Keep compiled plugins here; default: `wasmflow` in the user's cache folder
    #[arg(long, value_name = "DIR", env = "WASMFLOW_CACHE_DIR", global = true)]
    cache_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run pipelines until they end or are stopped
    Run(run::Run),
    /// Check pipeline files without running them
    Validate(validate::Validate),
    /// Show what runs
    Status(status::Status),
    /// Swap the plugin, or the configuration, of a running stage
    Swap(act::Swap),
    /// Go back to the plugin that served before
    Rollback(act::Rollback),
    /// Have a stage take no more batches
    Pause(act::Pause),
    /// Have a paused stage go on
    Resume(act::Resume),
    /// Look into plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look into the file channels of a stopped pipeline, save what is in them, move their readers
    #[command(subcommand)]
    Channel(channel::ChannelCommand),
    /// Say where a source of a stopped pipeline goes on
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Give a plugin once more what it failed on
    Replay(replay::Replay),
    #[command(name = "compile-plugin", hide = true)]
    Compile(compile::Compile),
    /// Print the JSON Schema of the pipeline file, for editors
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
    /// Print a script that completes wasmflow's commands in a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completions { shell: clap_complete::Shell },
}

const SCHEMA_EXAMPLES: &str = "\
Example:
  wasmflow schema > wasmflow.schema.json

Editors that know Taplo complete and check a pipeline file whose first line is
  #:schema ./wasmflow.schema.json";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  wasmflow completions bash > ~/.local/share/bash-completion/completions/wasmflow
  wasmflow completions zsh > \"${fpath[1]}/_wasmflow\"
  wasmflow completions fish > ~/.config/fish/completions/wasmflow.fish";

#[derive(Subcommand)]
enum PluginCommand {
    /// Show what a plugin is, its configuration and the grants it needs
    Inspect(inspect::Inspect),
    /// Measure what a plugin costs, beside a copy of the same bytes
    Bench(bench::Bench),
}

impl Arguments {
    /// Does what is asked.
    pub fn execute(self) -> ExitCode {
        match self.command {
            Command::Run(run) => run.execute(&self.global),
            Command::Validate(validate) => validate.execute(&self.global),
            Command::Status(status) => status.execute(),
            Command::Swap(swap) => swap.execute(),
            Command::Rollback(rollback) => rollback.execute(),
            Command::Pause(pause) => pause.execute(),
            Command::Resume(resume) => resume.execute(),
            Command::Plugin(PluginCommand::Inspect(inspect)) => inspect.execute(&self.global),
            Command::Plugin(PluginCommand::Bench(bench)) => bench.execute(&self.global),
            Command::Channel(command) => command.execute(),
            Command::Source(command) => command.execute(),
            Command::Replay(replay) => replay.execute(&self.global),
            Command::Compile(compile) => compile.execute(),
            Command::Schema => print(&pretty(&wasmflow::config::pipeline_schema())),
            Command::Completions { shell } => completions(shell),
        }
    }
}

impl Global {
    /// The plugin engine, with its cache of compiled plugins.
    fn engine(&self) -> Result<Engine, PluginError> {
        let cache_dir = self.cache_dir.clone().or_else(user_cache_dir);
        Engine::new(EngineOptions { cache_dir, compiler: compile::this_program() })
    }
}

/// Relative values of `XDG_CACHE_HOME` are to be ignored, says its specification.
fn user_cache_dir() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("wasmflow"))
}

/// What the checks of a pipeline file may ask of this process's environment.
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// A runtime for commands that wait.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("wasmflow").build()
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "wasmflow", &mut script);
    print(&String::from_utf8_lossy(&script))
}

fn pretty(json: &serde_json::Value) -> String {
    // Strings, numbers and maps with string keys always serialize.
    serde_json::to_string_pretty(json).expect("a JSON value serializes") + "\n"
}

/// Prints to standard output. A reader that has gone away (`| head`) has seen what it wanted.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failed(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Says why a command failed, with all causes.
fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {}", wasmflow::config::mask(&chain(error)));
    ExitCode::from(FAILED)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let mut text = error.to_string();
    for cause in causes {
        text = format!("{text}: {cause}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
