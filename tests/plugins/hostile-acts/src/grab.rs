//! Takes memory and handles without end, and reaches for what was not granted.

use std::io::Read;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use wasmflow_sdk::prelude::*;

/// Leaks `bytes` more, a mebibyte at a time and written to, so that the host has to give them.
pub fn memory(bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        std::hint::black_box(Box::leak(vec![1u8; 1 << 20].into_boxed_slice()));
        left = left.saturating_sub(1 << 20);
    }
}

/// Makes batches that are never dropped.
pub fn handles() {
    for _ in 0..1_000_000 {
        std::mem::forget(Batch::from_bodies(["x"]));
    }
}

/// Hands over millions of items that take no room in the guest.
pub fn empty_items() {
    let packed = Packed { data: Vec::new(), ends: vec![0; 5_000_000] };
    drop(Batch::new(&packed));
}

/// Hands over what it does not have: nearly two gigabytes from the beginning of its memory on, and as many numbers.
pub fn huge_list() {
    let length = std::hint::black_box((1 << 31) - 8);
    let at = std::hint::black_box(16 as *mut u8);
    // SAFETY: none: the host has to look before it reads, and that is the test. Nothing of it is dropped or read here, and nothing calls
    // it natively.
    let (data, ends) =
        unsafe { (Vec::from_raw_parts(at, length, length), Vec::from_raw_parts(at.cast(), 1 << 28, 1 << 28)) };
    let packed = std::mem::ManuallyDrop::new(Packed { data, ends });
    drop(Batch::new(&packed));
}

pub fn files() -> Result<(), Failure> {
    let paths =
        ["/etc/passwd", "/", ".", "..", "../../../../../../etc/passwd", "etc/passwd", "/proc/self/environ", "/tmp/"];
    for path in paths {
        denied(&format!("reading `{path}`"), std::fs::File::open(path).map(drop))?;
        denied(&format!("listing `{path}`"), std::fs::read_dir(path).map(drop))?;
    }
    denied("writing `/tmp/breach`", std::fs::write("/tmp/breach", "x"))?;
    denied("making a link", std::fs::hard_link("/etc/passwd", "/tmp/breach"))?;
    let mut input = Vec::new();
    match std::io::stdin().take(1024).read_to_end(&mut input) {
        Ok(bytes) if bytes > 0 => Err(Failure::fatal(format!("breach: read {bytes} bytes of standard input"))),
        _ => Ok(()),
    }
}

pub fn sockets() -> Result<(), Failure> {
    for address in ["127.0.0.1:22", "10.0.0.1:80", "169.254.169.254:80", "[::1]:22", "[::ffff:127.0.0.1]:22"] {
        denied(&format!("connecting to `{address}`"), TcpStream::connect(address).map(drop))?;
    }
    denied("resolving `localhost`", ("localhost", 80).to_socket_addrs().map(drop))?;
    denied("listening", TcpListener::bind("127.0.0.1:0").map(drop))?;
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", "127.0.0.1:53"));
    denied("sending a datagram", sent.map(drop))
}

pub fn environment() -> Result<(), Failure> {
    let variables: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    let arguments: Vec<String> = std::env::args().collect();
    match variables.is_empty() && arguments.is_empty() {
        true => {
            log::info("denied: the environment is empty");
            Ok(())
        }
        false => Err(Failure::fatal(format!("breach: sees variables {variables:?} and arguments {arguments:?}"))),
    }
}

/// Has no error to answer with, so the host traps with the name of the grant.
pub fn wall_clock() -> Result<(), Failure> {
    let now = std::time::SystemTime::now();
    Err(Failure::fatal(format!("breach: knows the time, {now:?}")))
}

/// As [`wall_clock`].
pub fn random(count: u64) -> Result<(), Failure> {
    #[cfg(target_family = "wasm")]
    let bytes = wasip2::random::random::get_random_bytes(count);
    #[cfg(not(target_family = "wasm"))]
    let bytes = vec![0u8; count as usize];
    Err(Failure::fatal(format!("breach: got {} random bytes", bytes.len())))
}

pub fn denied(what: &str, result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) => {
            log::info(format!("denied: {what}: {error}"));
            Ok(())
        }
        Ok(()) => Err(Failure::fatal(format!("breach: {what} was allowed"))),
    }
}
