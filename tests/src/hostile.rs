//! Every act of the hostile plugins (`tests/plugins/README.md`) with the fault that it makes happen, who can do it, and how it is told.

use crate::agent::PipelineFile;
use crate::component::component;
use crate::pipelines::NOWHERE;

/// One act in a call that has events to do with.
#[derive(Debug, Clone, Copy)]
pub struct Act {
    /// The row of `tests/FAULTS.md`.
    pub row: u8,
    pub mode: &'static str,
    pub kinds: &'static [&'static str],
    /// Words of the reason, in the log and in `status`.
    pub told: &'static str,
    /// The metric that counts it, with the labels that matter.
    pub counted: &'static str,
}

const ALL: &[&str] = &["source", "interceptor", "sink"];
const SOURCE: &[&str] = &["source"];
const INTERCEPTOR: &[&str] = &["interceptor"];
const SINK: &[&str] = &["sink"];
/// Those that are lent a batch.
const LENT: &[&str] = &["interceptor", "sink"];
/// A sink's standard output is the console, and none of the log's.
const LOGGED: &[&str] = &["source", "interceptor"];
/// An interceptor has no Kafka to ask for.
const ENDS: &[&str] = &["source", "sink"];

const TRAP: &str = "plugin_traps_total kind=\"trap\"";
const TIME: &str = "plugin_traps_total kind=\"time\"";
const MEMORY: &str = "plugin_traps_total kind=\"memory\"";
const CONTRACT: &str = "plugin_traps_total kind=\"contract\"";
const MISFIT: &str = "plugin_denied_total kind=\"contract\"";
const GRANT: &str = "plugin_denied_total kind=\"grant\"";
const LOG: &str = "plugin_denied_total kind=\"log\"";
const RESTART: &str = "plugin_restarts_total";

const fn act(
    row: u8,
    mode: &'static str,
    kinds: &'static [&'static str],
    told: &'static str,
    counted: &'static str,
) -> Act {
    Act { row, mode, kinds, told, counted }
}

/// All that goes wrong in a call at work. What is refused before anything runs (rows 18 to 20, 26, 33, 40, 41) has tests of its own.
pub const ACTS: &[Act] = &[
    act(21, "trap", ALL, "unreachable", TRAP),
    act(21, "panic", ALL, "as told", TRAP),
    act(21, "stack-overflow", ALL, "hostile_acts::descend", TRAP),
    act(21, "out-of-bounds", ALL, "out of bounds", TRAP),
    act(21, "exit", ALL, "exit code 0", TRAP),
    act(22, "loop", ALL, "computed longer than 200 ms", TIME),
    act(22, "loop-with-naps", ALL, "computed longer than 200 ms", TIME),
    act(23, "sleep", ALL, "a call took longer than 1", TIME),
    act(25, "memory-fast", ALL, "more memory than its limit", MEMORY),
    act(25, "memory-slow", ALL, "its memory passed 80 % of its limit", RESTART),
    act(27, "empty-items", ALL, "5000000 events", CONTRACT),
    act(27, "huge-list", ALL, "out of bounds", TRAP),
    act(28, "handles", ALL, "1024 handles", CONTRACT),
    act(29, "flood-events", LENT, "makes too large a batch", CONTRACT),
    act(29, "flood-bytes", LENT, "this call may make", CONTRACT),
    act(29, "header-flood", LENT, "at most 1024 headers", MISFIT),
    act(29, "more-than-asked", SOURCE, "a batch grew to", CONTRACT),
    act(29, "oversize-event", SOURCE, "this call may make", CONTRACT),
    act(29, "position-flood", SOURCE, "bytes of the position", CONTRACT),
    act(30, "ends-decrease", LENT, "ends", MISFIT),
    act(30, "ends-short", LENT, "ends", MISFIT),
    act(30, "ends-long", LENT, "ends", MISFIT),
    act(30, "ends-decrease", SOURCE, "ends", CONTRACT),
    act(30, "ends-short", SOURCE, "ends", CONTRACT),
    act(30, "ends-long", SOURCE, "ends", CONTRACT),
    act(30, "count-wrong", LENT, "events", MISFIT),
    act(30, "rows-unsorted", LENT, "row", MISFIT),
    act(30, "row-out-of-range", LENT, "outside the batch", MISFIT),
    act(30, "reject-out-of-range", LENT, "outside the batch", MISFIT),
    act(30, "header-names", LENT, "a header's name", MISFIT),
    act(30, "kept-in-future", INTERCEPTOR, "it keeps something of batch", CONTRACT),
    act(30, "partly-out-of-range", SINK, "partly: row", CONTRACT),
    act(30, "partly-unsorted", SINK, "partly: row", CONTRACT),
    act(30, "partly-empty", SINK, "partly: no row", CONTRACT),
    act(31, "log-storm", ALL, "log lines dropped", LOG),
    act(31, "stderr-storm", ALL, "log lines dropped", LOG),
    act(31, "stdout-storm", LOGGED, "log lines dropped", LOG),
    act(31, "log-huge", ALL, "is cut", LOG),
    act(31, "line-without-end", ALL, "is cut", LOG),
    act(31, "empty-writes", ALL, "computed longer than 200 ms", TIME),
    act(34, "connect", ALL, "allow = { net = [\"127.0.0.1:22\"] }", GRANT),
    act(34, "resolve", ALL, "allow = { net = [\"example.com:PORT\"] }", GRANT),
    act(34, "listen", ALL, "allow = { listen = [\"127.0.0.1:4444\"] }", GRANT),
    act(34, "datagram", ALL, "plugins have no UDP", GRANT),
    act(34, "sockets", ALL, "plugins have no UDP", GRANT),
    act(34, "kafka", ENDS, "allow = { kafka = [\"main\"] }", "pipeline_failed"),
    act(35, "read-file", ALL, "allow = { dirs = [{ path = \"/etc\" }] }", GRANT),
    act(35, "list-folder", ALL, "listing `/etc` is not granted", GRANT),
    act(35, "files", ALL, "is not granted; the stage needs `allow = { dirs", GRANT),
    act(36, "read-variable", ALL, "allow = { env = [\"NAME\"] }", GRANT),
    act(36, "wall-clock", ALL, "allow = { wall_clock = true }", TRAP),
    act(36, "random", ALL, "allow = { random = true }", TRAP),
];

