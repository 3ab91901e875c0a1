//! The engine with real components: the standard plugins, and files that are none.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::event::{Batch, Packed};
use crate::position::Position;

pub fn engine() -> Engine {
    Engine::new(EngineOptions::default()).expect("the engine starts")
}

fn standard(name: &str, kind: PluginKind) -> PluginOrigin {
    PluginOrigin::Standard { name: name.into(), kind }
}

pub fn stage(plugin_kind: PluginKind) -> StageContext {
    StageContext {
        pipeline: "test".into(),
        stage: "stage".into(),
        plugin_kind,
        grants: Grants::default(),
        limits: Limits::default(),
        max_event_bytes: 1 << 20,
        counters: Arc::default(),
        kafka: None,
        log: Arc::default(),
        pace: Arc::default(),
        bundles: None,
    }
}

fn batch(bodies: &[&str]) -> Batch {
    Batch::new(bodies.iter().collect::<Packed>())
}

async fn load_file(contents: &[u8]) -> Result<Arc<Plugin>, PluginError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.wasm");
    std::fs::write(&path, contents).unwrap();
    engine().load(&PluginOrigin::File(path)).await
}

#[tokio::test]
async fn a_standard_plugin_describes_itself() {
    let plugin = engine().load(&standard("prefix-suffix", PluginKind::Interceptor)).await.unwrap();
    assert_eq!(plugin.kind(), PluginKind::Interceptor);
    assert_eq!(plugin.description().name, "prefix-suffix");
    assert!(plugin.description().config_schema.as_ref().unwrap().is_object());
    assert_eq!(plugin.digest().len(), 64);
    assert!(plugin.imports().iter().any(|import| import == "wasmflow:plugin/events@0.1.0"));
    assert!(plugin.expect_kind(PluginKind::Sink).is_err());
}

#[tokio::test]
async fn an_interceptor_rewrites_bodies_and_leaves_the_original_as_it_was() {
    let plugin = engine().load(&standard("prefix-suffix", PluginKind::Interceptor)).await.unwrap();
    let mut instance = plugin.interceptor(&stage(PluginKind::Interceptor)).await.unwrap();
    instance.open(r#"{"prefix":"<","suffix":">"}"#).await.unwrap();
    let before = batch(&["a", "", "bcd"]);
    let after = instance.intercept(&before, 1).await.unwrap();
    assert_eq!(after.batch.bodies().iter().collect::<Vec<_>>(), [&b"<a>"[..], b"<>", b"<bcd>"]);
    assert_eq!((after.filtered, after.rejected.len(), after.oldest_kept), (0, 0, None));
    assert_eq!(before.bodies().get(2), b"bcd");
    assert_eq!(instance.worn(), None);
    instance.close().await.unwrap();
}

#[tokio::test]
async fn a_source_goes_on_where_its_position_says_and_finishes() {
    let plugin = engine().load(&standard("seq", PluginKind::Source)).await.unwrap();
    assert!(plugin.description().replays);
    let mut position = Position::default();
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let mut source = plugin.source(&stage(PluginKind::Source)).await.unwrap();
        source.open(r#"{"total":5}"#, &position).await.unwrap();
        let Progress::Events(polled) = source.poll(3, 1 << 20, Duration::ZERO).await.unwrap() else {
            panic!("no events")
        };
        bodies.extend(polled.batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()));
        position.apply(&polled.position);
        source.acked(1).await.unwrap();
        if bodies.len() == 5 {
            assert!(matches!(source.poll(3, 1 << 20, Duration::ZERO).await.unwrap(), Progress::Finished));
        }
    }
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_sink_delivers() {
    let plugin = engine().load(&standard("null", PluginKind::Sink)).await.unwrap();
    let mut sink = plugin.sink(&stage(PluginKind::Sink)).await.unwrap();
    sink.open("{}").await.unwrap();
    let delivery = Delivery { log: "events-1".into(), first: 0, next: 2, attempt: 1 };
    let delivered = sink.deliver(&batch(&["a", "b"]), &delivery).await.unwrap();
    assert_eq!(delivered.outcome, Outcome::Delivered);
}

#[tokio::test]
async fn an_unknown_standard_plugin_is_answered_with_those_there_are() {
    let error = engine().load(&standard("nul", PluginKind::Sink)).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no standard sink `nul`");
    assert!(error.remedy().unwrap().contains("`null`"));
}

#[tokio::test]
async fn what_is_no_component_is_told_apart() {
    assert!(matches!(load_file(b"hello, this is text").await, Err(PluginError::NotWasm { .. })));
    assert!(matches!(load_file(b"").await, Err(PluginError::NotWasm { .. })));
    assert!(matches!(load_file(b"\0as").await, Err(PluginError::Damaged { .. })));
    assert!(matches!(load_file(b"  (component)").await, Err(PluginError::Text { .. })));
    assert!(matches!(load_file(b"\0asm\x01\0\0\0").await, Err(PluginError::CoreModule { .. })));
    assert!(matches!(load_file(b"\0asm\x0d\0\x01\0").await, Err(PluginError::WrongWorld { .. })));
    let missing = engine().load(&PluginOrigin::File("/nowhere/plugin.wasm".into())).await;
    assert!(matches!(missing, Err(PluginError::Read { .. })));
    let folder = engine().load(&PluginOrigin::File("/".into())).await;
    assert!(matches!(folder, Err(PluginError::Read { .. })));
}

#[tokio::test]
async fn a_plugin_cut_short_or_with_flipped_bits_is_damaged() {
    let whole = standard::find(PluginKind::Sink, "null").unwrap();
    for length in [9, 100, whole.len() / 2, whole.len() - 1] {
        let error = load_file(&whole[..length]).await.unwrap_err();
        assert!(matches!(error, PluginError::Damaged { .. } | PluginError::WrongWorld { .. }), "{length}: {error}");
    }
    let mut flipped = whole.to_vec();
    for byte in flipped.iter_mut().skip(2000).step_by(97).take(500) {
        *byte ^= 0x55;
    }
    assert!(load_file(&flipped).await.is_err());
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.wasm");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let error = engine().load(&PluginOrigin::File(path)).await.unwrap_err();
    assert!(matches!(error, PluginError::TooLarge { bytes: 104_857_600, .. }));
}

#[tokio::test]
async fn a_second_start_finds_the_plugin_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let options = EngineOptions { cache_dir: Some(dir.path().join("code")), compiler: None };
    let origin = standard("seq", PluginKind::Source);
    let timed = async |engine: Engine| {
        let started = Instant::now();
        let plugin = engine.load(&origin).await.unwrap();
        (started.elapsed(), plugin)
    };
    let (cold, _) = timed(Engine::new(options.clone()).unwrap()).await;
    let files: Vec<_> = std::fs::read_dir(dir.path().join("code")).unwrap().collect();
    assert_eq!(files.len(), 1);
    let (warm, _) = timed(Engine::new(options).unwrap()).await;
    println!("cold {cold:?}, warm {warm:?}");
    assert!(warm < cold, "cold {cold:?}, warm {warm:?}");
}

