//! `wasmflow:plugin/log`, and what a plugin writes to its standard error: bounded, escaped lines in the host's log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::State;
use crate::metrics::{Denied, StageCounters};
use crate::plugin::bindings::wasmflow::plugin::log::{Host, Level};
use crate::plugin::{PluginKind, StageContext};

/// Limit: one line. What is longer is cut.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// Limit: bytes a second that one stage may log; a burst of one second's worth is let through at once.
const BYTES_PER_SECOND: f64 = (1 << 20) as f64;
/// How often at most the lines dropped are told: those of a plugin that goes on and on would else be a storm of their own.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Limit: what the host tells of a stage and remembers to have told, so that a guest that tries every address fills neither log nor memory.
const MAX_TOLD: usize = 64;
/// The newest lines of standard error kept for the text of a trap: a Rust panic has two.
const KEPT_LINES: usize = 4;

/// The log lines of one instance of a stage.
#[derive(Debug)]
pub struct StageLog {
    pipeline: Arc<str>,
    stage: Arc<str>,
    kind: PluginKind,
    allowance: Arc<LogAllowance>,
    counters: Arc<StageCounters>,
    last_errors: Mutex<VecDeque<String>>,
}

/// What a stage may still log, whichever of its instances does: one that traps and comes again has no more of it.
#[derive(Debug)]
pub struct LogAllowance {
    bytes: Mutex<Bytes>,
    /// Lines dropped and not told yet.
    dropped: AtomicU64,
    /// What the host has told of the stage itself, and tells once.
    told: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
struct Bytes {
    left: f64,
    refilled: Instant,
    told: Option<Instant>,
}

impl Default for LogAllowance {
    fn default() -> Self {
        let bytes = Bytes { left: BYTES_PER_SECOND, refilled: Instant::now(), told: None };
        Self { bytes: Mutex::new(bytes), dropped: AtomicU64::new(0), told: Mutex::default() }
    }
}

impl LogAllowance {
    /// Takes a line's bytes, or counts the line as dropped.
    fn admit(&self, bytes: usize) -> bool {
        let mut state = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let refill = now.duration_since(state.refilled).as_secs_f64() * BYTES_PER_SECOND;
        state.left = (state.left + refill).min(BYTES_PER_SECOND);
        state.refilled = now;
        // An empty line costs something too.
        let cost = (bytes + 64) as f64;
        let fits = cost <= state.left;
        if fits {
            state.left -= cost;
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// The lines dropped since this was asked last, when it is time to tell of them.
    fn take_dropped(&self) -> Option<u64> {
        if self.dropped.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut state = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return None;
        }
        state.told = Some(Instant::now());
        Some(self.dropped.swap(0, Ordering::Relaxed))
    }

    /// Whether this has not been told of the stage before, and may be.
    pub fn is_first(&self, text: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MAX_TOLD && told.insert(text.to_owned())
    }
}

impl StageLog {
    pub fn new(stage: &StageContext) -> Arc<Self> {
        let StageContext { pipeline, stage, plugin_kind, log, counters, .. } = stage.clone();
        let last_errors = Mutex::default();
        Arc::new(Self { pipeline, stage, kind: plugin_kind, allowance: log, counters, last_errors })
    }

    /// The guest handed over what does not fit, and was told so.
    pub fn misfit(&self, why: &str) {
        self.counters.denied(Denied::Contract);
        self.counters.note_error(&why);
        if self.allowance.is_first(why) {
            let (pipeline, stage, kind) = (&*self.pipeline, &*self.stage, self.kind.interface());
            tracing::warn!(pipeline, stage, kind, "what the plugin hands over does not fit: {}", escaped(why));
        }
    }

    /// Writes one line, or counts it as dropped when the stage logs too much.
    pub fn write(&self, level: Level, line: &str) {
        if !self.allowance.admit(line.len().min(MAX_LINE_BYTES)) {
            self.counters.denied(Denied::Log);
            return;
        }
        self.tell_dropped();
        let (pipeline, stage, kind) = (&*self.pipeline, &*self.stage, self.kind.interface());
        if line.len() > MAX_LINE_BYTES {
            self.counters.denied(Denied::Log);
            self.counters.note_error(&format!("a log line of more than {MAX_LINE_BYTES} bytes is cut"));
        }
        let line = escaped(line);
        match level {
            Level::Trace => tracing::trace!(target: "wasmflow::plugin", pipeline, stage, kind, "{line}"),
            Level::Debug => tracing::debug!(target: "wasmflow::plugin", pipeline, stage, kind, "{line}"),
            Level::Info => tracing::info!(target: "wasmflow::plugin", pipeline, stage, kind, "{line}"),
            Level::Warn => tracing::warn!(target: "wasmflow::plugin", pipeline, stage, kind, "{line}"),
            Level::Error => tracing::error!(target: "wasmflow::plugin", pipeline, stage, kind, "{line}"),
        }
    }

    /// Tells how many lines were dropped, if any were and it has not been told just now.
    pub fn tell_dropped(&self) {
        if let Some(dropped) = self.allowance.take_dropped() {
            let (pipeline, stage, kind) = (&*self.pipeline, &*self.stage, self.kind.interface());
            tracing::warn!(target: "wasmflow::plugin", pipeline, stage, kind, dropped, "log lines dropped: too many");
            self.counters.note_error(&format!("{dropped} log lines dropped: too many"));
        }
    }

