//! A plugin's own standard streams: a sink prints to the process's standard output, everything else becomes log lines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::console::Console;
use super::log::{LineCutter, StageLog};
use super::waited::Waited;
use crate::plugin::bindings::wasmflow::plugin::log::Level;

/// Bytes a guest may hand over in one write, and what is gathered before it is printed without a flush.
const PERMIT_BYTES: usize = 64 << 10;

/// Standard error, or the standard output of what is not a sink.
#[derive(Debug, Clone)]
pub struct LogStream {
    log: Arc<StageLog>,
    lines: Arc<Mutex<LineCutter>>,
    origin: LogOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOrigin {
    Output,
    Error,
}

impl LogStream {
    pub fn new(log: Arc<StageLog>, origin: LogOrigin) -> Self {
        Self { log, lines: Arc::default(), origin }
    }

    /// Logs a line that was begun and will not be ended: the guest is gone.
    pub fn finish(&self) {
        if let Some(line) = lock(&self.lines).rest() {
            self.line(&line);
        }
    }

    fn line(&self, line: &str) {
        match self.origin {
            LogOrigin::Output => self.log.write(Level::Info, line),
            LogOrigin::Error => self.log.standard_error(line),
        }
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.lines).push(&bytes, |line| self.line(line));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink()) // WASI 0.3 only, which is not linked.
    }
}

/// The standard output of a sink.
///
/// Lines of several sinks do not run into each other: what follows the last newline waits for the rest of its line, at the
/// longest until the call ends.
#[derive(Debug, Clone)]
pub struct PrintStream {
    console: Arc<Console>,
    gathered: Arc<Mutex<Vec<u8>>>,
    /// The chunk that a flush waits for.
    flushing: Option<u64>,
    waited: Waited,
}

impl PrintStream {
    pub fn new(console: Arc<Console>) -> Self {
        Self { console, gathered: Arc::default(), flushing: None, waited: Waited::default() }
    }

    /// Prints what is gathered, and waits until the system has it: once a call has answered ok, its output is out.
    pub async fn finish(&self) {
        let rest = std::mem::take(&mut *lock(&self.gathered));
        if !rest.is_empty() {
            self.console.submit(rest.into());
        }
        let last = self.console.last_submitted();
        let _waiting = self.waited.wait();
        self.console.wait(|console| console.written(last) != Ok(false)).await;
    }

    /// What waiting for the reader has cost so far.
    pub fn waited(&self) -> &Waited {
        &self.waited
    }

    /// Whether anything is printed that the system does not have yet.
    pub fn is_done(&self) -> bool {
        lock(&self.gathered).is_empty() && self.console.written(self.console.last_submitted()) != Ok(false)
    }

    fn submit_lines(&self) -> Option<u64> {
        let mut gathered = lock(&self.gathered);
        let end = gathered.iter().rposition(|&byte| byte == b'\n').map(|last| last + 1);
        let end = match end {
            Some(end) => end,
            None if gathered.len() >= PERMIT_BYTES => gathered.len(),
            None => return None,
        };
        let rest = gathered.split_off(end);
        let lines = std::mem::replace(&mut *gathered, rest);
        Some(self.console.submit(lines.into()))
    }

    fn flushed(&self) -> StreamResult<bool> {
        let Some(number) = self.flushing else { return Ok(true) };
        self.console.written(number).map_err(|_| StreamError::Closed)
    }
}

#[async_trait]
impl Pollable for PrintStream {
    async fn ready(&mut self) {
        let flushing = self.flushing;
        let _waiting = self.waited.wait();
        self.console
            .wait(|console| flushing.is_none_or(|number| console.written(number) != Ok(false)) && console.has_room())
            .await;
    }
}

impl OutputStream for PrintStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let full = {
            let mut gathered = lock(&self.gathered);
            gathered.extend_from_slice(&bytes);
            gathered.len() >= PERMIT_BYTES
        };
        if full {
            self.submit_lines();
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        if let Some(number) = self.submit_lines() {
            self.flushing = Some(number);
        }
        self.flushed().map(drop)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if !self.flushed()? || !self.console.has_room() {
            return Ok(0);
        }
        self.flushing = None;
        Ok(PERMIT_BYTES)
    }
}

impl IsTerminal for PrintStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for PrintStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink()) // WASI 0.3 only, which is not linked.
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
