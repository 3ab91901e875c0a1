//! The `wasmflow` command: arguments in, exit code out.

mod cli;
mod heap;
#[cfg(target_os = "linux")]
mod kafka_wait;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    heap::keep_free_memory();
    #[cfg(target_os = "linux")]
    kafka_wait::is_needed();
    cli::Arguments::parse().execute()
}
