//! The `config` table of the stage.

use wasmflow_sdk::prelude::*;

use crate::text::Format;

/// Where events are written, and when the next file begins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder, made if it is not there.
    pub dir: String,
    /// How file names begin. No two sinks may share both folder and prefix.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How file names end.
    #[serde(default = "extension")]
    pub extension: String,
    /// A file is rolled at this age; `0`: never by age.
    #[serde(default = "roll_interval")]
    pub roll_interval: Duration,
    /// A file is rolled before a batch would take it over this size.
    pub roll_bytes: Option<ByteSize>,
    /// A file is rolled before a batch would take it over so many events.
    pub roll_events: Option<u64>,
    /// `text`: the body and a newline. `json`: one object a line, with the headers.
    #[serde(default)]
    pub format: Format,
    /// Makes each batch survive a power cut before it is settled.
    #[serde(default = "yes")]
    pub sync: bool,
}

fn prefix() -> String {
    "events".into()
}

fn extension() -> String {
    "log".into()
}

fn roll_interval() -> Duration {
    std::time::Duration::from_secs(30).into()
}

fn yes() -> bool {
    true
}

impl Config {
    /// Everything that is wrong, each with its place.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.dir.is_empty() {
            problems.push(Problem::new("/dir", "names no folder"));
        }
        for (path, text) in [("/prefix", &self.prefix), ("/extension", &self.extension)] {
            if text.is_empty() || text.contains(['/', '\0']) || text.starts_with('.') {
                problems.push(Problem::new(path, "must be part of a file name, and must not begin with a dot"));
            }
        }
        if self.extension == crate::name::OPEN {
            problems.push(Problem::new("/extension", "`open` marks files that are being written"));
        }
        if self.roll_bytes == Some(ByteSize(0)) {
            problems.push(Problem::new("/roll_bytes", "must be at least 1B; leave it out to not roll by size"));
        }
        if self.roll_events == Some(0) {
            problems.push(Problem::new("/roll_events", "must be at least 1; leave it out to not roll by count"));
        }
        problems
    }

    /// The grant this asks for, as it is written in `allow.dirs`.
    pub fn grant(&self) -> String {
        format!("{{ path = {:?}, write = true }}", self.dir)
    }
}
