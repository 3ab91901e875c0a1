//! Sources and sinks: drained, closed and opened anew, at the position of the last put; opened as they were when that fails.

use std::time::Duration;

use wasmflow::plugin::{PluginKind, PluginOrigin};
use wasmflow::swap::{SwapRequest, SwapStep, WaitFor};
use wasmflow_tests::component::component;

use crate::world::*;

const TOTAL: u64 = 100_000;

/// As [`numbers_to_files`], with what a candidate that imports Kafka asks for.
fn with_kafka() -> String {
    numbers_to_files(TOTAL, "")
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
    let running = Running::endless("swap-source", "", &all_numbers_to_files("")).await;
    for swap in 0..20 {
        let report = running.swap("numbers", anew()).await.unwrap();
        assert_eq!(report.generation, swap + 2);
        assert!(report.plugin_time <= report.pause);
    }
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_has_each_event_once_through_twenty_swaps() {
    let running = Running::endless("swap-sink", "", &all_numbers_to_files("")).await;
    for _ in 0..20 {
        running.swap("files", anew()).await.unwrap();
    }
    check_all(&lines(&running.stop().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_holds_events_lets_go_of_them_before_it_is_closed() {
    let corner = component("corner-sink").display().to_string();
    let stages = numbers_to_files(20_000, "").replace("plugin = \"file-roll\"", &format!("plugin = \"{corner}\""));
    let stages = stages.replace(
        "config = { dir = \"out\", format = \"json\", roll_interval = \"0\" }",
        "config = { mode = \"hold\", count = 1000 }",
    );
    let running = Running::start("swap-hold", &stages).await;
    for _ in 0..5 {
        running.swap("files", anew()).await.unwrap();
    }
    let counters = running.stage("files").counters().clone();
    running.end().await;
    assert_eq!(counters.accepted.get(), 20_000, "nothing was delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_or_sink_that_does_not_open_is_opened_as_it_was() {
    let running = Running::start("swap-reopen", &with_kafka()).await;
    let hostile = |package: &str| PluginOrigin::File(component(package));
    let source = with(&hostile("hostile-source"), r#"{"mode":"panic","call":"open","total":5}"#);
    let error = running.swap("numbers", source).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Open, "{error}");
    let sink = with(&hostile("hostile-sink"), r#"{"mode":"loop","call":"open"}"#);
    let error = running.swap("files", sink).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Open, "{error}");
    assert_eq!((running.stage("numbers").generation(), running.stage("files").generation()), (1, 1));
    check(&lines(&running.end().await), TOTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_or_sink_that_fails_in_its_watch_window_goes_back_and_no_event_is_lost_or_repeated() {
    let running = Running::start("swap-back", &with_kafka()).await;
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
    check(&lines(&running.end().await), TOTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_needs_more_than_its_stage_is_allowed_is_refused_with_the_difference() {
    let running = Running::start("swap-grants", &numbers_to_files(20_000, "")).await;
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
    running.end().await;
}
