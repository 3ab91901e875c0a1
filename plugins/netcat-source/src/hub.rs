//! What all clients have sent and are owed: the one place that says who may send more, what the next batch is, and who is answered.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;
use wasmflow_sdk::packed::PackedBuilder;

use crate::ledger::{ClientId, Ledger, Share};
use crate::lines::{LineSplitter, LineTooLong, Lines};

/// The bounds on memory. With the sinks blocked, clients fill this much and then wait in their sockets.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Whole lines one client may have waiting before it is read no further.
    pub client_bytes: usize,
    /// Bytes all clients may have waiting, unfinished lines included.
    pub total_bytes: usize,
    /// Connections at a time; the next ones wait in the operating system's queue. Each costs six handles of the 1,024 that the host
    /// gives an instance: the socket, its two streams, and what each of the three is waited for by.
    pub clients: usize,
}

/// 8 MiB in all is eight batches of the default size, and an eighth of the default memory limit: far from the 80 % at which an instance
/// is replaced, which would cut every client off.
pub const BOUNDS: Bounds = Bounds { client_bytes: 256 << 10, total_bytes: 8 << 20, clients: 128 };

/// What the operator chose.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    pub max_line_bytes: usize,
    pub keep_partial: bool,
    pub ack_every_event: bool,
}

/// Lines from several clients, and where each came from.
#[derive(Debug, Default)]
pub struct Taken {
    pub bodies: PackedBuilder,
    /// In the order of the lines; a client may be named twice.
    pub origins: Vec<(Rc<str>, usize)>,
}

/// What a client's task does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Serve {
        read: bool,
        write: bool,
        /// This client goes beyond the bound, alone, to finish its line; others wait for that.
        overdrawn: bool,
    },
    Leave(Farewell),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The client has ended and everything is answered.
    Done,
    /// A line was too long; what came before it is answered.
    LineTooLong,
    /// It held the room that all others needed for too long.
    TooSlow,
    /// The source is being closed.
    Closing,
}

/// `Open → Ended` when the client has sent its last byte; `Open → Refused` when it broke a rule. Never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
    Refused(Farewell),
}

struct Client {
    remote: Rc<str>,
    wake: Rc<Notify>,
    splitter: LineSplitter,
    lines: Lines,
    input: Input,
    /// Lines brought to the host and not settled yet.
    unsettled: usize,
    /// Of the answers due, the bytes not written yet.
    owed_bytes: usize,
    /// Waits for room in the buffers.
    starved: bool,
    /// Cannot be written to any more: its answers are dropped, its lines are not.
    deaf: bool,
    /// Its task is over; it stays for the lines that it has left behind.
    gone: bool,
}

const ANSWER: &[u8] = b"OK\n";

/// Answers for one write, so that a client of many lines costs few writes.
const ANSWERS: [u8; 1024 * ANSWER.len()] = {
    let mut answers = [0; 1024 * ANSWER.len()];
    let mut at = 0;
    while at < answers.len() {
        answers[at] = ANSWER[at % ANSWER.len()];
        at += 1;
    }
    answers
};

/// All clients of one source.
pub struct Hub {
    manners: Manners,
    bounds: Bounds,
    clients: BTreeMap<ClientId, Client>,
    next_id: ClientId,
    /// Clients with whole lines, each once, in the order in which they are served.
    ready: VecDeque<ClientId>,
    held_bytes: usize,
    overdrawn: Option<ClientId>,
    ledger: Ledger,
    /// Sockets that let clients in.
    listeners: usize,
    closing: bool,
    arrived: Rc<Notify>,
    left: Rc<Notify>,
}

pub type SharedHub = Rc<RefCell<Hub>>;

impl Hub {
    pub fn new(manners: Manners, bounds: Bounds) -> Self {
        // A line of the longest kind must fit, whatever the bounds say.
        let total_bytes = bounds.total_bytes.max(2 * manners.max_line_bytes);
        Self {
            manners,
            bounds: Bounds { total_bytes, ..bounds },
            clients: BTreeMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            held_bytes: 0,
            overdrawn: None,
            ledger: Ledger::default(),
            listeners: 0,
            closing: false,
            arrived: Rc::new(Notify::new()),
            left: Rc::new(Notify::new()),
        }
    }

    /// Signalled when a line has arrived.
    pub fn arrived(&self) -> Rc<Notify> {
        self.arrived.clone()
    }

    /// Signalled when a client has gone.
    pub fn left(&self) -> Rc<Notify> {
        self.left.clone()
    }

    pub fn manners(&self) -> Manners {
        self.manners
    }

