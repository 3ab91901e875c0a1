//! Plugins that are refused before anything runs.

use serde_json::json;
use wasmflow::plugin::{CallError, CheckError, PluginError, PluginKind, TrapKind};

use wasmflow_tests::component::{component, described};

use crate::bytes;
use crate::world::*;

#[tokio::test]
async fn a_describe_that_traps_is_refused_with_its_words() {
    let error = load("describe-trap-sink").await.unwrap_err();
    println!("{error}");
    assert!(matches!(&error, PluginError::Call { call: "describe", kind: TrapKind::Trap, .. }));
    assert!(error.to_string().contains("cannot say what this is"), "{error}");
}

#[tokio::test]
async fn a_plugin_of_any_kind_whose_describe_traps_or_never_ends_is_refused() {
    for kind in PluginKind::ALL {
        let name = kind.interface();
        let loaded = load_bytes(&described(name, "well")).await.expect("that is how it is built");
        assert_eq!(loaded.kind(), kind);
        for (act, trap) in [("trap", TrapKind::Trap), ("loop", TrapKind::Cpu)] {
            let error = load_bytes(&described(name, act)).await.unwrap_err();
            assert!(
                matches!(&error, PluginError::Call { call: "describe", kind, .. } if *kind == trap),
                "{name}, {act}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_plugin_of_any_kind_that_fails_in_open_ends_there() {
    for kind in PluginKind::ALL {
        for (mode, trap) in [("panic", TrapKind::Trap), ("loop", TrapKind::Cpu), ("sleep", TrapKind::CallTimeout)] {
            let outcome = acted(&stage_for(kind, mode), json!({ "mode": mode, "call": "open" })).await;
            let Err(CallError::Trap { kind: found, .. }) = outcome else { panic!("{kind}, {mode}: it opened") };
            assert_eq!(found, trap, "{kind}, {mode}");
        }
    }
}

#[tokio::test]
async fn a_check_that_traps_or_never_ends_is_reported_as_the_plugins_fault() {
    for package in ["hostile-source", "hostile-interceptor", "hostile-sink"] {
        let plugin = load(package).await.unwrap();
        for (mode, kind) in [("panic", TrapKind::Trap), ("loop", TrapKind::Cpu), ("sleep", TrapKind::CallTimeout)] {
            let config = format!(r#"{{"mode":"{mode}","call":"check"}}"#);
            let checked = plugin.check(&config).await;
            let Err(CheckError::Plugin(PluginError::Call { call: "check", kind: found, .. })) = checked else {
                panic!("{package}, {mode} was accepted")
            };
            assert_eq!(found, kind, "{package}, {mode}");
        }
    }
}

#[tokio::test]
async fn a_plugin_of_another_kind_is_told_by_its_exports() {
    let plugin = load("hostile-sink").await.unwrap();
    let error = plugin.expect_kind(PluginKind::Interceptor).unwrap_err();
    assert!(error.to_string().contains("is a plugin for sink") || error.to_string().contains("sink"), "{error}");
    assert_eq!(error.remedy().as_deref(), Some("use it under [sinks.NAME]"));
}

#[tokio::test]
async fn tables_memories_and_instances_beyond_the_limits_end_in_a_reason() {
    for package in ["hostile-source", "hostile-interceptor", "hostile-sink"] {
        let plugin = std::fs::read(component(package)).expect("it was just compiled");
        assert_bombs_end_in_a_reason(&plugin).await;
    }
}

async fn assert_bombs_end_in_a_reason(plugin: &[u8]) {
    let bombs = [
        ("one more instance", bytes::with_instances(plugin, &bytes::module(&[]), 1), None),
        ("a huge table", bytes::with_instances(plugin, &bytes::with_table(10_000_000), 1), Some("memory")),
        ("a memory of 4 GiB", bytes::with_instances(plugin, &bytes::with_memory(65_536), 1), Some("memory")),
        ("memories that add up", bytes::with_instances(plugin, &bytes::with_memory(256), 8), Some("memory")),
        ("instances without end", bytes::with_instances(plugin, &bytes::module(&[]), 100), Some("instance")),
    ];
    for (name, bomb, reason) in bombs {
        let loaded = load_bytes(&bomb).await;
        match (loaded, reason) {
            (Ok(_), None) => {}
            (Err(error), Some(reason)) => {
                println!("{name}: {error}");
                assert!(matches!(error, PluginError::Call { call: "describe", .. }), "{name}: {error}");
                assert!(error.to_string().contains(reason), "{name}: {error}");
            }
            (loaded, _) => panic!("{name}: {:?}", loaded.map(drop)),
        }
    }
}
