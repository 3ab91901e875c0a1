//! Latency under load: 50th, 99th and 99.9th percentile at 10 %, 50 % and 90 % of the greatest rate, in an open loop; and of single
//! events that find the pipeline idle.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::measure::{answers_per_second, latency_to_ok};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::{Process, wait_until};
use wasmflow_tests::records::{Feeder, Follower, Topics};

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::kafka::{Program, raw_kafka};
use crate::openloop::{Arrivals, BODY_BYTES, Latencies, Recorder, Schedule, push_body};
use crate::report::Report;

/// Of the greatest rate, in percent.
const LOADS: [u32; 3] = [10, 50, 90];
/// How long each load is measured in each round.
const SPAN: Duration = Duration::from_secs(4);
/// How long the greatest rate is measured.
const GREATEST: Duration = Duration::from_secs(3);
/// Until all that was sent has arrived.
const LIMIT: Duration = Duration::from_secs(30);
const SINGLE_EVENTS: usize = 200;

/// What one way of running the loop came to: latencies at each load.
type AtLoads = [Cell<Option<Latencies>>; LOADS.len()];

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    netcat(report, measuring)?;
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    kafka(report, measuring, broker)?;
    single(report, measuring, broker)
}

fn netcat(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let rate = Netcat::start()?.greatest()?;
    eprintln!("  greatest rate of netcat to console: {rate:.0} lines/s");
    let found = AtLoads::default();
    let mut contest = Contest::new(measuring.runs);
    contest.line("netcat to console: greatest rate", "lines/s", None, |_| Ok(Sample::of(Netcat::start()?.greatest()?)));
    for (load, found) in LOADS.into_iter().zip(&found) {
        let what = format!("netcat to console, at {load} %");
        contest.cost(format!("{what}: p50"), "ms", None, move |_| {
            let mut netcat = Netcat::start()?;
            let latencies = netcat.at(rate * f64::from(load) / 100.0)?;
            found.set(Some(latencies));
            Ok(Sample { resident: netcat.resident(), ..Sample::of(latencies.p50) })
        });
        further(&mut contest, &what, found, None);
    }
    contest.run(report)
}

/// The percentiles that the entrant before has left; beside another one's where there is one.
fn further<'c>(
    contest: &mut Contest<'c>,
    what: &str,
    found: &'c Cell<Option<Latencies>>,
    raw: Option<&'c Cell<Option<Latencies>>>,
) {
    let get = |found: &Cell<Option<Latencies>>| found.get().context("nothing was measured");
    for (name, of) in [("p99", (|l| l.p99) as fn(Latencies) -> f64), ("p999", |l| l.p999)] {
        let line = contest.cost(format!("{what}: {name}"), "ms", None, move |_| Ok(Sample::of(of(get(found)?))));
        if let Some(raw) = raw {
            contest.hold(line, "raw loop in its place", move |_| Ok(Sample::of(of(get(raw)?))));
            contest.cost(format!("{what}: {name} beyond the raw loop's"), "ms", None, move |_| {
                Ok(Sample::of(of(get(found)?) - of(get(raw)?)))
            });
        }
    }
}

/// A `netcat` source before the console, with a client and a reader.
struct Netcat {
    process: Process,
    client: TcpStream,
    _pipeline: PipelineFile,
}

impl Netcat {
    fn start() -> anyhow::Result<Self> {
        let port = free_port();
        let pipeline = PipelineFile::new("open-loop", &pipelines::netcat_to(port, pipelines::CONSOLE));
        let mut command = quiet_run(&pipeline);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let process = Process::start(command)?;
        let mut client = None;
        wait_until(LIMIT, || {
            client = TcpStream::connect(("127.0.0.1", port)).ok();
            client.is_some()
        });
        let client = client.context("nobody listens")?;
        client.set_nodelay(true)?;
        // Every line is answered; whoever leaves the answers unread is held up by them.
        let mut answers = client.try_clone()?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while answers.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        Ok(Self { process, client, _pipeline: pipeline })
    }

    fn resident(&self) -> Option<f64> {
        Some(self.process.peak_resident_bytes() as f64 / 1e6)
    }

