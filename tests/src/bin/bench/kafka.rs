//! Kafka to Kafka beside the raw librdkafka loop of `tests/raw-kafka`: same broker, records, settings and promise.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, ensure};
use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::binary::wasmflow;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::pipelines;
use wasmflow_tests::process::LOOK_EVERY;
use wasmflow_tests::records::{Level, Topics};
use wasmflow_tests::run::{Cost, Running, run};

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::report::Report;

/// Between two transactions, for both: what wasmflow does where nothing else is said.
const INTERVAL_MS: u32 = 100;

/// One cell of the matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Copying {
    promise: Promise,
    body_bytes: usize,
    partitions: i32,
    compressed: bool,
    intercepted: bool,
    channel: Channel,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Memory,
    File,
}

use Promise::{AtLeastOnce, ExactlyOnce};

const USUAL: Copying = Copying {
    promise: AtLeastOnce,
    body_bytes: 100,
    partitions: 4,
    compressed: false,
    intercepted: true,
    channel: Channel::Memory,
};

/// The cells that the targets name.
const TARGETS: &[Copying] = &[
    USUAL,
    Copying { promise: ExactlyOnce, ..USUAL },
    Copying { intercepted: false, ..USUAL },
    Copying { intercepted: false, channel: Channel::File, ..USUAL },
    Copying { body_bytes: 1024, ..USUAL },
];

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    copies(report, TARGETS, measuring.runs)
}

/// Every combination of promise, size, partitions and compression, three times as many; without `--whole` those that
/// differ from the usual cell in one thing.
pub fn matrix(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let mut cells = Vec::new();
    for promise in [AtLeastOnce, ExactlyOnce] {
        for body_bytes in [100, 1024] {
            for partitions in [1, 4, 16] {
                for compressed in [false, true] {
                    cells.push(Copying { promise, body_bytes, partitions, compressed, ..USUAL });
                }
            }
        }
    }
    let differs = |cell: &Copying| {
        [cell.body_bytes != USUAL.body_bytes, cell.partitions != USUAL.partitions, cell.compressed]
            .iter()
            .filter(|differs| **differs)
            .count()
    };
    cells.retain(|cell| !TARGETS.contains(cell) && (measuring.whole || differs(cell) == 1));
    copies(report, &cells, measuring.runs)
}

fn copies(report: &mut Report, cells: &[Copying], runs: usize) -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    for cell in cells {
        filled(broker, &cell.input(), cell.partitions, cell.records(), cell.body_bytes)?;
        // The broker compiles its own code while it is used: whoever came first would pay for it.
        eprintln!("  warming the broker up: {}", cell.name());
        copied(&topics, cell.partitions, cell.records(), |to| cell.raw(broker, to))?;
    }
    let mut contest = Contest::turning(runs);
    let topics = &topics;
    for &cell in cells {
        let raw = contest.reference(cell.reference(), move |_| {
            copied(topics, cell.partitions, cell.records(), |to| cell.raw(broker, to))
        });
        contest.line(cell.name(), "records/s", Some(raw), move |_| {
            copied(topics, cell.partitions, cell.records(), |to| Program::ours(cell.pipeline(broker, to)))
        });
    }
    contest.run(report)
}

/// Makes a topic and fills it by the raw loop, unless another part of this run has.
fn filled(broker: &KafkaBroker, topic: &str, partitions: i32, records: u64, body_bytes: usize) -> anyhow::Result<()> {
    static FILLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !FILLED.lock().expect("no thread panics").insert(topic.to_owned()) {
        return Ok(());
    }
    eprintln!("  filling `{topic}` with {records} records");
    Topics::at(broker.address()).create(topic, partitions)?;
    let numbers = [records.to_string(), body_bytes.to_string()];
    run(raw_kafka(&["fill", &broker.address(), topic, &numbers[0], &numbers[1]]))?;
    Ok(())
}

/// A program, with the pipeline file it reads: that is gone when this is.
pub struct Program {
    pub command: Command,
    pub pipeline: Option<PipelineFile>,
}

impl Program {
    /// wasmflow, running the pipeline.
    pub fn ours(pipeline: PipelineFile) -> Self {
        Self { command: quiet_run(&pipeline), pipeline: Some(pipeline) }
    }
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        Self { command, pipeline: None }
    }
}

/// A mode of `tests/raw-kafka`.
pub fn raw_kafka(arguments: &[&str]) -> Command {
    let mut command = Command::new(wasmflow().with_file_name("raw-kafka"));
    command.args(arguments);
    command
}

impl Copying {
    fn name(&self) -> String {
        let promise = if self.promise == ExactlyOnce { "exactly once" } else { "at least once" };
        let size = if self.body_bytes == 1024 { "1 KiB" } else { "100 B" };
        let partitions =
            if self.partitions == 1 { "1 partition".into() } else { format!("{} partitions", self.partitions) };
        let lz4 = if self.compressed { ", lz4" } else { "" };
        let interceptor = if self.intercepted { "" } else { ", no interceptor" };
        let channel = if self.channel == Channel::File { ", file channel" } else { "" };
        format!("{promise}, {size}, {partitions}{lz4}{interceptor}{channel}")
    }

