//! A flag that ends a test's thread, whatever becomes of the test.

use std::sync::atomic::{AtomicBool, Ordering};

/// Raises its flag when it is dropped, also by an early return or a panic: a scope waits for its threads, and one that is
/// never told would hold a failed test for ever.
#[derive(Debug)]
pub struct RaisedAtEnd<'f>(pub &'f AtomicBool);

impl Drop for RaisedAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
