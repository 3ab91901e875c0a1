//! Measures wasmflow from outside, each figure beside a reference of the same run, and prints a table; `make bench` runs it.
//!
//! Arguments choose the parts (`memory`, `file`, `kafka`, `exactly-once`, `start`, `latency`, `swap`); without any all run.

use std::process::ExitCode;

mod exactly_once;
mod file;
mod kafka;
mod latency;
mod memory;
mod report;
mod start;
mod swap;

use report::Report;

/// Runs of each kind, alternating with the reference; the median counts.
const RUNS: usize = 5;

type Part = fn(&mut Report) -> anyhow::Result<()>;
const PARTS: [(&str, Part); 7] = [
    ("memory", memory::measure),
    ("file", file::measure),
    ("kafka", kafka::measure),
    ("exactly-once", exactly_once::measure),
    ("start", start::measure),
    ("latency", latency::measure),
    ("swap", swap::measure),
];

fn main() -> ExitCode {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Report::default();
    let mut code = ExitCode::SUCCESS;
    for (name, part) in PARTS {
        if !chosen.is_empty() && !chosen.iter().any(|one| one == name) {
            continue;
        }
        eprintln!("measuring: {name}");
        if let Err(error) = part(&mut report) {
            eprintln!("error: {name}: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    report.print();
    match report.save() {
        Ok(path) => println!("\nwritten to {}", path.display()),
        Err(error) => eprintln!("error: {error:#}"),
    }
    code
}
