//! wasmflow: a stream processor whose sources, interceptors and sinks are sandboxed WebAssembly components.

pub mod channel;
pub mod event;
pub mod position;

pub mod plugin;
