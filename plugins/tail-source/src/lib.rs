//! The `tail` source: each line of the matching files is an event, once, whatever happens to the files.
//!
//! The modules, in the order of reading: [`tail`] is the whole in one picture; [`found`] and [`scan`] find files, by the
//! patterns of [`pattern`]; [`file`](mod@file) is one of them, [`reader`] its turn, [`lines`] what that brings; [`bookmark`] is what a
//! position stores, [`changes`] what of it is new.

mod bookmark;
mod changes;
mod config;
mod decimal;
mod file;
mod found;
mod journal;
mod lines;
mod pattern;
mod reader;
mod scan;
mod source;
mod split;
mod tail;
#[cfg(test)]
mod tests;

pub use source::TailSource;

wasmflow_sdk::export_source!(TailSource);
