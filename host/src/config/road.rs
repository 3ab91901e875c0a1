//! The road of the events: which channels there are, who writes them and who reads them.

use std::collections::BTreeMap;

use super::check::named;
use super::diagnostic::{Diagnostic, Span, nearest_hint};
use super::file::{PipelineFile, PipelineTable, SelectorTable, SelectorWord, SourceTable};
use super::pipeline::{ChannelName, ChannelSpec, SelectorSpec};
use super::read::At;
use super::{channel, exactly_once};

/// The channels of a file, by name, each with the place of its name.
pub struct Road<'f> {
    file: &'f PipelineFile,
    channels: BTreeMap<&'f str, (Span, ChannelSpec)>,
}

/// A bound on batches that the file states, beside the channel it must fit into.
struct Bound<'f> {
    key: &'static str,
    amount: Option<(u64, &'f Span)>,
    channel: &'f str,
    capacity: fn(&ChannelSpec) -> usize,
    capacity_key: &'static str,
}

impl<'f> Road<'f> {
    pub fn of(file: &'f PipelineFile) -> Road<'f> {
        let promise = exactly_once::promise(file);
        let channel = |table| channel::spec(table, promise);
        let channels =
            named(&file.channels).map(|(name, table)| (name.value.as_str(), (name.span.clone(), channel(table))));
        Road { file, channels: channels.collect() }
    }

    pub fn channel_specs(&self) -> BTreeMap<ChannelName, ChannelSpec> {
        self.channels.iter().map(|(name, (_, spec))| (ChannelName::new(*name), spec.clone())).collect()
    }

    pub fn smallest_capacity_bytes(&self) -> u64 {
        self.channels.values().map(|(_, spec)| spec.capacity_bytes as u64).min().unwrap_or(u64::MAX)
    }

    /// A batch's default bounds, lowered to what the smallest of these channels holds: a default never contradicts the file.
    pub fn default_batch<'c>(&self, channels: impl Iterator<Item = &'c At<String>>) -> (u32, u32) {
        let mut bounds = (1_000, 1 << 20);
        for (_, spec) in channels.filter_map(|channel| self.channels.get(channel.value.as_str())) {
            bounds.0 = bounds.0.min(u32::try_from(spec.capacity_events).unwrap_or(u32::MAX));
            bounds.1 = bounds.1.min(u32::try_from(spec.capacity_bytes).unwrap_or(u32::MAX));
        }
        bounds
    }

    /// `is_whole`: every value of the file could be read, so what is absent is absent.
    pub fn check(&self, table: &'f PipelineTable, is_whole: bool, diagnostics: &mut Vec<Diagnostic>) {
        let mut writers: Vec<&At<String>> = table.dead_letters.iter().collect();
        for (name, source) in named(&self.file.sources) {
            diagnostics.extend(selector_problems(name, source, is_whole));
            diagnostics.extend(channel_lists(source).into_iter().flat_map(|list| named_twice(list)));
            writers.extend(channels_of(source));
        }
        let readers: Vec<&At<String>> = named(&self.file.sinks).filter_map(|(_, sink)| sink.channel.as_ref()).collect();
        for reference in writers.iter().chain(&readers) {
            diagnostics.extend(self.unknown(reference));
        }
        for (_, table) in named(&self.file.channels) {
            diagnostics.extend(channel::problems(table));
        }
        for (_, sink) in named(&self.file.sinks) {
            let spec = sink.channel.as_ref().and_then(|channel| self.channels.get(channel.value.as_str()));
            diagnostics
                .extend(sink.start_at.as_ref().zip(spec).and_then(|(at, spec)| channel::start_problem(at, spec)));
        }
        diagnostics.extend(named(&self.file.sources).filter_map(|(name, source)| self.mixed(name, source)));
        if is_whole {
            self.abandoned(&writers, &readers, diagnostics);
        }
        diagnostics.extend(self.bounds(table).iter().filter_map(|bound| self.too_large(bound)));
    }

    /// Whether a channel of the source is in memory.
    pub fn has_memory(&self, source: &SourceTable) -> bool {
        let mut specs = channels_of(source).filter_map(|channel| self.channels.get(channel.value.as_str()));
        specs.any(|(_, spec)| !spec.is_durable())
    }

    /// A file channel beside a memory channel starts where all sinks have settled, so it can see repeats.
    fn mixed(&self, name: &At<String>, source: &SourceTable) -> Option<Diagnostic> {
        let durable = channels_of(source)
            .find(|channel| self.channels.get(channel.value.as_str()).is_some_and(|(_, spec)| spec.is_durable()))?;
        if !self.has_memory(source) {
            return None;
        }
        let message = format!("source `{}` feeds memory channels and file channels", name.value);
        let note = Diagnostic::note("mixed-channels", durable.span.clone(), message);
        Some(note.hint(format!(
            "after a crash it goes on at what the sinks of all its channels have settled, so channel `{}` may get some events \
             twice; with file channels alone it would not",
            durable.value
        )))
    }

