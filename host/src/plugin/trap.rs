//! What an operator reads when an instance dies: the reason, where in the guest, and the guest's own last words.

use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::{Broken, TrapKind};
use crate::capability::State;

/// Limit: the whole text. It goes into logs, and into the header of a dead letter.
const MAX_TEXT_BYTES: usize = 2000;
/// Innermost functions shown.
const SHOWN_FRAMES: usize = 6;

/// Reads an error that ended a call.
pub fn read(error: &wasmtime::Error, state: &mut State) -> (TrapKind, String) {
    state.error.finish();
    let (kind, reason) = reason(error, state);
    let mut text = reason;
    if let Some(words) = state.log.last_words() {
        text.push_str(&format!(": {words}"));
    }
    if let Some(denial) = state.granted.take_denial() {
        text.push_str(&format!("; {denial}"));
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let frames = frames(&backtrace.to_string());
        if !frames.is_empty() {
            text.push_str(&format!(" (in {})", frames.join(" < ")));
        }
    }
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    (kind, text)
}

fn reason(error: &wasmtime::Error, state: &mut State) -> (TrapKind, String) {
    let refused = state.memory.take_refused();
    if let Some(broken) = error.downcast_ref::<Broken>() {
        return (broken.kind, broken.text.clone());
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        let most = state.table.max_capacity();
        return (TrapKind::Contract, format!("the guest holds more than {most} handles"));
    }
    if refused {
        let used = state.memory.used();
        return (TrapKind::Memory, format!("more memory than its limit was asked for; {used} bytes are in use"));
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return (TrapKind::Trap, format!("the guest ended itself with exit code {code}"));
    }
    let cause = error.root_cause().to_string();
    if error.downcast_ref::<Trap>().is_none() && cause.contains("fuel allocated for hostcalls") {
        return (TrapKind::Contract, "one call hands more data to the host than it may".into());
    }
    (TrapKind::Trap, cause.trim_start_matches("wasm trap: ").to_owned())
}

/// The guest's functions, innermost first, out of wasmtime's own text, which has their names demangled.
fn frames(backtrace: &str) -> Vec<String> {
    let named = backtrace.lines().filter_map(|line| {
        let (_, function) = line.split_once(" - ")?;
        let function = function.split_once('!').map_or(function, |(_module, function)| function);
        (!function.is_empty()).then(|| function.to_owned())
    });
    named.take(SHOWN_FRAMES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_guests_function_names() {
        let text = "error while executing at wasm backtrace:\n\
                        0:   0x1a2b - static.wasm!core::panicking::panic_fmt\n\
                        1:     0x77 - static.wasm!<unknown function 3>\n\
                    note: something else";
        assert_eq!(frames(text), ["core::panicking::panic_fmt", "<unknown function 3>"]);
    }
}
