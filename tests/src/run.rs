//! A program run to its end, and what that cost.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::process::{cpu_time_of, spawn};

/// What a program used from start to end.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub wall: Duration,
    /// Processor time in user and kernel mode together, of all its threads.
    pub cpu: Duration,
    pub peak_resident_bytes: u64,
}

impl Cost {
    /// This cost without what is spent whatever the amount of work, as a run without work has shown it.
    #[must_use]
    pub fn beyond(self, fixed: Self) -> Self {
        let (wall, cpu) = (self.wall.saturating_sub(fixed.wall), self.cpu.saturating_sub(fixed.cpu));
        Self { wall, cpu, ..self }
    }
}

/// What this process itself uses, between opening and closing the account.
#[derive(Debug)]
pub struct Account {
    start: Instant,
    cpu: Duration,
}

impl Account {
    /// # Errors
    /// When the kernel does not say.
    pub fn open() -> anyhow::Result<Self> {
        Ok(Self { start: Instant::now(), cpu: own_cpu_time()? })
    }

    /// # Errors
    /// When the kernel does not say.
    pub fn close(self) -> anyhow::Result<Cost> {
        let (wall, cpu) = (self.start.elapsed(), own_cpu_time()?.saturating_sub(self.cpu));
        Ok(Cost { wall, cpu, peak_resident_bytes: 0 })
    }
}

/// Runs `command`, its output thrown away, and tells what it cost.
///
/// # Errors
/// When it cannot be started or does not exit with code 0; its standard error then goes to the test's.
pub fn run(command: Command) -> anyhow::Result<Cost> {
    Running::start(command)?.wait()
}

/// A program that runs, its output thrown away.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    start: Instant,
}

impl Running {
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let start = Instant::now();
        let child = spawn(command).with_context(|| format!("cannot start `{program}`"))?;
        Ok(Self { program, child, start })
    }

    /// What it has cost so far, but for its memory; the grain of the processor's time is 10 ms.
    pub fn so_far(&self) -> Cost {
        Cost { wall: self.start.elapsed(), cpu: cpu_time_of(self.child.id()), peak_resident_bytes: 0 }
    }

    /// Whether it runs no more; what it cost is kept for [`wait`](Self::wait).
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn has_ended(&self) -> anyhow::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(Pid::from_child(&self.child)), look)?.is_some())
    }

    /// Waits for its end and tells what it cost.
    ///
    /// # Errors
    /// When it does not exit with code 0; its standard error went to the test's.
    pub fn wait(self) -> anyhow::Result<Cost> {
        let (status, usage) = wait(self.child.id())?;
        let wall = self.start.elapsed();
        ensure!(status == 0, "`{}` failed with wait status {status}", self.program);
        Ok(Cost {
            wall,
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            // Linux counts `ru_maxrss` in KiB.
            peak_resident_bytes: u64::try_from(usage.ru_maxrss)? * 1024,
        })
    }
}

/// Reaps the child together with its account, which `std` throws away.
fn wait(id: u32) -> anyhow::Result<(i32, libc::rusage)> {
    let pid = libc::pid_t::try_from(id)?;
    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which zeroes are valid.
    let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
    // SAFETY: both pointers are to live locals; the child is ours, and nobody else waits for it.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "cannot wait for the child: {}", std::io::Error::last_os_error());
    Ok((status, usage))
}

fn own_cpu_time() -> anyhow::Result<Duration> {
    // SAFETY: `rusage` is plain integers, for which zeroes are valid.
    let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
    // SAFETY: the pointer is to a live local.
    let answer = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    ensure!(answer == 0, "cannot ask for the time used: {}", std::io::Error::last_os_error());
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

fn time(value: libc::timeval) -> Duration {
    let seconds = u64::try_from(value.tv_sec).expect("time spent is not negative");
    let micros = u64::try_from(value.tv_usec).expect("time spent is not negative");
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
