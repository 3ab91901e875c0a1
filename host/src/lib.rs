//! wasmflow: a stream processor whose sources, interceptors and sinks are sandboxed WebAssembly components.
//!
//! The modules in the order a newcomer should read them: an event flows through channels between runners; plugins do the
//! work, capabilities are what they may import, and the agent holds it all together.

pub mod event;
pub mod position;

pub mod config;

pub mod capability;
pub mod channel;
pub mod dead_letter;
pub mod position_store;
pub mod resume;
pub mod selector;

pub mod interceptor;
pub mod replay;
pub mod sink;
pub mod source;
pub mod stage;

pub mod kafka;
pub mod plugin;
pub mod transaction;

pub mod admin;
pub mod control;
pub mod reload;
pub mod swap;

pub mod agent;
pub mod metrics;
mod thread;
