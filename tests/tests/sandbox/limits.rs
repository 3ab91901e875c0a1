//! Traps, and limits that a guest runs into.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Instant;

use serde_json::json;
use wasmflow::plugin::{CallError, PluginKind, TrapKind, Worn};

use crate::world::*;

#[tokio::test]
async fn a_trap_says_what_happened_and_where() {
    let (kind, text) = trap(intercepted("panic").await);
    assert_eq!(kind, TrapKind::Trap);
    assert!(text.contains("panicked at") && text.contains("as told"), "{text}");
    assert!(text.contains("hostile_acts::"), "the guest's functions are named: {text}");
    assert_eq!(trap(intercepted("trap").await).0, TrapKind::Trap);
    // A Rust guest runs out of the stack in its own memory before it runs out of the engine's.
    let (kind, text) = trap(intercepted("stack-overflow").await);
    assert!(kind == TrapKind::Trap && text.contains("hostile_acts::descend"), "{text}");
    assert!(trap(intercepted("out-of-bounds").await).1.contains("out of bounds"));
    assert!(trap(intercepted("exit").await).1.contains("exit code 0"));
}

#[tokio::test]
async fn a_trap_in_any_call_of_any_kind_ends_the_instance() {
    for call in ["open", "work", "acked", "close"] {
        let outcome = async {
            let mut source = source(json!({ "mode": "panic", "call": call })).await?;
            source.poll(10, 1 << 20, CPU).await?;
            source.acked(1).await?;
            source.close().await
        };
        assert_eq!(trap(outcome.await).0, TrapKind::Trap, "source {call}");
    }
    for call in ["open", "work", "flush", "close"] {
        let config = json!({ "mode": "panic", "call": call });
        let outcome = async {
            let mut interceptor = interceptor(&stage(PluginKind::Interceptor), config.clone()).await?;
            interceptor.intercept(&batch(&["a"]), 1).await?;
            interceptor.flush(true).await?;
            interceptor.close().await
        };
        assert_eq!(trap(outcome.await).0, TrapKind::Trap, "interceptor {call}");
        let outcome = async {
            let mut sink = sink(&stage(PluginKind::Sink), config.clone()).await?;
            sink.deliver(&batch(&["a"]), &delivery()).await?;
            sink.flush(true).await?;
            sink.close().await
        };
        assert_eq!(trap(outcome.await).0, TrapKind::Trap, "sink {call}");
    }
}

#[tokio::test]
async fn a_trapped_instance_is_never_entered_again() {
    let mut instance =
        interceptor(&stage(PluginKind::Interceptor), json!({ "mode": "panic", "after": 1 })).await.unwrap();
    instance.intercept(&batch(&["a"]), 1).await.unwrap();
    let first = trap(instance.intercept(&batch(&["a"]), 2).await);
    assert_eq!(trap(instance.intercept(&batch(&["a"]), 3).await), first);
    assert_eq!(trap(instance.flush(true).await), first);
    assert_eq!(instance.worn(), Some(Worn::Dead));
}