    pub fn has_lines(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether every client's task is over; lines of clients that have gone may still wait.
    pub fn all_gone(&self) -> bool {
        self.clients.values().all(|client| client.gone)
    }

    pub fn is_full(&self) -> bool {
        self.clients.len() >= self.bounds.clients
    }

    /// A client is there; its task waits on the answered signal for whatever changes for it.
    pub fn connected(&mut self, remote: String) -> (ClientId, Rc<Notify>) {
        let (id, wake) = (self.next_id, Rc::new(Notify::new()));
        self.next_id += 1;
        let client = Client {
            remote: remote.into(),
            wake: wake.clone(),
            splitter: LineSplitter::new(self.manners.max_line_bytes),
            lines: Lines::default(),
            input: Input::Open,
            unsettled: 0,
            owed_bytes: 0,
            starved: false,
            deaf: false,
            gone: false,
        };
        self.clients.insert(id, client);
        (id, wake)
    }

    /// What the client's task is to do now.
    pub fn next_step(&mut self, id: ClientId) -> Step {
        let may_read = self.may_read(id);
        let client = &self.clients[&id];
        let answered = client.lines.is_empty() && client.unsettled == 0 && client.owed_bytes == 0;
        match client.input {
            _ if self.closing && self.listeners == 0 && client.owed_bytes == 0 => Step::Leave(Farewell::Closing),
            Input::Ended if answered || client.deaf => Step::Leave(Farewell::Done),
            Input::Refused(why) if answered || client.deaf => Step::Leave(why),
            _ => Step::Serve { read: may_read, write: client.owed_bytes > 0, overdrawn: self.overdrawn == Some(id) },
        }
    }

    /// Whether there is room for more of this client; if not, it is woken when there is.
    fn may_read(&mut self, id: ClientId) -> bool {
        let full = self.held_bytes >= self.bounds.total_bytes;
        // Full of unfinished lines alone: no batch will make room, so one client at a time goes on to the end of its line.
        let may_overdraw = self.ready.is_empty() && self.overdrawn.is_none_or(|holder| holder == id);
        let client = self.clients.get_mut(&id).expect("a client's task removes it last");
        if client.input != Input::Open || self.closing {
            return false;
        }
        let may_read = client.lines.held_bytes() < self.bounds.client_bytes && (!full || may_overdraw);
        client.starved = !may_read;
        if may_read && full {
            self.overdrawn = Some(id);
        }
        may_read
    }

    /// The client has sent these bytes.
    pub fn received(&mut self, id: ClientId, bytes: &[u8]) {
        self.change(id, |client, _| {
            if client.splitter.split(bytes, &mut client.lines) == Err(LineTooLong) {
                client.input = Input::Refused(Farewell::LineTooLong);
            }
        });
    }

    /// The client will send no more.
    pub fn ended(&mut self, id: ClientId) {
        self.change(id, |client, manners| {
            // What is left of a client that was refused is the beginning of a line too long.
            if client.input == Input::Open {
                client.splitter.finish(manners.keep_partial, &mut client.lines);
                client.input = Input::Ended;
            }
        });
    }

    /// The client is told to leave; the lines it finished stay.
    pub fn refused(&mut self, id: ClientId, why: Farewell) {
        self.change(id, |client, _| client.input = Input::Refused(why));
    }

    /// The client can be told nothing any more; what it has sent stays.
    pub fn lost(&mut self, id: ClientId) {
        self.ended(id);
        let client = self.client(id);
        (client.deaf, client.owed_bytes) = (true, 0);
    }

    /// The client's task is over: what it has sent is still brought.
    pub fn gone(&mut self, id: ClientId) {
        self.change(id, |client, _| {
            (client.deaf, client.gone) = (true, true);
            if client.input == Input::Open {
                client.input = Input::Ended;
            }
            client.splitter = LineSplitter::new(0);
        });
        self.wake_starved();
        self.forget_if_empty(id);
        self.left.notify_waiters();
    }

    /// Takes up to `max_events` lines and about `max_bytes` bytes, each client a like share; nothing when no line waits.
    pub fn take(&mut self, max_events: usize, max_bytes: usize) -> Option<Taken> {
        let (mut taken, mut shares) = (Taken::default(), Vec::new());
        while taken.bodies.count() < max_events && (taken.bodies.bytes() < max_bytes || taken.bodies.is_empty()) {
            let fair = ((max_events - taken.bodies.count()) / self.ready.len().max(1)).max(1);
            let Some(id) = self.ready.pop_front() else { break };
            let events = self.take_from(id, fair, max_bytes, &mut taken);
            if events == 0 {
                break; // Its next line would not fit; it is first in the next batch.
            }
            shares.push(Share { client: id, events });
        }
        if taken.bodies.is_empty() {
            return None;
        }
        if self.manners.ack_every_event {
            self.ledger.brought(shares);
        }
        self.wake_starved();
        Some(taken)
    }

    fn take_from(&mut self, id: ClientId, fair: usize, max_bytes: usize, taken: &mut Taken) -> usize {
        let answers = usize::from(self.manners.ack_every_event);
        let mut events = 0;
        self.change(id, |client, _| {
            while let Some(line) = client.lines.peek().filter(|_| events < fair) {
                if !taken.bodies.is_empty() && taken.bodies.bytes() + line.len() > max_bytes {
                    break;
                }
                taken.bodies.push(line);
                client.lines.skip();
                events += 1;
            }
            client.unsettled += events * answers;
            if events > 0 {
                taken.origins.push((client.remote.clone(), events));
            }
            if client.input != Input::Open {
                client.wake.notify_one(); // It may be answered in full now.
            }
        });
        if self.clients[&id].lines.is_empty() {
            self.forget_if_empty(id);
        } else if events == 0 {
            self.ready.push_front(id);
        } else {
            self.ready.push_back(id);
        }
        events
    }

    /// The first `batches` batches are settled: their clients are owed an answer for each event.
    pub fn settle(&mut self, batches: u64) {
        for share in self.ledger.settle(batches) {
            let Some(client) = self.clients.get_mut(&share.client) else { continue };
            client.unsettled -= share.events;
            if !client.deaf {
                client.owed_bytes += share.events * ANSWER.len();
            }
            client.wake.notify_one();
        }
    }

    /// The next bytes to write to a client.
    pub fn answers(&self, id: ClientId) -> &'static [u8] {
        let owed_bytes = self.clients[&id].owed_bytes;
        // The last answer may have been written in part.
        let begun = (ANSWER.len() - owed_bytes % ANSWER.len()) % ANSWER.len();
        &ANSWERS[begun..ANSWERS.len().min(begun + owed_bytes)]
    }

