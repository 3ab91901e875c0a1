//! The task of one client: reads while there is room, answers what is settled, says why when it hangs up.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::hub::{Farewell, SharedHub, Step};
use crate::ledger::ClientId;

/// How long a client may hold, alone, the room that all others wait for.
const OVERDRAFT_PATIENCE: Duration = Duration::from_secs(30);

/// How long a client that is hung up on may go on sending into the void. Closing a socket with unread bytes would reset the connection, and
/// the answers on their way with it.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may take to take the word that it is hung up on.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(5);

/// One buffer that all clients read into, in turn: what is read is put away before the next task moves.
pub type Scratch = Rc<RefCell<Box<[u8]>>>;

/// As much as one read of a WASI stream gives.
pub const SCRATCH_BYTES: usize = 64 << 10;

pub struct Connection {
    pub stream: TcpStream,
    pub id: ClientId,
    pub wake: Rc<Notify>,
    pub hub: SharedHub,
    pub scratch: Scratch,
}

impl Connection {
    /// Serves the client to its end, and forgets it.
    pub async fn serve(mut self) {
        let farewell = self.until_farewell().await;
        self.part(farewell).await;
        self.hub.borrow_mut().gone(self.id);
    }

    async fn until_farewell(&mut self) -> Farewell {
        loop {
            let step = self.hub.borrow_mut().next_step(self.id);
            match step {
                Step::Leave(farewell) => return farewell,
                Step::Serve { read, write, overdrawn } => self.serve_once(interest(read, write), overdrawn).await,
            }
        }
    }

    /// Waits for the client, or for something to change for it, and does what can be done then.
    async fn serve_once(&mut self, interest: Option<Interest>, overdrawn: bool) {
        let ready = async {
            match interest {
                Some(interest) => self.stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            ready = ready => ready.and_then(|ready| self.move_bytes(ready)),
            () = self.wake.notified() => Ok(()),
            () = sleep(OVERDRAFT_PATIENCE), if overdrawn => {
                self.hub.borrow_mut().refused(self.id, Farewell::TooSlow);
                Ok(())
            }
        };
        if outcome.is_err() {
            // Reset by the peer, most likely. Its lines are brought all the same.
            self.hub.borrow_mut().lost(self.id);
        }
    }

    fn move_bytes(&self, ready: Ready) -> io::Result<()> {
        if ready.is_writable() {
            not_yet_is_nothing(self.write_answers())?;
        }
        if ready.is_readable() || ready.is_read_closed() {
            not_yet_is_nothing(self.read_lines())?;
        }
        Ok(())
    }

    fn write_answers(&self) -> io::Result<()> {
        let answers = self.hub.borrow().answers(self.id);
        if !answers.is_empty() {
            let written = self.stream.try_write(answers)?;
            self.hub.borrow_mut().wrote(self.id, written);
        }
        Ok(())
    }

    fn read_lines(&self) -> io::Result<()> {
        let mut scratch = self.scratch.borrow_mut();
        let bytes = self.stream.try_read(&mut scratch)?;
        let mut hub = self.hub.borrow_mut();
        if bytes == 0 {
            hub.ended(self.id)
        } else {
            hub.received(self.id, &scratch[..bytes])
        }
        Ok(())
    }

    /// Says why, and closes in a way that loses nothing that was said. The client may be gone already, so errors end it too.
    async fn part(&mut self, farewell: Farewell) {
        if let Some(text) = self.last_words(farewell)
            && !matches!(timeout(FAREWELL_PATIENCE, self.stream.write_all(text.as_bytes())).await, Ok(Ok(())))
        {
            return;
        }
        if self.stream.shutdown().await.is_ok() && farewell != Farewell::Done {
            let _ = timeout(LINGER, self.read_into_the_void()).await;
        }
    }

    fn last_words(&self, farewell: Farewell) -> Option<String> {
        match farewell {
            Farewell::Done | Farewell::Closing => None,
            Farewell::LineTooLong => {
                let limit = self.hub.borrow().manners().max_line_bytes;
                Some(format!("FAILED: the line is longer than {limit} bytes (max_line_bytes)\n"))
            }
            Farewell::TooSlow => Some("FAILED: the line was not finished in time while the buffers are full\n".into()),
        }
    }

    async fn read_into_the_void(&self) -> io::Result<()> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.scratch.borrow_mut()) {
                Ok(0) => return Ok(()),
                other => not_yet_is_nothing(other.map(drop))?,
            }
        }
    }
}

fn interest(read: bool, write: bool) -> Option<Interest> {
    match (read, write) {
        (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
        (true, false) => Some(Interest::READABLE),
        (false, true) => Some(Interest::WRITABLE),
        (false, false) => None,
    }
}

fn not_yet_is_nothing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        other => other,
    }
}
