//! `delivery = "exactly-once"`: whatever is killed, and whenever, a reader of what is committed sees each event once, in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;
use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::pipelines;
use wasmflow_tests::records::{Feeder, Topics};
use wasmflow_tests::soak;
use wasmflow_tests::stop::RaisedAtEnd;

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;
const EXACTLY_ONCE: &str = "delivery = \"exactly-once\"\n";

/// An agent's folder: started again in it, it is the same agent.
struct Copier {
    folder: Folder,
}

impl Copier {
    /// Copies the topic `<name>-in` to `<name>-out`, partition by partition, each body between `<` and `>`.
    fn new(broker: &KafkaBroker, name: &str, instance: &str) -> Self {
        let folder = Folder::new(&format!("{name}-{instance}"));
        let address = broker.address();
        folder.write(
            "pipeline.toml",
            format!(
                r#"
                [pipeline]
                name = "{name}"
                instance = "{instance}"
                state_dir = "state"
                delivery = "exactly-once"

                [kafka.main]
                "bootstrap.servers" = "{address}"
                "session.timeout.ms" = 6000
                "transaction.timeout.ms" = 10000

                [sources.from]
                plugin = "kafka"
                channels = ["records"]
                config = {{ topics = ["{name}-in"] }}
                allow = {{ kafka = ["main"] }}
                interceptors = ["affix"]

                [interceptors.affix]
                plugin = "prefix-suffix"
                workers = 2
                config = {{ prefix = "<", suffix = ">" }}

                [channels.records]
                type = "memory"

                [sinks.to]
                plugin = "kafka"
                channel = "records"
                config = {{ topic = "{name}-out", partition_header = "kafka.partition", headers = [] }}
                allow = {{ kafka = ["main"] }}
                "#
            ),
        );
        Self { folder }
    }

    fn run(&self) -> Agent {
        Agent::run(&self.folder.join("pipeline.toml"))
    }
}

/// Tails `app.log` in its folder into the topic, with its progress in the pipeline's topic.
fn tail_to_topic(broker: &KafkaBroker, name: &str) -> PipelineFile {
    let connection = timed(broker, 10_000);
    let stages = pipelines::tail_to("poll_interval = \"20ms\"", &pipelines::topic_sink(&connection, name));
    let pipeline = PipelineFile::new(name, &format!("{stages}    batch_events = 100\n"));
    pipeline.promise(EXACTLY_ONCE);
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the folder is fresh");
    pipeline
}

/// A connection whose transactions may be open for so long.
fn timed(broker: &KafkaBroker, timeout_ms: u32) -> String {
    format!("{}\n    \"transaction.timeout.ms\" = {timeout_ms}", pipelines::connection(&broker.address()))
}

/// The topics of one test, and how many records each partition of the first one holds.
struct Flow {
    topics: Topics,
    name: &'static str,
}

impl Flow {
    fn new(broker: &KafkaBroker, name: &'static str) -> anyhow::Result<Self> {
        let topics = Topics::at(broker.address());
        topics.create(&format!("{name}-in"), PARTITIONS)?;
        topics.create(&format!("{name}-out"), PARTITIONS)?;
        Ok(Self { topics, name })
    }

