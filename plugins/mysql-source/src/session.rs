//! One session on the server, and the pages that it brings.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mysql_async::Value;
use wasmflow_sdk::prelude::Failure;

use crate::client::{Client, Statement};
use crate::config::Settings;
use crate::cursor::{Cursor, Kind};
use crate::failure::{Trouble, failure, is_connection_lost};
use crate::page::{CursorColumn, Page, PageWriter};
use crate::query::Lower;

/// Limit: a server that does not answer a connection for so long is down.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Limit: a page that takes longer will not come: the connection hangs, or the query needs an index.
const PAGE_MAX: Duration = Duration::from_secs(300);

/// From where a page begins, and how many rows it has at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub after: Option<Cursor>,
    pub rows: usize,
}

/// A connection that has learned about the cursor column.
pub struct Session {
    client: Client,
    column: CursorColumn,
    /// For a page from the first row on, and for one behind a value; made when they are first needed.
    statements: [Option<Statement>; 2],
    /// Of the page before: the next will be about as large.
    page_bytes: usize,
}

/// Brings one page, over the connection in `session` or a new one. A connection that broke while it was not used (a server
/// closes it after `wait_timeout`), or brings nothing more after a long pause of the stage, is replaced without a word; any other
/// trouble is the caller's.
///
/// Cancel: the connection is lost, nothing else.
pub async fn fetch(settings: &Settings, session: &mut Option<Session>, request: &Request) -> Result<Page, Failure> {
    if let Some(mut open) = session.take() {
        match within(PAGE_MAX, open.page(settings, request)).await {
            Ok(page) => {
                *session = Some(open);
                return Ok(page);
            }
            Err(Trouble::Database(error)) if is_connection_lost(&error) => {}
            Err(trouble) => return Err(told(settings, trouble)),
        }
    }
    fresh(settings, session, request).await.map_err(|trouble| told(settings, trouble))
}

async fn fresh(settings: &Settings, session: &mut Option<Session>, request: &Request) -> Result<Page, Trouble> {
    let mut fresh = within(CONNECT_MAX, Session::open(settings)).await?;
    let page = within(PAGE_MAX, fresh.page(settings, request)).await?;
    *session = Some(fresh);
    Ok(page)
}

fn told(settings: &Settings, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Database(error) => failure(&settings.address(), &error),
        Trouble::Failure(failure) => failure,
    }
}

async fn within<T>(limit: Duration, step: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", limit.as_secs());
        Err(Trouble::Database(io::Error::new(io::ErrorKind::TimedOut, reason).into()))
    })
}

impl Session {
    async fn open(settings: &Settings) -> Result<Session, Trouble> {
        let addresses = addresses(settings).map_err(Trouble::Failure)?;
        let mut client = Client::connect(&addresses, &settings.opts).await?;
        // In a zone with summer time the values of a TIMESTAMP would be ambiguous for an hour a year.
        client.run("SET NAMES utf8mb4, time_zone = '+00:00'").await?;
        let (text, _) = settings.selection.statement(None, Lower::Bound);
        let statement = client.prepare(&text).await?;
        let kind = statement.columns.last().map_or_else(|| Err("no column".to_owned()), Kind::of);
        let kind = kind.map_err(|reason| Trouble::Failure(Failure::fatal(reason)))?;
        let unique = is_unique(&mut client, settings).await?;
        Ok(Session { client, column: CursorColumn { kind, unique }, statements: [None, None], page_bytes: 0 })
    }

    async fn page(&mut self, settings: &Settings, request: &Request) -> Result<Page, Trouble> {
        let after = self.lower_bound(settings, request).map_err(|reason| Trouble::Failure(Failure::fatal(reason)))?;
        let lower = if after.is_some() { Lower::Bound } else { Lower::None };
        let (text, count) = settings.selection.statement(Some(self.column.kind), lower);
        let statement = match &mut self.statements[usize::from(lower == Lower::Bound)] {
            Some(statement) => statement,
            none => none.insert(self.client.prepare(&text).await?),
        };
        let bound = after.unwrap_or_else(|| self.column.kind.least()).value();
        let rows = Value::UInt(request.rows as u64);
        let values: Vec<Value> = std::iter::repeat_n(bound, count).chain([rows]).collect();
        let columns = self.client.execute(statement, &values).await?;
        let mut page = PageWriter::new(settings.format, &columns, self.column, self.page_bytes)?;
        self.client.rows(|row| page.add(row)).await?;
        let page = page.finish(request.rows);
        self.page_bytes = page.bytes();
        Ok(page)
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

    /// Says goodbye to the server.
    pub async fn close(self) {
        self.client.close().await;
    }
}

/// Whether an index of this column alone forbids equal values. A view and a query have no index.
async fn is_unique(client: &mut Client, settings: &Settings) -> Result<bool, Trouble> {
    let Some(list) = settings.selection.indexes() else { return Ok(false) };
    let table = client.table(&list).await?;
    let [index, column, repeats] = ["Key_name", "Column_name", "Non_unique"].map(|name| table.column(name));
    let cursor = settings.selection.cursor().to_lowercase();
    Ok((0..table.rows.len()).any(|row| {
        let alone = index.iter().filter(|other| **other == index[row]).count() == 1;
        alone && repeats[row] == Some("0") && column[row].is_some_and(|column| column.to_lowercase() == cursor)
    }))
}

/// Tokio would look a name up on a thread of its own, and the sandbox has one thread.
fn addresses(settings: &Settings) -> Result<Vec<SocketAddr>, Failure> {
    let resolved = (settings.host.as_str(), settings.port).to_socket_addrs();
    let resolved = resolved.map_err(|error| Failure::retry(format!("{}: {error}", settings.address())))?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    match addresses.is_empty() {
        true => Err(Failure::retry(format!("{}: the name has no address", settings.address()))),
        false => Ok(addresses),
    }
}
