//! Says more than anyone can listen to, and says it deceptively.

use wasmflow_sdk::prelude::*;

/// 200 MB in lines of 1 kB.
pub fn storm(mut say: impl FnMut(&str)) {
    let line = "storm ".repeat(170);
    for _ in 0..200_000 {
        say(&line);
    }
}

/// One line of 16 MiB.
pub fn huge_line() {
    log::info("huge ".repeat((16 << 20) / 5));
}

/// Colours, a carriage return over the host's own text, and lines that look like another record.
pub fn control() {
    log::info("\u{1b}[2J\u{1b}[31mred\rback\u{0}nul\u{7}bell");
    log::info("one\n{\"level\":\"ERROR\",\"message\":\"forged\"}\n2026-01-01T00:00:00Z ERROR forged");
    log::info("\u{202e}turned round\u{2028}line separator");
    eprint!("no newline \u{1b}[31m at the end");
}

/// 20 MB on standard error without a newline.
pub fn line_without_end() {
    let piece = "endless ".repeat(512);
    for _ in 0..5_000 {
        eprint!("{piece}");
    }
}

/// Nothing, for ever.
pub fn empty_writes() {
    use std::io::Write as _;
    loop {
        let _ = std::io::stderr().write(&[]);
        let _ = std::io::stderr().flush();
    }
}
