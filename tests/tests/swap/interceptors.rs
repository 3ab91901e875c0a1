//! Interceptors: between two batches, with nothing lost, repeated or reordered, and back when the new one is worse.

use std::time::Duration;

use wasmflow::swap::{ShadowRequest, SwapRequest, SwapResult, SwapStep, WaitFor, WatchEnd};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_swaps_under_load_leave_each_event_once_in_order_and_each_batch_to_one_version() {
    let running = Running::start("swap-load", "", &all_numbers_to_files("")).await;
    let versions = [stamp(running.folder(), "v1"), stamp(running.folder(), "v2")];
    let mut swaps = 0;
    for swap in 0..200 {
        let request = SwapRequest { wait_for: WaitFor::FirstBatch, ..to(&versions[(swap + 1) % 2]) };
        let report = running.swap("stamp", request).await.unwrap();
        assert_eq!(report.generation, swap as u64 + 2);
        assert!(swap == 0 || report.gap.is_some(), "the batch before, and the first one since: {report:?}");
        swaps += 1;
    }
    let stage = running.stage("stamp");
    assert_eq!((stage.generation(), stage.history().len()), (201, 20));
    assert!(stage.history().iter().all(|record| record.result == SwapResult::Serving));
    let file = running.stop().await;
    let seen = check_all(&lines(&file));
    assert_eq!(seen.len(), swaps + 1, "each generation had its batches");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interceptor_keeps_back_goes_on_before_the_next_one_takes_over() {
    let running = Running::start("swap-keep", "", &all_numbers_to_files("config = { keep = 3 }")).await;
    let versions = [stamp(running.folder(), "v1"), stamp(running.folder(), "v2")];
    for swap in 0..20 {
        let request = SwapRequest { wait_for: WaitFor::FirstBatch, ..to(&versions[(swap + 1) % 2]) };
        running.swap("stamp", request).await.unwrap();
    }
    let file = running.stop().await;
    assert_eq!(check_all(&lines(&file)).len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interceptor_of_two_stages_switches_as_one() {
    let stages = all_numbers_to_files("")
        .replace("channel = \"events\"\n    batch", "channel = \"events\"\n    interceptors = [\"stamp\"]\n    batch");
    let running = Running::start("swap-shared", "", &stages).await;
    let stage = running.stage("stamp");
    assert_eq!(stage.uses(), 2);
    let v2 = stamp(running.folder(), "v2");
    running.swap("stamp", SwapRequest { wait_for: WaitFor::FirstBatch, ..to(&v2) }).await.unwrap();
    // What only one use refuses neither takes.
    let error = running.swap("stamp", with(&v2, r#"{"fault":"trap","at":0}"#)).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Open);
    assert_eq!(stage.generation(), 2);
    let file = running.stop().await;
    let lines = lines(&file);
    assert_eq!(lines.last().unwrap().version, "v2");
    assert!(lines.iter().zip(0..).all(|(line, number)| line.number == number));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_alone_is_a_swap_and_a_rollback_undoes_it() {
    let running = Running::start("swap-config", "", &all_numbers_to_files("")).await;
    let before = running.stage("stamp").plugin();
    let request =
        SwapRequest { plugin: None, ..with(&stamp(running.folder(), "v2"), r#"{"fault":"drop","at":1000000}"#) };
    let report = running.swap("stamp", request).await.unwrap();
    assert_eq!((&report.before, &report.after), (&before, &before));
    assert_eq!(running.stage("stamp").serving().config.json(), r#"{"fault":"drop","at":1000000}"#);
    let back = tokio::spawn({
        let control = running.control.clone();
        async move { control.rollback(&"stamp".parse().unwrap()).await }
    });
    while running.stage("stamp").generation() == 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(running.stage("stamp").serving().config.json(), "{}");
    check_all(&lines(&running.stop().await));
    let report = back.await.unwrap().unwrap();
    // The window may be over before the pipeline has ended.
    assert!(report.generation == 3 && [WatchEnd::StageEnded, WatchEnd::Passed].contains(&report.watch), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_rolled_back_where_nothing_was_before() {
    let running = Running::start("swap-first", "", &all_numbers_to_files("")).await;
    let error = running.control.rollback(&"stamp".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Turn);
    assert!(error.reason.contains("no generation before"), "{error}");
    let unknown = running.control.rollback(&"stmp".parse().unwrap()).await.unwrap_err();
    assert!(unknown.reason.contains("`files`, `numbers`, `stamp`"), "{unknown}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_reports_how_the_candidate_differs_and_equal_output_may_be_required() {
    let running = Running::start("swap-shadow", "", &all_numbers_to_files("")).await;
    let versions = [stamp(running.folder(), "v1"), stamp(running.folder(), "v2")];
    let shadow = |require_equal| Some(ShadowRequest { batches: 20, require_equal });
    let error = running.swap("stamp", SwapRequest { shadow: shadow(true), ..to(&versions[1]) }).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Shadow);
    assert!(error.reason.contains("`version` on 2000"), "{error}");
    assert_eq!(running.stage("stamp").generation(), 1);
    let dropping = with(&versions[0], r#"{"fault":"drop","at":1}"#);
    let report = running.swap("stamp", SwapRequest { shadow: shadow(false), ..dropping }).await.unwrap();
    let shadow_report = report.shadow.unwrap();
    assert_eq!((shadow_report.batches, shadow_report.events, shadow_report.dropped), (20, 2000, 20));
    let error =
        running.swap("files", SwapRequest { shadow: shadow(false), ..SwapRequest::default() }).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Shadow);
    assert!(error.reason.contains("a sink cannot be shadowed"), "{error}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_interceptor_has_no_batch_and_can_be_swapped_meanwhile() {
    let running = Running::start("swap-pause", "", &all_numbers_to_files("")).await;
    let stage = running.stage("stamp");
    running.until_accepted("stamp", 1000).await;
    stage.pause();
    // A swap is taken up at the boundary behind which the pause is.
    running.swap("stamp", to(&stamp(running.folder(), "v2"))).await.unwrap();
    let accepted = stage.counters().accepted.get();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.counters().accepted.get(), accepted);
    stage.resume();
    let versions = check_all(&lines(&running.stop().await));
    assert_eq!(versions, ["v1", "v2"]);
}