    fn unknown(&self, reference: &At<String>) -> Option<Diagnostic> {
        let name = reference.value.as_str();
        if self.channels.contains_key(name) {
            return None;
        }
        let problem =
            Diagnostic::error("unknown-channel", reference.span.clone(), format!("there is no channel `{name}`"));
        Some(problem.maybe_hint(nearest_hint(name, self.channels.keys().copied(), "channel")))
    }

    /// A channel that nobody reads fills and stops its sources; one that nobody writes is a mistake in a name.
    fn abandoned(&self, writers: &[&At<String>], readers: &[&At<String>], diagnostics: &mut Vec<Diagnostic>) {
        let uses = |users: &[&At<String>], name: &str| users.iter().any(|user| user.value == name);
        for (name, (span, _)) in &self.channels {
            let (code, message, hint) = match (uses(readers, name), uses(writers, name)) {
                (true, true) => continue,
                (false, false) => {
                    ("unused-channel", format!("no source writes channel `{name}`, and no sink reads it"), None)
                }
                (false, true) => {
                    ("unread-channel", format!("no sink reads channel `{name}`"), Some("`channel` of a sink"))
                }
                (true, false) => {
                    let message = format!("no source writes channel `{name}`");
                    ("unwritten-channel", message, Some("`channels` of a source"))
                }
            };
            let add = hint.map_or(String::new(), |key| format!("add it to the {key}, or "));
            diagnostics.push(Diagnostic::error(code, span.clone(), message).hint(format!("{add}take the channel out")));
        }
    }

    fn bounds(&self, table: &'f PipelineTable) -> Vec<Bound<'f>> {
        let mut bounds = Vec::new();
        for (_, source) in named(&self.file.sources) {
            let events = source.batch_events.as_ref().map(|at| (at.value.0, &at.span));
            let bytes = source.batch_bytes.as_ref().map(|at| (at.value.0, &at.span));
            for channel in channels_of(source) {
                bounds.extend([in_events("batch_events", events, channel), in_bytes("batch_bytes", bytes, channel)]);
            }
        }
        for (_, sink) in named(&self.file.sinks) {
            let events = sink.batch_events.as_ref().map(|at| (at.value.0, &at.span));
            let bytes = sink.batch_bytes.as_ref().map(|at| (at.value.0, &at.span));
            if let Some(channel) = &sink.channel {
                bounds.extend([in_events("batch_events", events, channel), in_bytes("batch_bytes", bytes, channel)]);
            }
        }
        let event = table.max_event_bytes.as_ref().map(|at| (at.value.0, &at.span));
        bounds.extend(named(&self.file.channels).map(|(channel, _)| in_bytes("max_event_bytes", event, channel)));
        bounds
    }

    fn too_large(&self, bound: &Bound<'_>) -> Option<Diagnostic> {
        let (amount, span) = bound.amount?;
        let (channel_span, spec) = self.channels.get(bound.channel)?;
        if amount <= (bound.capacity)(spec) as u64 {
            return None;
        }
        let message = format!("`{}` is larger than channel `{}` can hold", bound.key, bound.channel);
        let problem = Diagnostic::error("batch-too-large", span.clone(), message);
        let hint = format!("make `{}` smaller, or the channel's `{}` larger", bound.key, bound.capacity_key);
        Some(problem.related(channel_span.clone(), "this channel").hint(hint))
    }
}

fn in_events<'f>(key: &'static str, amount: Option<(u64, &'f Span)>, channel: &'f At<String>) -> Bound<'f> {
    let capacity = |spec: &ChannelSpec| spec.capacity_events;
    Bound { key, amount, channel: &channel.value, capacity, capacity_key: "capacity_events" }
}

fn in_bytes<'f>(key: &'static str, amount: Option<(u64, &'f Span)>, channel: &'f At<String>) -> Bound<'f> {
    let capacity = |spec: &ChannelSpec| spec.capacity_bytes;
    Bound { key, amount, channel: &channel.value, capacity, capacity_key: "capacity_bytes" }
}

/// Every mention of a channel by a source, in whichever way it says so.
pub fn channels_of(source: &SourceTable) -> impl Iterator<Item = &At<String>> {
    channel_lists(source).into_iter().flatten()
}

fn channel_lists(source: &SourceTable) -> Vec<&Vec<At<String>>> {
    let mut lists: Vec<&Vec<At<String>>> = source.channels.iter().map(|at| &at.value).collect();
    if let Some(selector) = &source.selector {
        let selector = &selector.value;
        lists.extend(selector.channels.iter().chain(&selector.default).map(|at| &at.value));
        lists.extend(selector.routes.iter().flat_map(|at| &at.value.0).map(|(_, channels)| channels));
    }
    lists
}

