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

/// The guest's functions, innermost first, out of wasmtime's own text, which has their names demangled. What only ends a guest
/// (a panic on its way) or leads to the host is passed over, unless there is nothing else.
fn frames(backtrace: &str) -> Vec<String> {
    let named = backtrace.lines().filter_map(|line| {
        let (_, function) = line.split_once(" - ")?;
        let function = function.split_once('!').map_or(function, |(_module, function)| function);
        (!function.is_empty()).then(|| without_hashes(function))
    });
    let all: Vec<String> = named.collect();
    let own: Vec<String> = all.iter().filter(|function| !is_machinery(function)).take(SHOWN_FRAMES).cloned().collect();
    if own.is_empty() { all.into_iter().take(SHOWN_FRAMES).collect() } else { own }
}

fn is_machinery(function: &str) -> bool {
    const STARTS: [&str; 8] = ["abort", "std::", "core::", "alloc::", "<std::", "__rust", "<wasm function", "rust_"];
    STARTS.iter().any(|start| function.starts_with(start))
}

/// Without what tells compilations of a crate apart: `::h0123456789abcdef` and `[0123456789abcdef]`.
fn without_hashes(function: &str) -> String {
    let is_hash = |text: &str| text.len() >= 15 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let function = match function.rsplit_once("::h") {
        Some((name, hash)) if is_hash(hash) => name,
        _ => function,
    };
    let mut pieces = function.split('[');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => name.push_str(rest),
            _ => {
                name.push('[');
                name.push_str(piece);
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_guests_own_functions() {
        let text = "error while executing at wasm backtrace:\n\
                        0:   0x1a2b - static.wasm!core[0a1b2c3d4e5f6071]::panicking::panic_fmt\n\
                        1:     0x77 - static.wasm!<wasm function 3>\n\
                        2:     0x78 - static.wasm!plugin::act::h0123456789abcdef\n\
                    note: something else";
        assert_eq!(frames(text), ["plugin::act"]);
    }

    #[test]
    fn frames_of_machinery_are_better_than_none() {
        let text = "backtrace:\n    0: 0x1 - a.wasm!abort\n    1: 0x2 - a.wasm!<wasm function 3>";
        assert_eq!(frames(text), ["abort", "<wasm function 3>"]);
    }
}
