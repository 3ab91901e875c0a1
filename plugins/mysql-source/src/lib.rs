//! Brings the rows of a MySQL or MariaDB table or query as events, in the order of a cursor column.

mod calendar;
mod cell;
mod client;
mod config;
mod cursor;
mod failure;
mod format;
mod login;
mod page;
mod query;
mod session;
mod standing;
mod wire;

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use wasmflow_sdk::net::Reactor;
use wasmflow_sdk::prelude::{Batch, Failure, Need, Part, Position, Problem, Progress, Source};

use config::{Config, Settings, needs};
use cursor::LookBack;
use page::Page;
use session::{Request, Session, fetch};
use standing::{Row, Standing};

/// What a look at the server brought, and the connection if it is still good.
type Looked = (Option<Session>, Result<Page, Failure>);

/// A page on its way. It outlives the calls of `poll`, whose wait may be shorter than the server's answer.
struct Fetch {
    request: Request,
    task: JoinHandle<Looked>,
}

/// The source. Its position has one part for the table or query.
pub struct Mysql {
    settings: Rc<Settings>,
    look_back: Option<LookBack>,
    standing: Standing,
    page: Page,
    /// The first row of the page that has not gone out.
    next: usize,
    /// When the server is to be asked next; nothing: at once.
    next_look: Option<Instant>,
    /// Between two pages the connection rests here, on the way it is in the task of `fetch`.
    session: Option<Session>,
    /// The page behind this one. Limit: one page ahead.
    fetch: Option<Fetch>,
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
            page: Page::default(),
            next: 0,
            next_look: None,
            session: None,
            fetch: None,
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
        while self.next == self.page.lines().len() {
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
        if let Some(fetch) = self.fetch.take() {
            fetch.task.abort();
        }
        if let Some(session) = self.session.take() {
            self.reactor.run_for(GOODBYE_MAX, session.close());
        }
    }
}

wasmflow_sdk::export_source!(Mysql);

impl Mysql {
    /// The next page, if it comes within `wait`.
    fn next_page(&mut self, wait: Duration) -> Option<Result<Page, Failure>> {
        let request = self.request();
        let mut fetch = match self.fetch.take() {
            Some(fetch) if fetch.request == request => fetch,
            stale => {
                // Only one that was asked for ahead, if at all. Its connection goes with it.
                if let Some(stale) = stale {
                    stale.task.abort();
                }
                self.begin_fetch(request)
            }
        };
        match self.reactor.run_for(wait, &mut fetch.task) {
            None => {
                self.fetch = Some(fetch);
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

    /// The look at the server waits until it is due, by tokio's timer.
    fn begin_fetch(&mut self, request: Request) -> Fetch {
        let (settings, session, due) = (self.settings.clone(), self.session.take(), self.next_look.take());
        Fetch { request: request.clone(), task: self.reactor.spawn(look(settings, session, due, request)) }
    }

    fn request(&self) -> Request {
        // With the rows that are known already, so that at least `page_rows` others have room.
        let rows = self.settings.page_rows as usize + self.standing.known_rows();
        Request { after: self.standing.after.clone(), rows }
    }

    /// Makes a page ready to go out. One without a new row is left behind at once.
    fn take(&mut self, mut page: Page) -> Result<(), Failure> {
        page.mark_known(self.standing.known());
        self.standing.begin_page();
        (self.page, self.next) = (page, 0);
        let count = self.page.lines().len();
        if !self.page.full {
            self.ended = !self.settings.follow;
            self.next_look = Some(Instant::now() + self.settings.poll_interval);
        }
        if self.page.lines().iter().all(|line| line.is_known) {
            self.pass(0..count);
            self.standing.settle(self.look_back.as_ref())?;
        } else if self.page.full {
            self.look_ahead();
        }
        Ok(())
    }

    /// Asks for the next page, so that the server works on it while this one goes out. It begins where the standing will be then:
    /// behind the last value whose rows are all on this page.
    fn look_ahead(&mut self) {
        let lines = self.page.lines();
        let group = self.page.last_group(0..lines.len());
        let Some(last) = group.checked_sub(1).filter(|_| !self.has_window()) else { return };
        let rows = self.settings.page_rows as usize + (lines.len() - group);
        let request = Request { after: Some(lines[last].cursor.clone()), rows };
        self.fetch = Some(self.begin_fetch(request));
        // The request leaves now.
        self.reactor.turn();
    }

    fn deliver(&mut self, max_events: u32, max_bytes: u32) -> Result<Progress, Failure> {
        let place = self.next..self.page.reach(self.next, max_events as usize, max_bytes as usize);
        let bodies = self.page.bodies(place.clone());
        self.pass(place);
        self.standing.settle(self.look_back.as_ref())?;
        let part = Part::new(self.settings.part.as_str(), self.standing.write());
        Ok(Progress::events(Batch::new(&bodies), vec![part]))
    }

    /// Moves the standing behind these rows, which are the next ones of the page.
    fn pass(&mut self, place: Range<usize>) {
        let mut begin = place.start;
        if !self.has_window() {
            begin = self.page.last_group(place.clone());
        }
        if begin > place.start {
            self.standing.pass_over(&self.page.lines()[begin - 1].cursor);
        }
        for index in begin..place.end {
            let line = &self.page.lines()[index];
            let row = match line.is_known {
                true => Row::Known,
                false => Row::New { fingerprint: self.page.fingerprint(index) },
            };
            self.standing.pass(&line.cursor, line.place, row);
        }
        self.next = place.end;
        if self.next == self.page.lines().len() && self.next > 0 && !self.page.full {
            self.standing.end();
        }
    }

    /// Whether rows are remembered beyond those of the value that is going out.
    fn has_window(&self) -> bool {
        self.look_back.is_some() || self.standing.has_window()
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
