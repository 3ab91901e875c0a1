//! Measures wasmflow from outside, each figure beside a reference of the same run; `make bench` runs it, tests/bench/README.md
//! explains it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

mod compare;
mod contest;
mod file;
mod kafka;
mod latency;
mod machine;
mod memory;
mod mysql;
mod native;
mod openloop;
mod plugin;
mod report;
mod spread;
mod stages;
mod start;
mod swap;
mod table;
mod tail;
mod targets;
mod workers;

use report::{Report, Results};
use table::Style;

/// Runs of each kind where nothing else is said, alternating with the reference; the median counts.
const RUNS: usize = 5;

type Part = fn(&mut Report, &Measuring) -> anyhow::Result<()>;

/// In the order in which they run.
const PARTS: &[(&str, Part)] = &[
    ("memory", memory::measure),
    ("plugin", plugin::measure),
    ("file", file::measure),
    ("kafka", kafka::measure),
    ("kafka-matrix", kafka::matrix),
    ("tail", tail::measure),
    ("mysql", mysql::measure),
    ("start", start::measure),
    ("latency", latency::measure),
    ("stages", stages::measure),
    ("swap", |report, _| swap::measure(report)),
    ("workers", |report, _| workers::measure(report)),
];

/// Measures wasmflow: each line a workload, wasmflow's figure, its reference in the same run, and the ratio. Takes half an hour;
/// the machine must do nothing else.
#[derive(Parser)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measuring: Measuring,
}

const EXAMPLES: &str = "\
What is measured is written to tests/bench/results/ from the first line on, so a run that is cut short keeps what it has.

Examples:
  bench                                  all parts, then the table of targets
  bench memory kafka --runs 3            two parts, three runs of each kind
  bench show tests/bench/results/X.json --markdown
  bench compare before.json after.json   what became better or worse, and what lies within the spread";

#[derive(Args)]
struct Measuring {
    /// The parts to measure; all where none is named
    #[arg(value_name = "PART", value_parser = PossibleValuesParser::new(PARTS.iter().map(|(name, _)| *name)))]
    parts: Vec<String>,
    /// Runs of each kind
    #[arg(long, default_value_t = RUNS, value_parser = at_least_one)]
    runs: usize,
    /// Every cell of the matrix of Kafka's part, not only its diagonal
    #[arg(long)]
    whole: bool,
    /// Print the table to be pasted into a README
    #[arg(long)]
    markdown: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Print a results file as the run itself did
    Show {
        file: PathBuf,
        #[arg(long)]
        markdown: bool,
    },
    /// Compare two results files
    Compare {
        before: PathBuf,
        after: PathBuf,
        #[arg(long)]
        markdown: bool,
    },
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|runs| *runs > 0).ok_or_else(|| "expected a number of at least 1".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let text = match arguments.command {
        None => return measure(&arguments.measuring),
        Some(Command::Show { file, markdown }) => {
            Results::read(&file).map(|results| table::document(&results, style(markdown)))
        }
        Some(Command::Compare { before, after, markdown }) => Results::read(&before)
            .and_then(|before| Results::read(&after).map(|after| compare::compare(&before, &after, style(markdown)))),
    };
    match text {
        Ok(text) => print!("{text}"),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn measure(measuring: &Measuring) -> ExitCode {
    let mut report = Report::new();
    let chosen = |name: &str| measuring.parts.is_empty() || measuring.parts.iter().any(|part| part == name);
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| chosen(name)).collect();
    let mut code = ExitCode::SUCCESS;
    for (number, (name, part)) in parts.iter().enumerate() {
        eprintln!("part {} of {}: {name}", number + 1, parts.len());
        report.begin(name);
        let began = Instant::now();
        if let Err(error) = part(&mut report, measuring) {
            eprintln!("error: {name}: {error:#}");
            code = ExitCode::FAILURE;
        }
        eprintln!("part {name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    match report.finish() {
        Ok(()) => eprintln!("written to {}", report.path().display()),
        Err(error) => {
            eprintln!("error: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    println!("\n{}", table::document(&report.results, style(measuring.markdown)));
    code
}

fn style(markdown: bool) -> Style {
    if markdown { Style::Markdown } else { Style::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_commands_are_told_apart() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["bench"], words].concat());
        let measuring = parse(&["memory", "kafka", "--runs", "3"]).unwrap();
        assert!(measuring.command.is_none());
        assert_eq!((measuring.measuring.parts.len(), measuring.measuring.runs), (2, 3));
        assert!(matches!(parse(&["compare", "a", "b"]).unwrap().command, Some(Command::Compare { .. })));
        assert!(parse(&["memroy"]).is_err() && parse(&["--runs", "0"]).is_err());
    }
}
