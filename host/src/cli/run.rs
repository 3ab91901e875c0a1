//! `wasmflow run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use wasmflow::agent::{self, RunFile, RunOptions, logs::ReaderRemoval};
use wasmflow::config::{Colour, Severity, load};
use wasmflow::control::Control;
use wasmflow::plugin::Engine;

use super::admin::Offer;
use super::hardening::harden;
use super::logs::LogOptions;
use super::{FAILED, Global, INVALID, environment, failed, runtime};

/// Runs pipelines until all their sources have finished and every channel is drained, or until TERM or INT, which drain and
/// stop; a second one stops at once.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Give up readers of file channels that no sink is any more, with what they have not delivered
    #[arg(long)]
    remove_readers: bool,
    /// Apply pipeline files and plugins when they change on disk; SIGHUP applies them in any case
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    admin: Offer,
    #[command(flatten)]
    logs: LogOptions,
}

const EXAMPLES: &str = "\
Standard output belongs to sinks that print; logs go to standard error.

Examples:
  wasmflow run pipeline.toml
  wasmflow run collect.toml deliver.toml --log-format json 2> agent.log
  RUST_LOG=debug wasmflow run pipeline.toml
  wasmflow run pipeline.toml --watch             # a saved file, or plugin, is applied while events flow
  wasmflow run pipeline.toml --admin 9464        # metrics for Prometheus at http://localhost:9464/metrics

Exit codes: 0 all ended or were stopped and drained; 1 failed while running; 2 wrong usage or an invalid file.";

impl Run {
    pub fn execute(self, global: &Global) -> ExitCode {
        if let Err(error) = self.logs.start() {
            eprintln!("error: --log-level: {error}");
            return ExitCode::from(INVALID);
        }
        harden();
        let started = global.engine().map_err(|error| failed(&error));
        let started = started.and_then(|engine| Ok((engine, runtime().map_err(|error| failed(&error))?)));
        match started {
            Err(code) => code,
            Ok((engine, runtime)) => runtime.block_on(self.run(engine)),
        }
    }

    async fn run(self, engine: Engine) -> ExitCode {
        let loaded = load(&self.files, &environment, &engine).await;
        for file in &loaded {
            eprint!("{}", file.report.text(Severity::Warning, Colour::for_stderr()));
        }
        let Some(files) = loaded.into_iter().map(RunFile::of).collect::<Option<Vec<_>>>() else {
            eprintln!("error: nothing was started");
            return ExitCode::from(INVALID);
        };
        let removal = if self.remove_readers { ReaderRemoval::Remove } else { ReaderRemoval::Refuse };
        let control = Control::new(engine);
        let admin = match self.admin.start(&control) {
            Ok(admin) => admin,
            Err(code) => return code,
        };
        let options = RunOptions { removal, watch: self.watch };
        let ended = agent::run(files, &control, options).await;
        drop(admin);
        match ended {
            Err(error) => failed(&error),
            Ok(report) if report.is_success() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(FAILED),
        }
    }
}
