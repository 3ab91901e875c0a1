//! Every metric by its name, and names that would be others.

use std::time::Duration;

use super::*;
use crate::channel::{Amount, Capacity};
use crate::metrics::text::{Format, encode};
use crate::metrics::{DiskCounts, EVENTS, KafkaCounters, SECONDS};

/// The names of `metrics.md`, each with its kind.
const NAMES: &[(&str, &str)] = &[
    ("source_received_events_total", "counter"),
    ("source_accepted_events_total", "counter"),
    ("source_received_bytes_total", "counter"),
    ("source_read_errors_total", "counter"),
    ("source_channel_full_total", "counter"),
    ("interceptor_in_events_total", "counter"),
    ("interceptor_out_events_total", "counter"),
    ("channel_events", "gauge"),
    ("channel_bytes", "gauge"),
    ("channel_capacity_events", "gauge"),
    ("channel_capacity_bytes", "gauge"),
    ("channel_oldest_event_age_seconds", "gauge"),
    ("channel_put_attempts_total", "counter"),
    ("channel_put_events_total", "counter"),
    ("channel_take_attempts_total", "counter"),
    ("channel_taken_events_total", "counter"),
    ("channel_lag_events", "gauge"),
    ("channel_backpressure_seconds_total", "counter"),
    ("channel_sync_seconds", "histogram"),
    ("channel_group_commit_events", "histogram"),
    ("channel_corrupt_frames_total", "counter"),
    ("channel_torn_bytes_total", "counter"),
    ("sink_attempted_events_total", "counter"),
    ("sink_drained_events_total", "counter"),
    ("sink_drained_bytes_total", "counter"),
    ("sink_batches_total", "counter"),
    ("sink_delivery_errors_total", "counter"),
    ("sink_delivery_seconds", "histogram"),
    ("discarded_events_total", "counter"),
    ("dead_letter_events_total", "counter"),
    ("plugin_calls_total", "counter"),
    ("plugin_call_seconds", "histogram"),
    ("plugin_traps_total", "counter"),
    ("plugin_restarts_total", "counter"),
    ("plugin_denied_total", "counter"),
    ("pipeline_failed", "gauge"),
    ("plugin_memory_bytes", "gauge"),
    ("plugin_generation", "gauge"),
    ("plugin_info", "gauge"),
    ("swaps_total", "counter"),
    ("kafka_transactions_total", "counter"),
    ("kafka_transaction_seconds", "histogram"),
    ("kafka_rebalances_total", "counter"),
    ("kafka_lag_records", "gauge"),
    ("end_to_end_seconds", "histogram"),
    ("config_last_reload_success", "gauge"),
    ("config_last_reload_timestamp_seconds", "gauge"),
    ("build_info", "gauge"),
];

fn stage(kind: PluginKind, version: &str) -> StageSnapshot {
    let counters = Arc::<StageCounters>::default();
    let plugin = PluginFacts { name: "p".into(), version: version.into(), digest: "d".into(), origin: "p".into() };
    let (name, flow) = (kind.interface().into(), Flow::of(&counters));
    let swaps = swaps(&SwapCounters::default());
    StageSnapshot { name, kind, generation: 1, plugin, flow, swaps, counters }
}

/// One of everything.
fn snapshot(version: &str) -> Snapshot {
    let disk = DiskCounts {
        sync_seconds: Some(Histogram::new(&SECONDS).observed()),
        group_commit_events: Some(Histogram::new(&EVENTS).observed()),
        corrupt_frames: 0,
        skipped_events: 0,
        torn_bytes: 0,
        answers_wait: None,
        last_sync: Duration::ZERO,
        waits_for_space: None,
    };
    let reader = ReaderCounts {
        name: "sink".into(),
        lag_events: 1,
        take_attempts: 2,
        taken_events: 1,
        end_to_end: vec![("source".into(), Histogram::new(&SECONDS).observed())],
        waits: None,
    };
    let channel = ChannelCounts {
        held: Amount { events: 1, bytes: 1 },
        capacity: Capacity { events: 10, bytes: 10 },
        oldest_age: Some(Duration::from_secs(1)),
        put_attempts: 2,
        put_events: 2,
        backpressure: Duration::from_secs(2),
        readers: vec![reader],
        disk: Some(disk),
    };
    let agent = Arc::<AgentCounters>::default();
    agent.reloaded(true);
    let pipeline = PipelineSnapshot {
        name: "p".into(),
        stages: PluginKind::ALL.map(|kind| stage(kind, version)).into(),
        channels: vec![("events".into(), channel)],
        kafka: vec![("main".into(), KafkaCounters::default().counts(true, vec![("topic".into(), 7)]))],
    };
    Snapshot { agent, pipelines: vec![pipeline], failed: vec!["q".into()] }
}

#[test]
fn every_name_is_there_with_its_kind() {
    let text = encode(snapshot("1.0.0"), Format::Plain);
    for (name, kind) in NAMES {
        assert!(text.contains(&format!("\n# TYPE wasmflow_{name} {kind}\n")), "{name} {kind}\n{text}");
    }
    assert!(!text.contains("# EOF"));
    let metrics = encode(snapshot("1.0.0"), Format::OpenMetrics);
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("# TYPE wasmflow_source_received_events counter\n"));
}

#[test]
fn what_a_plugin_says_of_its_version_is_escaped_and_bounded() {
    let attack = format!("1\"}} 7\nwasmflow_fake{{a=\"\\{}", "x".repeat(1000));
    let text = encode(snapshot(&attack), Format::Plain);
    assert!(text.contains(r#"version="1\"} 7\nwasmflow_fake{a=\"\\xxx"#), "{text}");
    assert!(!text.contains("\nwasmflow_fake"), "{text}");
    assert!(text.lines().all(|line| line.len() < 400), "{text}");
}
