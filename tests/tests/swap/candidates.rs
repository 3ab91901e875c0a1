//! Candidates that are no good: the serving generation goes on, and the caller is told the step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmflow::plugin::{PluginKind, PluginOrigin};
use wasmflow::swap::{SwapError, SwapRequest, SwapResult, SwapStep, WaitFor};
use wasmflow_tests::component::component;

use crate::world::*;

/// A pipeline that a candidate is refused by, and what it has delivered in the end: all of it, by these versions.
async fn refused(name: &str, request: impl FnOnce(&std::path::Path) -> SwapRequest) -> (SwapError, Vec<String>) {
    let running = Running::start(name, "", &all_numbers_to_files("")).await;
    running.until_accepted("stamp", 10_000).await;
    let request = request(running.folder());
    let error = running.swap("stamp", request).await.unwrap_err();
    let stage = running.stage("stamp");
    assert_eq!(stage.generation(), 1, "the one that served serves");
    match &stage.history()[0].result {
        SwapResult::Refused(told) => assert_eq!(told, &error),
        SwapResult::RolledBack(reason) => assert_eq!(reason, &error.reason),
        SwapResult::Serving => panic!("it was refused"),
    }
    println!("{error}");
    let versions = check_all(&lines(&running.stop().await));
    (error, versions)
}