    /// So many of the [`answers`](Self::answers) were written.
    pub fn wrote(&mut self, id: ClientId, bytes: usize) {
        self.client(id).owed_bytes -= bytes;
    }

    /// A socket lets clients in from now on.
    pub fn listens(&mut self) {
        self.listeners += 1;
    }

    /// A socket is closed.
    pub fn listens_no_more(&mut self) {
        self.listeners -= 1;
        self.wake_all();
    }

    /// Every client is answered what is settled and then leaves: when nobody listens any more, so that a client that comes again at
    /// once is refused until the next source listens, and not let in to be hung up on a second time.
    pub fn close(&mut self) {
        self.closing = true;
        self.wake_all();
        self.left.notify_waiters();
    }

    fn wake_all(&self) {
        for client in self.clients.values() {
            client.wake.notify_one();
        }
    }

    pub fn is_closing(&self) -> bool {
        self.closing
    }

    fn client(&mut self, id: ClientId) -> &mut Client {
        self.clients.get_mut(&id).expect("a client's task removes it last")
    }

    /// Changes one client and keeps the sums right: bytes held, who is ready, who goes beyond the bound.
    fn change(&mut self, id: ClientId, change: impl FnOnce(&mut Client, Manners)) {
        let manners = self.manners;
        let client = self.clients.get_mut(&id).expect("a client's task removes it last");
        let (held_before, had_lines) = (client.held_bytes(), !client.lines.is_empty());
        change(client, manners);
        self.held_bytes = self.held_bytes - held_before + client.held_bytes();
        let has_lines = !client.lines.is_empty();
        let stays_overdrawn = client.input == Input::Open && !has_lines;
        if self.overdrawn == Some(id) && !stays_overdrawn {
            self.overdrawn = None;
            self.wake_starved();
        }
        if has_lines && !had_lines {
            self.ready.push_back(id);
            self.arrived.notify_one();
        }
    }

    fn wake_starved(&mut self) {
        for client in self.clients.values_mut().filter(|client| client.starved) {
            client.starved = false;
            client.wake.notify_one();
        }
    }

    /// Lines of a client that has gone are brought first, and nobody waits for their answers.
    fn forget_if_empty(&mut self, id: ClientId) {
        if self.clients.get(&id).is_some_and(|client| client.gone && client.lines.is_empty()) {
            self.clients.remove(&id);
            self.left.notify_waiters(); // There is room for another one.
        }
    }
}

impl Client {
    fn held_bytes(&self) -> usize {
        self.lines.held_bytes() + self.splitter.held_bytes()
    }
}
