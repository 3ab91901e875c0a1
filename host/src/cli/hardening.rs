//! What an agent gives up for good before it runs anything: should a plugin ever leave its sandbox, it finds less.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Gives up new privileges, so that no program started from here gains any by its file (`setuid`), and memory dumps, which would hold
/// secrets and events. Neither is undone, and the compiler's process inherits both.
pub fn harden() {
    // SAFETY: this option of `prctl` takes numbers only, and changes nothing but this process's flag.
    let given_up = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    if !given_up {
        tracing::warn!(error = %std::io::Error::last_os_error(), "cannot give up new privileges");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "cannot give up memory dumps");
    }
}
