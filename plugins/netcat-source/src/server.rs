//! Binding the address and letting clients in.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::client::{Connection, SCRATCH_BYTES, Scratch};
use crate::hub::SharedHub;

/// After a failed accept, which is the machine being short of something (file handles, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on every address that `bind` names, so that `localhost` is found by IPv4 and by IPv6.
///
/// # Errors
/// When the name is not known, or an address of it cannot be bound. A machine without IPv6 is not an error while another address works.
pub async fn listen(bind: &str) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut missing = None;
    for address in bind.to_socket_addrs()? {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
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
pub async fn accept(listener: TcpListener, hub: SharedHub) {
    let scratch: Scratch = Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into()));
    let left = hub.borrow().left();
    loop {
        if hub.borrow().is_closing() {
            return;
        }
        if hub.borrow().is_full() {
            left.notified().await;
            continue;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = left.notified() => continue,
        };
        match accepted {
            Ok((stream, remote)) => welcome(stream, remote, &hub, &scratch),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn welcome(stream: TcpStream, remote: SocketAddr, hub: &SharedHub, scratch: &Scratch) {
    // Answers are small and waited for. A system that cannot switch the delay off still answers.
    let _ = stream.set_nodelay(true);
    let (id, wake) = hub.borrow_mut().connected(remote.to_string());
    let (hub, scratch) = (hub.clone(), scratch.clone());
    spawn_local(Connection { stream, id, wake, hub, scratch }.serve());
}
