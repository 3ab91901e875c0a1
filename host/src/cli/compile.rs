//! `wasmflow compile-plugin`: the process in which a plugin's file is compiled. For wasmflow itself, and in no help text.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use wasmflow::plugin::compiler::{self, Compiler};

const NAME: &str = "compile-plugin";

/// Compiles the component on standard input; see `host/src/plugin/compiler.rs`.
#[derive(Args)]
pub struct Compile {
    deadline_ms: u64,
    memory_bytes: u64,
}

impl Compile {
    pub fn execute(self) -> ExitCode {
        compiler::serve(Duration::from_millis(self.deadline_ms), self.memory_bytes)
    }
}

/// This program as a compiler.
pub fn this_program() -> Option<Compiler> {
    // On Linux by what runs, not by its name: the file may have been replaced by a newer one since.
    let program = match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => std::env::current_exe().ok()?,
    };
    Some(Compiler::new(program, vec![NAME.into()]))
}
