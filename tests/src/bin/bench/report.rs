//! The table that a run prints and the JSON it leaves.

use std::path::PathBuf;

use anyhow::Context as _;
use wasmflow_tests::binary::repository;

/// All figures of one run, in the order measured.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
}

impl Report {
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        let what = what.into();
        eprintln!("  {what}: {} {unit}", shown(value));
        self.figures.push(Figure { what, value, unit });
    }

    pub fn print(&self) {
        let width = self.figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
        println!("\n{:width$}  {:>12}", "figure", "median");
        for figure in &self.figures {
            println!("{:width$}  {:>12}  {}", figure.what, shown(figure.value), figure.unit);
        }
    }

    /// Writes the figures to a file named for the second it was written in.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let folder = repository().join("tests/bench/results");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{seconds}.json"));
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| serde_json::json!({ "figure": figure.what, "median": figure.value, "unit": figure.unit }))
            .collect();
        let cores = std::thread::available_parallelism()?.get();
        let document = serde_json::json!({ "unix_seconds": seconds, "cores": cores, "figures": figures });
        let text = serde_json::to_string_pretty(&document)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Three or four digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
