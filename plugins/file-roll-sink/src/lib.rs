//! The `file-roll` sink: events as lines in files, a batch whole or not at all, whatever happens between two bytes.
//!
//! The modules, in the order of reading: [`sink`] is the plugin and decides when a file is rolled; [`open_file`] is the file being
//! written, [`mark`] what lies beside it so that [`recovery`] can finish it after a crash; [`name`] is what files are called, [`text`] what
//! is in them.

mod config;
mod mark;
mod name;
mod open_file;
mod recovery;
mod sink;
#[cfg(test)]
mod tests;
mod text;
mod trouble;

pub use sink::FileRoll;

wasmflow_sdk::export_sink!(FileRoll);
