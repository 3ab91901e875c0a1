//! A network between an agent and its broker that loses or delays what ends a transaction.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The Kafka protocol's number of the request that commits or aborts a transaction.
const END_TRANSACTION: u16 = 26;

/// Limit: a frame that is larger is none of Kafka's.
const FRAME_BYTES: usize = 128 << 20;

/// What happens to the next end of a transaction.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It reaches the broker, and the answer is lost with the connection.
    AnswerLost,
    /// The connection is lost, and so long afterwards it reaches the broker.
    Late(Duration),
}

/// Passes on what clients and the broker say to each other. Ends with the test process.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    broker: OnceLock<String>,
    armed: Mutex<Option<Fault>>,
    struck: AtomicUsize,
}

impl Proxy {
    /// Listens on a port of its own; connections wait for [`lead_to`](Self::lead_to).
    ///
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let this = Self { address, shared: shared.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || drop(shared.pass(client)));
            }
        });
        this
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Passes connections on to this address from now on.
    ///
    /// # Panics
    /// When it was told before.
    pub fn lead_to(&self, broker: String) {
        self.shared.broker.set(broker).expect("it is told once");
    }

    /// Lets the fault strike the next end of a transaction.
    pub fn arm(&self, fault: Fault) {
        *self.shared.armed() = Some(fault);
    }

    /// How often a fault has struck.
    pub fn struck(&self) -> usize {
        self.shared.struck.load(Ordering::Acquire)
    }
}

impl Shared {
    fn armed(&self) -> std::sync::MutexGuard<'_, Option<Fault>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut broker = TcpStream::connect(self.broker.wait())?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let (mut answers, mut asker) = (broker.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || {
            _ = std::io::copy(&mut answers, &mut asker);
            _ = asker.shutdown(Shutdown::Both);
            // The broker's side stays open for what is late; what it answers goes nowhere.
            _ = std::io::copy(&mut answers, &mut std::io::sink());
        });
        let mut frame = Vec::new();
        while read_frame(&mut client, &mut frame)? {
            let is_end = frame.get(4..6) == Some(&END_TRANSACTION.to_be_bytes());
            let fault = if is_end { self.armed().take() } else { None };
            if fault.is_some() {
                client.shutdown(Shutdown::Both)?;
                self.struck.fetch_add(1, Ordering::AcqRel);
            }
            if let Some(Fault::Late(by)) = fault {
                std::thread::sleep(by);
            }
            broker.write_all(&frame)?;
        }
        broker.shutdown(Shutdown::Write)
    }
}

/// Reads one frame with its length in front. False: the client has ended.
fn read_frame(client: &mut TcpStream, frame: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut length = [0; 4];
    if client.read_exact(&mut length).is_err() {
        return Ok(false);
    }
    let rest = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if rest > FRAME_BYTES {
        return Ok(false);
    }
    frame.clear();
    frame.extend(length);
    frame.resize(4 + rest, 0);
    Ok(client.read_exact(&mut frame[4..]).is_ok())
}
