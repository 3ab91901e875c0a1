//! The road of an event, in one process: hand-written pipelines of standard plugins, run by the agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use wasmflow::agent::{self, RunFile};
use wasmflow::config::pipeline::*;
use wasmflow::control::Control;
use wasmflow::plugin::{Engine, EngineOptions, PluginKind, PluginOrigin};

fn standard(kind: PluginKind, name: &str) -> PluginOrigin {
    PluginOrigin::Standard { name: name.into(), kind }
}

fn source(plugin: &str, config: &str, channel: &str, interceptors: &[&str]) -> SourceSpec {
    SourceSpec {
        plugin: standard(PluginKind::Source, plugin),
        config: StageConfig::plain(config),
        grants: Grants::default(),
        limits: Limits::default(),
        retry: RetryPolicy::default(),
        selector: SelectorSpec::Replicating(vec![channel.into()]),
        interceptors: interceptors.iter().map(|name| StageName::from(*name)).collect(),
        batch_events: 1000,
        batch_bytes: 1 << 20,
        ack: AckRule::Settled,
    }
}

fn sink(plugin: &str, config: &str, channel: &str) -> SinkSpec {
    SinkSpec {
        workers: 1,
        plugin: standard(PluginKind::Sink, plugin),
        config: StageConfig::plain(config),
        grants: Grants::default(),
        limits: Limits::default(),
        retry: RetryPolicy::default(),
        channel: channel.into(),
        interceptors: Vec::new(),
        batch_events: 1000,
        batch_bytes: 1 << 20,
        batch_wait: Duration::ZERO,
        start_at: Start::default(),
    }
}

fn pipeline(dir: &Path) -> Pipeline {
    Pipeline {
        name: "road".into(),
        instance: None,
        state_dir: dir.join("state"),
        delivery: DeliveryPromise::AtLeastOnce,
        transaction: wasmflow::config::TransactionSpec::default(),
        dead_letters: None,
        max_event_bytes: 16 << 20,
        drain_timeout: Duration::from_secs(30),
        base_dir: dir.into(),
        kafka: BTreeMap::new(),
        channels: BTreeMap::from([("events".into(), ChannelSpec::default())]),
        sources: BTreeMap::new(),
        interceptors: BTreeMap::new(),
        sinks: BTreeMap::new(),
    }
}

fn engine(dir: &Path) -> Engine {
    Engine::new(EngineOptions { cache_dir: Some(dir.join("cache")), compiler: None }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finite_source_ends_the_pipeline_with_everything_settled() {
    let dir = tempfile::tempdir().unwrap();
    let mut road = pipeline(dir.path());
    road.sources.insert("numbers".into(), source("seq", r#"{"total":100000}"#, "events", &["mark"]));
    road.interceptors.insert(
        "mark".into(),
        InterceptorSpec {
            workers: 1,
            plugin: standard(PluginKind::Interceptor, "prefix-suffix"),
            config: StageConfig::plain(r#"{"prefix":"<"}"#),
            grants: Grants::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
        },
    );
    road.sinks.insert("nowhere".into(), sink("null", "{}", "events"));
    let report = agent::run(vec![RunFile::unwritten(road)], &Control::new(engine(dir.path())), Default::default())
        .await
        .unwrap();
    assert!(report.is_success(), "{report:?}");
    let stored = std::fs::read_to_string(dir.path().join("state/positions/numbers.json")).unwrap();
    assert!(stored.contains("MTAwMDAw"), "the stored position is 100000 in base64: {stored}");
}
