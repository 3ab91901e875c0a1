//! Swaps in a pipeline that promises exactly-once from Kafka into Kafka: no record lost, repeated or reordered, and no rebalance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use wasmflow::metrics::{self, Format, Snapshot};
use wasmflow::swap::{SwapRequest, WaitFor};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::records::{Feeder, Topics};

use crate::world::*;

const PARTITIONS: i32 = 2;

/// Copies `<name>-in` to `<name>-out` as one transaction after another, stamped on the way.
fn copy(broker: &KafkaBroker, name: &str) -> String {
    format!(
        r#"
    [kafka.main]
    "bootstrap.servers" = "{}"

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
        broker.address(),
        component("stamp-interceptor").display()
    )
}

/// Feeds both partitions from a thread of its own until told to stop; gives how many records each has.
fn feed(topics: Topics, topic: String, stop: Arc<AtomicBool>) -> JoinHandle<anyhow::Result<u64>> {
    spawn_blocking(move || {
        let feeder = Feeder::to(&topics, &topic)?;
        let mut fed = 0;
        while !stop.load(Ordering::Relaxed) {
            for partition in 0..PARTITIONS {
                feeder.feed(partition, (fed..fed + 500).map(|number| ledger::line(&partition.to_string(), number)))?;
            }
            fed += 500;
            // A copy of it all must not take longer than the swaps.
            std::thread::sleep(Duration::from_millis(10));
        }
        feeder.finish()?;
        Ok(fed)
    })
}

/// How often the partitions of the pipeline's sources have changed, as its metrics say.
fn rebalances(running: &Running) -> Vec<String> {
    let text = metrics::encode(Snapshot::of(&running.control), Format::Plain);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("wasmflow_kafka_rebalances_total")).collect();
    assert_eq!(lines.len(), 1, "one connection: {text}");
    lines.into_iter().map(str::to_owned).collect()
}

/// Runs the copy under load with these swaps, and holds what arrived against what was sent.
async fn copied_through<F: AsyncFnOnce(&Running)>(name: &'static str, swaps: F) -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    // The clients of the tests wait on threads of their own.
    let made = topics.clone();
    let make = move || ["in", "out"].iter().try_for_each(|end| made.create(&format!("{name}-{end}"), PARTITIONS));
    spawn_blocking(make).await??;
    let stop = Arc::<AtomicBool>::default();
    let running = Running::start(name, "delivery = \"exactly-once\"\n", &copy(broker, name)).await;
    let feeding = feed(topics.clone(), format!("{name}-in"), stop.clone());
    running.until_accepted("to", 1000).await;
    let rebalances = rebalances(&running);
    swaps(&running).await;
    assert_eq!(self::rebalances(&running), rebalances, "Kafka's clients belong to the stage");
    stop.store(true, Ordering::Relaxed);
    let fed = feeding.await??;
    running.until_accepted("to", fed * PARTITIONS as u64).await;
    running.stop().await;
    let records = spawn_blocking(move || topics.read_all(&format!("{name}-out"))).await??;
    for partition in 0..PARTITIONS {
        let of_partition = || records.iter().filter(|record| record.partition == partition);
        Ledger::of(of_partition().map(|record| record.text())).assert_each_once_in_order(&partition.to_string(), fed);
        let is_stamped = |name: &str| name == "version";
        assert!(of_partition().all(|record| record.headers.iter().any(|(name, _)| is_stamped(name))));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_swaps_of_an_interceptor_leave_each_record_once() -> anyhow::Result<()> {
    copied_through("swap-eo-interceptor", async |running| {
        let versions = [stamp(running.folder(), "v1"), stamp(running.folder(), "v2")];
        for swap in 0..200 {
            let request = SwapRequest { wait_for: WaitFor::FirstBatch, ..to(&versions[(swap + 1) % 2]) };
            running.swap("stamp", request).await.unwrap();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_swaps_of_a_kafka_source_and_a_kafka_sink_leave_each_record_once() -> anyhow::Result<()> {
    copied_through("swap-eo-ends", async |running| {
        for _ in 0..20 {
            for stage in ["from", "to"] {
                let request = SwapRequest { wait_for: WaitFor::FirstBatch, ..SwapRequest::default() };
                running.swap(stage, request).await.unwrap();
            }
        }
    })
    .await
}
