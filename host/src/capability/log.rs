//! `wasmflow:plugin/log`, and what a plugin writes to its standard error: bounded, escaped lines in the host's log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::State;
use crate::plugin::PluginKind;
use crate::plugin::bindings::wasmflow::plugin::log::{Host, Level};

/// Limit: one line. What is longer is cut.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// Limit: bytes a second that one stage may log; a burst of one second's worth is let through at once.
const BYTES_PER_SECOND: f64 = (1 << 20) as f64;
/// How often at most the lines dropped are told: those of a plugin that goes on and on would else be a storm of their own.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// The newest lines of standard error kept for the text of a trap: a Rust panic has two.
const KEPT_LINES: usize = 4;

/// The log lines of one instance of a stage.
#[derive(Debug)]
pub struct StageLog {
    pipeline: Arc<str>,
    stage: Arc<str>,
    kind: PluginKind,
    allowance: Arc<LogAllowance>,
    last_errors: Mutex<VecDeque<String>>,
}

/// What a stage may still log, whichever of its instances does: one that traps and comes again has no more of it.
#[derive(Debug)]
pub struct LogAllowance {
    bytes: Mutex<Bytes>,
    /// Lines dropped and not told yet.
    dropped: AtomicU64,
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
        Self { bytes: Mutex::new(bytes), dropped: AtomicU64::new(0) }
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
}

impl StageLog {
    pub fn new(pipeline: Arc<str>, stage: Arc<str>, kind: PluginKind, allowance: Arc<LogAllowance>) -> Arc<Self> {
        Arc::new(Self { pipeline, stage, kind, allowance, last_errors: Mutex::default() })
    }

    /// Writes one line, or counts it as dropped when the stage logs too much.
    pub fn write(&self, level: Level, line: &str) {
        if !self.allowance.admit(line.len()) {
            return;
        }
        self.tell_dropped();
        let (pipeline, stage, kind) = (&*self.pipeline, &*self.stage, self.kind.interface());
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
        text.push_str(" … (cut)");
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
}

impl LineCutter {
    /// Hands every line that `bytes` ends to `line`.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let text = String::from_utf8_lossy(&self.partial);
                line(text.trim_end_matches(['\n', '\r']));
                self.partial.clear();
            }
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
        assert!(text.ends_with(" … (cut)") && text.len() < MAX_LINE_BYTES + 20);
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
    fn a_line_without_end_does_not_grow() {
        let mut cutter = LineCutter::default();
        for _ in 0..100 {
            cutter.push(&[b'x'; 4096], |_| panic!("no line has ended"));
        }
        assert!(cutter.partial.len() <= MAX_LINE_BYTES + 1);
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
        let log = StageLog::new("p".into(), "s".into(), PluginKind::Sink, Arc::default());
        for line in ["", "thread '<unnamed>' panicked at src/lib.rs:1:2:", "boom", "note: run with `RUST_BACKTRACE=1`"]
        {
            keep(&mut log.last_errors(), line);
        }
        assert_eq!(log.last_words().as_deref(), Some("thread '<unnamed>' panicked at src/lib.rs:1:2: boom"));
        assert_eq!(log.last_words(), None);
    }
}
