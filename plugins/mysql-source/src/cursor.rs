//! Values of the cursor column: read from a row, kept in the position, moved back by the window, bound in the next query.

use std::cmp::Ordering;
use std::fmt;

use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Value};
use wasmflow_sdk::prelude::{Deserialize, Serialize};

use crate::calendar;
use crate::cell::Cell;
use crate::format::is_string;

/// What the cursor column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Decimal {
        scale: u8,
    },
    /// DATE, DATETIME or TIMESTAMP.
    Moment,
    /// TIME.
    Span,
    Text,
}

/// One value of the cursor column, exactly. In a position it is written as text under the name of its variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Cursor {
    /// An integer or a decimal: `unscaled` / 10^`scale`.
    Number {
        unscaled: i128,
        scale: u8,
    },
    /// Microseconds since 1970-01-01 00:00:00, of a date and time without zone.
    Moment(i64),
    /// Microseconds.
    Span(i64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Number(String),
    Moment(String),
    Span(String),
    Text(String),
}

impl From<Cursor> for Written {
    fn from(cursor: Cursor) -> Written {
        match &cursor {
            Cursor::Number { .. } => Written::Number(cursor.to_string()),
            Cursor::Moment(_) => Written::Moment(cursor.to_string()),
            Cursor::Span(_) => Written::Span(cursor.to_string()),
            Cursor::Text(text) => Written::Text(text.clone()),
        }
    }
}

impl TryFrom<Written> for Cursor {
    type Error = String;

    fn try_from(written: Written) -> Result<Cursor, String> {
        let parsed = match &written {
            Written::Number(text) => number(text),
            Written::Moment(text) => calendar::parse_moment(text).map(Cursor::Moment),
            Written::Span(text) => calendar::parse_span(text).map(Cursor::Span),
            Written::Text(text) => Some(Cursor::Text(text.clone())),
        };
        parsed.ok_or_else(|| "a cursor of the stored position cannot be read".to_owned())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Nearly every cursor, and in the sandbox ten times cheaper than 128 bits.
            Cursor::Number { unscaled, scale: 0 } if i64::try_from(*unscaled).is_ok() => {
                (*unscaled as i64).fmt(formatter)
            }
            Cursor::Number { unscaled, scale } => {
                let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(*scale) + 1);
                let (whole, part) = digits.split_at(digits.len() - usize::from(*scale));
                let sign = if *unscaled < 0 { "-" } else { "" };
                write!(formatter, "{sign}{whole}{}{part}", if part.is_empty() { "" } else { "." })
            }
            Cursor::Moment(micros) => formatter.write_str(&calendar::write_moment(*micros)),
            Cursor::Span(micros) => formatter.write_str(&calendar::write_span(*micros)),
            Cursor::Text(text) => formatter.write_str(text),
        }
    }
}

