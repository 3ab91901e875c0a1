//! A row as the body of an event.

use std::io::Write as _;

use mysql_async::Column;
use mysql_async::consts::ColumnType;
use wasmflow_sdk::append::append;
use wasmflow_sdk::json;

use crate::cell::{Cell, Cells, Encoding};
use crate::config::Format;
use crate::cursor::is_binary;

/// How the rows of one answer are written: what is the same for all of them is found out once.
pub struct RowFormat {
    format: Format,
    columns: Vec<ColumnFormat>,
}

struct ColumnFormat {
    encoding: Encoding,
    /// What stands before the value.
    before: Vec<u8>,
    content: Content,
    /// How many digits of a second are written.
    fraction: Fraction,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Number,
    /// Up to eight bytes, the greatest first.
    Bits,
    Date,
    Bytes,
    Text,
}

#[derive(Clone, Copy)]
enum Fraction {
    Digits(u8),
    /// All six where there are any: the column does not say.
    Any,
}

impl RowFormat {
    /// Nothing where a column has a type that no server sends.
    pub fn new(format: Format, columns: &[Column]) -> Option<RowFormat> {
        let column = |(index, column)| ColumnFormat::new(format, index, column);
        Some(RowFormat { format, columns: columns.iter().enumerate().map(column).collect::<Option<_>>()? })
    }

    /// Appends a row. Nothing where the packet ends before the row.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, cells: &mut Cells<'_>) -> Option<()> {
        for column in &self.columns {
            column.write(out, self.format, cells.next(column.encoding)?);
        }
        self.end(out);
        Some(())
    }

    #[inline]
    fn end(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => out.push(b'}'),
            Format::FlumeSql => out.push(b','),
            Format::Csv => {}
        }
    }
}

impl ColumnFormat {
    fn new(format: Format, index: usize, column: &Column) -> Option<ColumnFormat> {
        let mut before = if index > 0 { vec![b','] } else { Vec::new() };
        if format == Format::Json {
            if index == 0 {
                before.push(b'{');
            }
            json::write_string(&mut before, &column.name_str());
            before.push(b':');
        }
        let fraction = match column.decimals() {
            digits @ 0..=6 => Fraction::Digits(digits),
            _ => Fraction::Any,
        };
        Some(ColumnFormat { encoding: Encoding::of(column)?, before, content: Content::of(column), fraction })
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>, format: Format, cell: Cell<'_>) {
        append(out, &self.before);
        match format {
            Format::Json => self.write_json(out, cell),
            Format::Csv => self.write_csv(out, cell),
            Format::FlumeSql => self.write_plain(out, cell),
        }
    }

    #[inline]
    fn write_json(&self, out: &mut Vec<u8>, cell: Cell<'_>) {
        match cell {
            Cell::Null => append(out, b"null"),
            Cell::Bytes(text) => match self.content {
                Content::Text => json::write_value(out, text),
                Content::Number if is_json_number(text) => append(out, text),
                Content::Bits => self.write_plain(out, cell),
                Content::Bytes => json::write_binary(out, text),
                Content::Number | Content::Date => json::write_value(out, text),
            },
            Cell::Int(_) | Cell::UInt(_) => self.write_plain(out, cell),
            Cell::Float(number) if number.is_finite() => self.write_plain(out, cell),
            Cell::Double(number) if number.is_finite() => self.write_plain(out, cell),
            Cell::Float(_) | Cell::Double(_) | Cell::Moment(..) | Cell::Span { .. } => {
                out.push(b'"');
                self.write_plain(out, cell);
                out.push(b'"');
            }
        }
    }

    /// NULL is nothing, an empty string `""`.
    fn write_csv(&self, out: &mut Vec<u8>, cell: Cell<'_>) {
        match cell {
            Cell::Bytes(bytes) if self.content == Content::Bytes => json::write_base64(out, bytes),
            Cell::Bytes(text) if self.content != Content::Bits && needs_quotes(text) => quoted(out, text),
            other => self.write_plain(out, other),
        }
    }