fn file(folder: &std::path::Path, bytes: &[u8]) -> SwapRequest {
    let path = folder.join("candidate.wasm");
    std::fs::write(&path, bytes).unwrap();
    to(&PluginOrigin::File(path))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_refused_at_fetch() {
    let (error, _) = refused("bad-fetch", |folder| to(&PluginOrigin::File(folder.join("absent.wasm")))).await;
    assert_eq!(error.step, SwapStep::Fetch);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_compile_is_refused_at_compile() {
    let (error, _) = refused("bad-compile", |folder| {
        let bytes = std::fs::read(component("stamp-interceptor")).unwrap();
        file(folder, &bytes[..bytes.len() / 2])
    })
    .await;
    assert_eq!(error.step, SwapStep::Compile);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_another_world_is_refused_at_world() {
    let request = |_: &std::path::Path| to(&PluginOrigin::Standard { name: "null".into(), kind: PluginKind::Sink });
    let (error, _) = refused("bad-world", request).await;
    assert_eq!(error.step, SwapStep::World);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_traps_in_describe_is_refused_at_describe() {
    let (error, _) = refused("bad-describe", |_| to(&PluginOrigin::File(component("describe-trap-sink")))).await;
    assert_eq!(error.step, SwapStep::Describe);
    assert!(error.reason.contains("cannot say what this is"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_does_not_fit_is_refused_at_check() {
    let (error, _) = refused("bad-config", |folder| with(&stamp(folder, "v2"), r#"{"fautl":"trap"}"#)).await;
    assert_eq!(error.step, SwapStep::Check);
    assert!(error.reason.contains("unknown key `fautl`") && error.reason.contains("did you mean `fault`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_traps_or_never_comes_back_in_open_is_refused_at_open() {
    for (name, config) in [
        ("bad-open-trap", r#"{"fault":"trap","at":0}"#),
        ("bad-open-loop", r#"{"fault":"loop","at":0}"#),
        ("bad-open-fatal", r#"{"fault":"fatal","at":0}"#),
    ] {
        let (error, versions) = refused(name, |folder| with(&stamp(folder, "v2"), config)).await;
        assert_eq!(error.step, SwapStep::Open);
        assert_eq!(versions, ["v1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_on_live_batches_is_sent_back_in_its_watch_window_and_its_batch_is_done_by_the_one_before() {
    for (name, config, seen) in [
        ("bad-first", r#"{"fault":"trap","at":1}"#, vec!["v1"]),
        ("bad-later", r#"{"fault":"trap","at":100}"#, vec!["v1", "v2", "v1"]),
        ("bad-loop", r#"{"fault":"loop","at":1}"#, vec!["v1"]),
        ("bad-memory", r#"{"fault":"memory","at":1}"#, vec!["v1"]),
        ("bad-fatal", r#"{"fault":"fatal","at":50}"#, vec!["v1", "v2", "v1"]),
        ("bad-reject", r#"{"fault":"reject","at":50}"#, vec!["v1", "v2", "v1"]),
        ("bad-retry", r#"{"fault":"retry","at":50}"#, vec!["v1", "v2", "v1"]),
    ] {
        let request = |folder: &std::path::Path| SwapRequest {
            watch: Duration::from_secs(100),
            wait_for: WaitFor::Watch,
            ..with(&stamp(folder, "v2"), config)
        };
        let (error, versions) = refused(name, request).await;
        assert_eq!(error.step, SwapStep::Watch, "{name}");
        assert_eq!(versions, seen, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_traps_on_its_thousandth_batch_has_done_the_999_before_it() {
    let running = Running::start("bad-thousandth", "", &all_numbers_to_files("")).await;
    running.until_accepted("stamp", 10_000).await;
    let watch = Duration::from_secs(1000);
    let trapping = with(&stamp(running.folder(), "v2"), r#"{"fault":"trap","at":1000}"#);
    let request = SwapRequest { watch, wait_for: WaitFor::Watch, ..trapping };
    assert_eq!(running.swap("stamp", request).await.unwrap_err().step, SwapStep::Watch);
    let lines = lines(&running.stop().await);
    assert_eq!(check_all(&lines), ["v1", "v2", "v1"]);
    let mut batches = Batches::default();
    lines.iter().for_each(|line| batches.arrived(&line.version, &line.batch));
    assert_eq!(batches.whole()["v2"], 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_much_slower_is_sent_back() {
    let (error, versions) = refused("bad-slow", |folder| SwapRequest {
        watch: Duration::from_secs(100),
        wait_for: WaitFor::Watch,
        ..with(&stamp(folder, "v2"), r#"{"fault":"slow","at":1}"#)
    })
    .await;
    assert_eq!(error.step, SwapStep::Watch);
    assert!(error.reason.contains("a call, after"), "{error}");
    assert_eq!(versions, ["v1", "v2", "v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_swap_is_refused_while_one_is_under_way() {
    let running = Running::start("swap-turn", "", &all_numbers_to_files("")).await;
    let v2 = stamp(running.folder(), "v2");
    // The first is busy opening: `retry` is asked again for seconds.
    let first = tokio::spawn({
        let (control, request) = (running.control.clone(), with(&v2, r#"{"fault":"loop","at":0}"#));
        async move { control.swap(&"stamp".parse().unwrap(), request).await }
    });
    let stage = running.stage("stamp");
    while stage.generations().len() == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = running.swap("stamp", to(&v2)).await.unwrap_err();
    assert_eq!(error.step, SwapStep::Turn);
    assert!(error.reason.contains("another swap of `stamp` is under way"), "{error}");
    assert_eq!(first.await.unwrap().unwrap_err().step, SwapStep::Open);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_while_it_is_read_is_refused_or_is_what_its_digest_says() {
    let running = Running::start("swap-torn", "", &all_numbers_to_files("")).await;
    let mut digests = Vec::new();
    let mut versions = Vec::new();
    for version in ["v1", "v2"] {
        let plugin = stamp(running.folder(), version);
        digests.push(running.swap("stamp", to(&plugin)).await.unwrap().after.digest);
        let PluginOrigin::File(path) = plugin else { panic!("a file") };
        versions.push(std::fs::read(path).unwrap());
    }
    let (stop, torn) = (Arc::<AtomicBool>::default(), running.folder().join("torn.wasm"));
    std::fs::write(&torn, &versions[0]).unwrap();
    let (told, path) = (stop.clone(), torn.clone());
    let writing = tokio::task::spawn_blocking(move || {
        for version in versions.iter().cycle() {
            if told.load(Ordering::Relaxed) {
                return;
            }
            // Not renamed: whoever reads meanwhile may see half of it.
            std::fs::write(&path, version).unwrap();
        }
    });
    for _ in 0..50 {
        match running.swap("stamp", to(&PluginOrigin::File(torn.clone()))).await {
            Ok(report) => assert!(digests.contains(&report.after.digest), "half of a file serves: {report:?}"),
            Err(error) => assert!([SwapStep::Fetch, SwapStep::Compile].contains(&error.step), "{error}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let last = running.swap("stamp", to(&PluginOrigin::File(torn))).await.unwrap().after.digest;
    assert!(digests.contains(&last));
    check_all(&lines(&running.stop().await));
}