impl Kind {
    /// # Errors
    ///
    /// Says why rows cannot be ordered by this column.
    pub fn of(column: &Column) -> Result<Kind, String> {
        use ColumnType::*;
        let flags = column.flags();
        let is_text = !is_binary(column) && !flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG);
        match column.column_type() {
            MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_LONG | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONGLONG
            | MYSQL_TYPE_YEAR => Ok(Kind::Integer),
            MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => Ok(Kind::Decimal { scale: column.decimals() }),
            MYSQL_TYPE_DATE
            | MYSQL_TYPE_NEWDATE
            | MYSQL_TYPE_DATETIME
            | MYSQL_TYPE_DATETIME2
            | MYSQL_TYPE_TIMESTAMP
            | MYSQL_TYPE_TIMESTAMP2 => Ok(Kind::Moment),
            MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2 => Ok(Kind::Span),
            kind if is_text && is_string(kind) => Ok(Kind::Text),
            other => Err(format!(
                "cursor column `{}` is neither an integer, a decimal, a date or time, nor text ({other:?})",
                column.name_str()
            )),
        }
    }

    /// A value as a person writes it, in `start_from`.
    pub fn parse(self, text: &str) -> Option<Cursor> {
        match self {
            Kind::Integer => number(text).filter(|cursor| matches!(cursor, Cursor::Number { scale: 0, .. })),
            Kind::Decimal { .. } => number(text),
            Kind::Moment => calendar::parse_moment(text).map(Cursor::Moment),
            Kind::Span => calendar::parse_span(text).map(Cursor::Span),
            Kind::Text => Some(Cursor::Text(text.to_owned())),
        }
    }

    /// What takes the place of `:cursor` before there is a cursor. As text it is the empty string, which is itself not behind it.
    pub fn least(self) -> Cursor {
        match self {
            Kind::Integer => Cursor::Number { unscaled: i64::MIN.into(), scale: 0 },
            Kind::Decimal { .. } => Cursor::Number { unscaled: -(10i128.pow(35) - 1), scale: 0 },
            Kind::Moment => Cursor::Moment(calendar::LEAST_MOMENT),
            Kind::Span => Cursor::Span(calendar::LEAST_SPAN),
            Kind::Text => Cursor::Text(String::new()),
        }
    }

    /// Whether a stored cursor can stand for this column: its type may have been widened, not exchanged.
    pub fn accepts(self, cursor: &Cursor) -> bool {
        matches!(
            (self, cursor),
            (Kind::Integer, Cursor::Number { scale: 0, .. })
                | (Kind::Decimal { .. }, Cursor::Number { .. })
                | (Kind::Moment, Cursor::Moment(_))
                | (Kind::Span, Cursor::Span(_))
                | (Kind::Text, Cursor::Text(_))
        )
    }

    /// # Errors
    ///
    /// Says why this value is no cursor.
    #[inline]
    pub fn read(self, cell: Cell<'_>) -> Result<Cursor, String> {
        match (self, cell) {
            (Kind::Integer, Cell::Int(number)) => Ok(Cursor::Number { unscaled: number.into(), scale: 0 }),
            (Kind::Integer, Cell::UInt(number)) => Ok(Cursor::Number { unscaled: number.into(), scale: 0 }),
            (Kind::Decimal { .. }, Cell::Bytes(text)) => {
                let text = String::from_utf8_lossy(text);
                number(&text).ok_or_else(|| format!("cursor `{text}` has more than 38 digits"))
            }
            (Kind::Moment, Cell::Moment(date, clock, micros)) => {
                Ok(Cursor::Moment(calendar::moment(date, clock, micros)))
            }
            (Kind::Span, Cell::Span { is_negative, days, hours, minutes, seconds, micros }) => {
                Ok(Cursor::Span(calendar::span(is_negative, (days, hours, minutes, seconds), micros)))
            }
            (Kind::Text, Cell::Bytes(text)) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Cursor::Text(text.to_owned())),
                Err(_) => Err("a cursor is not UTF-8".to_owned()),
            },
            (_, Cell::Null) => Err("a row came whose cursor is NULL".to_owned()),
            _ => Err("a row came whose cursor has another type than its column".to_owned()),
        }
    }
}

impl Cursor {
    /// For binding; with the type of the column, so that the server compares without converting the column.
    pub fn value(&self) -> Value {
        match self {
            Cursor::Number { unscaled, scale: 0 } => match (i64::try_from(*unscaled), u64::try_from(*unscaled)) {
                (Ok(number), _) => Value::Int(number),
                (_, Ok(number)) => Value::UInt(number),
                _ => Value::Bytes(self.to_string().into_bytes()),
            },
            Cursor::Number { .. } => Value::Bytes(self.to_string().into_bytes()),
            Cursor::Moment(micros) => calendar::moment_value(*micros),
            Cursor::Span(micros) => calendar::span_value(*micros),
            Cursor::Text(text) => Value::Bytes(text.clone().into_bytes()),
        }
    }

    /// # Errors
    ///
    /// When a window of this kind does not fit a cursor of this kind.
    pub fn minus(&self, look_back: &LookBack) -> Result<Cursor, String> {
        match (self, look_back) {
            (Cursor::Number { unscaled, scale }, LookBack { number: Some((back, back_scale)), .. }) => {
                let common = (*scale).max(*back_scale);
                let difference =
                    || rescaled(*unscaled, *scale, common)?.checked_sub(rescaled(*back, *back_scale, common)?);
                match difference() {
                    Some(unscaled) => Ok(Cursor::Number { unscaled, scale: common }),
                    None => Err("`look_back` with a cursor of this many digits is not possible".to_owned()),
                }
            }
            (Cursor::Moment(micros), LookBack { micros: Some(back), .. }) => {
                Ok(Cursor::Moment(micros.saturating_sub(*back).max(calendar::LEAST_MOMENT)))
            }
            (Cursor::Span(micros), LookBack { micros: Some(back), .. }) => {
                Ok(Cursor::Span(micros.saturating_sub(*back).max(calendar::LEAST_SPAN)))
            }
            (Cursor::Text(_), _) => Err("`look_back` is not possible with a cursor that is text".to_owned()),
            (Cursor::Number { .. }, _) => Err("`look_back` is a number where the cursor is one".to_owned()),
            _ => Err("`look_back` is a duration, as \"5m\", where the cursor is a date or time".to_owned()),
        }
    }
}

impl PartialOrd for Cursor {
    /// Nothing is known of text, whose order is the server's.
    fn partial_cmp(&self, other: &Cursor) -> Option<Ordering> {
        match (self, other) {
            (Cursor::Number { unscaled, scale }, Cursor::Number { unscaled: other, scale: other_scale }) => {
                let common = (*scale).max(*other_scale);
                Some(rescaled(*unscaled, *scale, common)?.cmp(&rescaled(*other, *other_scale, common)?))
            }
            (Cursor::Moment(one), Cursor::Moment(other)) | (Cursor::Span(one), Cursor::Span(other)) => {
                Some(one.cmp(other))
            }
            _ => None,
        }
    }
}

