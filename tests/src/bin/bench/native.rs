//! References that run in this process: the same source, channel and sink with native functions in place of the interceptors and
//! no runner around the calls; and bytes that are only copied.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use regex::bytes::Regex;
use tokio::sync::Notify;
use wasmflow::channel::{Capacity, Channel, MemoryChannel, PutNote, Reader, TakeLimits, commit_puts};
use wasmflow::config::{Grants, Limits};
use wasmflow::event::{Batch, Column, PackedBuilder};
use wasmflow::plugin::{Delivery, Engine, EngineOptions, Plugin, PluginKind, PluginOrigin, Progress, StageContext};
use wasmflow::position::Position;
use wasmflow_tests::run::Account;

use crate::contest::Sample;

/// Of `regex-filter`; every body of `stress` has it.
pub const PATTERN: &str = "[0-9]+:.*[a-f]+xyz|[0-9]+:.*xyz";
/// Of `search-replace`: one match or two in each body of `stress`.
pub const SEARCH: &str = "[0-9]+";

const BATCH: u32 = 1000;
const BATCH_BYTES: u32 = 1 << 20;

/// What an interceptor does, in the host's own types.
pub enum Native {
    Header,
    Timestamp,
    Affix,
    Regex,
    Replace,
}

impl Native {
    /// # Panics
    /// When the result does not fit the batch, which is this function's own fault.
    fn apply(&self, mut batch: Batch) -> Batch {
        static FILTER: OnceLock<Regex> = OnceLock::new();
        static WANTED: OnceLock<Regex> = OnceLock::new();
        match self {
            Self::Header => batch.set_header("site", Column::Constant("north".into())),
            Self::Timestamp => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
                batch.set_header("timestamp", Column::Constant(now.to_string().into()))
            }
            Self::Affix => rewrite(&mut batch, |body, out| {
                out.push(b'<');
                out.extend_from_slice(body);
                out.push(b'>');
            }),
            Self::Regex => {
                let filter = FILTER.get_or_init(|| Regex::new(PATTERN).expect("the pattern is ours"));
                let bodies = batch.bodies().iter();
                let rows: Vec<u32> =
                    (0..).zip(bodies).filter(|(_, body)| filter.is_match(body)).map(|(row, _)| row).collect();
                return batch.select(&rows).expect("the rows are of this batch");
            }
            Self::Replace => {
                let wanted = WANTED.get_or_init(|| Regex::new(SEARCH).expect("the pattern is ours"));
                rewrite(&mut batch, |body, out| out.extend_from_slice(&wanted.replace_all(body, &b"x"[..])))
            }
        }
        .expect("there is a value for each event");
        batch
    }
}

fn rewrite(batch: &mut Batch, mut write: impl FnMut(&[u8], &mut Vec<u8>)) -> Result<(), wasmflow::event::ColumnError> {
    let bodies = batch.bodies();
    let mut written = PackedBuilder::with_capacity(bodies.len(), bodies.data().len() + 2 * bodies.len());
    bodies.iter().for_each(|body| written.push_with(|out| write(body, out)));
    batch.set_bodies(written.finish())
}

/// Events a second of the road without runners.
///
/// # Errors
/// When a plugin fails.
pub fn road(body_bytes: usize, steps: &[Native], sinks: usize, events: u64) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = Engine::new(EngineOptions::default())?;
        let source = standard(&engine, PluginKind::Source, "stress").await?;
        let sink = standard(&engine, PluginKind::Sink, "null").await?;
        let channel = Channel::Memory(MemoryChannel::new("events", 0, Capacity { events: 100_000, bytes: 256 << 20 }));
        let readers: Vec<_> = (0..sinks).map(|number| channel.reader(&number.to_string())).collect::<Result<_, _>>()?;
        let mut instance = source.source(&stage(PluginKind::Source)).await?;
        instance.open(&format!("{{\"size_bytes\":{body_bytes},\"total\":{events}}}"), &Position::default()).await?;
        // First: a log that nobody writes has ended.
        let writer = channel.writer();
        let mut tasks = Vec::new();
        for reader in readers {
            let sink = sink.clone();
            tasks.push(tokio::spawn(async move { drain(&sink, reader).await }));
        }
        let began = Account::open()?;
        let settled = Arc::new(Notify::new());
        while let Progress::Events(polled) = instance.poll(BATCH, BATCH_BYTES, Duration::from_secs(1)).await? {
            let batch = steps.iter().fold(polled.batch, |batch, step| step.apply(batch));
            let put = channel.begin_put(batch).await?;
            commit_puts(vec![put], PutNote::of("stress"), &settled)?;
        }
        drop(writer);
        for task in tasks {
            task.await??;
        }
        Ok(Sample { resident: None, ..Sample::rate(events as f64, &began.close()?) })
    })
}

