//! What a guest reaches for without a grant.

use wasmflow::config::Grants;
use wasmflow::plugin::{CallError, Failure, PluginKind, StageContext, TrapKind};

use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn files_sockets_and_environment_are_denied() {
    for mode in ["files", "sockets", "environment"] {
        intercepted(mode).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
}

#[tokio::test]
async fn what_has_no_error_to_answer_with_traps_with_the_line_to_add() {
    let (kind, text) = trap(intercepted("wall-clock").await);
    assert_eq!(kind, TrapKind::Trap);
    assert!(text.contains("allow = { wall_clock = true }"), "{text}");
    assert!(trap(intercepted("random").await).1.contains("allow = { random = true }"));
}

#[tokio::test]
async fn what_is_granted_is_there() {
    let grants = Grants { wall_clock: true, random: true, ..Grants::default() };
    let stage = StageContext { grants, ..stage(PluginKind::Interceptor) };
    for mode in ["wall-clock", "random"] {
        let mut instance = interceptor(&stage, json!({ "mode": mode })).await.unwrap();
        // The plugin calls it a breach that it was let; here that is what was asked for.
        let Err(CallError::Failure(Failure::Fatal(reason))) = instance.intercept(&batch(&["a"]), 1).await else {
            panic!("{mode} was not used")
        };
        assert!(reason.starts_with("breach"), "{reason}");
    }
}

#[tokio::test]
async fn random_bytes_are_bounded_in_each_call() {
    let grants = Grants { random: true, ..Grants::default() };
    for kind in PluginKind::ALL {
        let stage = StageContext { grants: grants.clone(), ..stage(kind) };
        let (_, text) = trap(acted(&stage, json!({ "mode": "random-flood" })).await);
        assert!(text.contains("65536"), "{kind}: {text}");
    }
}

#[tokio::test]
async fn kafka_without_a_grant_is_fatal() {
    let Err(CallError::Failure(Failure::Fatal(reason))) = delivered("kafka").await else { panic!("let in") };
    assert!(!reason.contains("breach"), "{reason}");
}
