//! The process's standard output, shared by all console sinks: whole lines, unchanged, and back-pressure for whoever prints.
//!
//! What the reader of the pipe takes at once is written at once, by the caller. The rest waits for a thread of its own, since a
//! write to a full pipe blocks, and a worker thread of the runtime must not.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use tokio::sync::Notify;

/// Limit: bytes that wait for the reader before a printing sink is held.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// A pipe that is ready to be written takes this much without blocking (POSIX, `PIPE_BUF`).
const PIECE_BYTES: usize = 4096;
/// What a pipe is asked to hold: as much as Linux gives without privileges. Its own 64 KiB are less than a batch, so that the
/// thread that waits for the reader would be needed for each.
const PIPE_BYTES: usize = 1 << 20;
/// pwritev2(2): go on where the last write ended.
const WHERE_IT_IS: u64 = u64::MAX;

/// A file descriptor that many print to.
#[derive(Debug)]
pub struct Console {
    fd: OwnedFd,
    /// Whether it can be written to without blocking whatever the size: pipes can since Linux 6.4, terminals cannot.
    knows_nowait: AtomicBool,
    queue: Mutex<Queue>,
    filled: Condvar,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Chunks ever submitted, and those written in full. Written in the order submitted.
    submitted: u64,
    written: u64,
    has_writer: bool,
    /// Nothing can be written any more: nobody reads, or the disk is full.
    failed: Option<io::ErrorKind>,
}

impl Console {
    /// The process's standard output.
    ///
    /// # Errors
    /// When the process has none.
    pub fn standard_output() -> io::Result<Arc<Self>> {
        static CONSOLE: LazyLock<Result<Arc<Console>, Errno>> =
            LazyLock::new(|| rustix::io::dup(rustix::stdio::stdout()).map(Console::new));
        CONSOLE.clone().map_err(io::Error::from)
    }

    pub fn new(fd: OwnedFd) -> Arc<Self> {
        // What is no pipe, or may hold no more, stays as it is.
        if fcntl_getpipe_size(&fd).is_ok_and(|bytes| bytes < PIPE_BYTES) {
            let _ = fcntl_setpipe_size(&fd, PIPE_BYTES);
        }
        let knows_nowait = AtomicBool::new(true);
        Arc::new(Self { fd, knows_nowait, queue: Mutex::default(), filled: Condvar::new(), moved: Notify::new() })
    }

    /// Prints these bytes after all that were submitted before, and answers their number for [`written`](Self::written).
    pub fn submit(self: &Arc<Self>, mut bytes: Bytes) -> u64 {
        let mut queue = self.queue();
        queue.submitted += 1;
        let number = queue.submitted;
        if queue.waiting.is_empty() && queue.written + 1 == number {
            self.write_ready(&mut bytes, &mut queue);
        }
        if queue.failed.is_some() || bytes.is_empty() {
            queue.written = queue.written.max(if queue.waiting.is_empty() { number } else { 0 });
            return number;
        }
        queue.waiting_bytes += bytes.len();
        queue.waiting.push_back(bytes);
        if !std::mem::replace(&mut queue.has_writer, true) {
            let console = self.clone();
            let writer = crate::thread::spawn("wasmflow-stdout", move || console.write_on());
            if writer.is_err() {
                queue.failed = Some(io::ErrorKind::OutOfMemory);
            }
        }
        drop(queue);
        self.filled.notify_one();
        number
    }

    /// Whether all up to this number are with the system.
    ///
    /// # Errors
    /// When they never will be.
    pub fn written(&self, number: u64) -> Result<bool, io::ErrorKind> {
        let queue = self.queue();
        match queue.failed {
            Some(kind) => Err(kind),
            None => Ok(queue.written >= number),
        }
    }

    /// The number of the newest bytes submitted, by whomever.
    pub fn last_submitted(&self) -> u64 {
        self.queue().submitted
    }

