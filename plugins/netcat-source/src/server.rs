//! Binding the address and letting clients in.
//!
//! Clients are let in by std and only waited for by tokio: tokio's own accept sets what it accepted non-blocking with `fcntl`, which
//! wasi-libc refuses for sockets, and so loses every client (`Invalid argument`). std does the same with `ioctl`.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;
use wasmflow_sdk::log;

use crate::client::{Connection, SCRATCH_BYTES, Scratch};
use crate::hub::SharedHub;

/// After a failed accept, which is the machine being short of something (file handles, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on every address that `bind` names, so that `localhost` is found by IPv4 and by IPv6. The sockets never block.
///
/// # Errors
/// When the name is not known, or an address of it cannot be bound. A machine without IPv6 is not an error while another address works.
pub fn listen(bind: &str) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut missing = None;
    for address in bind.to_socket_addrs()? {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                listeners.push(listener);
            }
            Err(error) if is_not_here(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
        if address.port() == 0 {
            break; // Each address would get another port.
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ if listeners.is_empty() => Err(io::Error::new(ErrorKind::NotFound, "the name has no address")),
        _ => Ok(listeners),
    }
}

fn is_not_here(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::Unsupported)
}

/// Lets clients in, as many at a time as the hub takes, until the source closes.
pub fn accept(listener: TcpListener, hub: SharedHub) -> impl Future<Output = ()> {
    hub.borrow_mut().listens();
    async move {
        drop(accept_until_closing(listener, &hub).await);
        hub.borrow_mut().listens_no_more();
    }
}

async fn accept_until_closing(mut listener: TcpListener, hub: &SharedHub) -> TcpListener {
    let scratch: Scratch = Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into()));
    let left = hub.borrow().left();
    loop {
        if hub.borrow().is_closing() {
            return listener;
        }
        if hub.borrow().is_full() {
            left.notified().await;
            continue;
        }
        let accepted = match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                listener = knock(listener, &left).await.expect("a socket can be waited for while the reactor lives");
                continue;
            }
            accepted => accepted.and_then(|(stream, remote)| welcome(stream, remote, hub, &scratch)),
        };
        if let Err(error) = accepted {
            log::warn(format!("cannot let a client in: {error}"));
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Until a client may be there, or another one has left. To tokio the socket is a stream, the one type of it that can be waited for
/// without accepting.
async fn knock(listener: TcpListener, left: &Notify) -> io::Result<TcpListener> {
    let socket = TcpStream::from_std(OwnedFd::from(listener).into())?;
    tokio::select! {
        ready = socket.readable() => ready?,
        () = left.notified() => {}
    }
    Ok(OwnedFd::from(socket.into_std()?).into())
}

fn welcome(stream: std::net::TcpStream, remote: SocketAddr, hub: &SharedHub, scratch: &Scratch) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    // Answers are small and waited for. A system that cannot switch the delay off still answers.
    let _ = stream.set_nodelay(true);
    let (id, wake) = hub.borrow_mut().connected(remote.to_string());
    let (hub, scratch) = (hub.clone(), scratch.clone());
    spawn_local(Connection { stream, id, wake, hub, scratch }.serve());
    Ok(())
}
