//! Files made to keep a compiler busy, and files that are damaged somewhere: refused, each with its reason, and the host goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmflow::plugin::*;
use wasmflow_tests::binary::wasmflow;
use wasmflow_tests::folder::Folder;

use crate::bytes;
use crate::world::*;

/// An engine that compiles in children of the real binary.
fn engine(deadline: Duration, memory_bytes: u64) -> Engine {
    let compiler =
        Compiler { deadline, memory_bytes, ..Compiler::new(wasmflow().to_owned(), vec!["compile-plugin".into()]) };
    Engine::new(EngineOptions { cache_dir: None, compiler: Some(compiler) }).expect("the engine starts")
}

async fn load_by(engine: &Engine, component: &[u8]) -> Result<Arc<Plugin>, PluginError> {
    let folder = Folder::new("compile");
    engine.load(&PluginOrigin::File(folder.write("plugin.wasm", component))).await
}

#[tokio::test]
async fn a_child_compiles_what_a_thread_compiles() {
    let engine = engine(Compiler::DEADLINE, Compiler::MEMORY_BYTES);
    let path: PathBuf = wasmflow_tests::component::component("hostile-interceptor");
    let plugin = engine.load(&PluginOrigin::File(path)).await.expect("it is a plugin");
    let mut instance = plugin.interceptor(&stage(PluginKind::Interceptor)).await.expect("it is instantiated");
    instance.open(r#"{"mode":"panic"}"#).await.expect("it opens");
    let (kind, text) = trap(instance.intercept(&batch(&["a"]), 1).await);
    assert!(kind == TrapKind::Trap && text.contains("hostile_acts::"), "the guest's functions are named: {text}");
}

#[tokio::test]
async fn a_compile_bomb_ends_at_the_deadline_and_its_process_with_it() {
    let engine = engine(Duration::from_millis(300), Compiler::MEMORY_BYTES);
    let error = load_by(&engine, &bytes::compile_bomb(7 << 20)).await.unwrap_err();
    assert!(matches!(error, PluginError::CompileTimeout { .. }), "{error}");
    assert_eq!(children(), Vec::<String>::new(), "the child is gone when the error is there");
}

#[tokio::test]
async fn a_compile_bomb_is_bounded_in_memory() {
    let engine = engine(Compiler::DEADLINE, 256 << 20);
    let error = load_by(&engine, &bytes::compile_bomb(7 << 20)).await.unwrap_err();
    assert!(matches!(&error, PluginError::TooCostly { detail, .. } if detail.contains("256 MiB of memory")), "{error}");
}

#[tokio::test]
async fn a_load_that_is_given_up_ends_its_compiler() {
    let engine = engine(Compiler::DEADLINE, Compiler::MEMORY_BYTES);
    let bomb = bytes::compile_bomb(7 << 20);
    let load = load_by(&engine, &bomb);
    assert!(tokio::time::timeout(Duration::from_millis(300), load).await.is_err());
    assert_eq!(children(), Vec::<String>::new());
}

/// The compilers that this thread has started and that still run. Each test has a thread of its own.
fn children() -> Vec<String> {
    let thread = std::fs::read_link("/proc/thread-self").expect("/proc is there");
    let children = std::fs::read_to_string(Path::new("/proc").join(thread).join("children")).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_is_refused_by_a_child_is_refused_with_the_same_words() {
    let engine = engine(Compiler::DEADLINE, Compiler::MEMORY_BYTES);
    let whole = std::fs::read(wasmflow_tests::component::component("hostile-sink")).expect("it was just compiled");
    let error = load_by(&engine, &whole[..whole.len() / 2]).await.unwrap_err();
    assert!(matches!(error, PluginError::Damaged { .. }), "{error}");
    for (name, component) in bytes::switched_off() {
        let error = load_by(&engine, &component).await.unwrap_err();
        assert!(matches!(error, PluginError::Unsupported { .. }), "{name}: {error}");
    }
    let error = load_by(&engine, &bytes::component(&[])).await.unwrap_err();
    assert!(matches!(error, PluginError::WrongWorld { .. }), "{error}");
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_refused_or_harmless() {
    let engine = engine(Compiler::DEADLINE, Compiler::MEMORY_BYTES);
    let whole =
        std::fs::read(wasmflow_tests::component::component("describe-trap-sink")).expect("it was just compiled");
    let seed = wasmflow_tests::soak::seed() as usize;
    for round in 0..wasmflow_tests::soak::times(20, 2000) as usize {
        let mut damaged = whole.clone();
        let at = (seed.wrapping_mul(31).wrapping_add(round * 7919)) % damaged.len();
        damaged[at] ^= 1 << (round % 8);
        // This plugin never loads: its `describe` traps.
        let error = load_by(&engine, &damaged).await.expect_err("it describes itself by a trap");
        assert!(!matches!(error, PluginError::Engine(_)), "byte {at}: {error}");
    }
}
