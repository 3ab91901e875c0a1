//! One value of a row as the protocol's binary form has it, read where it lies.

use mysql_async::Column;
use mysql_async::consts::{ColumnFlags, ColumnType};

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'p> {
    Null,
    Int(i64),
    /// Greater than an `i64`, or of a column without negative numbers.
    UInt(u64),
    Float(f32),
    Double(f64),
    /// Year, month, day; hour, minute, second; microseconds.
    Moment((u16, u8, u8), (u8, u8, u8), u32),
    Span {
        is_negative: bool,
        days: u32,
        hours: u8,
        minutes: u8,
        seconds: u8,
        micros: u32,
    },
    /// Text, bytes, decimals, and all that the server sends so.
    Bytes(&'p [u8]),
}

/// How the values of a column are written in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Float,
    Double,
    Moment,
    Span,
    Bytes,
    Null,
}

impl Encoding {
    /// Nothing for a type that no server sends.
    pub fn of(column: &Column) -> Option<Encoding> {
        use ColumnType::*;
        let is_unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
        let signed = |signed, unsigned| if is_unsigned { unsigned } else { signed };
        Some(match column.column_type() {
            MYSQL_TYPE_TINY => signed(Encoding::I8, Encoding::U8),
            MYSQL_TYPE_SHORT | MYSQL_TYPE_YEAR => signed(Encoding::I16, Encoding::U16),
            MYSQL_TYPE_LONG | MYSQL_TYPE_INT24 => signed(Encoding::I32, Encoding::U32),
            MYSQL_TYPE_LONGLONG => signed(Encoding::I64, Encoding::U64),
            MYSQL_TYPE_FLOAT => Encoding::Float,
            MYSQL_TYPE_DOUBLE => Encoding::Double,
            MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE | MYSQL_TYPE_DATETIME => Encoding::Moment,
            MYSQL_TYPE_TIME => Encoding::Span,
            MYSQL_TYPE_NULL => Encoding::Null,
            MYSQL_TYPE_STRING
            | MYSQL_TYPE_VAR_STRING
            | MYSQL_TYPE_VARCHAR
            | MYSQL_TYPE_BLOB
            | MYSQL_TYPE_TINY_BLOB
            | MYSQL_TYPE_MEDIUM_BLOB
            | MYSQL_TYPE_LONG_BLOB
            | MYSQL_TYPE_SET
            | MYSQL_TYPE_ENUM
            | MYSQL_TYPE_DECIMAL
            | MYSQL_TYPE_NEWDECIMAL
            | MYSQL_TYPE_BIT
            | MYSQL_TYPE_GEOMETRY
            | MYSQL_TYPE_VECTOR
            | MYSQL_TYPE_JSON => Encoding::Bytes,
            _ => return None,
        })
    }
}

/// The values of a row, in order.
///
/// ```text
/// 0x00 | a bit for each column, from the third on: NULL | values that are not NULL
/// ```
pub struct Cells<'p> {
    nulls: &'p [u8],
    /// Of the next value.
    bit: usize,
    rest: &'p [u8],
}

impl<'p> Cells<'p> {
    /// Nothing where this is no row of so many columns.
    #[inline]
    pub fn new(packet: &'p [u8], columns: usize) -> Option<Cells<'p>> {
        let [0x00, body @ ..] = packet else { return None };
        let (nulls, rest) = body.split_at_checked((columns + 9) / 8)?;
        Some(Cells { nulls, bit: 2, rest })
    }

    /// Nothing where the row ends before the value does.
    #[inline]
    pub fn next(&mut self, encoding: Encoding) -> Option<Cell<'p>> {
        let is_null = self.nulls.get(self.bit / 8)? >> (self.bit % 8) & 1 == 1;
        self.bit += 1;
        if is_null {
            return Some(Cell::Null);
        }
        Some(match encoding {
            Encoding::I8 => Cell::Int(i8::from_le_bytes(self.take()?).into()),
            Encoding::U8 => Cell::Int(u8::from_le_bytes(self.take()?).into()),
            Encoding::I16 => Cell::Int(i16::from_le_bytes(self.take()?).into()),
            Encoding::U16 => Cell::Int(u16::from_le_bytes(self.take()?).into()),
            Encoding::I32 => Cell::Int(i32::from_le_bytes(self.take()?).into()),
            Encoding::U32 => Cell::Int(u32::from_le_bytes(self.take()?).into()),
            Encoding::I64 => Cell::Int(i64::from_le_bytes(self.take()?)),
            Encoding::U64 => Cell::UInt(u64::from_le_bytes(self.take()?)),
            Encoding::Float => Cell::Float(f32::from_le_bytes(self.take()?)),
            Encoding::Double => Cell::Double(f64::from_le_bytes(self.take()?)),
            Encoding::Moment => self.moment()?,
            Encoding::Span => self.span()?,
            Encoding::Bytes => Cell::Bytes(self.string()?),
            Encoding::Null => Cell::Null,
        })
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Option<&'p [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Bytes behind their length, which is one byte long or says how long it is.
    #[inline]
    fn string(&mut self) -> Option<&'p [u8]> {
        let length = match self.take::<1>()? {
            [short @ 0..=250] => usize::from(short),
            [0xfc] => usize::from(u16::from_le_bytes(self.take()?)),
            [0xfd] => {
                let [low, middle, high] = self.take()?;
                u32::from_le_bytes([low, middle, high, 0]) as usize
            }
            [0xfe] => usize::try_from(u64::from_le_bytes(self.take()?)).ok()?,
            _ => return None,
        };
        self.slice(length)
    }

