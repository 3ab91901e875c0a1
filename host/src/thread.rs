//! Threads that nobody joins, the time a thread has had, and how much the system prefers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Starts a thread that others rely on without watching it.
///
/// If it panics, they would wait for it for ever. So the whole process ends then, as by a kill: what was not settled comes again, and
/// whoever started the process starts it anew.
///
/// # Errors
/// When the system has no thread to give.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let of = name.to_owned();
    Builder::new().name(name.into()).spawn(move || {
        // The panic was reported where it happened.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(
                thread = of,
                "internal error: the process ends, since others rely on this thread; please report it"
            );
            std::process::abort();
        }
    })
}

/// How long the calling thread has computed since it began: what it waited, for whatever reason, is not in it.
pub fn computing_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in the structure that it is given.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(answer, 0, "every system that this is built for has a clock for each thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Has the system prefer others to the calling thread, and to those it starts. Where it refuses, all stay equal.
pub fn give_way(niceness: i32) {
    // To Linux, 0 is the calling thread, not its process.
    #[cfg(target_os = "linux")]
    // SAFETY: the call reads no memory.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, niceness);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn a_wait_is_no_computing_time() {
        let before = super::computing_time();
        std::thread::sleep(super::Duration::from_millis(300));
        let slept = super::computing_time();
        assert!(slept - before < super::Duration::from_millis(200), "{:?}", slept - before);
        while super::computing_time() == slept {
            std::hint::spin_loop();
        }
    }

    const CHILD: &str = "WASMFLOW_TEST_THREAD_PANICS";

    #[test]
    fn a_thread_that_panics_takes_the_process_with_it() {
        if std::env::var_os(CHILD).is_some() {
            let thread = super::spawn("victim", || panic!("as the test wants it")).expect("there are threads");
            thread.join().expect("the process ends before this");
            return;
        }
        let mut child = Command::new(std::env::current_exe().expect("this is a program"));
        child.args(["--exact", "thread::tests::a_thread_that_panics_takes_the_process_with_it", "--nocapture"]);
        let ended = child.env(CHILD, "1").stdout(Stdio::null()).output().expect("it can be started again");
        assert_eq!(ended.status.signal(), Some(6), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
