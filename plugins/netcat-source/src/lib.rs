//! The netcat source: lines that clients send over TCP become events, each answered with `OK` once it is settled.
//!
//! - `lines` cuts bytes into lines, `hub` bounds what all clients may have waiting and knows what they are owed, `ledger` which batch
//!   held whose lines; none of them touches a socket. `server` lets clients in and `client` serves one of them.
//! - At most once for the clients that do not read their answers, at least once for those that send again what was not answered: the
//!   `OK` of an event leaves only when the host has settled its batch.

mod client;
mod config;
mod hub;
mod ledger;
mod lines;
mod server;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use wasmflow_sdk::net::Reactor;
use wasmflow_sdk::prelude::{Batch, Column, Failure, Need, PackedBuilder, Problem, Progress, Source, log};

pub use crate::config::Config;
use crate::hub::{BOUNDS, Hub, Manners, SharedHub, Taken};

/// The address of the client, as in `127.0.0.1:51234`.
const REMOTE_HEADER: &str = "remote";

/// How long `close` waits for clients to take their last answers. Short, since a stop waits for it.
const CLOSE_PATIENCE: Duration = Duration::from_millis(300);

/// A listening source and its clients.
pub struct Netcat {
    reactor: Reactor,
    hub: SharedHub,
    addresses: Vec<SocketAddr>,
}

impl Netcat {
    /// Where it listens; another port than `bind` says when that is 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Source for Netcat {
    type Config = Config;

    const ABOUT: &'static str =
        "Listens on a TCP port and makes an event of each line, answered with OK once it is settled.";

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        match config.problems() {
            problems if problems.is_empty() => Ok(config.needs()),
            problems => Err(problems),
        }
    }

    fn open(config: Config, _position: &wasmflow_sdk::position::Position) -> Result<Self, Failure> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem.into());
        }
        let manners = Manners {
            max_line_bytes: config.max_line_bytes.bytes(),
            keep_partial: config.keep_partial,
            ack_every_event: config.ack_every_event,
        };
        let refused = |error: std::io::Error| Failure::fatal(format!("cannot listen on `{}`: {error}", config.bind));
        let reactor = Reactor::new().map_err(refused)?;
        let hub = Rc::new(RefCell::new(Hub::new(manners, BOUNDS)));
        let mut addresses = Vec::new();
        for listener in server::listen(&config.bind).map_err(refused)? {
            let address = listener.local_addr().map_err(refused)?;
            log::info(format!("listening on {address}"));
            addresses.push(address);
            reactor.spawn(server::accept(listener, hub.clone()));
        }
        Ok(Self { reactor, hub, addresses })
    }

    fn poll(&mut self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Progress, Failure> {
        if max_events == 0 {
            self.reactor.turn();
            return Ok(Progress::Idle);
        }
        self.reactor.run_for(wait, arrival(&self.hub));
        let taken = self.hub.borrow_mut().take(max_events as usize, max_bytes as usize);
        taken.map_or(Ok(Progress::Idle), into_events)
    }

    fn acked(&mut self, batches: u64) -> Result<(), Failure> {
        self.hub.borrow_mut().settle(batches);
        self.reactor.turn();
        Ok(())
    }

    fn close(&mut self) {
        self.hub.borrow_mut().close();
        self.reactor.run_for(CLOSE_PATIENCE, departure(&self.hub));
    }
}

/// Until a line is there.
async fn arrival(hub: &SharedHub) {
    let arrived = hub.borrow().arrived();
    while !hub.borrow().has_lines() {
        arrived.notified().await;
    }
}

/// Until every client has left.
async fn departure(hub: &SharedHub) {
    let left = hub.borrow().left();
    while !hub.borrow().all_gone() {
        left.notified().await;
    }
}

/// The header is one value for the whole batch where one client has sent all of it.
fn into_events(taken: Taken) -> Result<Progress, Failure> {
    let mut batch = Batch::new(&taken.bodies.finish());
    let remote = match &taken.origins[..] {
        [(remote, _)] => Column::constant(remote.as_bytes()),
        origins => {
            let mut remotes = PackedBuilder::new();
            for (remote, events) in origins {
                (0..*events).for_each(|_| remotes.push(remote.as_bytes()));
            }
            remotes.finish().into()
        }
    };
    batch.set_header(REMOTE_HEADER, remote)?;
    Ok(Progress::events(batch, Vec::new()))
}

wasmflow_sdk::export_source!(Netcat);

#[cfg(test)]
mod tests;
