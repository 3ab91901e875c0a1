//! Brings the rows of a MySQL or MariaDB table or query as events, in the order of a cursor column.

mod calendar;
mod config;
mod cursor;
mod failure;
mod format;
mod query;
mod session;
mod standing;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use wasmflow_sdk::net::Reactor;
use wasmflow_sdk::prelude::{Batch, Failure, Need, PackedBuilder, Part, Position, Problem, Progress, Source};

use config::{Config, Settings, needs};
use cursor::LookBack;
use session::{Line, Page, Request, Session, fetch};
use standing::{Row, Standing};

/// What a look at the server brought, and the connection if it is still good.
type Looked = (Option<Session>, Result<Page, Failure>);

/// The source. Its position has one part for the table or query.
pub struct Mysql {
    settings: Rc<Settings>,
    look_back: Option<LookBack>,
    standing: Standing,
    /// Rows of the page that have not gone out, and whether rows may be behind them.
    lines: VecDeque<(Line, Row)>,
    /// Their bodies.
    text: Vec<u8>,
    page_full: bool,
    /// When the server is to be asked next; nothing: at once.
    next_look: Option<Instant>,
    /// Between two pages the connection rests here, on the way it is in `task`.
    session: Option<Session>,
    /// The page that is being fetched. It outlives the calls of `poll`, whose wait may be shorter than the server's answer.
    task: Option<JoinHandle<Looked>>,
    ended: bool,
    // Dropped last: connections are registered with it.
    reactor: Reactor,
}

impl Source for Mysql {
    type Config = Config;
    const ABOUT: &'static str = "Brings the rows of a MySQL or MariaDB table or query as events, as they are added.";
    const REPLAYS: bool = true;

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        config.settings().map(|settings| needs(&settings))
    }

    fn open(config: Config, position: &Position) -> Result<Self, Failure> {
        let settings = config.settings().map_err(first_problem)?;
        let standing = position.get(&settings.part).map(Standing::read).transpose()?.unwrap_or_default();
        Ok(Mysql {
            look_back: settings.look_back.as_deref().and_then(LookBack::parse),
            settings: Rc::new(settings),
            standing,
            lines: VecDeque::new(),
            text: Vec::new(),
            page_full: false,
            next_look: None,
            session: None,
            task: None,
            ended: false,
            reactor: Reactor::new().map_err(Failure::retry)?,
        })
    }

    fn poll(&mut self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Progress, Failure> {
        if max_events == 0 {
            self.reactor.turn();
            return Ok(Progress::Idle);
        }
        let deadline = Instant::now() + wait;
        while self.lines.is_empty() {
            if self.ended {
                return Ok(Progress::Finished);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.next_page(rest) {
                Some(page) => self.take(page?)?,
                None => return Ok(Progress::Idle),
            }
        }
        self.deliver(max_events, max_bytes)
    }

    fn close(&mut self) {
        /// Limit: a server that is gone shall not delay the stop.
        const GOODBYE_MAX: Duration = Duration::from_millis(200);
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if let Some(session) = self.session.take() {
            self.reactor.run_for(GOODBYE_MAX, session.close());
        }
    }
}

wasmflow_sdk::export_source!(Mysql);

impl Mysql {
    /// The next page, if it comes within `wait`. The look at the server waits until it is due, by tokio's timer.
    fn next_page(&mut self, wait: Duration) -> Option<Result<Page, Failure>> {
        let mut task = match self.task.take() {
            Some(task) => task,
            None => self.reactor.spawn(look(
                self.settings.clone(),
                self.session.take(),
                self.next_look.take(),
                self.request(),
            )),
        };
        match self.reactor.run_for(wait, &mut task) {
            None => {
                self.task = Some(task);
                None
            }
            Some(Ok((session, page))) => {
                self.session = session;
                Some(page)
            }
            // Only a panic or an abort ends it otherwise; a panic is the end of the instance in the sandbox.
            Some(Err(error)) => Some(Err(Failure::retry(error))),
        }
    }

    fn request(&self) -> Request {
        // With the rows that are known already, so that at least `page_rows` others have room.
        let rows = self.settings.page_rows as usize + self.standing.known_rows();
        Request { after: self.standing.after.clone(), rows }
    }

    /// Makes a page ready to go out. One without a new row is left behind at once.
    fn take(&mut self, page: Page) -> Result<(), Failure> {
        let mut known = self.standing.known();
        self.standing.begin_page();
        (self.page_full, self.text) = (page.full, page.text);
        self.lines = page
            .lines
            .into_iter()
            .map(|line| {
                let row = match known.get_mut(&line.fingerprint) {
                    Some(count) if *count > 0 => {
                        *count -= 1;
                        Row::Known
                    }
                    _ => Row::New { fingerprint: line.fingerprint },
                };
                (line, row)
            })
            .collect();
        if !page.full {
            self.ended = !self.settings.follow;
            self.next_look = Some(Instant::now() + self.settings.poll_interval);
        }
        if self.lines.iter().all(|(_, row)| *row == Row::Known) {
            while let Some((line, row)) = self.lines.pop_front() {
                self.pass(&line, row);
            }
            self.standing.settle(self.look_back.as_ref())?;
        }
        Ok(())
    }

    fn deliver(&mut self, max_events: u32, max_bytes: u32) -> Result<Progress, Failure> {
        let mut bodies = PackedBuilder::new();
        while let Some((line, row)) = self.lines.front() {
            let is_new = *row != Row::Known;
            let full = bodies.count() >= max_events as usize || bodies.bytes() + line.body.len() > max_bytes as usize;
            if is_new && full && !bodies.is_empty() {
                break;
            }
            if is_new {
                bodies.push(&self.text[line.body.clone()]);
            }
            let (line, row) = self.lines.pop_front().expect("it is at the front");
            self.pass(&line, row);
        }
        self.standing.settle(self.look_back.as_ref())?;
        let part = Part::new(self.settings.part.as_str(), self.standing.write());
        Ok(Progress::events(Batch::new(&bodies.finish()), vec![part]))
    }

    fn pass(&mut self, line: &Line, row: Row) {
        self.standing.pass(&line.cursor, line.place, row);
        if self.lines.is_empty() && !self.page_full {
            self.standing.end();
        }
    }
}

/// A look at the server, when it is due.
async fn look(settings: Rc<Settings>, mut session: Option<Session>, due: Option<Instant>, request: Request) -> Looked {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
    let page = fetch(&settings, &mut session, &request).await;
    (session, page)
}

fn first_problem(problems: Vec<Problem>) -> Failure {
    problems.into_iter().next().map_or_else(|| Failure::fatal("config"), Failure::from)
}
