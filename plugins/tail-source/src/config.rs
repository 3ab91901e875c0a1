//! The `config` table of the stage.

use wasmflow_sdk::prelude::*;

use crate::pattern::Pattern;
use crate::tail::Options;

/// Limit: the longest line that can be asked for. An instance has 64 MiB and holds a line twice; an event has 16 MiB, headers included.
const MAX_LINE_BYTES: u64 = 8 << 20;
/// The clock that file systems stamp with ticks every few milliseconds; looking more often would miss changes.
const MIN_POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    /// Files are read whole.
    Beginning,
    /// Files that are there when the source is started for the first time are read from their end on.
    End,
}

/// Which files to follow, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Paths with `*`, `?`, `[…]` and `**`; each needs its folder in `allow.dirs`.
    files: Vec<String>,
    /// Where files start that are found when the source is started for the first time.
    #[serde(default = "beginning")]
    start_at: StartAt,
    /// Waits for what is appended; false: ends at the end of all files as they stand.
    #[serde(default = "yes")]
    follow: bool,
    /// A last line without newline is brought after this silence.
    #[serde(default = "idle_flush")]
    idle_flush: Duration,
    /// A longer line is cut into events of this size.
    #[serde(default = "max_line_bytes")]
    max_line_bytes: ByteSize,
    /// How often files and folders are looked at.
    #[serde(default = "poll_interval")]
    poll_interval: Duration,
    /// Sets the headers `file` and `offset`.
    #[serde(default = "yes")]
    file_header: bool,
}

fn beginning() -> StartAt {
    StartAt::Beginning
}

fn yes() -> bool {
    true
}

fn idle_flush() -> Duration {
    std::time::Duration::from_secs(5).into()
}

fn max_line_bytes() -> ByteSize {
    ByteSize(1 << 20)
}

fn poll_interval() -> Duration {
    std::time::Duration::from_millis(250).into()
}

impl Config {
    /// What the source goes by.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn options(&self) -> Result<Options, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut patterns = Vec::new();
        for (index, text) in self.files.iter().enumerate() {
            match Pattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => problems.push(Problem::new(format!("/files/{index}"), format!("`{text}` {error}"))),
            }
        }
        if self.files.is_empty() {
            problems.push(Problem::new("/files", "names no file: write at least one path, as in [\"logs/*.log\"]"));
        }
        if !(1..=MAX_LINE_BYTES).contains(&self.max_line_bytes.0) {
            problems.push(Problem::new("/max_line_bytes", "must be from 1B to 8MiB"));
        }
        if self.poll_interval.0 < MIN_POLL_INTERVAL {
            problems.push(Problem::new("/poll_interval", "must be at least 10ms"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Options {
            patterns,
            start_at_end: self.start_at == StartAt::End,
            follow: self.follow,
            idle_flush: self.idle_flush.0,
            max_line_bytes: self.max_line_bytes.bytes(),
            poll_interval: self.poll_interval.0,
            file_header: self.file_header,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &str) -> Vec<String> {
        let config: Config = wasmflow_sdk::serde_json::from_str(config).unwrap();
        config.options().err().unwrap_or_default().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn all_problems_are_said_at_once() {
        assert_eq!(problems(r#"{ "files": ["a.log"] }"#), Vec::<String>::new());
        assert_eq!(problems(r#"{ "files": [] }"#), ["/files"]);
        assert_eq!(
            problems(r#"{ "files": ["x", "logs/", "[a"], "max_line_bytes": "1GB", "poll_interval": "1ms" }"#),
            ["/files/1", "/files/2", "/max_line_bytes", "/poll_interval"]
        );
    }
}
