//! Each act that any plugin can try, tried by a source, an interceptor and a sink: the same end for all of them.

use serde_json::json;
use wasmflow::plugin::{CallError, Failure, PluginKind, TrapKind};

use crate::world::*;

/// How an act ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// In a trap of this kind, whose text has these words.
    Trap(TrapKind, &'static str),
    /// Denied, or bounded: the call goes well.
    Borne,
    /// The plugin is told, and gives up.
    Fatal(&'static str),
}

use End::{Borne, Fatal};

const ACTS: &[(&str, End)] = &[
    ("trap", End::Trap(TrapKind::Trap, "unreachable")),
    ("panic", End::Trap(TrapKind::Trap, "panicked at")),
    ("stack-overflow", End::Trap(TrapKind::Trap, "hostile_acts::descend")),
    ("out-of-bounds", End::Trap(TrapKind::Trap, "out of bounds")),
    ("exit", End::Trap(TrapKind::Trap, "exit code 0")),
    ("loop", End::Trap(TrapKind::Cpu, "computed longer than")),
    ("loop-with-naps", End::Trap(TrapKind::Cpu, "computed longer than")),
    ("sleep", End::Trap(TrapKind::CallTimeout, "took longer than")),
    ("memory-fast", End::Trap(TrapKind::Memory, "memory")),
    ("memory-slow", Borne),
    ("handles", End::Trap(TrapKind::Contract, "1024 handles")),
    ("empty-items", End::Trap(TrapKind::Contract, "")),
    ("huge-list", End::Trap(TrapKind::Trap, "out of bounds")),
    ("log-huge", Borne),
    ("log-control", Borne),
    ("line-without-end", Borne),
    ("empty-writes", End::Trap(TrapKind::Cpu, "computed longer than")),
    ("files", Borne),
    ("sockets", Borne),
    ("environment", Borne),
    ("wall-clock", End::Trap(TrapKind::Trap, "allow = { wall_clock = true }")),
    ("random", End::Trap(TrapKind::Trap, "allow = { random = true }")),
    ("escape", Fatal("writing inside")),
    ("overwrite", Fatal("reading inside")),
    ("kafka", Fatal("allow = { kafka = [\"main\"] }")),
];

#[tokio::test]
async fn every_act_ends_in_the_same_way_for_every_kind_of_plugin() {
    for &(mode, end) in ACTS {
        for kind in PluginKind::ALL {
            // An interceptor has no Kafka to ask for.
            if mode == "kafka" && kind == PluginKind::Interceptor {
                continue;
            }
            let outcome = acted(&stage_for(kind, mode), json!({ "mode": mode })).await;
            let fits = match (&outcome, end) {
                (Err(CallError::Trap { kind, text }), End::Trap(expected, words)) => {
                    *kind == expected && text.contains(words)
                }
                (Ok(()), Borne) => true,
                (Err(CallError::Failure(Failure::Fatal(text))), Fatal(words)) => text.contains(words),
                _ => false,
            };
            assert!(fits, "{kind}, {mode}: {outcome:?} is not {end:?}");
        }
    }
}
