//! Standard output, for sinks that print: what they write there goes to the terminal unchanged.

use std::io::Write;

use crate::failure::Failure;

/// Writes the text of one batch at once, and flushes it.
///
/// # Errors
///
/// `Fatal` when nobody reads any more (`wasmflow run … | head`): a console that was closed does not come back.
pub fn write(text: &[u8]) -> Result<(), Failure> {
    let mut console = std::io::stdout().lock();
    let written = console.write_all(text).and_then(|()| console.flush());
    written.map_err(|error| Failure::fatal(format!("standard output cannot be written any more: {error}")))
}