    /// Notes each line of the console, in a thread of its own, until the agent ends.
    fn record(&mut self, schedule: Schedule) -> Arc<Arrivals> {
        let console = self.process.child_mut().stdout.take().expect("it was piped");
        let arrivals = Arc::new(Arrivals::of(schedule));
        let mut recorder = Recorder::of(arrivals.clone());
        std::thread::spawn(move || {
            let mut console = BufReader::with_capacity(256 << 10, console);
            let mut line = Vec::new();
            while let Ok(mut rest) = console.fill_buf()
                && !rest.is_empty()
            {
                // One look at the clock for what one read has brought: sender, pipeline and reader share the machine.
                let (came, bytes) = (Instant::now(), rest.len());
                while rest.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                    if line.ends_with(b"\n") {
                        recorder.arrived(&line, came);
                        line.clear();
                    }
                }
                console.consume(bytes);
            }
        });
        arrivals
    }

    /// Lines a second when as much is sent as is taken: with this sender and this reader, which use the same cores.
    fn greatest(mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        let arrivals = self.record(Schedule::without_end(start));
        let (mut lines, mut sent) = (Vec::new(), 0);
        while start.elapsed() < GREATEST {
            push_lines(&mut lines, sent..sent + 250);
            sent += 250;
            self.client.write_all(&lines).context("the source went away")?;
        }
        Ok(arrivals.count() as f64 / start.elapsed().as_secs_f64())
    }

    fn at(&mut self, rate: f64) -> anyhow::Result<Latencies> {
        let schedule = Schedule::new(Instant::now(), rate, SPAN);
        let arrivals = self.record(schedule);
        let mut lines = Vec::new();
        schedule.keep(|numbers| {
            push_lines(&mut lines, numbers);
            self.client.write_all(&lines).context("the source went away")
        })?;
        all_arrived(&arrivals, schedule)
    }
}

/// These events, a line each, in the place of what was there.
fn push_lines(lines: &mut Vec<u8>, numbers: Range<u64>) {
    lines.clear();
    for number in numbers {
        push_body(lines, number);
        lines.push(b'\n');
    }
}

/// These events, each by itself.
fn bodies(numbers: Range<u64>) -> impl Iterator<Item = Vec<u8>> {
    numbers.map(|number| {
        let mut body = Vec::with_capacity(BODY_BYTES);
        push_body(&mut body, number);
        body
    })
}

fn all_arrived(arrivals: &Arrivals, schedule: Schedule) -> anyhow::Result<Latencies> {
    let arrived = wait_until(LIMIT, || arrivals.count() >= schedule.events());
    ensure!(arrived, "{} of {} events arrived", arrivals.count(), schedule.events());
    arrivals.latencies().context("no event counts")
}

fn kafka(report: &mut Report, measuring: &Measuring, broker: &KafkaBroker) -> anyhow::Result<()> {
    let ours = |from: &str, to: &str| {
        let stages = pipelines::topic_to_topic(&broker.address(), from, to).replace(", follow = false", "");
        // A group of its own: one that is gone without a word is not waited for.
        Program::ours(PipelineFile::new(to, &stages))
    };
    // Until it is killed.
    let theirs = |from: &str, to: &str| raw_kafka(&["copy", &broker.address(), from, to, "1000000000"]).into();
    let rate = Loop::start(broker, ours)?.greatest()?;
    eprintln!("  greatest rate of Kafka to Kafka, sender and reader on the same cores: {rate:.0} records/s");
    let (found, raw) = (AtLoads::default(), AtLoads::default());
    let mut contest = Contest::new(measuring.runs);
    for ((load, found), raw) in LOADS.into_iter().zip(&found).zip(&raw) {
        let what = format!("Kafka to Kafka, at {load} %");
        let at = rate * f64::from(load) / 100.0;
        let reference = contest.reference("raw loop in its place", move |_| {
            let latencies = Loop::start(broker, theirs)?.at(at)?;
            raw.set(Some(latencies));
            Ok(Sample::of(latencies.p50))
        });
        contest.cost(format!("{what}: p50"), "ms", Some(reference), move |_| {
            let looped = Loop::start(broker, ours)?;
            let latencies = looped.at(at)?;
            found.set(Some(latencies));
            let resident = looped.copier.peak_resident_bytes() as f64 / 1e6;
            Ok(Sample { resident: Some(resident), ..Sample::of(latencies.p50) })
        });
        further(&mut contest, &what, found, Some(raw));
    }
    contest.run(report)
}