    /// What is zero at its end is left out.
    #[inline]
    fn moment(&mut self) -> Option<Cell<'p>> {
        let [length] = self.take()?;
        let mut part = Cells { nulls: &[], bit: 0, rest: self.slice(length.into())? };
        let (mut date, mut clock, mut micros) = ((0, 0, 0), (0, 0, 0), 0);
        if length >= 4 {
            let [low, high, month, day] = part.take()?;
            date = (u16::from_le_bytes([low, high]), month, day);
        }
        if length >= 7 {
            let [hour, minute, second] = part.take()?;
            clock = (hour, minute, second);
        }
        if length >= 11 {
            micros = u32::from_le_bytes(part.take()?);
        }
        Some(Cell::Moment(date, clock, micros))
    }

    fn span(&mut self) -> Option<Cell<'p>> {
        let [length] = self.take()?;
        let mut part = Cells { nulls: &[], bit: 0, rest: self.slice(length.into())? };
        if length < 8 {
            return Some(Cell::Span { is_negative: false, days: 0, hours: 0, minutes: 0, seconds: 0, micros: 0 });
        }
        let ([sign], days, [hours, minutes, seconds]) = (part.take()?, part.take()?, part.take()?);
        let micros = if length >= 12 { u32::from_le_bytes(part.take()?) } else { 0 };
        let days = u32::from_le_bytes(days);
        Some(Cell::Span { is_negative: sign == 1, days, hours, minutes, seconds, micros })
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::Value;

    use super::*;

    impl<'v> From<&'v Value> for Cell<'v> {
        fn from(value: &'v Value) -> Cell<'v> {
            match *value {
                Value::NULL => Cell::Null,
                Value::Bytes(ref bytes) => Cell::Bytes(bytes),
                Value::Int(number) => Cell::Int(number),
                Value::UInt(number) => Cell::UInt(number),
                Value::Float(number) => Cell::Float(number),
                Value::Double(number) => Cell::Double(number),
                Value::Date(year, month, day, hour, minute, second, micros) => {
                    Cell::Moment((year, month, day), (hour, minute, second), micros)
                }
                Value::Time(is_negative, days, hours, minutes, seconds, micros) => {
                    Cell::Span { is_negative, days, hours, minutes, seconds, micros }
                }
            }
        }
    }

    /// A row of these values as the protocol's library writes them.
    fn row(values: &[(Encoding, Value)]) -> Vec<u8> {
        use mysql_common::proto::MySerialize;
        let mut nulls = vec![0; (values.len() + 9) / 8];
        let mut body = Vec::new();
        for (index, (encoding, value)) in values.iter().enumerate() {
            match (encoding, value) {
                (_, Value::NULL) => nulls[(index + 2) / 8] |= 1 << ((index + 2) % 8),
                (Encoding::I8 | Encoding::U8, Value::Int(number)) => body.push(*number as u8),
                (Encoding::I16 | Encoding::U16, Value::Int(number)) => body.extend((*number as u16).to_le_bytes()),
                (Encoding::I32 | Encoding::U32, Value::Int(number)) => body.extend((*number as u32).to_le_bytes()),
                (_, value) => value.serialize(&mut body),
            }
        }
        [&[0], &nulls[..], &body].concat()
    }

    fn values() -> Vec<(Encoding, Value)> {
        vec![
            (Encoding::I8, Value::Int(-1)),
            (Encoding::U8, Value::Int(255)),
            (Encoding::I16, Value::Int(-300)),
            (Encoding::U16, Value::Int(65_535)),
            (Encoding::I32, Value::Int(i64::from(i32::MIN))),
            (Encoding::Bytes, Value::NULL),
            (Encoding::U32, Value::Int(i64::from(u32::MAX))),
            (Encoding::I64, Value::Int(i64::MIN)),
            (Encoding::U64, Value::UInt(u64::MAX)),
            (Encoding::Float, Value::Float(0.5)),
            (Encoding::Double, Value::Double(0.1)),
            (Encoding::Moment, Value::Date(0, 0, 0, 0, 0, 0, 0)),
            (Encoding::Moment, Value::Date(2024, 2, 29, 0, 0, 0, 0)),
            (Encoding::Moment, Value::Date(2024, 2, 29, 1, 2, 3, 0)),
            (Encoding::Moment, Value::Date(2024, 2, 29, 1, 2, 3, 4)),
            (Encoding::Span, Value::Time(false, 0, 0, 0, 0, 0)),
            (Encoding::Span, Value::Time(true, 34, 22, 59, 58, 0)),
            (Encoding::Span, Value::Time(true, 34, 22, 59, 58, 7)),
            (Encoding::Bytes, Value::Bytes(Vec::new())),
            (Encoding::Bytes, Value::Bytes(vec![1; 250])),
            (Encoding::Bytes, Value::Bytes(vec![2; 251])),
            (Encoding::Bytes, Value::Bytes(vec![3; 70_000])),
            (Encoding::Null, Value::NULL),
        ]
    }

    #[test]
    fn every_value_is_read_as_it_was_sent() {
        let values = values();
        let packet = row(&values);
        let mut cells = Cells::new(&packet, values.len()).unwrap();
        for (encoding, value) in &values {
            assert_eq!(cells.next(*encoding).unwrap(), Cell::from(value), "{encoding:?}");
        }
        assert!(cells.rest.is_empty());
    }

    #[test]
    fn a_row_that_ends_early_is_no_row_wherever_it_ends() {
        let values = values();
        let packet = row(&values);
        for end in 0..400 {
            let all =
                |mut cells: Cells<'_>| values.iter().try_for_each(|(encoding, _)| cells.next(*encoding).map(drop));
            assert_eq!(Cells::new(&packet[..end], values.len()).and_then(all), None, "{end}");
        }
    }
}
