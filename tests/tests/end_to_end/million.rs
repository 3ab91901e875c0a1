//! A million events through each road, held against the ledger.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::pipelines;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::records::Topics;

const MILLION: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(240);

/// The part of a pipeline that writes channel `events` to files in `out`.
const ROLLED_FILES: &str = r#"
    [channels.events]
    type = "memory"

    [sinks.files]
    plugin = "file-roll"
    channel = "events"
    config = { dir = "out", roll_interval = "0s", roll_events = 300_000 }
    allow = { dirs = [{ path = "out", write = true }], wall_clock = true }
"#;

#[test]
fn a_million_numbers_reach_the_rolled_files_once_and_in_order() -> anyhow::Result<()> {
    let numbers = r#"
        [sources.numbers]
        plugin = "seq"
        channels = ["events"]
        config = { total = 1_000_000 }
    "#;
    let pipeline = PipelineFile::new("seq-to-files", &format!("{ROLLED_FILES}{numbers}"));
    fs::create_dir(pipeline.folder().join("out"))?;
    pipeline.run().expect_done(LIMIT);
    let text = rolled_text(&pipeline.folder().join("out"))?;
    let wrong = text.lines().zip(0_u64..).find(|(line, number)| line.parse() != Ok(*number));
    assert_eq!(wrong, None, "the first line that is not its own number");
    assert_eq!(text.lines().count() as u64, MILLION);
    Ok(())
}

#[test]
fn a_million_lines_are_tailed_once_and_in_order_through_renames_and_truncations() -> anyhow::Result<()> {
    let tail = r#"
        [sources.log]
        plugin = "tail"
        channels = ["events"]
        config = { files = ["logs/app.log"], poll_interval = "20ms", file_header = false }
        allow = { dirs = [{ path = "logs" }] }
    "#;
    let pipeline = PipelineFile::new("tail-to-files", &format!("{ROLLED_FILES}{tail}"));
    let out = pipeline.folder().join("out");
    fs::create_dir(&out)?;
    fs::create_dir(pipeline.folder().join("logs"))?;
    let agent = pipeline.run();
    let mut writer = LogWriter::new(pipeline.folder())?;
    // A file that is renamed before the source has seen it does not match the pattern.
    writer.append(1)?;
    writer.wait_until_arrived(&out);
    for round in 0..20 {
        writer.append_up_to((round + 1) * MILLION / 20)?;
        match round % 4 {
            1 => writer.rename(round)?,
            3 => writer.truncate(&out)?,
            _ => {}
        }
    }
    writer.wait_until_arrived(&out);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Ledger::of(rolled_text(&out)?.lines()).assert_each_once_in_order("log", writer.lines);
    Ok(())
}

#[test]
fn a_million_records_keep_their_partitions_and_order_and_none_repeats() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("million-in", 4)?;
    topics.create("million-out", 4)?;
    for partition in 0..4 {
        let lines = (0..MILLION / 4).map(|number| ledger::line(&format!("p{partition}"), number));
        topics.produce("million-in", partition, lines)?;
    }
    let stages = pipelines::topic_to_topic(&broker.address(), "million-in", "million-out");
    let pipeline = PipelineFile::new("kafka-to-kafka", &stages);
    pipeline.run().expect_done(LIMIT);
    for partition in 0..4 {
        let mut ledger = Ledger::default();
        topics.read_partition("million-out", partition, |record| {
            let text = record.text();
            let line = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
            ledger.arrived(line.unwrap_or_else(|| panic!("`{text}` went past the interceptor")));
        })?;
        ledger.assert_each_once_in_order(&format!("p{partition}"), MILLION / 4);
    }
    Ok(())
}

/// An application that writes a log, and its log rotation.
struct LogWriter {
    logs: std::path::PathBuf,
    file: fs::File,
    lines: u64,
    bytes: u64,
}

impl LogWriter {
    fn new(folder: &Folder) -> anyhow::Result<Self> {
        let logs = folder.join("logs");
        let file = Self::open(&logs)?;
        Ok(Self { logs, file, lines: 0, bytes: 0 })
    }

    /// Opened for appending, as a log is, so that it goes on at the start after a truncation.
    fn open(logs: &Path) -> anyhow::Result<fs::File> {
        Ok(fs::File::options().create(true).append(true).open(logs.join("app.log"))?)
    }

    fn append(&mut self, count: u64) -> anyhow::Result<()> {
        self.append_up_to(self.lines + count)
    }

    fn append_up_to(&mut self, lines: u64) -> anyhow::Result<()> {
        let text = ledger::lines("log", self.lines..lines);
        self.lines = lines;
        self.bytes += text.len() as u64;
        // Cut anywhere, as a buffered writer cuts.
        for piece in text.as_bytes().chunks(100_003) {
            self.file.write_all(piece)?;
        }
        Ok(())
    }

    /// Rotation by rename: what is still unread is read from the renamed file.
    fn rename(&mut self, round: u64) -> anyhow::Result<()> {
        fs::rename(self.logs.join("app.log"), self.logs.join(format!("app.log.{round}")))?;
        self.file = Self::open(&self.logs)?;
        Ok(())
    }

    /// Rotation by copy and truncate: what is unread then is lost to every reader, so all has arrived first.
    fn truncate(&mut self, out: &Path) -> anyhow::Result<()> {
        self.wait_until_arrived(out);
        self.file.set_len(0)?;
        // A file that outgrows its old length between two looks cannot be told from one that was only appended to.
        self.append(1)?;
        self.wait_until_arrived(out);
        Ok(())
    }

    fn wait_until_arrived(&self, out: &Path) {
        let arrived = || {
            let files = fs::read_dir(out).into_iter().flatten().flatten();
            // `….batch` is the sink's mark of the batch being written.
            let files = files.filter(|file| !file.file_name().to_string_lossy().ends_with(".batch"));
            files.filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>()
        };
        assert!(wait_until(LIMIT, || arrived() >= self.bytes), "{} of {} bytes arrived", arrived(), self.bytes);
    }
}

/// The text of all rolled files in their order: `<prefix>-<start ms>-<n>.<extension>`.
fn rolled_text(out: &Path) -> anyhow::Result<String> {
    let mut files: Vec<_> =
        fs::read_dir(out)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    assert!(
        files.iter().all(|file| file.extension().is_some_and(|e| e == "log")),
        "an unfinished file is left: {files:?}"
    );
    files.sort_by_key(|file| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let numbers =
            stem.rsplit('-').take(2).map(|number| number.parse::<u64>().expect("a rolled file's name ends in numbers"));
        let mut newest_first: Vec<_> = numbers.collect();
        newest_first.reverse();
        newest_first
    });
    let texts: Vec<_> = files.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
    Ok(texts.concat())
}