/// The source's selector as trusted; nothing where `selector_problems` has something to say.
pub fn selector(source: &SourceTable) -> Option<SelectorSpec> {
    let list = |channels: &[At<String>]| channels.iter().map(|at| ChannelName::new(at.value.as_str())).collect();
    let Some(selector) = &source.selector else {
        return Some(SelectorSpec::Replicating(list(&source.channels.as_ref()?.value)));
    };
    let selector = &selector.value;
    match selector.r#type.as_ref()?.value {
        SelectorWord::Replicating => Some(SelectorSpec::Replicating(list(&selector.channels.as_ref()?.value))),
        SelectorWord::Multiplexing => {
            let routes = &selector.routes.as_ref()?.value.0;
            Some(SelectorSpec::Multiplexing {
                header: selector.header.as_ref()?.value.clone(),
                routes: routes.iter().map(|(value, channels)| (value.value.clone(), list(channels))).collect(),
                default: selector.default.as_ref().map_or(Vec::new(), |at| list(&at.value)),
            })
        }
    }
}

fn selector_problems(name: &At<String>, source: &SourceTable, is_whole: bool) -> Vec<Diagnostic> {
    match (&source.channels, &source.selector) {
        (None, None) if !is_whole => Vec::new(),
        (None, None) => {
            let message = format!("source `{}` goes to no channel", name.value);
            let problem = Diagnostic::error("missing-key", name.span.clone(), message);
            vec![problem.hint("add `channels = [\"…\"]`")]
        }
        (Some(channels), Some(selector)) => {
            let message = format!("source `{}` has `channels` and a `selector`", name.value);
            let problem = Diagnostic::error("contradiction", selector.span.clone(), message);
            vec![problem.related(channels.span.clone(), "the channels").hint("leave one of them out")]
        }
        (Some(channels), None) => empty_list(channels).into_iter().collect(),
        (None, Some(selector)) => selector_table_problems(selector),
    }
}

fn selector_table_problems(selector: &At<SelectorTable>) -> Vec<Diagnostic> {
    let table = &selector.value;
    let Some(kind) = &table.r#type else { return Vec::new() };
    let is_multiplexing = kind.value == SelectorWord::Multiplexing;
    let mut keys = [
        ("header", table.header.as_ref().map(|at| &at.span), is_multiplexing, is_multiplexing),
        ("routes", table.routes.as_ref().map(|at| &at.span), is_multiplexing, is_multiplexing),
        ("default", table.default.as_ref().map(|at| &at.span), is_multiplexing, false),
        ("channels", table.channels.as_ref().map(|at| &at.span), !is_multiplexing, !is_multiplexing),
    ]
    .into_iter()
    .filter_map(|(key, span, is_known, is_required)| match span {
        None if is_required => {
            let problem =
                Diagnostic::error("missing-key", selector.span.clone(), format!("the selector lacks `{key}`"));
            Some(problem.hint(format!("add `{key} = …`")))
        }
        Some(span) if !is_known => {
            let message = format!("this type of selector has no `{key}`");
            Some(Diagnostic::error("unknown-key", span.clone(), message).related(kind.span.clone(), "this type"))
        }
        _ => None,
    })
    .collect::<Vec<_>>();
    keys.extend(table.channels.iter().filter_map(empty_list));
    for (value, channels) in table.routes.iter().flat_map(|at| &at.value.0) {
        if channels.is_empty() {
            let message = format!("the route for `{}` leads to no channel", value.value);
            keys.push(
                Diagnostic::error("route-to-nowhere", value.span.clone(), message)
                    .hint("name a channel, or take the route out"),
            );
        }
    }
    keys
}

fn empty_list(channels: &At<Vec<At<String>>>) -> Option<Diagnostic> {
    let problem = || Diagnostic::error("route-to-nowhere", channels.span.clone(), "this leads to no channel");
    channels.value.is_empty().then(|| problem().hint("name a channel"))
}

/// A list that names a channel twice would put each event into it twice.
fn named_twice(channels: &[At<String>]) -> Vec<Diagnostic> {
    let again = |(index, channel): (usize, &At<String>)| {
        let first = channels[..index].iter().find(|first| first.value == channel.value)?;
        let message = format!("channel `{}` is named twice", channel.value);
        let problem = Diagnostic::error("named-twice", channel.span.clone(), message);
        Some(problem.related(first.span.clone(), "here first").hint("once is enough: take one of them out"))
    };
    channels.iter().enumerate().filter_map(again).collect()
}