async fn drain(sink: &Arc<Plugin>, mut reader: Reader) -> anyhow::Result<()> {
    let mut instance = sink.sink(&stage(PluginKind::Sink)).await?;
    instance.open("{}").await?;
    let limits = TakeLimits { events: BATCH as usize, bytes: BATCH_BYTES as usize, wait: Duration::ZERO };
    while let Some(taken) = reader.take(&limits).await? {
        let delivery = Delivery { log: "events".into(), first: taken.first, next: taken.next, attempt: 1 };
        instance.deliver(&taken.batch, &delivery).await?;
        reader.settle(taken.next);
    }
    Ok(())
}

async fn standard(engine: &Engine, kind: PluginKind, name: &str) -> anyhow::Result<Arc<Plugin>> {
    let origin = PluginOrigin::Standard { name: name.into(), kind };
    engine.load(&origin).await.with_context(|| format!("cannot load `{name}`"))
}

fn stage(plugin_kind: PluginKind) -> StageContext {
    StageContext {
        pipeline: "bench".into(),
        stage: "stage".into(),
        plugin_kind,
        grants: Grants::default(),
        limits: Limits::default(),
        max_event_bytes: 16 << 20,
        counters: Arc::default(),
        kafka: None,
        log: Arc::default(),
        pace: Arc::default(),
        bundles: None,
    }
}

/// Events a second of a native function called with one batch again and again, as a plugin would be.
///
/// # Errors
/// When the kernel does not say what that took.
pub fn calls(native: &Native, body_bytes: usize) -> anyhow::Result<Sample> {
    const CALLS: u64 = 20_000;
    let body: Vec<u8> = (b'!'..=b'~').cycle().take(body_bytes).collect();
    let batch = Batch::new(std::iter::repeat_n(body, BATCH as usize).collect());
    let account = Account::open()?;
    for _ in 0..CALLS {
        std::hint::black_box(native.apply(std::hint::black_box(batch.clone())));
    }
    Ok(Sample { resident: None, ..Sample::rate((CALLS * u64::from(BATCH)) as f64, &account.close()?) })
}

/// Events a second where their bytes are copied once, batch by batch, and nothing else is done.
///
/// # Errors
/// When the kernel does not say what that took.
pub fn copied(body_bytes: usize, events: u64) -> anyhow::Result<Sample> {
    let from = vec![b'x'; body_bytes * BATCH as usize];
    let mut to = vec![0_u8; from.len()];
    let account = Account::open()?;
    for _ in 0..events.div_ceil(u64::from(BATCH)) {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    }
    Ok(Sample { resident: None, ..Sample::rate(events as f64, &account.close()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `stress` makes it.
    fn body() -> Vec<u8> {
        (b'!'..=b'~').cycle().take(100).collect()
    }

    #[test]
    fn native_functions_do_what_the_plugins_are_asked_for() {
        let batch = || Batch::new([body(), body()].iter().collect());
        let affixed = Native::Affix.apply(batch());
        assert_eq!(affixed.bodies().get(1), [b"<", body().as_slice(), b">"].concat());
        assert_eq!(Native::Regex.apply(batch()).count(), 2, "the pattern is in each body");
        let replaced = Native::Replace.apply(batch());
        assert!(replaced.bodies().get(0).windows(2).any(|pair| pair == b"/x"), "digits are gone");
        let stamped = Native::Timestamp.apply(Native::Header.apply(batch()));
        assert_eq!(stamped.header_names().len(), 2);
    }
}