/// A pipeline named as the act, whose stage `guest` does it: an interceptor or sink with the seventh of sixty numbers, a source when it is
/// first polled. It does not end by itself.
///
/// # Panics
/// When its folder cannot be made.
pub fn pipeline(act: &Act, kind: &str) -> PipelineFile {
    let config = match (act.mode, kind) {
        ("memory-slow", "source") => "endless = true".to_owned(),
        ("memory-slow", _) => "times = 1000".to_owned(),
        (_, "source") => "times = 1, total = 10, endless = true".to_owned(),
        _ => "when_body_contains = \"7\"".to_owned(),
    };
    // A storm may take its time: it is bounded by what is dropped.
    let cpu = if act.mode.contains("storm") || act.mode == "line-without-end" { "20s" } else { "200ms" };
    // The event has to fit into the guest before it can be too large for the host.
    let memory = if act.mode == "oversize-event" { "64MiB" } else { "32MiB" };
    let guest = format!(
        "plugin = \"{}\"\nconfig = {{ mode = \"{}\", {config} }}\n\
         limits = {{ memory = \"{memory}\", cpu = \"{cpu}\", call = \"{}\" }}\nretry = {{ initial = \"50ms\", max = \"200ms\" }}\n",
        component(&format!("hostile-{kind}")).display(),
        act.mode,
        if act.mode == "sleep" { "1s" } else { "60s" },
    );
    let pipeline = PipelineFile::new(act.mode, &stages(kind, &guest));
    pipeline.promise("dead_letters = \"refused\"\n");
    pipeline
}

/// The tables of a pipeline whose stage `guest` is of this kind, with these keys. A source before it brings sixty numbers and does not end.
pub fn stages(kind: &str, guest: &str) -> String {
    let numbers = format!(
        "[sources.numbers]\nplugin = \"{}\"\nchannels = [\"events\"]\nconfig = {{ mode = \"endless\", total = 60 }}\n",
        component("corner-source").display()
    );
    let letters = "[channels.refused]\ntype = \"memory\"\n[sinks.letters]\nplugin = \"null\"\nchannel = \"refused\"\n";
    let guarded = match kind {
        "source" => format!("{NOWHERE}[sources.guest]\nchannels = [\"events\"]\n{guest}"),
        "interceptor" => format!("{NOWHERE}{numbers}interceptors = [\"guest\"]\n[interceptors.guest]\n{guest}"),
        _ => format!(
            "[channels.events]\ntype = \"memory\"\n{numbers}[sinks.guest]\nchannel = \"events\"\nbatch_events = 1\n{guest}"
        ),
    };
    letters.to_owned() + &guarded
}
