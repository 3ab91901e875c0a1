//! The config table, and the checked settings that are made of it.

use mysql_async::{Opts, OptsBuilder};
use wasmflow_sdk::config::Duration;
use wasmflow_sdk::prelude::{Deserialize, JsonSchema, Need, Problem};
use wasmflow_sdk::schemars;

use crate::query::{Selection, is_identifier, placeholders};

/// Which rows come, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `mysql://host:port/database`; a user may be in it, a password may not.
    pub url: String,
    /// Who logs in; before the user in `url`.
    pub user: Option<String>,
    /// The password, as a secret: `{ env = "NAME" }`.
    pub password: Option<String>,
    /// The table to read, as `table` or `database.table`; or else `query`.
    pub table: Option<String>,
    /// The columns of `table` that make the event; `["*"]`: all.
    pub columns: Option<Vec<String>>,
    /// In place of `table`: a SELECT that holds `:cursor` where the greatest cursor so far belongs.
    pub query: Option<String>,
    /// The column that orders the rows: an integer, a decimal, a date or time, or text.
    #[serde(default = "id")]
    pub cursor_column: String,
    /// Only rows behind this value come; left out: all rows.
    pub start_from: Option<Scalar>,
    /// How long after a look that found the end the next look follows.
    #[serde(default = "ten_seconds")]
    pub poll_interval: Duration,
    /// How many rows are asked for at once, 1 to 100000.
    #[serde(default = "ten_thousand")]
    pub page_rows: u32,
    /// How far behind the greatest cursor rows are still looked for that were committed late: a number for a cursor that is
    /// one, a duration for a date or time. Left out: not at all.
    pub look_back: Option<Scalar>,
    /// How a row is written.
    #[serde(default)]
    pub format: Format,
    /// False: ends when no row is left.
    #[serde(default = "yes")]
    pub follow: bool,
}

/// A value whose type the cursor column decides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    Number(i64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Number(number) => number.fmt(formatter),
            Scalar::Text(text) => formatter.write_str(text),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One object, with the columns in their order.
    #[default]
    Json,
    /// One line of RFC 4180, without a line end.
    Csv,
    /// Values joined by commas with a trailing comma, as Flume's SQL source writes them.
    FlumeSql,
}

fn id() -> String {
    "id".into()
}

fn ten_seconds() -> Duration {
    Duration(std::time::Duration::from_secs(10))
}

fn ten_thousand() -> u32 {
    10_000
}

fn yes() -> bool {
    true
}

/// Limit: a page is held in the guest's memory, and so are its bodies up to 8 MiB; and the next page beside it.
const PAGE_ROWS_MAX: u32 = 100_000;
/// Below it the server would do little else.
const POLL_INTERVAL_MIN: std::time::Duration = std::time::Duration::from_millis(10);

/// What `check` accepted.
pub struct Settings {
    pub opts: Opts,
    pub host: String,
    pub port: u16,
    /// Names the part of the position: other rows have another.
    pub part: String,
    pub selection: Selection,
    pub start_from: Option<String>,
    pub poll_interval: std::time::Duration,
    pub page_rows: u32,
    pub look_back: Option<String>,
    pub format: Format,
    pub follow: bool,
}

impl Config {
    /// # Errors
    ///
    /// All problems at once.
    pub fn settings(&self) -> Result<Settings, Vec<Problem>> {
        let mut problems = Vec::new();
        let url = self.parsed_url().map_err(|problem| problems.push(problem)).ok();
        let database = url.as_ref().and_then(Opts::db_name);
        let user = self.user.as_deref().or(url.as_ref().and_then(Opts::user));
        if url.is_some() && user.is_none_or(str::is_empty) {
            problems.push(Problem::new("/user", "`user` is needed, here or in `url`"));
        }
        let selection = self.selection(database, url.is_some(), &mut problems);
        self.check_numbers(&mut problems);
        let (Some(url), Some(selection), true) = (&url, selection, problems.is_empty()) else { return Err(problems) };
        Ok(Settings {
            opts: OptsBuilder::from_opts(url.clone()).user(user).pass(self.password.as_deref()).into(),
            host: url.ip_or_hostname().trim_matches(['[', ']']).to_owned(),
            port: url.tcp_port(),
            part: self.part(database),
            selection,
            start_from: self.start_from.as_ref().map(Scalar::to_string),
            poll_interval: self.poll_interval.0,
            page_rows: self.page_rows,
            look_back: self.look_back.as_ref().map(Scalar::to_string),
            format: self.format,
            follow: self.follow,
        })
    }