    /// Fills all partitions until `stop`, some thousand records a second; gives how many each of them holds then.
    fn feed_until(&self, stop: &AtomicBool) -> anyhow::Result<u64> {
        const AT_ONCE: u64 = 100;
        let feeder = Feeder::to(&self.topics, &format!("{}-in", self.name))?;
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            for partition in 0..PARTITIONS {
                let lines = (count..count + AT_ONCE).map(|number| ledger::line(&format!("p{partition}"), number));
                feeder.feed(partition, lines)?;
            }
            count += AT_ONCE;
            std::thread::sleep(Duration::from_millis(20));
        }
        feeder.finish()?;
        Ok(count)
    }

    /// What a reader of what is committed sees of a partition.
    fn arrived(&self, partition: i32) -> anyhow::Result<Ledger> {
        self.ledger("out", partition, |text| text.strip_prefix('<').and_then(|text| text.strip_suffix('>')))
    }

    fn ledger(&self, end: &str, partition: i32, body: fn(&str) -> Option<&str>) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::default();
        self.topics.read_partition(&format!("{}-{end}", self.name), partition, |record| {
            let text = record.text();
            ledger.arrived(body(&text).unwrap_or_else(|| panic!("`{text}` was not changed by the plugin")));
        })?;
        Ok(ledger)
    }

    /// Waits until every partition holds all its records, and then that it holds each once and in order.
    fn assert_each_once(&self, count: u64, agents: &[&Agent]) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        let logs = || agents.iter().map(|agent| agent.stderr().text()).collect::<Vec<_>>().join("\n\n");
        for partition in 0..PARTITIONS {
            let stream = format!("p{partition}");
            while self.arrived(partition)?.highest(&stream) != count.checked_sub(1) {
                let highest = self.arrived(partition)?.highest(&stream);
                assert!(Instant::now() < deadline, "{stream}: {highest:?} of {count}; the logs:\n{}", logs());
                std::thread::sleep(Duration::from_millis(200));
            }
            if let Some(difference) = self.arrived(partition)?.first_difference(&stream, count) {
                let sent = self.ledger("in", partition, |text| Some(text))?.first_difference(&stream, count);
                panic!("{stream}: {difference}; what was sent: {sent:?}; the logs:\n{}", logs());
            }
        }
        Ok(())
    }
}

fn sleep_between(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(random.random_range(milliseconds)));
}

/// Kills agent after agent while the log `logs/app.log` grows; gives how many lines of the stream `log` it has in the end.
pub fn kill_while_the_log_grows(pipeline: &PipelineFile, rounds: u32) -> anyhow::Result<u64> {
    let log = pipeline.folder().join("logs/app.log");
    let mut random = StdRng::seed_from_u64(soak::seed());
    let stop = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let writer = scope.spawn(|| ledger::append_until(&log, &stop));
        let _at_end = RaisedAtEnd(&stop);
        for _ in 0..rounds {
            let agent = pipeline.run();
            sleep_between(&mut random, 50..2000);
            agent.kill();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    })?;
    Ok(count)
}

/// Waits until the last of `count` lines of the stream `log` is in each of the topics, stops the agent, and looks whether each line
/// is there once and in order.
pub fn finish(agent: Agent, topics: &Topics, names: &[&str], count: u64) -> anyhow::Result<()> {
    let all = |name: &str| -> anyhow::Result<Ledger> {
        Ok(Ledger::of(topics.read_all(name)?.iter().map(|record| record.text())))
    };
    for name in names {
        let highest = || all(name).map(|ledger| ledger.highest("log")).unwrap_or_default();
        let complete = wasmflow_tests::process::wait_until(LIMIT, || {
            std::thread::sleep(Duration::from_millis(300));
            highest() == count.checked_sub(1)
        });
        assert!(complete, "{name}: {:?} of {count} lines; the log:\n{}", highest(), agent.stderr().text());
    }
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for name in names {
        if let Some(difference) = all(name)?.first_difference("log", count) {
            panic!("{name}: {difference}; the log:\n{}", ended.stderr);
        }
    }
    Ok(())
}

#[test]
fn killed_agents_copy_each_record_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let flow = Flow::new(broker, "once-killed")?;
    let copier = Copier::new(broker, flow.name, "a");
    let mut random = StdRng::seed_from_u64(soak::seed());
    let rounds = soak::times(15, 100);
    let stop = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| flow.feed_until(&stop));
        let _at_end = RaisedAtEnd(&stop);
        for _ in 0..rounds {
            let agent = copier.run();
            sleep_between(&mut random, 50..2500);
            agent.kill();
        }
        stop.store(true, Ordering::Relaxed);
        feeder.join().expect("the feeder does not panic")
    })?;
    let agent = copier.run();
    flow.assert_each_once(count, &[&agent])?;
    assert_eq!(agent.stop().code, Some(0));
    println!("{rounds} kills, {count} records in each of {PARTITIONS} partitions, each once and in order");
    Ok(())
}

