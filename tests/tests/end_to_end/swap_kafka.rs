//! Swaps in pipelines from Kafka into Kafka: no record lost, repeated or reordered, each batch by one version, and no rebalance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::asked::Asked;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::records::{Feeder, Topics};
use wasmflow_tests::stamped::{Batches, two_versions};
use wasmflow_tests::stop::RaisedAtEnd;

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 2;
const PROMISES: [&str; 2] = ["at-least-once", "exactly-once"];

/// Copies of the topic `<name>-in` to `<name>-out`, stamped on the way.
pub struct Copy<'b> {
    broker: &'b KafkaBroker,
    pub topics: Topics,
    name: String,
}

/// What has arrived.
struct Arrived {
    ledgers: Vec<Ledger>,
    batches: Batches,
}

impl<'b> Copy<'b> {
    /// Makes the topics.
    pub fn new(broker: &'b KafkaBroker, name: &str) -> anyhow::Result<Self> {
        let topics = Topics::at(broker.address());
        ["in", "out"].iter().try_for_each(|end| topics.create(&format!("{name}-{end}"), PARTITIONS))?;
        Ok(Self { broker, topics, name: name.into() })
    }

    /// The pipeline of one agent, which all of the same group have.
    pub fn pipeline(&self, promise: &str, instance: &str) -> PipelineFile {
        let name = &self.name;
        let stages = format!(
            r#"
    [kafka.main]
    "bootstrap.servers" = "{}"
    "session.timeout.ms" = 6000
    "transaction.timeout.ms" = 10000

    [sources.from]
    plugin = "kafka"
    channels = ["records"]
    config = {{ topics = ["{name}-in"] }}
    allow = {{ kafka = ["main"] }}
    batch_events = 100
    interceptors = ["stamp"]

    [interceptors.stamp]
    plugin = "{}"

    [channels.records]
    type = "memory"

    [sinks.to]
    plugin = "kafka"
    channel = "records"
    config = {{ topic = "{name}-out", partition_header = "kafka.partition", headers = ["version", "batch"] }}
    allow = {{ kafka = ["main"] }}
    batch_events = 100
"#,
            self.broker.address(),
            component("stamp-interceptor").display()
        );
        let stages =
            if promise == "exactly-once" { stages } else { stages.replace("\"transaction.timeout.ms\" = 10000", "") };
        let pipeline = PipelineFile::new(name, &stages);
        let text = std::fs::read_to_string(pipeline.path()).expect("it has been written");
        pipeline
            .folder()
            .write("pipeline.toml", text.replace("instance = \"test\"", &format!("instance = \"{instance}\"")));
        pipeline.promise(&format!("delivery = \"{promise}\"\n"));
        pipeline
    }