    fn parsed_url(&self) -> Result<Opts, Problem> {
        let problem = |message: String| Problem::new("/url", message);
        if !self.url.starts_with("mysql://") {
            return Err(problem("a URL is `mysql://host:port/database`".into()));
        }
        if self.url.contains('?') {
            return Err(problem("nothing may stand behind the database".into()));
        }
        // The error does not repeat the URL, which may hold a password.
        let url = Opts::from_url(&self.url).map_err(|error| problem(error.to_string()))?;
        match url.pass() {
            Some(_) => Err(problem("a password belongs into `password`, as `{ env = \"NAME\" }`".into())),
            None => Ok(url),
        }
    }

    fn selection(&self, database: Option<&str>, url_known: bool, problems: &mut Vec<Problem>) -> Option<Selection> {
        let before = problems.len();
        let identifier = |path: &str, name: &str, problems: &mut Vec<Problem>| {
            if !is_identifier(name) {
                problems.push(Problem::new(
                    path,
                    format!("`{name}` is no name: 1 to 64 characters, without backticks and control characters"),
                ));
            }
        };
        identifier("/cursor_column", &self.cursor_column, problems);
        let cursor = self.cursor_column.clone();
        let selection = match (&self.table, &self.query) {
            (Some(_), Some(_)) => {
                problems.push(Problem::new("/query", "`table` and `query` exclude each other"));
                return None;
            }
            (None, None) => {
                problems.push(Problem::new("/table", "`table` or `query` is needed"));
                return None;
            }
            (Some(table), None) => {
                let name: Vec<String> = table.split('.').map(str::to_owned).collect();
                name.iter().for_each(|part| identifier("/table", part, problems));
                if name.len() > 2 {
                    problems.push(Problem::new("/table", "a table is `table` or `database.table`"));
                }
                if url_known && name.len() == 1 && database.is_none_or(str::is_empty) {
                    problems.push(Problem::new("/url", "names no database, and `table` neither"));
                }
                let columns = self.columns.clone().unwrap_or_else(|| vec!["*".into()]);
                let all = columns == ["*"];
                if columns.is_empty() {
                    problems.push(Problem::new("/columns", "no column; `[\"*\"]` is all"));
                }
                for (index, column) in columns.iter().enumerate().filter(|_| !all) {
                    match column.as_str() {
                        "*" => problems.push(Problem::new(format!("/columns/{index}"), "`*` stands alone")),
                        column => identifier(&format!("/columns/{index}"), column, problems),
                    }
                }
                Selection::Table { name, columns: (!all).then_some(columns), cursor }
            }
            (None, Some(query)) => {
                if self.columns.is_some() {
                    problems.push(Problem::new("/columns", "the columns of a `query` are its own"));
                }
                if placeholders(query).is_empty() {
                    problems.push(Problem::new("/query", "holds no `:cursor`, as in `WHERE id > :cursor`"));
                }
                if query.trim_end().ends_with(';') {
                    problems.push(Problem::new("/query", "is one SELECT, without `;`"));
                }
                Selection::Query { text: query.clone(), cursor }
            }
        };
        (problems.len() == before).then_some(selection)
    }

