//! Runs a bundle: a fresh instance, the same call.

use std::sync::Arc;
use std::time::Duration;

use super::bundle::{Bundle, Given, PluginBytes};
use crate::config::Grants;
use crate::event::Batch;
use crate::plugin::{
    CallError, Delivery, Engine, Plugin, PluginError, PluginKind, PluginOrigin, Progress, StageContext, TrapKind,
};

/// Polls of a source that may go well before it fails.
const POLLS: usize = 100;
const POLL_EVENTS: u32 = 1000;
const POLL_BYTES: u32 = 1 << 20;
const POLL_WAIT: Duration = Duration::from_millis(100);

/// What became of the call this time.
#[derive(Debug)]
pub enum Replayed {
    /// It ended in the way that the bundle says; the words may differ.
    Again(String),
    /// It ended in another way.
    Otherwise(TrapKind, String),
    /// The plugin answered an error of its own.
    Failed(String),
    /// It went well. What came of it, in words.
    Well(String),
}

/// Gives the bundle's events to its plugin, or to another one in its place, which is how a mended plugin is tried.
///
/// Of the grants only `random` and `wall_clock` are given: a bundle may be a stranger's, and neither reaches anything.
///
/// # Errors
/// When the plugin cannot be loaded, or is of another kind.
pub async fn replay(engine: &Engine, bundle: &Bundle, instead: Option<PluginOrigin>) -> Result<Replayed, PluginError> {
    let plugin = match (instead, &bundle.bytes) {
        (Some(origin), _) => engine.load(&origin).await?,
        (None, PluginBytes::Inside(bytes)) => engine.load_bytes(&bundle.plugin, bytes.clone()).await?,
        (None, PluginBytes::Elsewhere) => engine.load(&bundle.plugin).await?,
    };
    plugin.expect_kind(bundle.kind)?;
    let outcome = match bundle.kind {
        PluginKind::Source => polled(&plugin, bundle).await,
        PluginKind::Interceptor => intercepted(&plugin, bundle).await,
        PluginKind::Sink => delivered(&plugin, bundle).await,
    };
    Ok(match outcome {
        Ok(words) => Replayed::Well(words),
        Err(CallError::Failure(failure)) => Replayed::Failed(failure.to_string()),
        Err(CallError::Trap { kind, text }) if kind == bundle.failure.0 => Replayed::Again(text),
        Err(CallError::Trap { kind, text }) => Replayed::Otherwise(kind, text),
    })
}

fn context(bundle: &Bundle) -> StageContext {
    StageContext {
        pipeline: bundle.pipeline.as_str().into(),
        stage: bundle.stage.as_str().into(),
        plugin_kind: bundle.kind,
        grants: Grants { random: bundle.random, wall_clock: bundle.wall_clock, ..Grants::default() },
        limits: bundle.limits,
        max_event_bytes: bundle.max_event_bytes,
        counters: Arc::default(),
        kafka: None,
        log: Arc::default(),
        pace: Arc::default(),
        bundles: None,
    }
}

fn batch(bundle: &Bundle) -> Batch {
    match &bundle.given {
        Given::Events(events) => Batch::from_events(events),
        Given::Position(_) => Batch::empty(),
    }
}

async fn polled(plugin: &Plugin, bundle: &Bundle) -> Result<String, CallError> {
    let position = match &bundle.given {
        Given::Position(position) => position.clone(),
        Given::Events(_) => Default::default(),
    };
    let mut source = plugin.source(&context(bundle)).await?;
    source.open(&bundle.config, &position).await?;
    let mut events = 0;
    for poll in 1..=POLLS {
        match source.poll(POLL_EVENTS, POLL_BYTES, POLL_WAIT).await? {
            Progress::Events(polled) => events += polled.batch.count(),
            Progress::Idle => {}
            Progress::Finished => return Ok(format!("{events} events in {poll} polls, then the end")),
        }
        source.acked(poll as u64).await?;
    }
    source.close().await?;
    Ok(format!("{events} events in {POLLS} polls"))
}

async fn intercepted(plugin: &Plugin, bundle: &Bundle) -> Result<String, CallError> {
    let batch = batch(bundle);
    let mut interceptor = plugin.interceptor(&context(bundle)).await?;
    interceptor.open(&bundle.config).await?;
    let after = interceptor.intercept(&batch, 1).await?;
    interceptor.close().await?;
    Ok(format!("{} events in, {} out, {} rejected", batch.count(), after.batch.count(), after.rejected.len()))
}

async fn delivered(plugin: &Plugin, bundle: &Bundle) -> Result<String, CallError> {
    let batch = batch(bundle);
    let mut sink = plugin.sink(&context(bundle)).await?;
    sink.open(&bundle.config).await?;
    let delivery = Delivery { log: "replay".into(), first: 0, next: batch.count() as u64, attempt: 1 };
    let delivered = sink.deliver(&batch, &delivery).await?;
    sink.close().await?;
    Ok(format!("{} events delivered, {} rejected", batch.count() - delivered.rejected.len(), delivered.rejected.len()))
}
