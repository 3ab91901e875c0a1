//! Every metric by its name, at a real broker and a real disk: Kafka to Kafka exactly once, through a rebalance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::Asked;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::ledger;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::records::Topics;

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;

/// Every name with its labels, as people's dashboards have them.
const NAMES: &[(&str, &str)] = &[
    ("source_received_events_total", "pipeline source"),
    ("source_accepted_events_total", "pipeline source"),
    ("source_received_bytes_total", "pipeline source"),
    ("source_read_errors_total", "pipeline source"),
    ("source_channel_full_total", "pipeline source"),
    ("interceptor_in_events_total", "pipeline stage"),
    ("interceptor_out_events_total", "pipeline stage"),
    ("channel_events", "pipeline channel"),
    ("channel_bytes", "pipeline channel"),
    ("channel_capacity_events", "pipeline channel"),
    ("channel_capacity_bytes", "pipeline channel"),
    ("channel_oldest_event_age_seconds", "pipeline channel"),
    ("channel_put_attempts_total", "pipeline channel"),
    ("channel_put_events_total", "pipeline channel"),
    ("channel_take_attempts_total", "pipeline channel reader"),
    ("channel_taken_events_total", "pipeline channel reader"),
    ("channel_lag_events", "pipeline channel reader"),
    ("channel_backpressure_seconds_total", "pipeline channel"),
    ("channel_sync_seconds", "pipeline channel"),
    ("channel_group_commit_events", "pipeline channel"),
    ("channel_corrupt_frames_total", "pipeline channel"),
    ("channel_torn_bytes_total", "pipeline channel"),
    ("sink_attempted_events_total", "pipeline sink"),
    ("sink_drained_events_total", "pipeline sink"),
    ("sink_drained_bytes_total", "pipeline sink"),
    ("sink_batches_total", "pipeline sink size"),
    ("sink_delivery_errors_total", "pipeline sink"),
    ("sink_delivery_seconds", "pipeline sink"),
    ("discarded_events_total", "pipeline stage reason"),
    ("dead_letter_events_total", "pipeline stage"),
    ("plugin_calls_total", "pipeline stage result"),
    ("plugin_call_seconds", "pipeline stage"),
    ("plugin_traps_total", "pipeline stage kind"),
    ("plugin_restarts_total", "pipeline stage"),
    ("plugin_denied_total", "pipeline stage kind"),
    ("plugin_memory_bytes", "pipeline stage"),
    ("plugin_generation", "pipeline stage"),
    ("plugin_info", "pipeline stage name version digest"),
    ("swaps_total", "pipeline stage result"),
    ("kafka_transactions_total", "pipeline connection result"),
    ("kafka_transaction_seconds", "pipeline connection"),
    ("kafka_rebalances_total", "pipeline connection"),
    ("kafka_lag_records", "pipeline connection topic"),
    ("end_to_end_seconds", "pipeline source sink"),
    ("admin_refused_total", "reason"),
    ("config_last_reload_success", ""),
    ("config_last_reload_timestamp_seconds", ""),
    ("build_info", "version"),
];

/// Copies `counted-in` to `counted-out`, partition by partition, as one agent of several.
fn copy(broker: &KafkaBroker, instance: &str) -> PipelineFile {
    let stages = format!(
        r#"
    [kafka.main]
    "bootstrap.servers" = "{}"
    "session.timeout.ms" = 6000

    [sources.from]
    plugin = "kafka"
    channels = ["records"]
    config = {{ topics = ["counted-in"] }}
    allow = {{ kafka = ["main"] }}
    interceptors = ["as-it-is"]

    [interceptors.as-it-is]
    plugin = "prefix-suffix"

    [channels.records]
    type = "memory"

    [sinks.to]
    plugin = "kafka"
    channel = "records"
    config = {{ topic = "counted-out", partition_header = "kafka.partition" }}
    allow = {{ kafka = ["main"] }}
"#,
        broker.address()
    );
    let pipeline = PipelineFile::new("counted", &stages);
    pipeline.promise("delivery = \"exactly-once\"\n");
    let text = std::fs::read_to_string(pipeline.path()).expect("it has been written");
    let text = text.replace("instance = \"test\"", &format!("instance = \"{instance}\""));
    pipeline.folder().write("pipeline.toml", text);
    pipeline
}

/// Numbers by a file channel to nowhere, without an end.
fn on_disk() -> PipelineFile {
    let stages = r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["kept"]
    batch_events = 10
    [channels.kept]
    type = "file"
    capacity_events = 1000
    [sinks.nowhere]
    plugin = "null"
    channel = "kept"
"#;
    PipelineFile::new("counted-disk", stages)
}

/// Feeds each partition with the lines of these numbers.
fn feed(topics: &Topics, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    (0..PARTITIONS).try_for_each(|partition| {
        let line = |number| ledger::line(&partition.to_string(), number);
        topics.produce("counted-in", partition, numbers.clone().map(line))
    })
}

fn of(metrics: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let series = format!("wasmflow_{name}{{pipeline=\"counted\",{labels}}}");
    *metrics.get(&series).unwrap_or_else(|| panic!("there is no {series} in {metrics:#?}"))
}

