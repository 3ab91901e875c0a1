//! A client of the `netcat` source: sends lines and reads the answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::wait_until;

/// One connection to a `netcat` source.
#[derive(Debug)]
pub struct NetcatClient {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

/// Longest wait for an answer unless a test sets another one.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

impl NetcatClient {
    /// Connects to the port on this machine, and waits for the source to listen.
    ///
    /// # Panics
    /// When nothing listens there after 30 s.
    pub fn connect(port: u16) -> Self {
        let mut stream = None;
        wait_until(Duration::from_secs(30), || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let stream = stream.unwrap_or_else(|| panic!("nothing listens on port {port}"));
        stream.set_nodelay(true).expect("a connected socket takes options");
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("the limit is not zero");
        let answers = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        Self { stream, answers }
    }

    /// Goes away with a reset, as a client that crashes.
    pub fn reset(self) {
        use std::os::fd::AsRawFd as _;
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = size_of_val(&at_once) as libc::socklen_t;
        // SAFETY: the socket is open, and the option is read during the call only.
        let set = unsafe {
            let option = std::ptr::from_ref(&at_once).cast();
            libc::setsockopt(self.stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, option, size)
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    /// What lines are written to, and what answers are read from: for two threads.
    pub fn into_parts(self) -> (TcpStream, BufReader<TcpStream>) {
        (self.stream, self.answers)
    }

    /// Sends a line with its newline and does not wait.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).expect("the source keeps the connection open");
    }

    /// Waits `limit` at most for the next answer; `None` when none comes or the connection ends.
    pub fn answer_within(&mut self, limit: Duration) -> Option<String> {
        self.stream.set_read_timeout(Some(limit)).expect("the limit is not zero");
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).is_ok_and(|bytes| bytes > 0);
        read.then(|| line.trim_end().to_owned())
    }

    /// Sends a line and gives the answer to it; `None` when the connection is gone.
    pub fn ask_if_open(&mut self, line: &str) -> Option<String> {
        self.stream.write_all(format!("{line}\n").as_bytes()).ok()?;
        self.answer_within(ANSWER_LIMIT)
    }

    /// Sends a line and gives the answer to it.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.answer_within(ANSWER_LIMIT).unwrap_or_else(|| panic!("no answer to `{line}` within {ANSWER_LIMIT:?}"))
    }
}