    /// Whether more may be printed now.
    pub fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.failed.is_some() || queue.waiting_bytes < MAX_WAITING_BYTES
    }

    /// Waits until `ready` says so; asked again whenever something was written.
    pub async fn wait(&self, ready: impl Fn(&Self) -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if ready(self) {
                return;
            }
            moved.await;
        }
    }

    /// Writes what can be written without blocking.
    fn write_ready(&self, bytes: &mut Bytes, queue: &mut Queue) {
        while !bytes.is_empty() && queue.failed.is_none() {
            match self.write_now(bytes) {
                Ok(count) => bytes.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => queue.failed = Some(io::Error::from(error).kind()),
            }
        }
    }

    /// Writes as much as there is room for.
    fn write_now(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.knows_nowait.load(Ordering::Relaxed) {
            match pwritev2(&self.fd, &[IoSlice::new(bytes)], WHERE_IT_IS, ReadWriteFlags::NOWAIT) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.knows_nowait.store(false, Ordering::Relaxed),
                written => return written,
            }
        }
        match self.is_writable() {
            true => rustix::io::write(&self.fd, &bytes[..bytes.len().min(PIECE_BYTES)]),
            false => Err(Errno::AGAIN),
        }
    }

    fn is_writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A descriptor in error counts as writable: the write then says what is wrong.
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// The writer thread. It lives as long as the process: it may sit in a write that never ends.
    fn write_on(&self) {
        loop {
            let chunk = {
                let mut queue = self.queue();
                while queue.waiting.is_empty() {
                    queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                queue.waiting.front().expect("the queue is not empty").clone()
            };
            let outcome = self.write_blocking(&chunk);
            let mut queue = self.queue();
            if let Err(error) = outcome {
                queue.failed = Some(error.kind());
                queue.waiting.clear();
                queue.waiting_bytes = 0;
                queue.written = queue.submitted;
            } else {
                queue.waiting.pop_front();
                queue.waiting_bytes -= chunk.len();
                queue.written = queue.submitted - queue.waiting.len() as u64;
            }
            drop(queue);
            self.moved.notify_waiters();
        }
    }

    fn write_blocking(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], None)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    fn pipe() -> (std::fs::File, Arc<Console>) {
        let (read, write) = std::io::pipe().unwrap();
        (std::fs::File::from(OwnedFd::from(read)), Console::new(write.into()))
    }

    #[test]
    fn what_the_reader_takes_at_once_is_written_at_once() {
        let (mut reader, console) = pipe();
        let number = console.submit(Bytes::from_static(b"a line\n"));
        assert_eq!(console.written(number), Ok(true));
        let mut buffer = [0; 7];
        reader.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"a line\n");
    }

    #[test]
    fn a_pipe_takes_a_large_batch_at_once_although_nobody_reads() {
        for knows_nowait in [true, false] {
            let (reader, console) = pipe();
            console.knows_nowait.store(knows_nowait, Ordering::Relaxed);
            let number = console.submit(vec![b'x'; PIPE_BYTES / 2].into());
            assert_eq!(console.written(number), Ok(true), "knows_nowait: {knows_nowait}");
            drop(reader);
        }
    }

    #[tokio::test]
    async fn a_reader_that_stalls_holds_the_writer_and_gets_all_in_order() {
        for knows_nowait in [true, false] {
            let (reader, console) = pipe();
            console.knows_nowait.store(knows_nowait, Ordering::Relaxed);
            stalled_and_read(reader, console).await;
        }
    }

    async fn stalled_and_read(mut reader: std::fs::File, console: Arc<Console>) {
        let mut expected = Vec::new();
        let mut last = 0;
        for line in 0..60_000 {
            let line = format!("line {line} with some more text to fill the pipe\n");
            expected.extend_from_slice(line.as_bytes());
            last = console.submit(line.into());
        }
        assert_eq!(console.written(last), Ok(false));
        assert!(!console.has_room());
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = vec![0; expected.len()];
            reader.read_exact(&mut all).unwrap();
            assert!(all == expected);
        });
        console.wait(|console| console.written(last) == Ok(true)).await;
        assert!(console.has_room());
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_reader_printing_fails() {
        let (reader, console) = pipe();
        drop(reader);
        let number = console.submit(Bytes::from_static(b"x"));
        tokio::time::timeout(Duration::from_secs(5), console.wait(|console| console.written(number).is_err()))
            .await
            .unwrap();
        assert_eq!(console.written(number), Err(io::ErrorKind::BrokenPipe));
    }
}
