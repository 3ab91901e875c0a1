//! What a client sends to the admin endpoint.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use wasmflow::admin::{Admin, AdminOptions};
use wasmflow::control::Control;
use wasmflow::control::health::Patience;
use wasmflow::plugin::{Engine, EngineOptions};

/// The bytes go to an endpoint on a socket of its own. It answers the next client all the same.
///
/// # Panics
/// When the endpoint is gone.
pub fn admin(bytes: &[u8]) {
    let answer = told(bytes, Duration::from_millis(10));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    // A machine that is busy may be late with one answer; an endpoint that is gone is late with all.
    let is_healthy = || told(HEALTHZ, Duration::from_millis(50)).starts_with(b"HTTP/1.1 200");
    assert!((0..100).any(|_| is_healthy()), "the endpoint does not answer any more");
}

const HEALTHZ: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What comes back. `within`: how long it is waited for what the bytes may have asked for; most of them ask for nothing.
fn told(bytes: &[u8], within: Duration) -> Vec<u8> {
    static ENDPOINT: OnceLock<Endpoint> = OnceLock::new();
    let mut client = UnixStream::connect(&ENDPOINT.get_or_init(Endpoint::start).socket).expect("the endpoint listens");
    // It may have answered and hung up before it has read everything.
    let _ = client.write_all(bytes);
    let mut answer = vec![0; 1 << 16];
    // A client that hangs up is not answered any more, and one that does not is waited for: an answer comes at once if at all.
    client.set_read_timeout(Some(within)).expect("the limit is not zero");
    let first = client.read(&mut answer).unwrap_or(0);
    answer.truncate(first);
    let _ = client.shutdown(Shutdown::Write);
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("the limit is not zero");
    match client.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer and no end within 30 s"),
        _ => answer,
    }
}

/// An endpoint with no pipeline behind it, that lives as long as the process.
struct Endpoint {
    socket: PathBuf,
    /// Kept here, where the sanitizer sees that they are no leak.
    _kept: (Runtime, Mutex<Admin>),
}

impl Endpoint {
    fn start() -> Endpoint {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let socket = std::env::temp_dir().join(format!("wasmflow-fuzz-{}.sock", std::process::id()));
        let engine = Engine::new(EngineOptions::default()).expect("the engine starts");
        let options = AdminOptions {
            addresses: vec![format!("unix:{}", socket.display()).parse().expect("it is an address")],
            token: None,
            hosts: Vec::new(),
            patience: Patience(Duration::from_secs(60)),
        };
        let admin = Admin::start(options, Control::new(engine), runtime.handle().clone()).expect("the socket is free");
        Endpoint { socket, _kept: (runtime, Mutex::new(admin)) }
    }
}
