//! One connection to the server, and the pages that come over it.

use std::future::Future;
use std::net::{IpAddr, ToSocketAddrs};
use std::ops::Range;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Statement, Value};
use wasmflow_sdk::prelude::Failure;

use crate::config::Settings;
use crate::cursor::{Cursor, Kind};
use crate::failure::{failure, is_connection_lost};
use crate::format::write_row;
use crate::query::Lower;
use crate::standing::{Place, fingerprint};

/// Limit: a server that does not answer a connection for so long is down.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Limit: a page that takes longer will not come: the connection hangs, or the query needs an index.
const PAGE_MAX: Duration = Duration::from_secs(300);
/// Limit: the bodies of a page in memory. What is behind them on the page is asked for again.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Rows in the order of the cursor.
pub struct Page {
    pub lines: Vec<Line>,
    /// The bodies of all lines, one behind the other.
    pub text: Vec<u8>,
    /// There may be more behind it.
    pub full: bool,
}

/// A row, ready to go out.
pub struct Line {
    pub cursor: Cursor,
    pub place: Place,
    pub fingerprint: u64,
    /// Where its body is in the page's text.
    pub body: Range<usize>,
}

/// From where a page begins, and how many rows it has at most.
pub struct Request {
    pub after: Option<Cursor>,
    pub rows: usize,
}

/// A connection that has learned about the cursor column.
pub struct Session {
    conn: Conn,
    column: CursorColumn,
}

/// What the server says of the cursor column.
#[derive(Clone, Copy)]
struct CursorColumn {
    kind: Kind,
    /// No two rows have the same cursor, so a row is known by it, and one that is changed in the window does not come again.
    unique: bool,
}

/// What went wrong on a connection.
enum Trouble {
    Database(Error),
    Failure(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Database(error)
    }
}

/// Brings one page, over the connection in `session` or a new one. A connection that broke while it was not used (a server
/// closes it after `wait_timeout`) is replaced without a word; any other trouble is the caller's.
///
/// Cancel: the connection is lost, nothing else.
pub async fn fetch(settings: &Settings, session: &mut Option<Session>, request: &Request) -> Result<Page, Failure> {
    if let Some(mut open) = session.take() {
        match open.page(settings, request).await {
            Ok(page) => {
                *session = Some(open);
                return Ok(page);
            }
            Err(Trouble::Database(error)) if is_connection_lost(&error) => {}
            Err(trouble) => return Err(told(settings, trouble)),
        }
    }
    let mut fresh = within(settings, CONNECT_MAX, Session::open(settings)).await?;
    let page = within(settings, PAGE_MAX, fresh.page(settings, request)).await?;
    *session = Some(fresh);
    Ok(page)
}

fn told(settings: &Settings, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Database(error) => failure(&settings.address(), &error),
        Trouble::Failure(failure) => failure,
    }
}

async fn within<T>(
    settings: &Settings,
    limit: Duration,
    step: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result.map_err(|trouble| told(settings, trouble)),
        Err(_) => Err(Failure::retry(format!("{}: no answer within {} s", settings.address(), limit.as_secs()))),
    }
}

impl Session {
    async fn open(settings: &Settings) -> Result<Session, Trouble> {
        let addresses = addresses(settings).map_err(Trouble::Failure)?;
        let opts = settings.opts.clone().resolved_ips(Some(addresses)).prefer_socket(false);
        // In a zone with summer time the values of a TIMESTAMP would be ambiguous for an hour a year.
        let opts = opts.init(vec!["SET NAMES utf8mb4, time_zone = '+00:00'"]);
        let mut conn = Conn::new(opts).await?;
        let (text, _) = settings.selection.statement(None, Lower::Bound);
        let statement = conn.prep(text).await?;
        let columns = statement.columns();
        let kind = columns.last().map_or_else(|| Err("no column".to_owned()), Kind::of);
        let kind = kind.map_err(|reason| Trouble::Failure(Failure::fatal(reason)))?;
        let unique = is_unique(&mut conn, settings).await?;
        Ok(Session { conn, column: CursorColumn { kind, unique } })
    }

    async fn page(&mut self, settings: &Settings, request: &Request) -> Result<Page, Trouble> {
        let after = self.lower_bound(settings, request).map_err(|reason| Trouble::Failure(Failure::fatal(reason)))?;
        let lower = if after.is_some() { Lower::Bound } else { Lower::None };
        let (text, count) = settings.selection.statement(Some(self.column.kind), lower);
        let statement = self.conn.prep(text).await?;
        let bound = after.unwrap_or_else(|| self.column.kind.least()).value();
        let rows = Value::UInt(request.rows as u64);
        let values = std::iter::repeat_n(bound, count).chain([rows]).collect();
        self.read(settings, &statement, Params::Positional(values), request.rows).await
    }

