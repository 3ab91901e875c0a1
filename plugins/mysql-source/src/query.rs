//! The SQL that brings one page: identifiers quoted, values bound, rows in the order of the cursor, no more than a page.

use std::ops::Range;

use crate::cursor::Kind;

/// Which rows are read. The cursor column is always selected once more, behind the columns of the event; behind
/// it, for text, its weight in its collation, by which equal values are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Table { name: Vec<String>, columns: Option<Vec<String>>, cursor: String },
    Query { text: String, cursor: String },
}

/// From where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// At the first row.
    None,
    /// Behind a value, which is bound.
    Bound,
}

/// A name that can be quoted. What a server makes of it is the server's matter.
pub fn is_identifier(name: &str) -> bool {
    let length = name.chars().count();
    (1..=64).contains(&length) && !name.contains('`') && !name.chars().any(char::is_control) && !name.ends_with(' ')
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Selection {
    pub fn cursor(&self) -> &str {
        match self {
            Selection::Table { cursor, .. } | Selection::Query { cursor, .. } => cursor,
        }
    }

    /// The statement for one page, and how often the lower bound is bound in it. The last parameter is the number of rows.
    pub fn statement(&self, kind: Option<Kind>, lower: Lower) -> (String, usize) {
        let parameter = parameter(kind);
        let cursor = selected_cursor(&quote(self.cursor()), kind);
        match self {
            Selection::Table { name, columns, cursor: column } => {
                let column = quote(column);
                let condition = match lower {
                    Lower::None => "IS NOT NULL".to_owned(),
                    Lower::Bound => format!("> {parameter}"),
                };
                let (columns, table) = (columns_list(columns.as_deref()), table(name));
                let text = format!(
                    "SELECT {columns}, {cursor} FROM {table} AS page WHERE page.{column} {condition} \
                     ORDER BY page.{column} LIMIT ?"
                );
                (text, usize::from(lower == Lower::Bound))
            }
            Selection::Query { text, cursor: column } => {
                let (column, places) = (quote(column), placeholders(text));
                let inner = replaced(text, &places, &parameter);
                // A line of its own: the query may end with a comment.
                let page = format!("SELECT page.*, {cursor} FROM (\n{inner}\n) AS page ORDER BY page.{column} LIMIT ?");
                (page, places.len())
            }
        }
    }

    /// Lists the indexes of the table.
    pub fn indexes(&self) -> Option<String> {
        match self {
            Selection::Table { name, .. } => Some(format!("SHOW INDEX FROM {}", table(name))),
            Selection::Query { .. } => None,
        }
    }
}

/// Where a collation leaves trailing spaces aside, the weight does not: without them, rather too many values count as equal.
fn selected_cursor(column: &str, kind: Option<Kind>) -> String {
    match kind {
        Some(Kind::Text) => format!("page.{column}, WEIGHT_STRING(RTRIM(page.{column}))"),
        _ => format!("page.{column}"),
    }
}

fn table(name: &[String]) -> String {
    name.iter().map(|part| quote(part)).collect::<Vec<_>>().join(".")
}

fn columns_list(columns: Option<&[String]>) -> String {
    match columns {
        None => "page.*".to_owned(),
        Some(columns) => columns.iter().map(|name| format!("page.{}", quote(name))).collect::<Vec<_>>().join(", "),
    }
}

/// A server compares a decimal with text as floating-point numbers, which would skip rows, and the protocol's library sends
/// decimals as text only.
fn parameter(kind: Option<Kind>) -> String {
    match kind {
        Some(Kind::Decimal { scale }) => format!("CAST(? AS DECIMAL(65,{}))", scale.min(30)),
        _ => "?".to_owned(),
    }
}

fn replaced(text: &str, places: &[Range<usize>], with: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut end = 0;
    for place in places {
        result.push_str(&text[end..place.start]);
        result.push_str(with);
        end = place.end;
    }
    result.push_str(&text[end..]);
    result
}

const PLACEHOLDER: &str = ":cursor";

/// Where `:cursor` stands outside quotes and comments. Nothing else of the query is looked at.
pub fn placeholders(query: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(letter) = query[at..].chars().next() {
        let rest = &query[at..];
        at += match letter {
            '\'' | '"' | '`' => quoted(rest, letter),
            '#' => until(rest, "\n"),
            '-' if rest.starts_with("-- ") || rest.starts_with("--\n") || rest.starts_with("--\t") => until(rest, "\n"),
            '/' if rest.starts_with("/*") => until(rest, "*/"),
            ':' if is_placeholder(rest) => {
                places.push(at..at + PLACEHOLDER.len());
                PLACEHOLDER.len()
            }
            other => other.len_utf8(),
        };
    }
    places
}

fn is_placeholder(rest: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    rest.strip_prefix(PLACEHOLDER).is_some_and(|behind| !behind.starts_with(is_word))
}

/// The length of the comment at the front.
fn until(rest: &str, end: &str) -> usize {
    rest.find(end).map_or(rest.len(), |at| at + end.len())
}

/// The length of the string or name at the front. A doubled quote ends one string and begins the next, which is as good.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            letter if letter == quote => return at + letter.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Selection {
        Selection::Query { text: text.into(), cursor: "id".into() }
    }

    #[test]
    fn a_table_is_read_in_the_order_of_its_cursor_with_quoted_names() {
        let table = Selection::Table {
            name: vec!["shop".into(), "order".into()],
            columns: Some(vec!["a b".into(), "select".into()]),
            cursor: "at".into(),
        };
        assert_eq!(
            table.statement(None, Lower::Bound),
            (
                "SELECT page.`a b`, page.`select`, page.`at` FROM `shop`.`order` AS page WHERE page.`at` > ? \
                 ORDER BY page.`at` LIMIT ?"
                    .into(),
                1
            )
        );
        assert!(table.statement(None, Lower::None).0.contains("WHERE page.`at` IS NOT NULL"));
    }

    #[test]
    fn a_query_stays_as_it_is_but_for_its_placeholders() {
        let (text, count) = query("SELECT * FROM t WHERE id > :cursor OR :cursor = 0").statement(None, Lower::Bound);
        assert_eq!(count, 2);
        assert!(text.contains("(\nSELECT * FROM t WHERE id > ? OR ? = 0\n)"), "{text}");
    }

    #[test]
    fn decimals_are_compared_as_decimals() {
        let (text, _) = query("SELECT :cursor").statement(Some(Kind::Decimal { scale: 6 }), Lower::Bound);
        assert!(text.contains("SELECT CAST(? AS DECIMAL(65,6))"), "{text}");
    }

    #[test]
    fn placeholders_in_quotes_and_comments_are_text() {
        for text in
            ["':cursor'", r"'it\'s :cursor'", "'it''s :cursor'", "`:cursor`", "\":cursor\"", "-- :cursor", "# :cursor"]
        {
            assert!(placeholders(text).is_empty(), "{text}");
        }
        let query = "/* :cursor */ :cursors :cursor_1 名:cursor";
        let places: Vec<_> = placeholders(query).into_iter().map(|place| (place.start, place.end)).collect();
        assert_eq!(places, [(query.len() - 7, query.len())]);
        assert_eq!(placeholders("# x\n:cursor").len(), 1);
        assert_eq!(placeholders("a--:cursor").len(), 1);
    }

    #[test]
    fn names_that_break_out_of_their_quotes_are_none() {
        assert!(is_identifier("学生 2024-a"));
        for name in ["", "a`b", "a\nb", "a ", &"x".repeat(65)] {
            assert!(!is_identifier(name), "{name}");
        }
    }
}
