//! What a guest hands over and the contract forbids.

use wasmflow::plugin::{CallError, Failure, TrapKind};

use crate::world::*;

#[tokio::test]
async fn a_column_that_does_not_fit_is_answered_with_an_error_and_changes_nothing() {
    let modes = [
        "ends-decrease",
        "ends-short",
        "ends-long",
        "count-wrong",
        "rows-unsorted",
        "row-out-of-range",
        "reject-out-of-range",
        "header-names",
    ];
    for mode in modes {
        let after = intercepted(mode).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!(after.batch.bodies().iter().collect::<Vec<_>>(), [b"a", b"b", b"c"], "{mode}");
        assert!(after.batch.header_names().is_empty() && after.rejected.is_empty(), "{mode}");
    }
}

#[tokio::test]
async fn a_bad_batch_of_a_source_is_a_trap() {
    for mode in ["ends-decrease", "ends-short", "ends-long"] {
        let (kind, text) = trap(polled(mode).await);
        assert_eq!(kind, TrapKind::Contract, "{mode}: {text}");
        assert!(text.contains("ends"), "{text}");
    }
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let Err(CallError::Failure(Failure::Reject(reason))) = intercepted("header-flood").await else { panic!("taken") };
    assert!(reason.starts_with("refused: ") && reason.contains("1024 headers"), "{reason}");
}

#[tokio::test]
async fn a_source_brings_no_more_than_it_was_asked_for() {
    for mode in ["more-than-asked", "oversize-event", "position-flood"] {
        assert_eq!(trap(polled(mode).await).0, TrapKind::Contract, "{mode}");
    }
}

#[tokio::test]
async fn an_interceptor_keeps_only_what_it_was_given() {
    assert_eq!(trap(intercepted("kept-in-future").await).0, TrapKind::Contract);
}

#[tokio::test]
async fn rows_that_are_to_come_again_must_make_sense() {
    for mode in ["partly-out-of-range", "partly-unsorted", "partly-empty"] {
        assert_eq!(trap(delivered(mode).await).0, TrapKind::Contract, "{mode}");
    }
}