    /// Feeds both partitions until `stop`, so that there is always something to copy; gives how many records each has.
    pub fn feed(&self, stop: &AtomicBool) -> anyhow::Result<u64> {
        const AT_ONCE: u64 = 500;
        // 50,000 records a second, in batches of 100 at most: several for each of the generations, and no more than are soon read back.
        const PAUSE: Duration = Duration::from_millis(20);
        // Some seconds' work for a busy machine.
        const AHEAD: u64 = 40_000;
        let feeder = Feeder::to(&self.topics, &format!("{}-in", self.name))?;
        let mut fed = 0;
        while !stop.load(Ordering::Relaxed) {
            for partition in 0..PARTITIONS {
                let lines = (fed..fed + AT_ONCE).map(|number| ledger::line(&partition.to_string(), number));
                feeder.feed(partition, lines)?;
            }
            fed += AT_ONCE;
            std::thread::sleep(PAUSE);
            let is_ahead =
                || anyhow::Ok(fed * PARTITIONS as u64 > self.topics.count(&format!("{}-out", self.name))? + AHEAD);
            while fed.is_multiple_of(10 * AT_ONCE) && is_ahead()? && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        feeder.finish()?;
        Ok(fed)
    }

    fn arrived(&self) -> anyhow::Result<Arrived> {
        let mut batches = Batches::default();
        let mut ledgers = Vec::new();
        for partition in 0..PARTITIONS {
            let mut ledger = Ledger::default();
            self.topics.read_partition(&format!("{}-out", self.name), partition, |record| {
                ledger.arrived(&record.text());
                batches.record(&record);
            })?;
            ledgers.push(ledger);
        }
        Ok(Arrived { ledgers, batches })
    }

    /// Waits until all that was fed has arrived, then that each record is there once and in order. Gives the batches.
    pub fn each_once(&self, fed: u64) -> anyhow::Result<Batches> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let Arrived { ledgers, batches } = self.arrived()?;
            let streams = || ledgers.iter().zip(0..PARTITIONS).map(|(ledger, number)| (ledger, number.to_string()));
            let is_complete = streams().all(|(ledger, stream)| ledger.highest(&stream) == fed.checked_sub(1));
            if is_complete || Instant::now() > deadline {
                streams().for_each(|(ledger, stream)| ledger.assert_each_once_in_order(&stream, fed));
                return Ok(batches);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Runs an agent under load through these swaps, which may cost no rebalance; gives the batches that came of it.
    fn through(&self, promise: &str, swaps: impl FnOnce(&Asked, &PipelineFile)) -> anyhow::Result<Batches> {
        let pipeline = self.pipeline(promise, "one");
        let asked = Asked::run(&pipeline, &[]);
        let stop = AtomicBool::new(false);
        let fed = std::thread::scope(|scope| {
            let feeder = scope.spawn(|| self.feed(&stop));
            let _at_end = RaisedAtEnd(&stop);
            asked.until_out("to", 1000);
            let generation = self.topics.generation(&self.name)?;
            swaps(&asked, &pipeline);
            assert_eq!(self.topics.generation(&self.name)?, generation, "Kafka's clients belong to the stage");
            stop.store(true, Ordering::Relaxed);
            feeder.join().expect("the feeder does not panic")
        })?;
        asked.until_out("to", fed * PARTITIONS as u64);
        let batches = self.each_once(fed)?;
        let ended = asked.agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        Ok(batches)
    }
}

#[test]
fn two_hundred_swaps_of_an_interceptor_leave_each_record_once_and_each_batch_to_one_version() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    for promise in PROMISES {
        let copy = Copy::new(broker, &format!("swap-stamp-{promise}"))?;
        let batches = copy.through(promise, |asked, pipeline| {
            let versions = two_versions(pipeline.folder().path());
            for swap in 0..200 {
                let report =
                    asked.swapped("stamp", &json!({ "plugin": versions[(swap + 1) % 2], "wait_for": "first-batch" }));
                assert_eq!(report["generation"], swap + 2, "{report}");
            }
        })?;
        let versions = batches.whole();
        assert_eq!(versions.keys().copied().collect::<Vec<_>>(), ["v1", "v2"]);
        assert!(batches.instances() > 200, "each generation had its batches: {}", batches.instances());
    }
    Ok(())
}

#[test]
fn twenty_swaps_of_a_kafka_source_and_a_kafka_sink_leave_each_record_once_and_cost_no_rebalance() -> anyhow::Result<()>
{
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    for promise in PROMISES {
        let copy = Copy::new(broker, &format!("swap-ends-{promise}"))?;
        let batches = copy.through(promise, |asked, _| {
            for swap in 0..20 {
                for stage in ["from", "to"] {
                    let report = asked.swapped(stage, &json!({ "plugin": "kafka", "wait_for": "first-batch" }));
                    assert_eq!(report["generation"], swap + 2, "{report}");
                }
            }
        })?;
        assert_eq!(batches.whole().len(), 1, "nobody has swapped the interceptor");
    }
    Ok(())
}

/// Swaps every stage in turn until `stop`. Gives how many of the swaps were made.
fn swap_until(asked: &Asked, versions: &[String; 2], stop: &AtomicBool) -> usize {
    let mut made = 0;
    for (swap, stage) in ["stamp", "from", "to"].into_iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let plugin = if stage == "stamp" { &versions[swap / 3 % 2] } else { "kafka" };
        let answer = asked.swap(stage, &json!({ "plugin": plugin, "watch_ms": 0, "wait_for": "switch" }));
        made += usize::from(answer.status == 200);
        // A rebalance may end the round of the transactions that the switch was part of.
        assert!(
            answer.status == 200 || answer.json()["error"]["step"] == "switch",
            "{stage}: {}\n{}",
            answer.body,
            asked.agent.stderr().text()
        );
    }
    made
}

#[test]
fn swaps_while_a_second_agent_comes_and_goes_leave_each_record_once() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let copy = Copy::new(broker, "swap-rebalance")?;
    let [first, second] = ["one", "two"].map(|instance| copy.pipeline("exactly-once", instance));
    let versions = two_versions(first.folder().path());
    let asked = Asked::run(&first, &[]);
    let (stop, swapped) = (AtomicBool::new(false), AtomicBool::new(false));
    let fed = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let feeder = scope.spawn(|| copy.feed(&stop));
        let _at_end = RaisedAtEnd(&stop);
        asked.until_out("to", 1000);
        let generation = copy.topics.generation("swap-rebalance")?;
        let swapper = scope.spawn(|| swap_until(&asked, &versions, &swapped));
        let _swapped = RaisedAtEnd(&swapped);
        for _ in 0..3 {
            let agent: Agent = second.run();
            agent.expect_log("partitions assigned", LIMIT);
            let ended = agent.stop();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
        swapped.store(true, Ordering::Relaxed);
        let made = swapper.join().expect("only a swap that is refused for another reason panics");
        assert!(made > 0, "not one swap was made");
        assert!(copy.topics.generation("swap-rebalance")? > generation, "the group has been rebalanced");
        stop.store(true, Ordering::Relaxed);
        feeder.join().expect("the feeder does not panic")
    })?;
    for (stage, plugin) in [("stamp", &*versions[0]), ("from", "kafka"), ("to", "kafka")] {
        asked.swapped(stage, &json!({ "plugin": plugin, "watch_ms": 0, "wait_for": "switch" }));
    }
    copy.each_once(fed)?.whole();
    assert_eq!(asked.agent.stop().code, Some(0));
    Ok(())
}