    /// A line of standard error: logged, and kept in case a trap follows.
    pub fn standard_error(&self, line: &str) {
        keep(&mut self.last_errors(), line);
        self.write(Level::Warn, line);
    }

    /// The last words on standard error, as one line. Taken, so that a later trap does not repeat them.
    pub fn last_words(&self) -> Option<String> {
        let lines: Vec<String> = self.last_errors().drain(..).collect();
        (!lines.is_empty()).then(|| lines.join(" "))
    }

    fn last_errors(&self) -> MutexGuard<'_, VecDeque<String>> {
        // A panic while a line was kept leaves at worst one line less behind.
        self.last_errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(last_errors: &mut VecDeque<String>, line: &str) {
    if line.is_empty() || line.starts_with("note: run with `RUST_BACKTRACE") {
        return;
    }
    if last_errors.len() == KEPT_LINES {
        last_errors.pop_front();
    }
    let end = line.floor_char_boundary(500);
    last_errors.push_back(escaped(&line[..end]));
}

/// One line that stays one line: control characters are written out, and what is too long is cut.
fn escaped(line: &str) -> String {
    let end = line.floor_char_boundary(MAX_LINE_BYTES);
    let mut text = String::with_capacity(end);
    for character in line[..end].chars() {
        if character.is_control() && character != '\t' {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    if end < line.len() {
        text.push_str(" … (is cut)");
    }
    text
}

impl Host for State {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.log.write(level, &message);
        Ok(())
    }
}

/// Cuts a stream of bytes into lines, whatever they are: a line that is too long is cut, and the rest of it skipped.
#[derive(Debug, Default)]
pub struct LineCutter {
    partial: Vec<u8>,
    /// Whether the line under way was too long and has been handed on.
    is_cut: bool,
}

impl LineCutter {
    /// Hands every line that `bytes` ends to `line`, and one that is too long when it is.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = (MAX_LINE_BYTES + 1) - self.partial.len();
            if !self.is_cut {
                self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            let ends = piece.ends_with(b"\n");
            let is_too_long = self.partial.len() > MAX_LINE_BYTES;
            if is_too_long || (ends && !self.is_cut) {
                let text = String::from_utf8_lossy(&self.partial);
                line(text.trim_end_matches(['\n', '\r']));
                self.partial.clear();
            }
            self.is_cut = !ends && (self.is_cut || is_too_long);
        }
    }

    /// What came without a newline at its end.
    pub fn rest(&mut self) -> Option<String> {
        let partial = std::mem::take(&mut self.partial);
        (!partial.is_empty()).then(|| String::from_utf8_lossy(&partial).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_without_control_characters() {
        assert_eq!(escaped("a\x1b[31m\nb\tc"), "a\\u{1b}[31m\\nb\tc");
    }

    #[test]
    fn a_line_too_long_is_cut_and_says_so() {
        let text = escaped(&"ä".repeat(MAX_LINE_BYTES));
        assert!(text.ends_with(" … (is cut)") && text.len() < MAX_LINE_BYTES + 20);
    }

    #[test]
    fn lines_are_cut_wherever_the_writes_fall() {
        let mut cutter = LineCutter::default();
        let mut lines = Vec::new();
        for piece in ["a", "b\nc\r", "\n\nd"] {
            cutter.push(piece.as_bytes(), |line| lines.push(line.to_owned()));
        }
        assert_eq!(lines, ["ab", "c", ""]);
        assert_eq!(cutter.rest().as_deref(), Some("d"));
    }

    #[test]
    fn a_line_without_end_is_handed_on_once_and_does_not_grow() {
        let (mut cutter, mut lines) = (LineCutter::default(), Vec::new());
        for _ in 0..100 {
            cutter.push(&[b'x'; 4096], |line| lines.push(line.len()));
        }
        assert!(cutter.partial.is_empty());
        cutter.push(b"rest\nnext\n", |line| lines.push(line.len()));
        assert_eq!(lines, [MAX_LINE_BYTES + 1, 4]);
    }

    #[test]
    fn a_storm_of_lines_is_dropped_and_counted_whichever_instance_it_comes_from() {
        let allowance = Arc::new(LogAllowance::default());
        let admitted = (0..1000).filter(|_| allowance.clone().admit(10_000)).count() as u64;
        assert!((100..=200).contains(&admitted), "{admitted} lines were let through");
        assert_eq!(allowance.take_dropped(), Some(1000 - admitted));
        allowance.admit(usize::MAX >> 1);
        assert_eq!(allowance.take_dropped(), None, "told a moment ago");
        assert_eq!(allowance.dropped.load(Ordering::Relaxed), 1, "to be told later");
    }

    #[test]
    fn the_last_words_are_a_panics_two_lines() {
        let log = StageLog {
            pipeline: "p".into(),
            stage: "s".into(),
            kind: PluginKind::Sink,
            allowance: Arc::default(),
            counters: Arc::default(),
            last_errors: Mutex::default(),
        };
        for line in ["", "thread '<unnamed>' panicked at src/lib.rs:1:2:", "boom", "note: run with `RUST_BACKTRACE=1`"]
        {
            keep(&mut log.last_errors(), line);
        }
        assert_eq!(log.last_words().as_deref(), Some("thread '<unnamed>' panicked at src/lib.rs:1:2: boom"));
        assert_eq!(log.last_words(), None);
    }
}