    fn reference(&self) -> &'static str {
        match self.promise {
            AtLeastOnce => "raw librdkafka loop",
            ExactlyOnce => "raw transactional loop, a transaction every 100 ms",
        }
    }

    /// Enough for some seconds: in one, a program that keeps more records on their way seems slow, since it takes its memory then.
    fn records(&self) -> u64 {
        if self.body_bytes == 1024 { 1_200_000 } else { 9_000_000 }
    }

    fn input(&self) -> String {
        format!("bench-in-{}-{}", self.body_bytes, self.partitions)
    }

    fn raw(&self, broker: &KafkaBroker, to: &str) -> Program {
        let (address, from, records) = (broker.address(), self.input(), self.records().to_string());
        let interval = INTERVAL_MS.to_string();
        let mut command = match self.promise {
            AtLeastOnce => raw_kafka(&["copy", &address, &from, to, &records]),
            ExactlyOnce => raw_kafka(&["transact", &address, &from, to, &records, "--interval-ms", &interval]),
        };
        if self.compressed {
            command.args(["--set", "compression.type=lz4"]);
        }
        command.into()
    }

    fn pipeline(&self, broker: &KafkaBroker, to: &str) -> PipelineFile {
        let mut stages = pipelines::topic_to_topic(&broker.address(), &self.input(), to);
        if !self.intercepted {
            stages = stages.replace("    interceptors = [\"affix\"]\n", "").replace(pipelines::AFFIX, "");
        }
        if self.channel == Channel::File {
            stages = stages.replace("type = \"memory\"", "type = \"file\"");
        }
        if self.compressed {
            stages = stages.replacen("[kafka.main]\n", "[kafka.main]\n    \"compression.type\" = \"lz4\"\n", 1);
        }
        let pipeline = PipelineFile::new(to, &stages);
        if self.promise == ExactlyOnce {
            pipeline.promise("delivery = \"exactly-once\"\n");
        }
        pipeline
    }
}

/// Runs the program into a fresh topic, which must then hold every record; transactions leave marks beside them. The topic is
/// deleted then, so that the disk does not fill.
///
/// Measured is from when a sixth of the records has arrived to when all have: to start, to join the group and to stop is no part of a
/// rate, and how long that takes differs by a second from run to run.
fn copied(
    topics: &Topics,
    partitions: i32,
    records: u64,
    program: impl FnOnce(&str) -> Program,
) -> anyhow::Result<Sample> {
    let to = format!("bench-out-{:08x}", rand::random::<u32>());
    topics.create(&to, partitions)?;
    // What the runs before have written is not this one's to wait for.
    rustix::fs::sync();
    let level = topics.level(&to)?;
    let Program { command, pipeline } = program(&to);
    let running = Running::start(command)?;
    let passed = [records / 6, records].map(|count| Passed::wait_for(count, &level, &running));
    let whole = running.wait().context("the copier failed")?;
    drop(pipeline);
    topics.delete(&to)?;
    let [first, last] = passed;
    let (first, last) = (first?, last?);
    let cost = Cost { peak_resident_bytes: whole.peak_resident_bytes, ..last.cost.beyond(first.cost) };
    Ok(Sample::rate((last.records - first.records) as f64, &cost))
}

/// What a program had cost when so many of its records had arrived.
struct Passed {
    records: u64,
    cost: Cost,
}

impl Passed {
    /// At the first look that finds at least `count`.
    fn wait_for(count: u64, level: &Level, running: &Running) -> anyhow::Result<Self> {
        loop {
            let has_ended = running.has_ended()?;
            let records = level.records()?;
            if records >= count {
                return Ok(Self { records, cost: running.so_far() });
            }
            ensure!(!has_ended, "{records} of {count} records have arrived, and it has ended");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Records a second of the raw producer loop, fed from memory, into a fresh topic.
///
/// # Errors
/// When a record is missing.
pub fn produced(
    broker: &KafkaBroker,
    records: u64,
    body_bytes: usize,
    headers: &[(&str, &str)],
) -> anyhow::Result<Sample> {
    let topics = &Topics::at(broker.address());
    copied(topics, USUAL.partitions, records, |to| {
        let mut command = raw_kafka(&["produce", &broker.address(), to, &records.to_string(), &body_bytes.to_string()]);
        for (name, value) in headers {
            command.arg("--header").arg(format!("{name}={value}"));
        }
        command.into()
    })
}

/// Events a second into a fresh topic. `pipeline` gets the sink's table.
///
/// # Errors
/// When an event is missing.
pub fn sent(broker: &KafkaBroker, events: u64, pipeline: impl FnOnce(&str) -> PipelineFile) -> anyhow::Result<Sample> {
    copied(&Topics::at(broker.address()), USUAL.partitions, events, |to| {
        let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), to);
        Program::ours(pipeline(&sink.replace(", partition_header = \"kafka.partition\"", "")))
    })
}