#[tokio::test]
async fn two_stages_share_one_compilation() {
    let engine = engine();
    let origin = standard("null", PluginKind::Sink);
    let (one, other) = (engine.load(&origin).await.unwrap(), engine.load(&origin).await.unwrap());
    assert!(Arc::ptr_eq(&one, &other));
}

#[tokio::test]
async fn a_granted_folder_that_is_not_there_is_tried_again() {
    let plugin = engine().load(&standard("null", PluginKind::Sink)).await.unwrap();
    let dir =
        crate::config::DirGrant { path: Path::new("/nowhere/logs").into(), as_written: "logs".into(), write: false };
    let grants = Grants { dirs: vec![dir], ..Grants::default() };
    let Err(CallError::Failure(Failure::Retry { reason, .. })) =
        plugin.sink(&StageContext { grants, ..stage(PluginKind::Sink) }).await
    else {
        panic!("not a retry")
    };
    assert!(reason.contains("cannot open the granted folder `logs` (/nowhere/logs)"), "{reason}");
}

/// What `tail` reads of a file that it is told to find in a folder granted under this name.
async fn tailed(folder: &Path, as_written: &str) -> Result<Vec<String>, CallError> {
    let plugin = engine().load(&standard("tail", PluginKind::Source)).await.unwrap();
    let dir = crate::config::DirGrant { path: folder.into(), as_written: as_written.into(), write: false };
    let grants = Grants { dirs: vec![dir], ..Grants::default() };
    let mut source = plugin.source(&StageContext { grants, ..stage(PluginKind::Source) }).await?;
    let config = serde_json::json!({ "files": [format!("{as_written}/*.log")], "follow": false });
    source.open(&config.to_string(), &Position::default()).await?;
    let mut lines = Vec::new();
    for _ in 0..100 {
        match source.poll(100, 1 << 20, Duration::from_millis(10)).await? {
            Progress::Finished => break,
            Progress::Idle => {}
            Progress::Events(polled) => {
                lines.extend(polled.batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()));
            }
        }
    }
    Ok(lines)
}

#[tokio::test]
async fn a_granted_folder_is_seen_under_the_path_as_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.log"), "one\ntwo\n").unwrap();
    for as_written in ["logs", "./logs", "../logs", "deep/er/logs", dir.path().to_str().unwrap()] {
        assert_eq!(tailed(dir.path(), as_written).await.unwrap(), ["one", "two"], "{as_written}");
    }
}

#[tokio::test]
async fn a_link_out_of_a_granted_folder_is_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret.log"), "secret\n").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.log"), dir.path().join("link.log")).unwrap();
    std::fs::write(dir.path().join("a.log"), "one\n").unwrap();
    let lines = tailed(dir.path(), "logs").await.unwrap_or_default();
    assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:?}");
}
