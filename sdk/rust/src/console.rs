//! Standard output, for sinks that print: what they write there goes to the terminal unchanged.

use crate::failure::Failure;

/// Writes the text of one batch, and waits until the host has taken all of it.
///
/// # Errors
///
/// `Fatal` when nobody reads any more (`wasmflow run … | head`): a console that was closed does not come back.
pub fn write(text: &[u8]) -> Result<(), Failure> {
    write_all(text).map_err(|reason| Failure::fatal(format!("standard output cannot be written any more: {reason}")))
}

/// By the stream itself: `std` hands it over in pieces of 4 KiB and flushes each.
/// By the stream itself: `std` hands it over in pieces of 4 KiB and flushes each.
#[cfg(target_family = "wasm")]
fn write_all(mut text: &[u8]) -> Result<(), String> {
    use wasip2::io::streams::{OutputStream, StreamError};

    let mut print = |stream: OutputStream| {
        while !text.is_empty() {
            let room = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
            if room == 0 {
                stream.subscribe().block();
            }
            let (piece, rest) = text.split_at(room.min(text.len()));
            stream.write(piece)?;
            text = rest;
        }
        stream.blocking_flush()
    };
    print(wasip2::cli::stdout::get_stdout()).map_err(|error| match error {
        StreamError::Closed => "nobody reads it".into(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    })
}

#[cfg(not(target_family = "wasm"))]
fn write_all(text: &[u8]) -> Result<(), String> {
    use std::io::Write;

    let mut console = std::io::stdout().lock();
    console.write_all(text).and_then(|()| console.flush()).map_err(|error| error.to_string())
}
