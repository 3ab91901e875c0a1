//! Numbers that go through `stamp-interceptor` into files, and what the files say: each once, in order, each batch by one version.

use std::path::PathBuf;

use crate::agent::PipelineFile;
use crate::component::component;

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

/// One line of the sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub number: u64,
    pub version: String,
    /// The batch's number in its instance, and how many events it had.
    pub batch: String,
}

/// The files in the folder `out`, in the order of their names' numbers.
///
/// # Panics
/// When there is no such folder.
pub fn files(file: &PipelineFile) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(file.folder().path().join("out")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut parts = name.rsplit('-').map(|part| part.parse::<u64>().unwrap_or(0));
        let number = parts.next().unwrap();
        (parts.next(), number)
    });
    files
}

/// What the sink has written, in order.
///
/// # Panics
/// When there is a line that the sink does not write.
pub fn lines(file: &PipelineFile) -> Vec<Line> {
    let text: String = files(file).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let header = |name: &str| line["headers"][name].as_str().unwrap_or_default().to_owned();
            let number = line["body"].as_str().unwrap().parse().unwrap();
            Line { number, version: header("version"), batch: header("batch") }
        })
        .collect()
}

/// Every number once and in order, and each batch by one version. Gives the versions in their order.
///
/// # Panics
/// When one is missing, repeated or misplaced.
pub fn check_all(lines: &[Line]) -> Vec<String> {
    let misplaced = lines.iter().zip(0..).find(|(line, number)| line.number != *number);
    assert_eq!(misplaced, None, "out of order");
    let mut versions: Vec<String> = Vec::new();
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let (_, count) = first.batch.split_once('/').unwrap();
        let (batch, others) = rest.split_at(count.parse().unwrap());
        assert!(batch.iter().all(|line| line.version == first.version && line.batch == first.batch), "{batch:?}");
        if versions.last() != Some(&first.version) {
            versions.push(first.version.clone());
        }
        rest = others;
    }
    versions
}
