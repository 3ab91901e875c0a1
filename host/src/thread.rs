//! Threads that nobody joins.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

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
