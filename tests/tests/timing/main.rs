//! What wasmflow promises about time, processor and memory. These tests run one at a time, and no other test executable runs
//! beside this one. `make soak` holds a quiet machine to the promises themselves; the usual run only to bounds that no busy
//! machine breaks, so that it fails for a fault and not for its neighbours. `make bench` has the figures.

use std::sync::{Mutex, MutexGuard};

mod blocked;
mod hostile;
mod idle;

/// Held by each test for its whole length.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it held the lock has harmed nothing that the lock guards.
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
