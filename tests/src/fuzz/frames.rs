//! What a file channel reads from disk: frames, and the batches in them.

use wasmflow::channel::file::columns;
use wasmflow_log::decoders;

/// A log on disk: its frames and the batches in them, segment headers, cursors.
///
/// # Panics
/// When a decoder does.
pub fn frames(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Some(columns) = decoders::frame(rest) {
                let _ = columns::decode(columns);
            }
        }
        1 => drop(decoders::header(rest)),
        2 => drop(decoders::cursor(rest)),
        _ => drop(columns::decode(super::columns::cut(rest))),
    }
}
