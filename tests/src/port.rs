//! Free ports on the loopback interface.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up), so that no client
/// can sit on a port between the moment it is found free and the moment its server binds it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port on which nothing listens; each call of this process gives another one.
///
/// # Panics
/// When none of 10,000 ports is free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes start at different places, so that two at a time seldom meet.
    let start = (std::process::id().wrapping_mul(197) % u32::from(COUNT)) as u16;
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("one of 10,000 ports is free")
}