    /// The value as the server's own client shows it; nothing for NULL.
    #[inline]
    fn write_plain(&self, out: &mut Vec<u8>, cell: Cell<'_>) {
        match cell {
            Cell::Null => {}
            Cell::Bytes(bits) if self.content == Content::Bits => write_number(out, bits_as_number(bits)),
            Cell::Bytes(bytes) => append(out, bytes),
            Cell::Int(number) => write_number(out, number),
            Cell::UInt(number) => write_number(out, number),
            Cell::Float(number) => write!(out, "{number:?}").expect("memory can always be written to"),
            Cell::Double(number) => write!(out, "{number:?}").expect("memory can always be written to"),
            Cell::Moment(date, clock, micros) => self.write_moment(out, date, clock, micros),
            Cell::Span { is_negative, days, hours, minutes, seconds, micros } => {
                let hours = days * 24 + u32::from(hours);
                let sign = if is_negative { "-" } else { "" };
                write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}").expect("memory can always be written to");
                self.write_fraction(out, micros);
            }
        }
    }

    #[inline]
    fn write_moment(
        &self,
        out: &mut Vec<u8>,
        (year, month, day): (u16, u8, u8),
        (hour, minute, second): (u8, u8, u8),
        micros: u32,
    ) {
        let mut text = *b"0000-00-00 00:00:00";
        digits(&mut text[0..4], year.into());
        digits(&mut text[5..7], month.into());
        digits(&mut text[8..10], day.into());
        if self.content == Content::Date {
            return append(out, &text[..10]);
        }
        digits(&mut text[11..13], hour.into());
        digits(&mut text[14..16], minute.into());
        digits(&mut text[17..19], second.into());
        append(out, &text);
        self.write_fraction(out, micros);
    }

    #[inline]
    fn write_fraction(&self, out: &mut Vec<u8>, micros: u32) {
        let count = match self.fraction {
            Fraction::Digits(count) => usize::from(count),
            Fraction::Any if micros == 0 => 0,
            Fraction::Any => 6,
        };
        if count > 0 {
            let mut text = *b".000000";
            digits(&mut text[1..], micros);
            append(out, &text[..=count]);
        }
    }
}

impl Content {
    fn of(column: &Column) -> Content {
        use ColumnType::{MYSQL_TYPE_BIT, MYSQL_TYPE_DATE, MYSQL_TYPE_NEWDATE};
        match column.column_type() {
            MYSQL_TYPE_BIT => Content::Bits,
            MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => Content::Date,
            kind if kind.is_numeric_type() => Content::Number,
            _ if holds_bytes(column) => Content::Bytes,
            _ => Content::Text,
        }
    }
}

fn needs_quotes(text: &[u8]) -> bool {
    text.is_empty() || text.iter().any(|byte| b",\"\r\n".contains(byte))
}

fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    append(out, itoa::Buffer::new().format(number).as_bytes());
}

