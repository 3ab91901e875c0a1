//! The admin endpoint: what runs, how it fares, and the verbs that act on it, over HTTP.
//!
//! It has a thread and a runtime of its own: plugins that take all processors of the agent do not make it deaf, and whoever floods it
//! takes no more than this one thread from the events. What acts is done by the agent's runtime.
//!
//! ```text
//! listener (address, limits) -> door (who may ask what) -> routes (what is asked) -> Control
//! ```

mod act;
mod address;
mod answer;
pub mod client;
mod door;
mod listener;
mod openapi;
mod routes;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::control::Control;
use crate::control::health::Patience;
use crate::metrics::{INTERVAL, Rates};

pub use address::{Address, AddressError, Found, Place};
pub use door::MAX_UPLOAD_BYTES;
pub use listener::BindError;
pub use token::{Token, TokenError};

use door::Door;
use listener::Bound;

/// How long requests under way may take once the agent has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How the endpoint is offered.
#[derive(Debug)]
pub struct AdminOptions {
    /// None: there is no endpoint.
    pub addresses: Vec<Address>,
    /// What verbs that act must bring over TCP.
    pub token: Option<Token>,
    /// Names by which this machine is asked, beside its addresses, `localhost` and its own name.
    pub hosts: Vec<String>,
    pub patience: Patience,
}

/// The endpoint; it ends when this is dropped.
pub struct Admin {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What every request is answered from.
pub(crate) struct Desk {
    pub control: Control,
    /// The agent's runtime.
    pub agent: Handle,
    pub rates: Mutex<Rates>,
    pub patience: Patience,
}

impl Admin {
    /// Takes the addresses and answers from now on. To be called before any pipeline starts: an agent never runs without the
    /// endpoint that it was told to offer.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn start(options: AdminOptions, control: Control, agent: Handle) -> Result<Self, BindError> {
        let AdminOptions { addresses, token, hosts, patience } = options;
        let bound = addresses.iter().map(Bound::new).collect::<Result<Vec<_>, _>>()?;
        let door = Arc::new(Door::new(token, hosts, control.agent_counters().clone()));
        let desk = Arc::new(Desk { control, agent, rates: Mutex::default(), patience });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(BindError::Thread)?;
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, serve(bound, door, desk, stopped));
            runtime.shutdown_timeout(STOP_TIMEOUT);
        });
        Ok(Self { stop, thread: Some(thread.map_err(BindError::Thread)?) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended too.
            _ = thread.join();
        }
    }
}

async fn serve(bound: Vec<Bound>, door: Arc<Door>, desk: Arc<Desk>, mut stopped: watch::Receiver<bool>) {
    let router = routes::router(desk.clone());
    for listener in bound {
        tokio::task::spawn_local(listener.serve(door.clone(), router.clone()));
    }
    let looking = async {
        loop {
            desk.rates.lock().look(&desk.control);
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        () = looking => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