/// Lets a plugin loop to its end. Gives how many turns another task had meanwhile that always wants one.
async fn turns_beside_a_loop() -> u32 {
    let mut instance =
        interceptor(&stage_for(PluginKind::Interceptor, "loop"), json!({ "mode": "loop" })).await.unwrap();
    let turns = Arc::new(AtomicU32::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(std::future::poll_fn(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        context.waker().wake_by_ref();
        Poll::<()>::Pending
    }));
    let looping = tokio::spawn(async move {
        let (started, before) = (Instant::now(), turns.load(Ordering::Relaxed));
        let kind = trap(instance.intercept(&batch(&["a"]), 1).await).0;
        (kind, started.elapsed(), turns.load(Ordering::Relaxed) - before)
    });
    let (kind, took, turns) = looping.await.unwrap();
    other.abort();
    assert_eq!(kind, TrapKind::Cpu);
    assert!(took >= CPU && took < CPU * 20, "{took:?}");
    turns
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_cpu_limit_and_holds_no_worker() {
    // A runtime of one thread: whenever the loop lets go of it the other task has its turn, and else it has none.
    let turns = turns_beside_a_loop().await;
    assert!(turns >= 10, "others had {turns} turns meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_endless_loop_goes_on_apart_and_leaves_the_only_worker_to_others() {
    // With a turn of the loop between two of its own, or between 61, the other task would have some hundreds.
    let turns = turns_beside_a_loop().await;
    assert!(turns >= 10_000, "others had {turns} turns meanwhile");
}

#[tokio::test]
async fn waiting_costs_no_computing_time_and_ends_at_the_deadline() {
    let started = Instant::now();
    let (kind, text) = trap(intercepted("sleep").await);
    assert_eq!(kind, TrapKind::CallTimeout);
    assert!(started.elapsed() >= CALL && CALL > CPU * 5, "{text}");
}

#[tokio::test]
async fn a_call_given_up_in_the_middle_leaves_a_dead_instance() {
    let mut instance = interceptor(&stage(PluginKind::Interceptor), json!({ "mode": "sleep" })).await.unwrap();
    let call = tokio::time::timeout(CPU, instance.intercept(&batch(&["a"]), 1)).await;
    assert!(call.is_err());
    assert!(trap(instance.intercept(&batch(&["a"]), 2).await).1.contains("given up"));
}

#[tokio::test]
async fn memory_is_refused_past_the_limit() {
    let (kind, text) = trap(intercepted("memory-fast").await);
    assert_eq!(kind, TrapKind::Memory);
    assert!(text.contains("memory"), "{text}");
}

#[tokio::test]
async fn a_slow_leak_asks_for_a_fresh_instance_before_the_limit() {
    let mut instance = interceptor(&stage(PluginKind::Interceptor), json!({ "mode": "memory-slow" })).await.unwrap();
    let mut calls = 0;
    while instance.worn().is_none() {
        calls += 1;
        instance.intercept(&batch(&["a"]), calls).await.unwrap();
    }
    assert!((30..=64).contains(&calls), "recycled after {calls} calls of 1 MiB");
}

#[tokio::test]
async fn handles_and_copies_are_bounded() {
    assert_eq!(trap(intercepted("handles").await).0, TrapKind::Contract);
    let (kind, _) = trap(intercepted("empty-items").await);
    assert!(matches!(kind, TrapKind::Contract | TrapKind::Memory));
}

#[tokio::test]
async fn a_log_storm_is_bounded_and_the_plugin_goes_on() {
    for mode in ["log-storm", "log-huge", "log-control", "stderr-storm", "stdout-storm"] {
        let stage = stage(PluginKind::Interceptor);
        let limits = wasmflow::config::Limits { cpu: CALL * 10, call: CALL * 20, ..stage.limits };
        let stage = wasmflow::plugin::StageContext { limits, ..stage };
        let mut instance = interceptor(&stage, json!({ "mode": mode })).await.unwrap();
        let outcome = instance.intercept(&batch(&["a"]), 1).await;
        assert!(outcome.is_ok(), "{mode}: {:?}", outcome.err());
    }
}

#[tokio::test]
async fn a_flood_of_output_is_stopped() {
    for mode in ["flood-events", "flood-bytes"] {
        let bodies: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let batch = batch(&bodies.iter().map(String::as_str).collect::<Vec<_>>());
        let mut instance = interceptor(&stage(PluginKind::Interceptor), json!({ "mode": mode })).await.unwrap();
        let (kind, _) = trap(instance.intercept(&batch, 1).await);
        assert!(matches!(kind, TrapKind::Contract | TrapKind::Memory), "{mode}: {kind}");
    }
}

#[tokio::test]
async fn instances_by_the_dozen_loop_without_stopping_the_ticker() {
    let looping: Vec<_> = (0..12).map(|_| tokio::spawn(intercepted("loop"))).collect();
    for instance in looping {
        let outcome = instance.await.unwrap();
        assert!(matches!(outcome, Err(CallError::Trap { kind: TrapKind::Cpu | TrapKind::CallTimeout, .. })));
    }
}