/// The last digits of a number, as many as there is room for.
#[inline]
fn digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn bits_as_number(bits: &[u8]) -> u64 {
    bits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// BINARY, VARBINARY, BLOB and GEOMETRY, whatever bytes they hold, so that a column has one type in all rows.
fn holds_bytes(column: &Column) -> bool {
    use ColumnType::{MYSQL_TYPE_GEOMETRY, MYSQL_TYPE_VECTOR};
    let kind = column.column_type();
    (is_string(kind) || matches!(kind, MYSQL_TYPE_GEOMETRY | MYSQL_TYPE_VECTOR)) && is_binary(column)
}

/// CHAR, VARCHAR, TEXT and their binary kin; the character set tells them apart.
pub fn is_string(kind: ColumnType) -> bool {
    use ColumnType::*;
    matches!(
        kind,
        MYSQL_TYPE_VARCHAR
            | MYSQL_TYPE_VAR_STRING
            | MYSQL_TYPE_STRING
            | MYSQL_TYPE_TINY_BLOB
            | MYSQL_TYPE_BLOB
            | MYSQL_TYPE_MEDIUM_BLOB
            | MYSQL_TYPE_LONG_BLOB
    )
}

/// Whether a decimal is a number in JSON, which knows no leading zeros (ZEROFILL). The server writes no exponents.
fn is_json_number(text: &[u8]) -> bool {
    let bare = text.strip_prefix(b"-").unwrap_or(text);
    let whole = bare.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_whole = match bare {
        [b'0', ..] => whole == 1,
        _ => whole > 0,
    };
    is_whole
        && match &bare[whole..] {
            [] => true,
            [b'.', part @ ..] => !part.is_empty() && part.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use mysql_async::Value;
    use mysql_async::consts::ColumnType::*;

    use super::*;

    const UTF8MB4: u16 = 45;
    const BINARY: u16 = 63;

    fn column(name: &str, kind: ColumnType, character_set: u16) -> Column {
        Column::new(kind).with_name(name.as_bytes()).with_character_set(character_set)
    }

    fn row(format: Format, columns: &[Column], values: &[Value]) -> String {
        let mut out = Vec::new();
        let rows = RowFormat::new(format, columns).unwrap();
        for (column, value) in rows.columns.iter().zip(values) {
            column.write(&mut out, format, Cell::from(value));
        }
        rows.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn student() -> Vec<Column> {
        vec![column("id", MYSQL_TYPE_LONG, BINARY), column("name", MYSQL_TYPE_BLOB, UTF8MB4)]
    }

    #[test]
    fn flume_sql_ends_with_a_comma_and_has_nothing_for_null() {
        let rows = |name: Value| row(Format::FlumeSql, &student(), &[Value::Int(1), name]);
        assert_eq!(rows("zhangsan".into()), "1,zhangsan,");
        assert_eq!(rows(Value::NULL), "1,,");
    }

    #[test]
    fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
        let rows = |name: Value| row(Format::Csv, &student(), &[Value::Int(1), name]);
        assert_eq!(rows("a,b".into()), "1,\"a,b\"");
        assert_eq!(rows("say \"hi\"".into()), "1,\"say \"\"hi\"\"\"");
        assert_eq!(rows("two\nlines".into()), "1,\"two\nlines\"");
        assert_eq!(rows(Value::NULL), "1,");
        assert_eq!(rows("".into()), "1,\"\"");
        assert_eq!(rows("张三".into()), "1,张三");
    }

    #[test]
    fn json_keeps_types_and_every_digit() {
        let columns = [
            column("n", MYSQL_TYPE_LONGLONG, BINARY),
            column("d", MYSQL_TYPE_NEWDECIMAL, BINARY),
            column("z", MYSQL_TYPE_NEWDECIMAL, BINARY),
            column("f", MYSQL_TYPE_DOUBLE, BINARY),
            column("t", MYSQL_TYPE_VAR_STRING, UTF8MB4),
            column("b", MYSQL_TYPE_BLOB, BINARY),
            column("x", MYSQL_TYPE_BIT, BINARY),
            column("e", MYSQL_TYPE_LONG, BINARY),
        ];
        let values = [
            Value::UInt(u64::MAX),
            "12345678901234567890.10".into(),
            "0001.50".into(),
            Value::Double(0.1),
            "say \"hi\"\n张三".into(),
            Value::Bytes(b"abc".to_vec()),
            Value::Bytes(vec![1, 2]),
            Value::NULL,
        ];
        assert_eq!(
            row(Format::Json, &columns, &values),
            "{\"n\":18446744073709551615,\"d\":12345678901234567890.10,\"z\":\"0001.50\",\"f\":0.1,\
             \"t\":\"say \\\"hi\\\"\\n张三\",\"b\":{\"base64\":\"YWJj\"},\"x\":258,\"e\":null}"
        );
    }

    #[test]
    fn dates_and_times_are_written_as_the_server_does() {
        let columns = [
            column("d", MYSQL_TYPE_DATE, BINARY),
            column("s", MYSQL_TYPE_DATETIME, BINARY),
            column("m", MYSQL_TYPE_TIMESTAMP, BINARY).with_decimals(3),
            column("t", MYSQL_TYPE_TIME, BINARY),
        ];
        let values = [
            Value::Date(2024, 1, 2, 0, 0, 0, 0),
            Value::Date(2024, 1, 2, 3, 4, 5, 0),
            Value::Date(2024, 1, 2, 3, 4, 5, 678_900),
            Value::Time(true, 2, 3, 4, 5, 0),
        ];
        assert_eq!(
            row(Format::Csv, &columns, &values),
            "2024-01-02,2024-01-02 03:04:05,2024-01-02 03:04:05.678,-51:04:05"
        );
    }
    #[test]
    fn only_what_json_calls_a_number_is_one() {
        for number in ["0", "-0", "7", "10", "-1.50", "0.0", "12345678901234567890123456789.1"] {
            assert!(is_json_number(number.as_bytes()), "{number}");
        }
        for other in ["", "-", "00", "01.5", "-01", "1.", ".5", "1e5", "1 ", "NaN", "1.5.2"] {
            assert!(!is_json_number(other.as_bytes()), "{other}");
        }
    }
}
