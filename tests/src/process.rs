//! Child processes that never outlive the test process, and what they use.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

/// A running child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// How often a wait looks again.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Process {
    /// Starts `command` in a process group of its own, so that a Ctrl-C at the terminal reaches it only through its owner.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(command: Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn(command).with_context(|| format!("cannot start `{program}`"))?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, to take its pipes from.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends `signal`; a process that has already ended is left alone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).expect("Linux process ids are below 2^22");
        let pid = Pid::from_raw(id).expect("a child's id is not zero");
        // The child is reaped only through `self`, so the id cannot have passed to another process.
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Ends the process with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        // Both fail only for a process that is already reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// Waits until it has ended, `limit` at most.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(limit, || {
            status = self.ended();
            status.is_some()
        });
        status
    }

    /// Processor time used so far, as [`cpu_time_of`] tells it.
    pub fn cpu_time(&self) -> Duration {
        cpu_time_of(self.id())
    }

    /// Memory resident now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Looks every few milliseconds whether `condition` holds, `limit` long at most; says whether it came to hold.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Kills every child of this process, whoever started it: for the very end, when statics that own servers are not dropped.
pub(crate) fn kill_children() {
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|id| id.parse().ok()).filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}

type Request = (Command, Sender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as the test process.
///
/// The kernel sends the parent-death signal when the *thread* that started the child ends, and the thread of a test ends
/// with the test, while a server is shared by many.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Request>> = OnceLock::new();
    command.process_group(0);
    // SAFETY: the closure makes one system call and allocates nothing, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let keeper = KEEPER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The one who asked waits for the answer, so the receiver is there.
                let _ = answer.send(command.spawn());
            }
        });
        requests
    });
    let (answer, spawned) = channel();
    keeper.send((command, answer)).expect("the keeper thread never ends");
    spawned.recv().expect("the keeper thread answers each request")
}

/// Processor time that a process has used so far, in user and kernel mode together; its grain is 10 ms.
pub fn cpu_time_of(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The command's name, field 2, stands in parentheses and may hold blanks; utime and stime are fields 14 and 15.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
