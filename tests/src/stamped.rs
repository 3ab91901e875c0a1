//! Events that go through `stamp-interceptor`, and what comes out: numbers in files each once and in order, and each batch by one version.

use std::collections::BTreeMap;
use std::path::Path;

use crate::agent::PipelineFile;
use crate::component::{component, stamp_version};
use crate::records::Record;
use crate::rolled::rolled_lines;

/// All numbers, through the interceptor `stamp`, as lines into the folder `out`: a batch of 100 for each sync of the disk.
pub fn all_numbers_to_files(more: &str) -> String {
    format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    batch_events = 100
    interceptors = ["stamp"]

    [interceptors.stamp]
    plugin = "{}"
    {more}

    [channels.events]
    type = "memory"
    capacity_events = 1000

    [sinks.files]
    plugin = "file-roll"
    channel = "events"
    batch_events = 100
    config = {{ dir = "out", format = "json", roll_interval = "0" }}
    allow = {{ dirs = [{{ path = "out", write = true }}] }}
"#,
        component("stamp-interceptor").display()
    )
}

/// Two versions of the interceptor, made in the folder, to swap between.
pub fn two_versions(folder: &Path) -> [String; 2] {
    ["v1", "v2"].map(|version| stamp_version(folder, version).display().to_string())
}

/// One line of the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    pub version: String,
    /// Which batch of which instance, and how many events it had.
    pub batch: String,
}

/// The batches that stamped events have come in.
#[derive(Debug, Default)]
pub struct Batches(BTreeMap<String, Batch>);

#[derive(Debug)]
struct Batch {
    version: String,
    /// How many events it had, and how many of them have arrived.
    count: usize,
    arrived: usize,
}

impl Batches {
    /// Notes what a record bears.
    ///
    /// # Panics
    /// As [`arrived`](Self::arrived).
    pub fn record(&mut self, record: &Record) {
        let header = |wanted: &str| {
            let values = record.headers.iter().filter(|(name, _)| name == wanted);
            values.map(|(_, value)| String::from_utf8_lossy(value)).collect::<Vec<_>>().join(" ")
        };
        self.arrived(&header("version"), &header("batch"));
    }

    /// Notes an event with this stamp.
    ///
    /// # Panics
    /// When it bears none, or that of two batches, or of a version that is not its batch's.
    pub fn arrived(&mut self, version: &str, batch: &str) {
        let count = batch.split_once('/').and_then(|(_, count)| count.parse().ok());
        let count = count.unwrap_or_else(|| panic!("stamped `{batch}` by `{version}`"));
        let known =
            self.0.entry(batch.to_owned()).or_insert_with(|| Batch { version: version.into(), count, arrived: 0 });
        assert_eq!(known.version, version, "batch {batch} by two versions");
        known.arrived += 1;
    }

    /// Every batch has arrived whole. Gives how many there are of each version.
    ///
    /// # Panics
    /// When a part of one is missing, or more has arrived than there was.
    pub fn whole(&self) -> BTreeMap<&str, usize> {
        let mut versions = BTreeMap::new();
        for (stamp, batch) in &self.0 {
            assert_eq!(batch.arrived, batch.count, "batch {stamp} of {}", batch.version);
            *versions.entry(&*batch.version).or_default() += 1;
        }
        versions
    }

    /// How many instances have stamped them.
    pub fn instances(&self) -> usize {
        let instances = self.0.keys().filter_map(|stamp| stamp.split_once('-'));
        instances.map(|(instance, _)| instance).collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// What the sink has written, in order.
///
/// # Panics
/// When there is a line that the sink does not write.
pub fn lines(file: &PipelineFile) -> Vec<Line> {
    rolled_lines(&file.folder().join("out"))
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let header = |name: &str| line["headers"][name].as_str().unwrap_or_default().to_owned();
            let number = line["body"].as_str().unwrap().parse().unwrap();
            Line { number, version: header("version"), batch: header("batch") }
        })
        .collect()
}

/// Every number once and in order, each batch whole and in one piece. Gives the versions in their order.
///
/// # Panics
/// When one is missing, repeated or misplaced.
pub fn check_all(lines: &[Line]) -> Vec<String> {
    let misplaced = lines.iter().zip(0..).find(|(line, number)| line.number != *number);
    assert_eq!(misplaced, None, "out of order");
    let mut batches = Batches::default();
    lines.iter().for_each(|line| batches.arrived(&line.version, &line.batch));
    let whole = batches.whole().values().sum::<usize>();
    let in_a_row = lines.chunk_by(|one, other| one.batch == other.batch).count();
    assert_eq!(in_a_row, whole, "a batch between the events of another");
    let mut versions: Vec<String> = lines.iter().map(|line| line.version.clone()).collect();
    versions.dedup();
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_by_version_and_instance() {
        let mut batches = Batches::default();
        for (version, batch) in [("v1", "a-1/2"), ("v1", "a-1/2"), ("v2", "b-1/1")] {
            batches.arrived(version, batch);
        }
        assert_eq!((batches.whole(), batches.instances()), (BTreeMap::from([("v1", 1), ("v2", 1)]), 2));
    }

    #[test]
    #[should_panic(expected = "by two versions")]
    fn a_batch_of_two_versions_is_found() {
        let mut batches = Batches::default();
        batches.arrived("v1", "a-1/2");
        batches.arrived("v2", "a-1/2");
    }

    #[test]
    #[should_panic(expected = "stamped `a-1/1 b-1/1`")]
    fn a_second_stamp_is_found() {
        Batches::default().arrived("v2", "a-1/1 b-1/1");
    }

    #[test]
    #[should_panic(expected = "assertion `left == right` failed: batch a-1/2 of v1")]
    fn half_a_batch_is_found() {
        let mut batches = Batches::default();
        batches.arrived("v1", "a-1/2");
        batches.whole();
    }
}
