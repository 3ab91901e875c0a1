//! Listening: addresses, and what one client may take of us.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::address::Address;
use super::chain;
use super::door::{Door, Through, acts};
use crate::metrics::Refusal;

/// Limit: clients of one listener at a time. Each holds a file handle and the buffer below; scrapers and people are few.
const CONNECTIONS_MAX: usize = 64;
/// Limit: from the connection, or the answer before, to the whole head of a request: who sends a byte a second is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit: a connection that only asks; one that acts may wait longer for what it has begun.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Limit: the head of a request, and what is read of a body at once. The least that hyper takes is 8 KiB.
const BUFFER_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// After an accept that failed, as it does when the process has no file handles left: the next one would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Limit: a pause after so many that were turned away: whoever comes faster waits in the system's queue, and a
/// flood takes half of a processor at most.
const TURNED_AWAY_AT_ONCE: u32 = 64;
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(1);

/// Why an address cannot be had. The operator's fault, or another process's; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the admin endpoint cannot listen at {address}")]
    Listen { address: Address, source: io::Error },
    #[error("the admin endpoint cannot listen at {address}: another agent does")]
    InUse { address: Address },
    #[error("cannot start the admin endpoint's thread")]
    Thread(#[source] io::Error),
}

impl BindError {
    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another process listens there: choose another port with `--admin ADDR`")
            }
            Self::Listen { .. } => Some("choose another address with `--admin ADDR`, or none with `--admin off`"),
            Self::InUse { .. } => Some("stop it, or choose another path with `--admin PATH`"),
            Self::Thread(_) => None,
        }
    }
}

/// An address that is ours.
pub struct Bound {
    listener: Listener,
    through: Through,
}

enum Listener {
    Unix(std::os::unix::net::UnixListener, SocketFile),
    Tcp(std::net::TcpListener),
}

/// Removed with its listener.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// # Errors
    /// When the address cannot be had.
    pub fn new(address: &Address) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen { address: address.clone(), source };
        match address {
            Address::Unix(path) => {
                let listener = bind_unix(path).map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => BindError::InUse { address: address.clone() },
                    _ => failed(error),
                })?;
                info!(address = %path.display(), "admin endpoint");
                Ok(Self { listener: Listener::Unix(listener, SocketFile(path.clone())), through: Through::Socket })
            }
            Address::Tcp(text) => {
                let (listener, at) = bind_tcp(text).map_err(failed)?;
                info!(address = %at, "admin endpoint");
                let through = if at.ip().is_loopback() { Through::Loopback } else { Through::Network };
                Ok(Self { listener: Listener::Tcp(listener), through })
            }
        }
    }

    /// Answers whoever comes, until it is dropped.
    pub async fn serve(self, door: Arc<Door>, router: Router) {
        let clients = Clients::new(door, router, self.through);
        match self.listener {
            Listener::Unix(listener, _file) => {
                let listener = UnixListener::from_std(listener).expect("the runtime can wait for sockets");
                let accept = async || Ok(listener.accept().await?.0);
                clients.accept_all(accept, |stream: UnixStream| stream.try_write(TURNED_AWAY)).await;
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener).expect("the runtime can wait for sockets");
                let accept = async || Ok(listener.accept().await?.0);
                clients.accept_all(accept, |stream: TcpStream| stream.try_write(TURNED_AWAY)).await;
            }
        }
    }
}

/// A socket left by a process that was killed is taken over; one that somebody listens at is not.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let bound = std::os::unix::net::UnixListener::bind(path).or_else(|error| {
        let is_left_over = std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if error.kind() != io::ErrorKind::AddrInUse || !is_left_over {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        std::os::unix::net::UnixListener::bind(path)
    })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    bound.set_nonblocking(true)?;
    Ok(bound)
}

fn bind_tcp(text: &str) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let addresses: Vec<_> = text.to_socket_addrs()?.collect();
    let listener = std::net::TcpListener::bind(&*addresses)?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 10\r\nconnection: close\r\n\r\n";

/// What all connections of one listener share.
struct Clients {
    door: Arc<Door>,
    router: TowerToHyperService<Router>,
    through: Through,
    /// Of this listener alone: who floods a port does not take the socket from the operator.
    slots: Arc<Semaphore>,
}

impl Clients {
    fn new(door: Arc<Door>, router: Router, through: Through) -> Self {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { door, router: TowerToHyperService::new(router), through, slots }
    }

    async fn accept_all<S>(&self, accept: impl AsyncFn() -> io::Result<S>, turn_away: impl Fn(S) -> io::Result<usize>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut failing = false;
        let mut turned_away = 0;
        loop {
            let stream = match accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = chain(&error), "the admin endpoint takes no connections for now");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failing = false;
            match self.slots.clone().try_acquire_owned() {
                Ok(slot) => _ = tokio::task::spawn_local(self.serve(stream, slot)),
                Err(_) => {
                    self.door.counters().refuse(Refusal::Connections);
                    // Whether it is heard or not: it is over.
                    _ = turn_away(stream);
                    turned_away += 1;
                    if turned_away % TURNED_AWAY_AT_ONCE == 0 {
                        tokio::time::sleep(TURNED_AWAY_PAUSE).await;
                    }
                }
            }
        }
    }

    fn serve<S>(&self, stream: S, slot: OwnedSemaphorePermit) -> impl Future<Output = ()> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (door, router, through) = (self.door.clone(), self.router.clone(), self.through);
        async move {
            let _slot = slot;
            let acting = AtomicUsize::new(0);
            let service = service_fn(|request| answer(&door, &router, through, &acting, request));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            builder.max_buf_size(BUFFER_BYTES).max_headers(HEADERS_MAX);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = loop {
                tokio::select! {
                    ended = &mut connection => break ended,
                    () = tokio::time::sleep(CONNECTION_TIME) => {
                        if acting.load(Ordering::Relaxed) == 0 {
                            // Whoever has not read its answer by now does not read it.
                            return;
                        }
                    }
                }
            };
            if ended.is_err_and(|error| error.is_timeout()) {
                door.counters().refuse(Refusal::Slow);
            }
        }
    }
}

async fn answer(
    door: &Door,
    router: &TowerToHyperService<Router>,
    through: Through,
    acting: &AtomicUsize,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    if let Err(problem) = door.check(&request, through) {
        return Ok(problem.answer());
    }
    let count = usize::from(acts(request.method()));
    acting.fetch_add(count, Ordering::Relaxed);
    let answer = router.call(request.map(Body::new)).await;
    acting.fetch_sub(count, Ordering::Relaxed);
    answer
}
