//! Plugins that are refused before anything runs.

use wasmflow::plugin::{CheckError, PluginError, PluginKind, TrapKind};

use wasmflow_tests::component::component;

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
async fn a_check_that_traps_or_never_ends_is_reported_as_the_plugins_fault() {
    for (mode, kind) in [("panic", TrapKind::Trap), ("loop", TrapKind::Cpu), ("sleep", TrapKind::CallTimeout)] {
        let plugin = load("hostile-sink").await.unwrap();
        let config = format!(r#"{{"mode":"{mode}","call":"check"}}"#);
        let Err(CheckError::Plugin(PluginError::Call { call: "check", kind: found, .. })) = plugin.check(&config).await
        else {
            panic!("{mode} was accepted")
        };
        assert_eq!(found, kind, "{mode}");
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
    let plugin = std::fs::read(component("hostile-sink")).expect("it was just compiled");
    let bombs = [
        ("one more instance", bytes::with_instances(&plugin, &bytes::module(&[]), 1), None),
        ("a huge table", bytes::with_instances(&plugin, &bytes::with_table(10_000_000), 1), Some("memory")),
        ("a memory of 4 GiB", bytes::with_instances(&plugin, &bytes::with_memory(65_536), 1), Some("memory")),
        ("memories that add up", bytes::with_instances(&plugin, &bytes::with_memory(256), 8), Some("memory")),
        ("instances without end", bytes::with_instances(&plugin, &bytes::module(&[]), 100), Some("instance")),
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
