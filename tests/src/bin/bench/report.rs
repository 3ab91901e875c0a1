//! What a run has measured so far, and the file it is kept in from the first line on.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use wasmflow_tests::binary::repository;

use crate::machine::{Machine, commit, load};
use crate::spread::Spread;

/// Of the file; another one is refused.
const FORMAT: u32 = 2;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

/// One line of the table: a workload, wasmflow's figure, and its reference in the same runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub part: String,
    pub what: String,
    pub unit: String,
    pub better: Better,
    pub ours: Spread,
    pub reference: Option<Reference>,
    /// Processor seconds, user and system, for a million events.
    pub cpu: Option<Spread>,
    /// The most memory that was resident, in MB.
    pub resident: Option<Spread>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub what: String,
    pub value: Spread,
    /// wasmflow's figure over the reference's, each of the same round.
    pub ratio: Spread,
    pub cpu: Option<Spread>,
}

/// The contents of a results file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    pub unix_seconds: u64,
    pub commit: String,
    pub machine: Machine,
    /// How many processes wanted a core in the minute before: a machine that does other things measures those too.
    pub load_before: f64,
    /// Whether all of what was asked for has been measured.
    pub finished: bool,
    pub lines: Vec<Line>,
}

impl Results {
    /// # Errors
    /// When the file cannot be read, or is of another format.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let document: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        match document["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            format => bail!(
                "{} is of format {}; this bench reads format {FORMAT}: measure that commit again",
                path.display(),
                format.map_or("1".into(), |format| format.to_string())
            ),
        }
        serde_json::from_value(document).with_context(|| format!("{} is no results file", path.display()))
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Report {
    pub results: Results,
    path: PathBuf,
    part: String,
}

impl Report {
    /// Nothing is written before the first line.
    pub fn new() -> Self {
        let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (commit, machine) = (commit(), Machine::this());
        let name = format!("{unix_seconds}-{}.json", commit.trim_end_matches('+'));
        let path = repository().join("tests/bench/results").join(name);
        let results = Results {
            format: FORMAT,
            unix_seconds,
            commit,
            machine,
            load_before: load(),
            finished: false,
            lines: Vec::new(),
        };
        Self { results, path, part: String::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines from now on are of this part.
    pub fn begin(&mut self, part: &str) {
        part.clone_into(&mut self.part);
    }

    pub fn part(&self) -> &str {
        &self.part
    }

    /// A figure without a reference, measured once: lower is better, as of everything told so.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &str) {
        let ours = Spread::of(&[value]).expect("there is one");
        self.add_spread(what, ours, unit, Better::Lower);
    }

    /// A figure without a reference.
    pub fn add_spread(&mut self, what: impl Into<String>, ours: Spread, unit: &str, better: Better) {
        let what = what.into();
        eprintln!("  {what}: {} {unit}", shown(ours.median));
        let (part, unit) = (self.part.clone(), unit.to_owned());
        self.put(Line { part, what, unit, better, ours, reference: None, cpu: None, resident: None });
    }

    /// Adds the line, or puts it in the place of the one of that name, and writes the file: what is cut short keeps what it has
    /// measured.
    pub fn put(&mut self, line: Line) {
        let lines = &mut self.results.lines;
        match lines.iter_mut().find(|known| known.part == line.part && known.what == line.what) {
            Some(known) => *known = line,
            None => lines.push(line),
        }
        if let Err(error) = self.save() {
            eprintln!("error: {error:#}");
        }
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.results.finished = true;
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.results)? + "\n";
        let (folder, aside) = (self.path.parent().expect("it has a folder"), self.path.with_extension("aside"));
        std::fs::create_dir_all(folder)?;
        std::fs::write(&aside, text).with_context(|| format!("cannot write {}", aside.display()))?;
        std::fs::rename(&aside, &self.path).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Three or four digits that count.
pub fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> (tempfile::TempDir, Report) {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::new();
        report.path = folder.path().join("results/now.json");
        (folder, report)
    }

    #[test]
    fn what_is_measured_is_on_disk_before_the_run_ends() {
        let (_folder, mut report) = report();
        report.begin("memory");
        report.add("one", 1.5, "ms");
        let read = Results::read(&report.path).unwrap();
        assert_eq!((read.finished, read.lines.len(), read.lines[0].ours.median), (false, 1, 1.5));
        report.add("one", 2.5, "ms");
        report.finish().unwrap();
        let read = Results::read(&report.path).unwrap();
        assert_eq!((read.finished, read.lines.len(), read.lines[0].ours.median), (true, 1, 2.5));
    }

    #[test]
    fn results_of_another_format_are_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.json");
        std::fs::write(&path, r#"{ "cores": 2, "figures": [] }"#).unwrap();
        let error = Results::read(&path).unwrap_err().to_string();
        assert!(error.contains("of format 1") && error.contains("measure that commit again"), "{error}");
    }

    #[test]
    fn a_value_is_shown_with_the_digits_that_count() {
        let texts = [130e6, 74_321.0, 829.4, 2.134, 0.0236, 0.00791].map(shown);
        assert_eq!(texts, ["130.00M", "74.3k", "829", "2.13", "0.024", "0.0079"]);
    }
}
