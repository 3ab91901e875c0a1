//! A pipeline file as an operator writes it: read, checked, and its problems shown.

use std::path::Path;

use wasmflow::config::{Colour, Severity, parse_text};

/// # Panics
/// When the host does.
pub fn pipeline_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let environment = |name: &str| name.starts_with(char::is_uppercase).then(|| "value".into());
    match parse_text(Path::new("/nowhere/pipeline.toml"), &text, &environment) {
        Ok(pipeline) => {
            assert!(!pipeline.sources.is_empty() || !pipeline.sinks.is_empty(), "an empty pipeline is none")
        }
        Err(report) => {
            assert!(!report.text(Severity::Note, Colour::Plain).is_empty(), "it is refused for no reason");
            let _ = report.text(Severity::Note, Colour::Coloured);
        }
    }
}
