//! Taking: which events of a log make the next batch.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::Batch;

/// Bounds of one take.
#[derive(Debug, Clone, Copy)]
pub struct TakeLimits {
    pub events: usize,
    /// About: the first event is taken whatever its size.
    pub bytes: usize,
    /// How long to wait for a fuller batch once the first event is there.
    pub wait: Duration,
}

/// Events taken and not yet settled: `first` to `next`, `next` not included.
#[derive(Debug, Clone)]
pub struct Taken {
    pub batch: Batch,
    pub first: u64,
    pub next: u64,
}

impl Taken {
    pub(super) fn new(batches: &[Batch], first: u64) -> Self {
        let batch = Batch::concat(batches);
        let next = first + batch.count() as u64;
        Self { batch, first, next }
    }
}

/// Events from `from` on, within the limits, cut at nothing but them. The first event always fits. `entries` are batches in
/// order, each with the sequence number of its first event; the first of them holds `from`.
pub(super) fn collect<'e>(
    entries: impl Iterator<Item = (u64, &'e Batch)>,
    from: u64,
    limits: &TakeLimits,
) -> Vec<Batch> {
    let (mut batches, mut events, mut bytes) = (Vec::new(), 0, 0);
    for (first, batch) in entries {
        let skip = from.saturating_sub(first) as usize;
        let count = (batch.count() - skip).min(limits.events - events);
        let part = batch.slice(skip..skip + count);
        let fitting = fitting(&part, limits.bytes.saturating_sub(bytes), batches.is_empty());
        if fitting == 0 {
            break;
        }
        let part = part.slice(0..fitting);
        events += fitting;
        bytes += part.byte_size();
        batches.push(part);
        if fitting < count || events == limits.events || bytes >= limits.bytes {
            break;
        }
    }
    batches
}

/// How many leading events of `part` fit into `bytes`, at least one where `one` says that one must go.
fn fitting(part: &Batch, bytes: usize, one: bool) -> usize {
    if part.byte_size() <= bytes {
        return part.count();
    }
    // By the bodies alone: headers rarely vary enough to matter, and `bytes` is a bound of batches, not of memory.
    let fitting = part.bodies().ends().partition_point(|&end| end as usize <= bytes);
    fitting.max(usize::from(one)).min(part.count())
}

/// Whether what waits is to be taken now rather than wait for a fuller batch; starts the wait with the first event.
pub(super) fn is_due(deadline: &mut Option<Instant>, waiting: usize, wait: Duration) -> bool {
    if waiting == 0 {
        return false;
    }
    if wait.is_zero() {
        return true;
    }
    let now = Instant::now();
    *deadline.get_or_insert(now + wait) <= now
}
