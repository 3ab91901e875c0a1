//! Has a call that takes long go on apart from the runtime's workers, on a thread that the system prefers all others to: it keeps no other
//! stage waiting, neither for a worker nor for a core, and has the core for itself while nobody else wants it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::thread;

/// Limit: calls that are apart at a time, each with a thread, while another of tokio's 512 waits for it. Beyond so many on each of a machine's
/// cores it matters little who is in whose way.
const MOST: usize = 64;

/// Of such a thread. Beside a stage that computes as well it has a tenth of a core: it still comes on, and whoever wakes up is served at once.
const NICENESS: i32 = 10;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Held by a test that takes all leaves there are.
#[cfg(test)]
pub static LEAVES: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Leave for one call to go on apart.
#[derive(Debug)]
pub struct Apart(());

impl Apart {
    /// Nothing: too many are, or the runtime has but one thread, which nobody could serve meanwhile.
    pub fn ask() -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread || UNDER_WAY.load(Ordering::Relaxed) >= MOST {
            return None;
        }
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Some(Self(()))
    }

    /// Does the work, and has another thread serve the runtime meanwhile.
    ///
    /// # Panics
    /// When the work does.
    pub fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let (runtime, span) = (Handle::current(), tracing::Span::current());
        let mut work = Some(work);
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let apart = || {
                    thread::give_way(NICENESS);
                    let _runtime = runtime.enter();
                    span.in_scope(work.take().expect("it is done once"))
                };
                let started = std::thread::Builder::new().name("wasmflow-long".into()).spawn_scoped(scope, apart);
                started.ok().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
            // The system has no thread to give: this one is at least no worker any more.
            .unwrap_or_else(|| work.take().expect("nobody has done it")())
        })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn so_many_calls_go_on_apart_each_on_a_thread_that_gives_way_in_the_same_runtime() {
        let _others_wait = LEAVES.lock();
        let (here, runtime) = (std::thread::current().id(), Handle::current().id());
        let apart = Apart::ask().expect("nobody else is apart");
        let there = apart.run(|| {
            // SAFETY: the call reads no memory.
            let niceness = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
            (std::thread::current().id() == here, Handle::current().id() == runtime, niceness)
        });
        assert_eq!((there.0, there.1), (false, true));
        #[cfg(target_os = "linux")]
        assert_eq!(there.2, NICENESS);

        let apart = Apart::ask().expect("the one before is over");
        let panic =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| apart.run(|| panic!("as the test wants it"))));
        assert_eq!(panic.expect_err("it panics").downcast_ref(), Some(&"as the test wants it"));

        let most: Vec<_> = (0..MOST).map(|_| Apart::ask().expect("there is room")).collect();
        assert!(Apart::ask().is_none());
        drop(most);
        assert!(Apart::ask().is_some());
    }

    #[tokio::test]
    async fn in_a_runtime_of_one_thread_no_call_leaves() {
        assert!(Apart::ask().is_none());
    }
}
