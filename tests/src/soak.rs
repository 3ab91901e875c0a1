//! How long a test of endurance takes: seconds in `make test`, full length in `make soak`.

use std::time::Duration;

/// Whether the full length is asked for (`WASMFLOW_SOAK`).
pub fn is_soak() -> bool {
    std::env::var_os("WASMFLOW_SOAK").is_some()
}

/// A number of repetitions: `usual`, or `soak` at full length.
pub fn times(usual: u32, soak: u32) -> u32 {
    if is_soak() { soak } else { usual }
}

/// A time span: `usual`, or `soak` at full length.
pub fn span(usual: Duration, soak: Duration) -> Duration {
    if is_soak() { soak } else { usual }
}

/// A limit on what is measured: `usual` on a machine that does other things, or the promise itself at full length.
pub fn bound(usual: f64, soak: f64) -> f64 {
    if is_soak() { soak } else { usual }
}

/// The seed of a random test: `WASMFLOW_SEED`, or a fresh one; printed, so that a failure can be repeated.
///
/// # Panics
/// When `WASMFLOW_SEED` is not a number.
pub fn seed() -> u64 {
    let given = std::env::var("WASMFLOW_SEED").ok();
    let seed = given.map_or_else(rand::random, |text| text.parse().expect("WASMFLOW_SEED is a number"));
    println!("WASMFLOW_SEED={seed}");
    seed
}