#[test]
fn a_broker_that_is_killed_again_and_again_costs_no_record_and_repeats_none() -> anyhow::Result<()> {
    let Some(mut broker) = KafkaBroker::own() else { return Ok(()) };
    let flow = Flow::new(&broker, "once-bounced")?;
    let copier = Copier::new(&broker, flow.name, "a");
    let mut random = StdRng::seed_from_u64(soak::seed());
    let rounds = soak::times(2, 10);
    let stop = AtomicBool::new(false);
    let agent = copier.run();
    let count = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| flow.feed_until(&stop));
        let _at_end = RaisedAtEnd(&stop);
        for _ in 0..rounds {
            sleep_between(&mut random, 500..3000);
            broker.kill();
            sleep_between(&mut random, 0..1500);
            broker.restart()?;
        }
        sleep_between(&mut random, 500..1000);
        stop.store(true, Ordering::Relaxed);
        feeder.join().expect("the feeder does not panic")
    })?;
    flow.assert_each_once(count, &[&agent])?;
    assert_eq!(agent.stop().code, Some(0));
    println!("{rounds} bounces, {count} records in each of {PARTITIONS} partitions, each once and in order");
    Ok(())
}

#[test]
fn agents_that_come_and_go_copy_each_record_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let flow = Flow::new(broker, "once-shared")?;
    let copiers = ["a", "b"].map(|instance| Copier::new(broker, flow.name, instance));
    let mut random = StdRng::seed_from_u64(soak::seed());
    let rounds = soak::times(8, 100);
    let stop = AtomicBool::new(false);
    let mut agents = [Some(copiers[0].run()), Some(copiers[1].run())];
    let count = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let feeder = scope.spawn(|| flow.feed_until(&stop));
        let _at_end = RaisedAtEnd(&stop);
        for _ in 0..rounds {
            sleep_between(&mut random, 200..3000);
            let one = random.random_range(0..2);
            // Killed, stopped in order, or started again.
            match agents[one].take() {
                Some(agent) if random.random_bool(0.6) => agent.kill(),
                Some(agent) => assert_eq!(agent.stop().code, Some(0)),
                None => agents[one] = Some(copiers[one].run()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        feeder.join().expect("the feeder does not panic")
    })?;
    for (agent, copier) in agents.iter_mut().zip(&copiers) {
        agent.get_or_insert_with(|| copier.run());
    }
    let running: Vec<_> = agents.iter().flatten().collect();
    flow.assert_each_once(count, &running)?;
    for agent in agents.into_iter().flatten() {
        assert_eq!(agent.stop().code, Some(0));
    }
    println!("{rounds} comings and goings, {count} records in each of {PARTITIONS} partitions, each once and in order");
    Ok(())
}

#[test]
fn killed_agents_bring_each_line_of_a_log_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("once-tailed", 1)?;
    let pipeline = tail_to_topic(broker, "once-tailed");
    let rounds = soak::times(15, 100);
    let count = kill_while_the_log_grows(&pipeline, rounds)?;
    finish(pipeline.run(), &topics, &["once-tailed"], count)?;
    println!("{rounds} kills, {count} lines, each once and in order");
    Ok(())
}

