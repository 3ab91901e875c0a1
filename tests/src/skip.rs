//! What a test does whose server is not installed: it says so on the terminal, or fails where nothing may be skipped.

use std::io::Write as _;

/// Says on the terminal that the calling test is skipped, and why.
///
/// Written to standard error directly: the test runner would swallow what `eprintln!` prints in a test that passes.
///
/// # Panics
/// With `CI` set, where a skipped test is a failure.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(!is_ci(), "`{name}` may not be skipped in CI: {reason}");
    // A closed standard error must not turn a skip into a failure.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {name}: {reason} (`make servers` installs it)\n");
}

/// Whether this is a run in which nothing may be skipped.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}
