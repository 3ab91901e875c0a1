//! Lines that a child process writes, collected while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What one pipe of a child has brought so far; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    ended: bool,
}

/// One line without its newline, and when it came.
#[derive(Debug, Clone)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

impl Lines {
    /// Collects the lines of `pipe` in a thread of its own until the pipe ends.
    pub fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let collected = lines.clone();
        std::thread::spawn(move || collected.read_all(pipe));
        lines
    }

    /// A pipe that has ended without a line.
    pub fn ended() -> Self {
        let lines = Self::default();
        lines.state().ended = true;
        lines
    }

    fn read_all(&self, pipe: impl Read) {
        let mut reader = BufReader::with_capacity(1 << 18, pipe);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let at = Instant::now();
            let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned();
            self.state().lines.push(Line { at, text });
            self.shared.grown.notify_all();
            bytes.clear();
        }
        self.state().ended = true;
        self.shared.grown.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no holder of this lock panics")
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.state().lines.iter().map(|line| line.text.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.state().lines.len()
    }

    /// All lines so far as one text.
    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// Waits until there are `count` lines or the pipe has ended; gives what is there after `limit` at most.
    pub fn wait_for_count(&self, count: usize, limit: Duration) -> Vec<String> {
        self.wait(limit, |state| (state.lines.len() >= count).then_some(()));
        self.all()
    }

    /// Waits for the first line, of those after the first `skip`, that holds `needle`.
    pub fn wait_for(&self, skip: usize, needle: &str, limit: Duration) -> Option<Line> {
        let mut seen = skip;
        self.wait(limit, |state| {
            let found = state.lines.iter().skip(seen).find(|line| line.text.contains(needle)).cloned();
            seen = seen.max(state.lines.len());
            found
        })
    }

    /// Waits until the pipe has ended; says whether it did.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        self.wait(limit, |state| state.ended.then_some(())).is_some()
    }

    fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            let found = look(&state);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || state.ended || left.is_zero() {
                return found;
            }
            state = self.shared.grown.wait_timeout(state, left).expect("no holder of this lock panics").0;
        }
    }
}