#[test]
fn progress_that_is_gone_is_not_taken_for_a_fresh_start() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("once-deleted", 1)?;
    let pipeline = tail_to_topic(broker, "once-deleted");
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..100));
    let agent = pipeline.run();
    topics.wait_for_count("once-deleted", 100, LIMIT)?;
    assert_eq!(agent.stop().code, Some(0));
    topics.delete("_wasmflow.once-deleted")?;

    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("_wasmflow.once-deleted") && ended.stderr.contains("gone"), "{}", ended.stderr);
    assert!(ended.stderr.contains("progress.json"), "the steps to go on are said: {}", ended.stderr);
    Ok(())
}

#[test]
fn an_agent_whose_identity_another_takes_stops_and_says_so() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("once-fenced", 1)?;
    let (first, second) = (tail_to_topic(broker, "once-fenced"), tail_to_topic(broker, "once-fenced"));
    first.folder().write("logs/app.log", ledger::lines("first", 0..100));
    second.folder().write("logs/other.log", ledger::lines("second", 0..100));
    let zombie = first.run();
    topics.wait_for_count("once-fenced", 100, LIMIT)?;
    let agent = second.run();
    topics.wait_for_count("once-fenced", 200, LIMIT)?;
    // The next transaction of the first one finds out.
    first.folder().write("logs/app.log", ledger::lines("first", 0..200));
    let ended = zombie.wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("another agent") && ended.stderr.contains("`instance`"), "{}", ended.stderr);
    assert_eq!(agent.stop().code, Some(0));
    let records = topics.read_all("once-fenced")?;
    let ledger = Ledger::of(records.iter().map(|record| record.text()));
    ledger.assert_each_once_in_order("first", 100);
    ledger.assert_each_once_in_order("second", 100);
    Ok(())
}

#[test]
fn a_record_refused_for_good_is_left_out_and_its_neighbours_are_not() -> anyhow::Result<()> {
    refused_for_good("memory")?;
    refused_for_good("file")
}

/// `channel` is the type of the channel before the sink whose records are refused.
fn refused_for_good(channel: &str) -> anyhow::Result<()> {
    const LARGE: usize = 60_000;
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let (narrow, graveyard) = (format!("once-narrow-{channel}"), format!("once-graveyard-{channel}"));
    // The broker's limit is lower than the client's, so the client cannot know.
    topics.create_with(&narrow, 1, &[("max.message.bytes", "50000")])?;
    topics.create(&graveyard, 1)?;
    let sink = pipelines::topic_sink(&timed(broker, 10_000), &narrow);
    let sink = sink.replace("\"memory\"", &format!("\"{channel}\""));
    let stages = format!(
        r#"{}
    [channels.refused]
    type = "memory"
    capacity_events = 1

    [sinks.graveyard]
    plugin = "kafka"
    channel = "refused"
    config = {{ topic = "{graveyard}" }}
    allow = {{ kafka = ["main"] }}
"#,
        pipelines::tail_to("follow = false", &sink)
    );
    let pipeline = PipelineFile::new(&narrow, &stages);
    pipeline.promise(&format!("{EXACTLY_ONCE}dead_letters = \"refused\"\n"));
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let large = |letter: &str| letter.repeat(LARGE) + "\n";
    let log = [
        ledger::lines("log", 0..300),
        large("a"),
        large("b"),
        ledger::lines("log", 300..600),
        large("c"),
        ledger::lines("log", 600..601),
    ];
    pipeline.folder().write("logs/app.log", log.concat());
    pipeline.run().expect_done(LIMIT);

    let arrived = topics.read_all(&narrow)?;
    Ledger::of(arrived.iter().map(|record| record.text())).assert_each_once_in_order("log", 601);
    let refused = topics.read_all(&graveyard)?;
    let letters: Vec<_> = refused.iter().map(|record| record.text()[..1].to_owned()).collect();
    assert_eq!(letters, ["a", "b", "c"]);
    let reason = refused[0].headers.iter().find(|(name, _)| name == "dead-letter.reason");
    let reason = String::from_utf8_lossy(&reason.expect("a dead letter says why").1).into_owned();
    assert!(reason.contains("too large"), "{reason}");
    Ok(())
}

