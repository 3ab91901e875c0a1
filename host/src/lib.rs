//! wasmflow
