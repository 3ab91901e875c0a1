//! A row as the body of an event.

use std::borrow::Cow;

use mysql_async::consts::ColumnType;
use mysql_async::{Column, Value};
use wasmflow_sdk::json;

use crate::config::Format;
use crate::cursor::is_binary;

/// Appends the row, whose values are in the order of the columns.
pub fn write_row(out: &mut Vec<u8>, format: Format, columns: &[Column], values: &[Value]) {
    let row = columns.iter().zip(values);
    match format {
        Format::Json => write_json(out, row),
        Format::Csv => write_csv(out, row),
        Format::FlumeSql => write_flume_sql(out, row),
    }
}

fn write_json<'r>(out: &mut Vec<u8>, row: impl Iterator<Item = (&'r Column, &'r Value)>) {
    out.push(b'{');
    for (index, (column, value)) in row.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, &column.name_str());
        out.push(b':');
        match text(column, value) {
            Some(text) if matches!(value, Value::Int(_) | Value::UInt(_)) && is_number(column) => {
                out.extend_from_slice(&text);
            }
            None => out.extend_from_slice(b"null"),
            Some(text) if is_number(column) && is_json_number(&text) => out.extend_from_slice(&text),
            Some(bytes) if holds_bytes(column) => json::write_binary(out, &bytes),
            Some(text) => json::write_value(out, &text),
        }
    }
    out.push(b'}');
}

/// NULL is nothing, an empty string `""`.
fn write_csv<'r>(out: &mut Vec<u8>, row: impl Iterator<Item = (&'r Column, &'r Value)>) {
    for (index, (column, value)) in row.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match text(column, value) {
            None => {}
            Some(bytes) if holds_bytes(column) => json::write_base64(out, &bytes),
            Some(text) if text.is_empty() || text.iter().any(|byte| b",\"\r\n".contains(byte)) => quoted(out, &text),
            Some(text) => out.extend_from_slice(&text),
        }
    }
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

fn write_flume_sql<'r>(out: &mut Vec<u8>, row: impl Iterator<Item = (&'r Column, &'r Value)>) {
    for (column, value) in row {
        out.extend_from_slice(&text(column, value).unwrap_or_default());
        out.push(b',');
    }
}

/// The value as the server's own client shows it; nothing for NULL.
fn text<'v>(column: &Column, value: &'v Value) -> Option<Cow<'v, [u8]>> {
    let text = match value {
        Value::NULL => return None,
        Value::Bytes(bits) if column.column_type() == ColumnType::MYSQL_TYPE_BIT => bits_as_number(bits),
        Value::Bytes(bytes) => return Some(Cow::Borrowed(bytes)),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Double(number) => format!("{number:?}"),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let mut text = String::with_capacity(26);
            digits(&mut text, (*year).into(), 4);
            for (sign, part) in [('-', month), ('-', day)] {
                text.push(sign);
                digits(&mut text, (*part).into(), 2);
            }
            if !matches!(column.column_type(), ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE) {
                for (sign, part) in [(' ', hour), (':', minute), (':', second)] {
                    text.push(sign);
                    digits(&mut text, (*part).into(), 2);
                }
                text.push_str(&fraction(column, *micros));
            }
            text
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let hours = days * 24 + u32::from(*hours);
            let sign = if *negative { "-" } else { "" };
            format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(column, *micros))
        }
    };
    Some(Cow::Owned(text.into_bytes()))
}

/// So many digits of a number, which has no more. A tenth of what `format!` costs.
fn digits(text: &mut String, number: u32, count: u32) {
    for place in (0..count).rev() {
        text.push(char::from(b'0' + (number / 10u32.pow(place) % 10) as u8));
    }
}

/// As many digits as the column has; all six where the column does not say and there are any.
fn fraction(column: &Column, micros: u32) -> String {
    let digits = match usize::from(column.decimals()) {
        digits @ 0..=6 => digits,
        _ if micros == 0 => 0,
        _ => 6,
    };
    match digits {
        0 => String::new(),
        digits => format!(".{}", &format!("{micros:06}")[..digits]),
    }
}

/// BIT comes as up to eight bytes, the greatest first.
fn bits_as_number(bits: &[u8]) -> String {
    bits.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)).to_string()
}

fn is_number(column: &Column) -> bool {
    column.column_type().is_numeric_type() || column.column_type() == ColumnType::MYSQL_TYPE_BIT
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

/// A decimal may come with leading zeros (ZEROFILL), which JSON has not.
fn is_json_number(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Number>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use mysql_async::consts::ColumnType::*;

    use super::*;

    const UTF8MB4: u16 = 45;
    const BINARY: u16 = 63;

    fn column(name: &str, kind: ColumnType, character_set: u16) -> Column {
        Column::new(kind).with_name(name.as_bytes()).with_character_set(character_set)
    }

    fn row(format: Format, columns: &[Column], values: &[Value]) -> String {
        let mut out = Vec::new();
        write_row(&mut out, format, columns, values);
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
}
