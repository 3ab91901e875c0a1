//! What files are called: `<prefix>-<start ms>-<n>.<extension>`, with `.open` behind it while it is written.

/// Behind the name of a file that is being written.
pub const OPEN: &str = "open";

/// The names of one sink's files.
#[derive(Debug, Clone)]
pub struct Names {
    pub prefix: String,
    pub extension: String,
}

impl Names {
    /// The name of a finished file. `start` is when the sink was opened, in milliseconds since 1970.
    pub fn finished(&self, start: u64, number: u64) -> String {
        format!("{}-{start}-{number}.{}", self.prefix, self.extension)
    }

    /// A file that is made and removed to ask the disk for the time, and whether it can be written to.
    pub fn probe(&self) -> String {
        format!("{}.starting", self.prefix)
    }

    /// Whether this is one of our finished names.
    pub fn is_finished(&self, name: &str) -> bool {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        name.strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.strip_suffix(self.extension.as_str()))
            .and_then(|rest| rest.strip_suffix('.'))
            .and_then(|numbers| numbers.split_once('-'))
            .is_some_and(|(start, count)| number(start) && number(count))
    }
}

/// The name of a file while it is written.
pub fn open(finished: &str) -> String {
    format!("{finished}.{OPEN}")
}

/// The name of the mark beside a file that is being written.
pub fn mark(finished: &str) -> String {
    format!("{finished}.{OPEN}.batch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_files_are_ours() {
        let names = Names { prefix: "events".into(), extension: "log".into() };
        assert!(names.is_finished(&names.finished(1_700_000_000_000, 12)));
        for other in
            ["events-1-2.txt", "events-1.log", "events-1-2-3.log", "events--.log", "other-1-2.log", "events-a-1.log"]
        {
            assert!(!names.is_finished(other), "{other}");
        }
    }
}
