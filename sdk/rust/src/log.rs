//! Lines for the host's log, which adds pipeline and stage to each.

pub use crate::bindings::imports::wasmflow::plugin::log::Level;

/// Writes one line. In a native test it goes to standard error.
pub fn write(level: Level, message: impl AsRef<str>) {
    #[cfg(target_family = "wasm")]
    crate::bindings::imports::wasmflow::plugin::log::write(level, message.as_ref());
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?}: {}", message.as_ref());
}

/// Someone must act.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message);
}

/// Degraded, but recovering.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message);
}

/// Worth knowing once, as a start or a change.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message);
}

/// Once a batch at most.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message);
}

/// Once an event at most.
pub fn trace(message: impl AsRef<str>) {
    write(Level::Trace, message);
}