#[test]
fn a_transaction_timeout_that_the_broker_does_not_allow_is_said_at_the_start() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    Topics::at(broker.address()).create("once-patient", 1)?;
    let sink = pipelines::topic_sink(&timed(broker, 1_000_000), "once-patient");
    let pipeline = PipelineFile::new("once-patient", &pipelines::tail_to("follow = false", &sink));
    pipeline.promise(EXACTLY_ONCE);
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in ["transaction.timeout.ms", "transaction.max.timeout.ms", "make it smaller"] {
        assert!(ended.stderr.contains(words), "`{words}` in {}", ended.stderr);
    }
    Ok(())
}

#[test]
fn a_topic_that_goes_away_is_said_and_each_line_arrives_once_when_it_is_back() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("once-away", 1)?;
    let pipeline = tail_to_topic(broker, "once-away");
    let log = pipeline.folder().join("logs/app.log");
    std::fs::write(&log, ledger::lines("log", 0..100))?;
    let agent = pipeline.run();
    topics.wait_for_count("once-away", 100, LIMIT)?;
    topics.delete("once-away")?;
    std::fs::write(&log, ledger::lines("log", 0..100) + &ledger::lines("more", 0..100))?;
    agent.expect_log("everything not committed is done again", LIMIT);
    topics.create("once-away", 1)?;
    topics.wait_for_count("once-away", 100, LIMIT)?;
    assert_eq!(agent.stop().code, Some(0));
    let records = topics.read_all("once-away")?;
    Ledger::of(records.iter().map(|record| record.text())).assert_each_once_in_order("more", 100);
    Ok(())
}

#[test]
fn an_agent_that_sleeps_through_its_session_disturbs_nobody_when_it_wakes() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let flow = Flow::new(broker, "once-asleep")?;
    let copiers = ["a", "b"].map(|instance| Copier::new(broker, flow.name, instance));
    let stop = AtomicBool::new(false);
    let agents = copiers.each_ref().map(Copier::run);
    let count = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let feeder = scope.spawn(|| flow.feed_until(&stop));
        let _at_end = RaisedAtEnd(&stop);
        flow.topics.wait_for_count("once-asleep-out", 1000, LIMIT)?;
        agents[0].process().signal(Signal::STOP);
        // Beyond the session and the transaction's timeout: the other one has all partitions by then.
        std::thread::sleep(Duration::from_secs(12));
        agents[0].process().signal(Signal::CONT);
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        feeder.join().expect("the feeder does not panic")
    })?;
    flow.assert_each_once(count, &agents.each_ref())?;
    for agent in agents {
        let ended = agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    Ok(())
}

#[test]
fn a_commit_without_an_answer_is_neither_lost_nor_made_twice() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::own() else { return Ok(()) };
    let flow = Flow::new(&broker, "once-hung")?;
    let copier = Copier::new(&broker, flow.name, "a");
    let mut random = StdRng::seed_from_u64(soak::seed());
    let stop = AtomicBool::new(false);
    let agent = copier.run();
    let count = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let feeder = scope.spawn(|| flow.feed_until(&stop));
        let _at_end = RaisedAtEnd(&stop);
        flow.topics.wait_for_count("once-hung-out", 1000, LIMIT)?;
        for _ in 0..soak::times(1, 5) {
            sleep_between(&mut random, 200..700);
            broker.freeze();
            // Longer than a transaction may be open and its commit be waited for.
            std::thread::sleep(Duration::from_secs(15));
            broker.thaw();
            sleep_between(&mut random, 2000..4000);
        }
        stop.store(true, Ordering::Relaxed);
        feeder.join().expect("the feeder does not panic")
    })?;
    flow.assert_each_once(count, &[&agent])?;
    let log = agent.stderr().text();
    assert!(log.contains("transaction given up"), "the hang was long enough to be noticed: {log}");
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}
