//! wasmflow: a stream processor whose sources, interceptors and sinks are sandboxed WebAssembly components.

pub mod capability;
pub mod channel;
pub mod config;
pub mod event;
pub mod kafka;
pub mod plugin;
pub mod position;
