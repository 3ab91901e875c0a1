//! Sockets in a plugin: one thread of tokio whose tasks live on between the host's calls.
//!
//! An instance runs only while the host is inside one of its functions, so a task moves only inside a method of [`Reactor`]. A source
//! keeps one `Reactor` for its life, spawns what must go on (clients, a query on its way) and calls [`Reactor::run_for`] or
//! [`Reactor::turn`] in `poll` and in `acked`; a socket that became ready between two calls is served in the next one.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

/// How often [`Reactor::turn`] asks the operating system which sockets are ready. One round finds a socket ready, its task then reads
/// and may wake another; the second serves that one; the third carries what it wrote.
const ROUNDS: usize = 3;

/// A single-threaded tokio runtime with its tasks, which need not be `Send`.
///
/// Cancel: dropping it drops every task where it stands, sockets included.
pub struct Reactor {
    // The order of the fields is the order of dropping: tasks hold sockets that are registered with the runtime.
    tasks: LocalSet,
    runtime: Runtime,
}

impl Reactor {
    /// # Errors
    /// When the operating system gives no event queue.
    pub fn new() -> io::Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_io().enable_time().build()?, tasks: LocalSet::new() })
    }

    /// Starts a task. It moves during this reactor's calls only, and in all of them.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.tasks.spawn_local(task)
    }

    /// Lets every task go on that can, without waiting for anything. For `acked` (the answer leaves in that call, not in the next
    /// poll) and for a poll that may bring nothing.
    pub fn turn(&self) {
        self.run_for(Duration::ZERO, pending::<()>());
    }

    /// Runs all tasks until `future` is ready, or else until `wait` has passed. With a wait of zero the sockets are still looked at
    /// and served, as [`turn`](Self::turn) does.
    ///
    /// Cancel: `future` is dropped when the time is up; give it nothing that is lost by that.
    pub fn run_for<F: Future>(&self, wait: Duration, future: F) -> Option<F::Output> {
        self.tasks.block_on(&self.runtime, async {
            let mut future = pin!(future);
            for _ in 0..ROUNDS {
                if let Some(output) = ready_now(future.as_mut()).await {
                    return Some(output);
                }
                round().await;
            }
            if wait.is_zero() { ready_now(future).await } else { tokio::time::timeout(wait, future).await.ok() }
        })
    }

    /// Runs all tasks until `future` is ready, however long that takes: for what cannot wait on the outside world, as binding a port.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.tasks.block_on(&self.runtime, future)
    }
}

/// Every task that was ready has had its turn (the empty task stands behind them in the queue), then the operating system is asked for
/// ready sockets, which wakes their tasks.
async fn round() {
    // An error would mean that the empty task panicked or was aborted; neither can be, and nothing depends on its result.
    let _ = spawn_local(async {}).await;
    yield_now().await;
}

async fn ready_now<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::rc::Rc;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn echo_server(reactor: &Reactor) -> std::net::SocketAddr {
        let listener = reactor.run(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        reactor.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                spawn_local(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        stream.write_all(&byte).await.unwrap();
                    }
                });
            }
        });
        address
    }

    #[test]
    fn clients_are_served_by_turns_that_never_wait() {
        let reactor = Reactor::new().unwrap();
        let address = echo_server(&reactor);
        let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(&[number as u8]).unwrap();
        }
        reactor.turn();
        reactor.turn();
        for (number, client) in clients.iter_mut().enumerate() {
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [number as u8]);
        }
    }

    #[test]
    fn one_turn_moves_every_ready_task_however_many_there_are() {
        let reactor = Reactor::new().unwrap();
        let moved = Rc::new(Cell::new(0));
        for _ in 0..1000 {
            let moved = moved.clone();
            reactor.spawn(async move { moved.set(moved.get() + 1) });
        }
        reactor.turn();
        assert_eq!(moved.get(), 1000);
    }

    #[test]
    fn waiting_ends_when_the_future_is_ready_or_the_time_is_up() {
        let reactor = Reactor::new().unwrap();
        let started = Instant::now();
        let soon = tokio::time::Duration::from_millis(20);
        assert_eq!(reactor.run_for(Duration::from_secs(20), async { tokio::time::sleep(soon).await }), Some(()));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(reactor.run_for(soon, pending::<()>()), None);
        assert!(started.elapsed() >= Duration::from_millis(40));
    }

    #[test]
    fn a_zero_wait_returns_what_is_ready_and_otherwise_nothing() {
        let reactor = Reactor::new().unwrap();
        assert_eq!(reactor.run_for(Duration::ZERO, async { 5 }), Some(5));
        assert_eq!(reactor.run_for(Duration::ZERO, pending::<()>()), None);
    }
}
