//! Lets librdkafka's broker threads sleep where they would spin.
//!
//! An idempotent producer has one request a partition under way. While that waits for its answer and the next batch is ready, the broker's
//! thread of librdkafka 2.12 asks its socket again and again without waiting: `rd_kafka_broker_producer_serve` takes the ready batch for
//! a reason to wake up at once, though it may not be sent. That took a fifth of the processor of `tail` -> Kafka (tests/bench/README.md), which
//! the broker could have used where both share a machine. There is no option for it, so the linker (`--wrap`, see build.rs) puts this function in
//! between.

use std::ffi::{c_int, c_void};

/// Limit: the shortest wait for the socket, and so the longest delay that this can add; poll(2) counts in milliseconds. Bytes that come,
/// room for bytes that wait to go out, and anything new from the application end the wait at once.
const SHORTEST_MS: c_int = 1;

unsafe extern "C" {
    /// `rd_kafka_transport_io_serve` itself, as the linker calls it.
    fn __real_rd_kafka_transport_io_serve(transport: *mut c_void, queue: *mut c_void, timeout_ms: c_int) -> c_int;
}

/// Takes the place of `rd_kafka_transport_io_serve`: waits up to `timeout_ms` for one broker's socket and serves it.
///
/// # Safety
/// As librdkafka calls it: from the broker's own thread, with that broker's transport and queue.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_transport_io_serve(
    transport: *mut c_void,
    queue: *mut c_void,
    timeout_ms: c_int,
) -> c_int {
    let timeout_ms = if timeout_ms == 0 { SHORTEST_MS } else { timeout_ms };
    // SAFETY: handed on as they came.
    unsafe { __real_rd_kafka_transport_io_serve(transport, queue, timeout_ms) }
}

/// Has the linker need the function, so that there is no program without the wait: where `--wrap` is left out, `__real_…` is not found.
pub fn is_needed() {
    std::hint::black_box(__wrap_rd_kafka_transport_io_serve as *const ());
}