    fn check_numbers(&self, problems: &mut Vec<Problem>) {
        if !(1..=PAGE_ROWS_MAX).contains(&self.page_rows) {
            problems.push(Problem::new("/page_rows", format!("is from 1 to {PAGE_ROWS_MAX}")));
        }
        if self.poll_interval.0 < POLL_INTERVAL_MIN {
            problems.push(Problem::new("/poll_interval", format!("is at least {}ms", POLL_INTERVAL_MIN.as_millis())));
        }
        let look_back = self.look_back.as_ref().map(Scalar::to_string);
        if look_back.is_some_and(|text| crate::cursor::LookBack::parse(&text).is_none()) {
            problems.push(Problem::new("/look_back", "is a number that is not negative, or a duration as in \"5m\""));
        }
    }

    /// The server's address is not in it: a database that moves keeps its position.
    fn part(&self, database: Option<&str>) -> String {
        let database = database.unwrap_or_default();
        match &self.table {
            Some(table) => format!("{database}/table:{table}/{}", self.cursor_column),
            None => format!("{database}/query/{}", self.cursor_column),
        }
    }
}

impl Settings {
    /// `host:port`.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// The grants that these settings ask for.
pub fn needs(settings: &Settings) -> Vec<Need> {
    vec![Need::new("net", settings.address())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "mysql://root@db:3307/shop";

    fn config(json: &str) -> Config {
        serde_json::from_str(&json.replace("URL", URL)).unwrap()
    }

    fn paths(json: &str) -> Vec<String> {
        let problems = config(json).settings().err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_table_is_all_that_has_to_be_said_and_its_address_is_the_need() {
        let settings = config(r#"{ "url": "URL", "table": "student" }"#).settings().unwrap_or_else(|_| panic!());
        assert_eq!(needs(&settings), [Need::new("net", "db:3307")]);
        assert_eq!(settings.part, "shop/table:student/id");
        let settings =
            config(r#"{ "url": "mysql://u@[::1]/d", "table": "t" }"#).settings().unwrap_or_else(|_| panic!());
        assert_eq!(needs(&settings), [Need::new("net", "[::1]:3306")]);
    }

    #[test]
    fn problems_are_named_by_their_place_and_all_at_once() {
        assert_eq!(paths(r#"{ "url": "jdbc:mysql://x", "table": "a`b" }"#), ["/url", "/table"]);
        assert_eq!(paths(r#"{ "url": "mysql://root:pw@db/x", "table": "t" }"#), ["/url"]);
        assert_eq!(paths(r#"{ "url": "mysql://db/x", "table": "t" }"#), ["/user"]);
        assert_eq!(paths(r#"{ "url": "mysql://root@db", "table": "t" }"#), ["/url"]);
        assert_eq!(paths(r#"{ "url": "URL" }"#), ["/table"]);
        assert_eq!(paths(r#"{ "url": "URL", "table": "t", "query": "SELECT :cursor" }"#), ["/query"]);
        assert_eq!(paths(r#"{ "url": "URL", "query": "SELECT ':cursor' AS id" }"#), ["/query"]);
        assert_eq!(paths(r#"{ "url": "URL", "query": "SELECT :cursor AS id;" }"#), ["/query"]);
        assert_eq!(
            paths(r#"{ "url": "URL", "table": "t", "columns": ["a", "*", "b\n"] }"#),
            ["/columns/1", "/columns/2"]
        );
        assert_eq!(
            paths(r#"{ "url": "URL", "table": "t", "page_rows": 0, "poll_interval": "1ms", "look_back": "x" }"#).len(),
            3
        );
    }

    #[test]
    fn a_password_in_the_url_is_not_repeated() {
        let problems =
            config(r#"{ "url": "mysql://root:canary@db/x?canary=1", "table": "t" }"#).settings().err().unwrap();
        assert!(problems.iter().all(|problem| !problem.message.contains("mysql://root")), "{problems:?}");
    }
}