    fn lower_bound(&self, settings: &Settings, request: &Request) -> Result<Option<Cursor>, String> {
        match (&request.after, &settings.start_from) {
            (Some(after), _) if self.column.kind.accepts(after) => Ok(Some(after.clone())),
            (Some(after), _) => Err(format!(
                "the stored cursor `{after}` does not fit column `{}`, which has another type now",
                settings.selection.cursor()
            )),
            (None, Some(start)) => match self.column.kind.parse(start) {
                Some(start) => Ok(Some(start)),
                None => Err(format!(
                    "config `/start_from`: `{start}` is no value of column `{}`",
                    settings.selection.cursor()
                )),
            },
            (None, None) => Ok(None),
        }
    }

    async fn read(
        &mut self,
        settings: &Settings,
        statement: &Statement,
        values: Params,
        most: usize,
    ) -> Result<Page, Trouble> {
        let column = self.column;
        let mut result = self.conn.exec_iter(statement, values).await?;
        let mut page = Page { lines: Vec::with_capacity(most), text: Vec::new(), full: false };
        let mut group = None;
        while page.text.len() <= PAGE_BYTES_MAX
            && let Some(row) = result.next().await?
        {
            column.add(&mut page, settings, row, &mut group).map_err(Trouble::Failure)?;
        }
        page.full = page.text.len() > PAGE_BYTES_MAX || page.lines.len() >= most;
        result.drop_result().await?;
        Ok(page)
    }

    /// Says goodbye to the server, which would else note an aborted connection.
    pub async fn close(self) {
        let _ = self.conn.disconnect().await;
    }
}

impl CursorColumn {
    /// Adds a row to its page. `group` tells the value of the row before.
    fn add(&self, page: &mut Page, settings: &Settings, row: Row, group: &mut Option<Value>) -> Result<(), Failure> {
        let columns = row.columns();
        let mut values = row.unwrap();
        let weight = if self.kind == Kind::Text { values.pop() } else { None };
        let value = values.pop().unwrap_or(Value::NULL);
        let cursor = self.kind.read(&value).map_err(Failure::fatal)?;
        let begin = page.text.len();
        write_row(&mut page.text, settings.format, &columns[..values.len()], &values);
        let body = begin..page.text.len();
        let text = cursor.to_string();
        let fingerprint = match self.unique {
            true => fingerprint(&[text.as_bytes()]),
            false => fingerprint(&[text.as_bytes(), &page.text[body.clone()]]),
        };
        let value = Some(weight.unwrap_or(value));
        let place = if *group == value { Place::Further } else { Place::First };
        *group = value;
        page.lines.push(Line { cursor, place, fingerprint, body });
        Ok(())
    }
}

/// Whether an index of this column alone forbids equal values. A view and a query have no index.
async fn is_unique(conn: &mut Conn, settings: &Settings) -> Result<bool, Error> {
    let Some(list) = settings.selection.indexes() else { return Ok(false) };
    let rows: Vec<Row> = conn.query(list).await?;
    let parts = rows.iter().map(|row| {
        let index: Option<String> = row.get("Key_name");
        let column: Option<String> = row.get("Column_name");
        let repeats: Option<i64> = row.get("Non_unique");
        (index.unwrap_or_default(), column.unwrap_or_default(), repeats.unwrap_or(1))
    });
    let parts: Vec<_> = parts.collect();
    let cursor = settings.selection.cursor().to_lowercase();
    Ok(parts.iter().any(|(index, column, repeats)| {
        let alone = parts.iter().filter(|(other, ..)| other == index).count() == 1;
        alone && *repeats == 0 && column.to_lowercase() == cursor
    }))
}

/// Tokio would look a name up on a thread of its own, and the sandbox has one thread.
fn addresses(settings: &Settings) -> Result<Vec<IpAddr>, Failure> {
    let resolved = (settings.host.as_str(), settings.port).to_socket_addrs();
    let resolved = resolved.map_err(|error| Failure::retry(format!("{}: {error}", settings.address())))?;
    let addresses: Vec<IpAddr> = resolved.map(|address| address.ip()).collect();
    match addresses.is_empty() {
        true => Err(Failure::retry(format!("{}: the name has no address", settings.address()))),
        false => Ok(addresses),
    }
}