/// A copier from topic to topic, a sender before it and a reader behind it.
struct Loop {
    copier: Process,
    sender: Feeder,
    reader: Follower,
    _pipeline: Option<PipelineFile>,
}

impl Loop {
    /// Both topics are fresh, and a record has gone all the way.
    fn start(broker: &KafkaBroker, copier: impl Fn(&str, &str) -> Program) -> anyhow::Result<Self> {
        let topics = Topics::at(broker.address());
        let id = rand::random::<u32>();
        let (from, to) = (format!("loop-in-{id:08x}"), format!("loop-out-{id:08x}"));
        topics.create(&from, 1)?;
        topics.create(&to, 1)?;
        let Program { mut command, pipeline } = copier(&from, &to);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let copier = Process::start(command)?;
        let (sender, reader) = (Feeder::prompt(&topics, &from)?, Follower::of(&topics, &to)?);
        sender.feed(0, ["first"])?;
        ensure!(reader.next(LIMIT)?.is_some(), "nothing was copied");
        Ok(Self { copier, sender, reader, _pipeline: pipeline })
    }

    /// Records a second when as much is sent as the client takes: with this sender and this reader, which use the same cores.
    fn greatest(&self) -> anyhow::Result<f64> {
        let is_over = AtomicBool::new(false);
        let start = Instant::now();
        let arrivals = Arrivals::of(Schedule::without_end(start));
        std::thread::scope(|threads| {
            let sending = threads.spawn(|| {
                let mut sent = 0;
                while !is_over.load(Ordering::Relaxed) {
                    self.sender.feed(0, bodies(sent..sent + 250))?;
                    sent += 250;
                }
                anyhow::Ok(())
            });
            let read = self.read(&arrivals, |_| start.elapsed() >= GREATEST);
            is_over.store(true, Ordering::Relaxed);
            let rate = arrivals.count() as f64 / start.elapsed().as_secs_f64();
            sending.join().expect("it does not panic")?;
            read.map(|()| rate)
        })
    }

    fn at(&self, rate: f64) -> anyhow::Result<Latencies> {
        let schedule = Schedule::new(Instant::now(), rate, SPAN);
        let arrivals = Arrivals::of(schedule);
        std::thread::scope(|threads| {
            let sending = threads.spawn(|| schedule.keep(|numbers| self.sender.feed(0, bodies(numbers))));
            let end = Instant::now() + LIMIT;
            self.read(&arrivals, |count| count >= schedule.events() || Instant::now() >= end)?;
            sending.join().expect("it does not panic")?;
            all_arrived(&arrivals, schedule)
        })
    }

    /// Notes what comes until that is enough, by its count.
    fn read(&self, arrivals: &Arrivals, is_enough: impl Fn(u64) -> bool) -> anyhow::Result<()> {
        let mut recorder = Recorder::of(arrivals);
        while !is_enough(arrivals.count()) {
            if let Some(body) = self.reader.next(Duration::from_millis(100))? {
                recorder.arrived(&body, Instant::now());
            }
        }
        Ok(())
    }
}

/// A client that waits for each `OK`, and single events into Kafka, beyond the linger.
fn single(report: &mut Report, measuring: &Measuring, broker: &KafkaBroker) -> anyhow::Result<()> {
    let mut contest = Contest::new(measuring.runs);
    contest.line("a netcat client that waits for each OK", "answers/s", None, |_| {
        let port = free_port();
        let pipeline = PipelineFile::new("ping-pong", &pipelines::netcat_to(port, pipelines::NOWHERE));
        let _agent = pipeline.run();
        Ok(Sample::of(answers_per_second(&mut NetcatClient::connect(port), SPAN)))
    });
    Topics::at(broker.address()).create("acknowledged", 1)?;
    contest.cost("netcat to Kafka's acknowledgement, idle before, beyond the linger: p50", "ms", None, |_| {
        let port = free_port();
        let sink = pipelines::topic_sink(&pipelines::lingering(&broker.address()), "acknowledged");
        let pipeline = PipelineFile::new("netcat-kafka", &pipelines::netcat_to(port, &sink));
        let _agent = pipeline.run();
        let mut client = NetcatClient::connect(port);
        client.ask("first");
        let took =
            latency_to_ok(&mut client, SINGLE_EVENTS).saturating_sub(Duration::from_millis(pipelines::LINGER_MS));
        Ok(Sample::of(took.as_secs_f64() * 1e3))
    });
    contest.run(report)
}
