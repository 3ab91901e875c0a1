//! One engine for all tests of this binary, and a stage to run a plugin in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use wasmflow::config::{Grants, Limits};
use wasmflow::event::{Batch, Packed};
use wasmflow::plugin::*;
use wasmflow_tests::component::component;
use wasmflow_tests::folder::Folder;

/// Short, so that a test of a limit ends soon; long enough for a loaded machine.
pub const CPU: Duration = Duration::from_millis(300);
pub const CALL: Duration = Duration::from_secs(3);

pub async fn load(package: &str) -> Result<Arc<Plugin>, PluginError> {
    engine().load(&PluginOrigin::File(component(package))).await
}

/// Loads a component that the test has made.
pub async fn load_bytes(component: &[u8]) -> Result<Arc<Plugin>, PluginError> {
    let folder = Folder::new("bytes");
    engine().load(&PluginOrigin::File(folder.write("plugin.wasm", component))).await
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineOptions::default()).expect("the engine starts"))
}

pub fn stage(plugin_kind: PluginKind) -> StageContext {
    StageContext {
        pipeline: "sandbox".into(),
        stage: "stage".into(),
        plugin_kind,
        grants: Grants::default(),
        limits: Limits { memory_bytes: 64 << 20, cpu: CPU, call: CALL, age: None },
        max_event_bytes: 16 << 20,
        counters: Arc::default(),
        kafka: None,
        log: Arc::default(),
        pace: Arc::default(),
        bundles: None,
    }
}

/// A stage whose time limits are met only by an act that is after them, however busy the machine is.
pub fn stage_for(kind: PluginKind, mode: &str) -> StageContext {
    let stage = stage(kind);
    match mode {
        "loop" | "loop-with-naps" | "sleep" | "empty-writes" => stage,
        _ => StageContext { limits: Limits { cpu: CALL * 10, call: CALL * 20, ..stage.limits }, ..stage },
    }
}

pub fn batch(bodies: &[&str]) -> Batch {
    Batch::new(bodies.iter().collect::<Packed>())
}

pub async fn interceptor(stage: &StageContext, config: Value) -> Result<InterceptorInstance, CallError> {
    let plugin = load("hostile-interceptor").await.expect("the plugin loads");
    let mut instance = plugin.interceptor(stage).await?;
    instance.open(&config.to_string()).await?;
    Ok(instance)
}

pub async fn sink(stage: &StageContext, config: Value) -> Result<SinkInstance, CallError> {
    let plugin = load("hostile-sink").await.expect("the plugin loads");
    let mut instance = plugin.sink(stage).await?;
    instance.open(&config.to_string()).await?;
    Ok(instance)
}

pub async fn source(config: Value) -> Result<SourceInstance, CallError> {
    let plugin = load("hostile-source").await.expect("the plugin loads");
    let mut instance = plugin.source(&stage(PluginKind::Source)).await?;
    instance.open(&config.to_string(), &Default::default()).await?;
    Ok(instance)
}

/// What becomes of a batch in an interceptor that acts in this mode.
pub async fn intercepted(mode: &str) -> Result<Intercepted, CallError> {
    let mut instance = interceptor(&stage_for(PluginKind::Interceptor, mode), json!({ "mode": mode })).await?;
    instance.intercept(&batch(&["a", "b", "c"]), 1).await
}

/// What becomes of a poll of a source that acts in this mode.
pub async fn polled(mode: &str) -> Result<Progress, CallError> {
    source(json!({ "mode": mode })).await?.poll(10, 1 << 20, Duration::ZERO).await
}

/// What becomes of one poll, batch or delivery in the hostile plugin of the stage's kind.
pub async fn acted(stage: &StageContext, config: Value) -> Result<(), CallError> {
    let config = config.to_string();
    match stage.plugin_kind {
        PluginKind::Source => {
            let plugin = load("hostile-source").await.expect("the plugin loads");
            let mut source = plugin.source(stage).await?;
            source.open(&config, &Default::default()).await?;
            source.poll(10, 1 << 20, Duration::ZERO).await.map(drop)
        }
        PluginKind::Interceptor => {
            let plugin = load("hostile-interceptor").await.expect("the plugin loads");
            let mut interceptor = plugin.interceptor(stage).await?;
            interceptor.open(&config).await?;
            interceptor.intercept(&batch(&["a", "b", "c"]), 1).await.map(drop)
        }
        PluginKind::Sink => {
            let plugin = load("hostile-sink").await.expect("the plugin loads");
            let mut sink = plugin.sink(stage).await?;
            sink.open(&config).await?;
            sink.deliver(&batch(&["a", "b", "c"]), &delivery()).await.map(drop)
        }
    }
}

pub fn delivery() -> Delivery {
    Delivery { log: "events-1".into(), first: 0, next: 3, attempt: 1 }
}

/// What becomes of a delivery to a sink that acts in this mode.
pub async fn delivered(mode: &str) -> Result<Delivered, CallError> {
    let mut instance = sink(&stage(PluginKind::Sink), json!({ "mode": mode })).await?;
    instance.deliver(&batch(&["a", "b", "c"]), &delivery()).await
}

/// The kind and the text of a trap.
#[track_caller]
pub fn trap<T>(outcome: Result<T, CallError>) -> (TrapKind, String) {
    match outcome {
        Err(CallError::Trap { kind, text }) => {
            println!("{kind}: {text}");
            (kind, text)
        }
        Err(CallError::Failure(failure)) => panic!("a failure, not a trap: {failure}"),
        Ok(_) => panic!("it went well, and should have trapped"),
    }
}