/// How far behind the greatest cursor rows are still looked for. `5` is a number only, `"5m"` a time only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookBack {
    number: Option<(i128, u8)>,
    micros: Option<i64>,
}

impl LookBack {
    pub fn parse(text: &str) -> Option<LookBack> {
        let number = number(text).and_then(|cursor| match cursor {
            Cursor::Number { unscaled, scale } if unscaled >= 0 => Some((unscaled, scale)),
            _ => None,
        });
        let duration = text.parse::<wasmflow_sdk::config::Duration>().ok();
        let micros = duration.and_then(|duration| i64::try_from(duration.as_micros()).ok());
        (number.is_some() || micros.is_some()).then_some(LookBack { number, micros })
    }
}

/// The character set `binary`: no text.
pub fn is_binary(column: &Column) -> bool {
    const BINARY: u16 = 63;
    column.character_set() == BINARY
}

fn rescaled(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    unscaled.checked_mul(10i128.checked_pow(u32::from(to - from))?)
}

/// A decimal number of at most 38 digits.
fn number(text: &str) -> Option<Cursor> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    let bare = whole.strip_prefix('-').unwrap_or(whole);
    if bare.is_empty() || !is_number(bare) || !is_number(part) {
        return None;
    }
    Some(Cursor::Number { unscaled: format!("{whole}{part}").parse().ok()?, scale: u8::try_from(part.len()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, value: Value) -> Cursor {
        kind.read(Cell::from(&value)).unwrap()
    }

    fn decimal(text: &str) -> Cursor {
        Kind::Decimal { scale: 2 }.parse(text).unwrap()
    }

    #[test]
    fn every_kind_survives_the_position_and_is_bound_as_it_was_read() {
        let values = [
            (Kind::Integer, Value::Int(-5)),
            (Kind::Integer, Value::UInt(u64::MAX)),
            (Kind::Decimal { scale: 3 }, Value::Bytes(b"-0.050".to_vec())),
            (Kind::Moment, Value::Date(2024, 2, 29, 23, 59, 58, 7)),
            (Kind::Moment, Value::Date(1969, 12, 31, 0, 0, 0, 0)),
            (Kind::Span, Value::Time(true, 34, 22, 59, 59, 1)),
            (Kind::Text, Value::Bytes("张三'\"".into())),
        ];
        for (kind, value) in values {
            let cursor = read(kind, value.clone());
            let written = serde_json::to_string(&cursor).unwrap();
            let again: Cursor = serde_json::from_str(&written).unwrap();
            assert_eq!(again, cursor, "{written}");
            assert!(kind.accepts(&again));
            assert_eq!(again.value(), value, "{written}");
        }
    }

    #[test]
    fn decimals_are_ordered_as_numbers_whatever_their_scale() {
        assert!(decimal("9") < decimal("10.00"));
        assert!(decimal("-1.5") < decimal("-1.49"));
        assert_eq!(decimal("2.50").partial_cmp(&decimal("2.5")), Some(Ordering::Equal));
        assert_eq!(decimal("-0.05").to_string(), "-0.05");
        assert_eq!(decimal("1.00").minus(&LookBack::parse("0.001").unwrap()).unwrap().to_string(), "0.999");
    }

    #[test]
    fn a_window_is_in_the_units_of_its_cursor() {
        let five = LookBack::parse("5").unwrap();
        let minute = LookBack::parse("1m").unwrap();
        assert_eq!(Kind::Integer.parse("3").unwrap().minus(&five).unwrap().to_string(), "-2");
        let moment = Kind::Moment.parse("2024-03-01 00:00:30").unwrap();
        assert_eq!(moment.minus(&minute).unwrap().to_string(), "2024-02-29 23:59:30.000000");
        assert!(moment.minus(&five).is_err());
        assert!(Kind::Integer.parse("3").unwrap().minus(&minute).is_err());
        assert!(Kind::Text.parse("a").unwrap().minus(&five).is_err());
        assert_eq!(LookBack::parse("-1"), None);
        assert_eq!(LookBack::parse("soon"), None);
    }

    #[test]
    fn what_a_person_writes_must_fit_the_column() {
        assert_eq!(Kind::Integer.parse("1.5"), None);
        assert_eq!(Kind::Integer.parse("x"), None);
        assert_eq!(Kind::Moment.parse("yesterday"), None);
        assert_eq!(Kind::Moment.parse("2024-01-02").unwrap().to_string(), "2024-01-02 00:00:00.000000");
    }

    #[test]
    fn the_order_of_text_is_the_servers() {
        assert_eq!(Cursor::Text("a".into()).partial_cmp(&Cursor::Text("b".into())), None);
    }
}