/// Waits until the series has this value.
fn expect_value(asked: &Asked, name: &str, labels: &str, value: f64) {
    let has = || of(&asked.metrics(), name, labels) == value;
    assert!(wait_until(LIMIT, has), "{name}: {}\n{}", of(&asked.metrics(), name, labels), asked.agent.stderr().text());
}

/// Each name is there with its labels and no others, and nothing is there that has no name.
fn assert_names(text: &str) {
    let mut labels = BTreeMap::<&str, BTreeSet<&str>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').expect("a series has a value").0;
        let (name, list) = series.split_once('{').unwrap_or((series, ""));
        let name = name.strip_prefix("wasmflow_").expect("all of ours begin so");
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = labels.entry(histogram.unwrap_or(name)).or_default();
        family.extend(
            list.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0)).filter(|name| *name != "le"),
        );
    }
    for (name, expected) in NAMES {
        let found = labels.remove(name).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        assert_eq!(found, expected.split_whitespace().collect(), "labels of {name}");
    }
    assert!(labels.is_empty(), "metrics without a name: {labels:?}");
}

#[test]
fn every_metric_is_there_by_its_name_and_agrees_with_what_came_through_a_rebalance() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("counted-in", PARTITIONS)?;
    topics.create("counted-out", PARTITIONS)?;
    let (pipeline, disk) = (copy(broker, "first"), on_disk());
    let asked = Asked::run(&pipeline, &[disk.path().to_str().expect("the folder is UTF-8")]);
    feed(&topics, 0..250)?;
    let (source, sink, connection) = ("source=\"from\"", "sink=\"to\"", "connection=\"main\"");
    expect_value(&asked, "channel_taken_events_total", "channel=\"records\",reader=\"to\"", 1000.0);
    asked.agent.reload();
    // An age is told of an event that waits, and a flow may be looked at between two of them.
    let age = "\nwasmflow_channel_oldest_event_age_seconds{";
    assert!(wait_until(LIMIT, || asked.get("/metrics").body.contains(age)));
    let text = || asked.get("/metrics").body;
    let whole = std::iter::repeat_with(text).take(1000).find(|text| text.contains(age)).expect("it was there just now");
    assert_names(&whole);
    let metrics = asked.metrics();
    for (name, labels) in [
        ("source_received_events_total", source),
        ("source_accepted_events_total", source),
        ("interceptor_in_events_total", "stage=\"as-it-is\""),
        ("channel_put_events_total", "channel=\"records\""),
        ("sink_attempted_events_total", sink),
        ("sink_drained_events_total", sink),
    ] {
        assert_eq!(of(&metrics, name, labels), 1000.0, "{name}");
    }
    // Of a memory channel in such a pipeline, where nothing is said of it.
    for (name, default) in [("events", 1e6), ("bytes", 256.0 * 1024.0 * 1024.0)] {
        assert_eq!(of(&metrics, &format!("channel_capacity_{name}"), "channel=\"records\""), default, "{name}");
    }
    let committed = of(&metrics, "kafka_transactions_total", &format!("{connection},result=\"committed\""));
    assert!(committed >= 1.0);
    assert_eq!(of(&metrics, "kafka_transactions_total", &format!("{connection},result=\"aborted\"")), 0.0);
    assert_eq!(of(&metrics, "kafka_transaction_seconds_count", connection), committed);

    // What a paused source leaves in its topic is its lag.
    assert_eq!(asked.wasmflow(&["pause", "from"]).code, Some(0));
    feed(&topics, 250..275)?;
    let lag = format!("{connection},topic=\"counted-in\"");
    expect_value(&asked, "kafka_lag_records", &lag, 100.0);
    assert_eq!(asked.get("/v1/stages/from").json()["lag_records"], 100);
    assert_eq!(asked.wasmflow(&["resume", "from"]).code, Some(0));
    expect_value(&asked, "kafka_lag_records", &lag, 0.0);

    // Another agent takes its share.
    let before = of(&asked.metrics(), "kafka_rebalances_total", connection);
    let other = copy(broker, "second");
    let second = other.run();
    second.expect_log("partitions assigned", LIMIT);
    assert!(wait_until(LIMIT, || of(&asked.metrics(), "kafka_rebalances_total", connection) > before));
    feed(&topics, 275..525)?;
    let arrived = || topics.ledger("counted-out").expect("the broker runs");
    let all = || (0..PARTITIONS).all(|partition| arrived().count(&partition.to_string()) >= 525);
    assert!(wait_until(LIMIT, all), "{}\n{}", asked.agent.stderr().text(), second.stderr().text());
    let status = asked.get("/v1/pipelines/counted").json();
    assert_eq!((&status["delivery"], &status["state"]), (&"exactly-once".into(), &"running".into()));
    let of_sink = &status["stages"].as_array().expect("it is a list").iter().find(|stage| stage["name"] == "to");
    let delivered = of_sink.expect("the sink is there")["counters"]["out_events"].as_u64().expect("it is a number");
    assert!((1100..2100).contains(&delivered), "the other agent had a share: {delivered} of 2100");
    assert_eq!(second.stop().code, Some(0));
    assert_eq!(asked.agent.stop().code, Some(0));
    (0..PARTITIONS).for_each(|partition| arrived().assert_each_once_in_order(&partition.to_string(), 525));
    Ok(())
}
