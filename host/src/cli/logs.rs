//! Logs on standard error, as text or JSON, with control characters escaped.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use wasmflow::config::mask;

#[derive(Args)]
pub struct LogOptions {
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace; or directives, as in `info,wasmflow::kafka=debug`
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogOptions {
    /// Logs from here on.
    ///
    /// # Errors
    /// When the level is not one.
    pub fn start(&self) -> Result<(), ParseError> {
        let filter = EnvFilter::builder().parse(&self.log_level)?;
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
        match self.log_format {
            LogFormat::Text => subscriber.with_ansi(false).with_writer(LogWriter).init(),
            LogFormat::Json => subscriber.json().flatten_event(true).with_writer(LogWriter).init(),
        }
        Ok(())
    }
}

/// Warnings and errors, as text: for commands that log little.
pub fn start_quiet() {
    tracing_subscriber::fmt().with_env_filter("warn").with_ansi(false).with_writer(LogWriter).init();
}

/// Standard error without secrets, where no text from an event or a plugin can play with the terminal or fake a line.
struct LogWriter;

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Self;

    fn make_writer(&'w self) -> Self::Writer {
        LogWriter
    }
}

impl Write for LogWriter {
    /// The subscriber hands over a whole line at once, with its newline.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(escaped(&mask(&String::from_utf8_lossy(line))).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A text on one line, harmless on a terminal.
pub fn printable(text: &str) -> String {
    escaped(text)
}

/// A text in its lines, harmless on a terminal.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

fn escaped(line: &str) -> String {
    let (text, end) = match line.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (line, ""),
    };
    let mut result = String::with_capacity(line.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            result.extend(c.escape_default());
        } else {
            result.push(c);
        }
    }
    result + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_stays_one_line_without_control_characters() {
        assert_eq!(escaped("a\u{1b}[31m\nINFO fake\u{9b}\tb\n"), "a\\u{1b}[31m\\nINFO fake\\u{9b}\tb\n");
    }
}
