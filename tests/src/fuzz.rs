//! Whatever comes from outside, given any bytes: one function for each decoder, called by `tests/fuzz` under cargo-fuzz and by the test
//! `fuzz` under stable `cargo test`.
//!
//! Each returns, whatever the bytes; what would be wrong is a panic, an assertion that fails, or no end.

mod admin;
mod columns;
mod frames;
mod pipeline_file;

pub use admin::admin;
pub use columns::columns;
pub use frames::frames;
pub use pipeline_file::pipeline_file;

/// A decoder and what it is called.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a folder in `tests/fuzz/corpus` and a file in `tests/fuzz/fuzz_targets`.
pub const TARGETS: [Target; 4] =
    [("pipeline_file", pipeline_file), ("columns", columns), ("frames", frames), ("admin", admin)];
