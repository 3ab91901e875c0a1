//! Sources and sinks: drained, closed and opened anew, at the position of the last put; opened as they were when that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmflow::config::StageConfig;
use wasmflow::plugin::{PluginKind, PluginOrigin};
use wasmflow::swap::{SwapRequest, SwapStep, WaitFor};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::component::component;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::rolled::rolled_lines;

use crate::world::*;

/// As [`all_numbers_to_files`], with what a candidate that imports Kafka asks for.
fn with_kafka() -> String {
    all_numbers_to_files("")
        .replace(
            "batch_events = 100\n    interceptors",
            "batch_events = 100\n    allow = { kafka = [\"main\"] }\n    interceptors",
        )
        .replace("write = true }]", "write = true }], kafka = [\"main\"]")
        + "\n    [kafka.main]\n    embedded = true\n"
}

/// The stage as it is, opened anew.
fn anew() -> SwapRequest {
    SwapRequest { wait_for: WaitFor::FirstBatch, ..SwapRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_on_behind_its_last_put_through_twenty_swaps() {
    let running = Running::start("swap-source", "", &all_numbers_to_files("")).await;
    for swap in 0..20 {
        let report = running.swap("numbers", anew()).await.unwrap();
        assert_eq!(report.generation, swap + 2);
        assert!(report.plugin_time <= report.pause);
    }
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_has_each_event_once_through_twenty_swaps() {
    let running = Running::start("swap-sink", "", &all_numbers_to_files("")).await;
    for _ in 0..20 {
        running.swap("files", anew()).await.unwrap();
    }
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_holds_events_lets_go_of_them_before_it_is_closed() {
    let corner = component("corner-sink").display().to_string();
    let some = "plugin = \"stress\"\n    config = { size_bytes = 1, rate = 20000 }";
    let stages = all_numbers_to_files("").replace("plugin = \"seq\"", some);
    let stages = stages.replace("plugin = \"file-roll\"", &format!("plugin = \"{corner}\""));
    let stages = stages.replace(
        "config = { dir = \"out\", format = \"json\", roll_interval = \"0\" }",
        "config = { mode = \"hold\", count = 1000 }",
    );
    let running = Running::start("swap-hold", "", &stages).await;
    for _ in 0..5 {
        running.swap("files", anew()).await.unwrap();
    }
    let counters = ["numbers", "files"].map(|stage| running.stage(stage).counters().clone());
    running.stop().await;
    let [put, delivered] = counters.map(|counters| counters.accepted.get());
    assert_eq!(delivered, put, "nothing was lost or delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_or_sink_that_does_not_open_is_opened_as_it_was() {
    let running = Running::start("swap-reopen", "", &with_kafka()).await;
    let hostile = |package: &str| PluginOrigin::File(component(package));
    let source = with(&hostile("hostile-source"), r#"{"mode":"panic","call":"open","total":5}"#);
    let error = running.swap("numbers", source).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Open, "{error}");
    let sink = with(&hostile("hostile-sink"), r#"{"mode":"loop","call":"open"}"#);
    let error = running.swap("files", sink).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Open, "{error}");
    assert_eq!((running.stage("numbers").generation(), running.stage("files").generation()), (1, 1));
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_or_sink_that_fails_in_its_watch_window_goes_back_and_no_event_is_lost_or_repeated() {
    let running = Running::start("swap-back", "", &with_kafka()).await;
    let watched = |package: &str, config: &str| SwapRequest {
        watch: Duration::from_secs(100),
        wait_for: WaitFor::Watch,
        ..with(&PluginOrigin::File(component(package)), config)
    };
    let error =
        running.swap("numbers", watched("hostile-source", r#"{"mode":"panic","call":"work"}"#)).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Watch, "{error}");
    let error = running.swap("files", watched("hostile-sink", r#"{"mode":"panic","call":"work"}"#)).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Watch, "{error}");
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_needs_more_than_its_stage_is_allowed_is_refused_with_the_difference() {
    let running = Running::start("swap-grants", "", &all_numbers_to_files("")).await;
    let netcat = PluginOrigin::Standard { name: "netcat".into(), kind: PluginKind::Source };
    let error = running.swap("numbers", with(&netcat, r#"{"bind":"127.0.0.1:44444"}"#)).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Grants);
    assert!(error.reason.contains(r#"`listen = ["127.0.0.1:44444"]`"#), "{error}");
    let error =
        running.swap("numbers", with(&PluginOrigin::File(component("hostile-source")), r#"{"mode":"trap"}"#)).await;
    assert_eq!(error.unwrap_err().reason, "it imports Kafka, and the stage is allowed no connection");
    let elsewhere = SwapRequest { plugin: None, ..with(&netcat, r#"{"dir":"elsewhere"}"#) };
    let error = running.swap("files", elsewhere).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Grants);
    assert!(
        error.remedy.as_deref().unwrap_or_default().contains(r#"{ path = "elsewhere", write = true }"#),
        "{error:?}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_never_opens_is_mended_by_a_swap() {
    let stages = all_numbers_to_files("config = { fault = \"retry\", at = 0 }")
        // No folder can have such a name.
        .replace("dir = \"out\", format", &format!("dir = \"out/{}\", format", "n".repeat(300)));
    let running = Running::start("swap-mend", "", &stages).await;
    let stamping = with(&stamp(running.folder(), "v1"), "{}");
    running.swap("stamp", stamping).await.unwrap();
    let elsewhere = StageConfig::plain(r#"{"dir":"out","prefix":"mended","format":"json","roll_interval":"0"}"#);
    running.swap("files", SwapRequest { config: Some(elsewhere), wait_for: WaitFor::Switch, ..anew() }).await.unwrap();
    running.until_accepted("files", 1000).await;
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_before_a_file_channel_and_its_interceptor_are_swapped_with_each_number_once() {
    let stages = all_numbers_to_files("config = { keep = 3 }")
        .replace("type = \"memory\"\n    capacity_events = 1000", "type = \"file\"\n    capacity_events = 10000");
    assert!(stages.contains("type = \"file\""));
    let running = Running::start("swap-file", "", &stages).await;
    for _ in 0..20 {
        for stage in ["numbers", "stamp", "files"] {
            running.swap(stage, anew()).await.unwrap();
        }
    }
    check_all(&lines(&running.stop().await));
}

/// Every line in the folder `out`, as it was sent.
fn ledger_of(file: &PipelineFile) -> Ledger {
    Ledger::of(rolled_lines(&file.folder().join("out")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tailed_log_that_grows_has_each_line_once_through_twenty_swaps() {
    let stages = pipelines::tail_to("poll_interval = \"20ms\"", pipelines::FILES);
    let running = Running::start("swap-tail", "", &stages).await;
    let stop = Arc::<AtomicBool>::default();
    let log = running.folder().join("logs/app.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let told = stop.clone();
    let writing = tokio::task::spawn_blocking(move || ledger::append_until(&log, &told));
    for _ in 0..20 {
        running.swap("log", anew()).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap().unwrap();
    running.until_accepted("files", written).await;
    ledger_of(&running.stop().await).assert_each_once_in_order("log", written);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_listening_source_see_a_reconnect_at_most_and_each_answered_line_is_there_once() {
    const SWAPS: usize = 20;
    let port = free_port();
    let running = Running::start("swap-netcat", "", &pipelines::netcat_to(port, pipelines::FILES)).await;
    let stop = Arc::<AtomicBool>::default();
    let told = stop.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let mut client = NetcatClient::connect(port);
        let (mut asked, mut reconnects) = (0, 0);
        while !told.load(Ordering::Relaxed) {
            match client.ask_if_open(&ledger::line("client", asked)).as_deref() {
                Some("OK") => asked += 1,
                Some(other) => panic!("answered `{other}`"),
                None => {
                    client = NetcatClient::connect(port);
                    reconnects += 1;
                }
            }
        }
        (asked, reconnects)
    });
    for _ in 0..SWAPS {
        running.swap("netcat", anew()).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (asked, reconnects) = asking.await.unwrap();
    assert!(reconnects <= SWAPS, "{reconnects} reconnects in {SWAPS} swaps");
    let file = running.stop().await;
    ledger_of(&file).assert_each_once_in_order("client", asked);
}
