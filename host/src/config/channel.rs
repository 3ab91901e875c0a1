//! One channel's table: its kind, its bounds, and which keys belong to which kind.

use std::time::Duration;

use super::diagnostic::{Diagnostic, Span};
use super::file::{ChannelTable, ChannelWord, CompressionWord, CorruptionWord, StartWord, SyncWord};
use super::pipeline::{
    ChannelKind, ChannelSpec, Compression, DeliveryPromise, FileSpec, OnCorruption, Retain, SyncRule,
};
use super::quantity::show_duration;
use super::read::At;

const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The channel as trusted, where `problems` has nothing to say.
pub fn spec(table: &ChannelTable, promise: DeliveryPromise) -> ChannelSpec {
    let kind = match is_file(table) {
        true => ChannelKind::File(file_spec(table)),
        false => ChannelKind::Memory,
    };
    let default = ChannelSpec::of(kind, promise);
    ChannelSpec {
        kind: default.kind,
        capacity_events: table.capacity_events.as_ref().map_or(default.capacity_events, |at| at.value.0 as usize),
        capacity_bytes: table.capacity_bytes.as_ref().map_or(default.capacity_bytes, |at| at.value.0 as usize),
    }
}

fn is_file(table: &ChannelTable) -> bool {
    table.r#type.as_ref().is_some_and(|at| at.value == ChannelWord::File)
}

fn file_spec(table: &ChannelTable) -> FileSpec {
    let default = FileSpec::default();
    let interval = table.sync_interval.as_ref().map_or(SYNC_INTERVAL, |at| at.value.0);
    let retain = table.retain.as_ref().map(|at| &at.value.0);
    FileSpec {
        sync: match table.sync.as_ref().map(|at| at.value) {
            Some(SyncWord::Always) | None => SyncRule::Always,
            Some(SyncWord::Interval) => SyncRule::Interval(interval),
            Some(SyncWord::Os) => SyncRule::Os,
        },
        compression: match table.compression.as_ref().map(|at| at.value) {
            Some(CompressionWord::None) | None => Compression::None,
            Some(CompressionWord::Lz4) => Compression::Lz4,
            Some(CompressionWord::Zstd) => Compression::Zstd,
        },
        retain: Retain {
            age: retain.and_then(|retain| retain.age.as_ref()).map(|at| at.value.0),
            bytes: retain.and_then(|retain| retain.bytes.as_ref()).map(|at| at.value.0),
        },
        segment_bytes: table.segment_bytes.as_ref().map_or(default.segment_bytes, |at| at.value.0),
        min_free_bytes: table.min_free.as_ref().map_or(default.min_free_bytes, |at| at.value.0),
        on_corruption: match table.on_corruption.as_ref().map(|at| at.value) {
            Some(CorruptionWord::Fail) | None => OnCorruption::Fail,
            Some(CorruptionWord::Skip) => OnCorruption::Skip,
        },
    }
}

/// Keys that contradict each other, and what a weaker `sync` means.
pub fn problems(table: &ChannelTable) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if !is_file(table) {
        problems.extend(file_keys(table).into_iter().map(|(key, span)| for_files_only(key, span)));
        return problems;
    }
    let sync = table.sync.as_ref();
    let is_interval = sync.is_some_and(|at| at.value == SyncWord::Interval);
    if let Some(interval) = table.sync_interval.as_ref().filter(|_| !is_interval) {
        let message = "`sync_interval` does nothing without `sync = \"interval\"`";
        problems.push(Diagnostic::error("contradiction", interval.span.clone(), message));
    }
    problems.extend(sync.and_then(|sync| window_note(sync, table)));
    problems
}

/// What a power cut may take.
fn window_note(sync: &At<SyncWord>, table: &ChannelTable) -> Option<Diagnostic> {
    let lost = match sync.value {
        SyncWord::Always => return None,
        SyncWord::Interval => {
            let interval = table.sync_interval.as_ref().map_or(SYNC_INTERVAL, |at| at.value.0);
            format!("what was put in the last {}", show_duration(interval))
        }
        SyncWord::Os => "what the operating system had not written yet, half a minute's worth as a rule".into(),
    };
    let message = "sources hear that their events are safe before they are synced to disk";
    let hint = format!("a power cut can lose {lost}; the end of the process alone loses nothing");
    Some(Diagnostic::note("sync-window", sync.span.clone(), message).hint(hint))
}

fn file_keys(table: &ChannelTable) -> Vec<(&'static str, Span)> {
    let keys = [
        ("sync", table.sync.as_ref().map(|at| &at.span)),
        ("sync_interval", table.sync_interval.as_ref().map(|at| &at.span)),
        ("compression", table.compression.as_ref().map(|at| &at.span)),
        ("retain", table.retain.as_ref().map(|at| &at.span)),
        ("segment_bytes", table.segment_bytes.as_ref().map(|at| &at.span)),
        ("min_free", table.min_free.as_ref().map(|at| &at.span)),
        ("on_corruption", table.on_corruption.as_ref().map(|at| &at.span)),
    ];
    keys.into_iter().filter_map(|(key, span)| Some((key, span?.clone()))).collect()
}

fn for_files_only(key: &str, span: Span) -> Diagnostic {
    let problem = Diagnostic::error("contradiction", span, format!("a memory channel has no `{key}`"));
    problem.hint("add `type = \"file\"` for a channel that outlives the process, or take the key out")
}

/// A memory channel is empty at the start, so there is nothing to choose.
pub fn start_problem(at: &At<StartWord>, channel: &(Span, ChannelSpec)) -> Option<Diagnostic> {
    if channel.1.is_durable() {
        return None;
    }
    let message = "`start_at` does nothing at a memory channel, which is empty at the start";
    let problem = Diagnostic::error("contradiction", at.span.clone(), message);
    Some(problem.related(channel.0.clone(), "this channel").hint("take the key out"))
}
