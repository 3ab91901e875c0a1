//! A page: the rows that one request brought, ready to go out.

use std::collections::HashMap;
use std::ops::Range;

use mysql_async::Column;
use wasmflow_sdk::packed::{Packed, PackedBuilder};
use wasmflow_sdk::prelude::Failure;

use crate::cell::{Cell, Cells, Encoding};
use crate::config::Format;
use crate::cursor::{Cursor, Kind};
use crate::failure::Trouble;
use crate::format::RowFormat;
use crate::standing::{Place, fingerprint};
use crate::wire::unexpected;

/// Limit: the bodies of a page in memory. What is behind them on the page is asked for again.
const BYTES_MAX: usize = 8 << 20;

/// What the server says of the cursor column.
#[derive(Clone, Copy)]
pub struct CursorColumn {
    pub kind: Kind,
    /// No two rows have the same cursor, so a row is known by it, and one that is changed in the window does not come again.
    pub unique: bool,
}

/// Rows in the order of the cursor.
#[derive(Default)]
pub struct Page {
    lines: Vec<Line>,
    /// The bodies of all lines, one behind the other.
    text: Vec<u8>,
    /// There may be more behind it.
    pub full: bool,
    unique: bool,
}

/// A row.
pub struct Line {
    pub cursor: Cursor,
    pub place: Place,
    /// It was delivered before.
    pub is_known: bool,
    /// Where its body ends in the page's text.
    end: usize,
}

impl Page {
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// How many bytes the bodies have in all.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    fn body(&self, index: usize) -> &[u8] {
        &self.text[self.begin(index)..self.lines[index].end]
    }

    fn begin(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.lines[before].end)
    }

    /// What tells a row from others with its cursor.
    pub fn fingerprint(&self, index: usize) -> u64 {
        let cursor = self.lines[index].cursor.to_string();
        match self.unique {
            true => fingerprint(&[cursor.as_bytes()]),
            false => fingerprint(&[cursor.as_bytes(), self.body(index)]),
        }
    }

    /// Marks the rows that were delivered before, each as often as it was.
    pub fn mark_known(&mut self, mut known: HashMap<u64, usize>) {
        let mut left: usize = known.values().sum();
        for index in 0..self.lines.len() {
            // Mostly the first row is all there is to be found.
            if left == 0 {
                return;
            }
            if let Some(count) = known.get_mut(&self.fingerprint(index)).filter(|count| **count > 0) {
                *count -= 1;
                left -= 1;
                self.lines[index].is_known = true;
            }
        }
    }

    /// Up to where rows from `first` on go out together: new ones of so many and so many bytes, but at least one; known ones
    /// are passed.
    pub fn reach(&self, first: usize, max_events: usize, max_bytes: usize) -> usize {
        let (mut end, mut events, mut bytes) = (first, 0, 0);
        while let Some(line) = self.lines.get(end) {
            if !line.is_known {
                let length = self.body(end).len();
                if events > 0 && (events >= max_events || bytes + length > max_bytes) {
                    break;
                }
                (events, bytes) = (events + 1, bytes + length);
            }
            end += 1;
        }
        end
    }

    /// The bodies of the rows in this place that are new.
    pub fn bodies(&self, place: Range<usize>) -> Packed {
        let lines = &self.lines[place.clone()];
        if lines.iter().any(|line| line.is_known) {
            let mut bodies = PackedBuilder::new();
            place.filter(|index| !self.lines[*index].is_known).for_each(|index| bodies.push(self.body(index)));
            return bodies.finish();
        }
        let (begin, end) = (self.begin(place.start), self.begin(place.end));
        Packed {
            data: self.text[begin..end].to_vec(),
            ends: lines.iter().map(|line| (line.end - begin) as u32).collect(),
        }
    }

    /// The first of the rows in this place that have the cursor of the last one.
    pub fn last_group(&self, place: Range<usize>) -> usize {
        let mut begins = (place.start..place.end).rev().filter(|index| self.lines[*index].place == Place::First);
        begins.next().unwrap_or(place.start)
    }
}

/// Makes a page of the rows of one answer.
pub struct PageWriter {
    page: Page,
    rows: RowFormat,
    columns: usize,
    column: CursorColumn,
    cursor: Encoding,
    /// Of text: the weight of the row before in its collation. Its column is the last.
    weight: Option<Vec<u8>>,
}

impl PageWriter {
    /// `columns` are those of the answer; `capacity` a guess of the bytes that will come.
    ///
    /// # Errors
    /// When the answer has columns that no server sends.
    pub fn new(format: Format, columns: &[Column], column: CursorColumn, capacity: usize) -> Result<Self, Trouble> {
        let own = if column.kind == Kind::Text { 2 } else { 1 };
        let parts = columns.len().checked_sub(own).and_then(|event| {
            let (event, own) = columns.split_at(event);
            Some((RowFormat::new(format, event)?, Encoding::of(&own[0])?))
        });
        let (rows, cursor) = parts.ok_or_else(|| unexpected("list of columns"))?;
        let page = Page { text: Vec::with_capacity(capacity), unique: column.unique, ..Page::default() };
        Ok(PageWriter { page, rows, columns: columns.len(), column, cursor, weight: None })
    }

    /// Adds a row, as it lies in its packet.
    ///
    /// # Errors
    /// When it is no row of these columns, or its cursor is none.
    pub fn add(&mut self, packet: &[u8]) -> Result<(), Trouble> {
        if self.is_heavy() {
            return Ok(());
        }
        let malformed = || Trouble::Database(unexpected("row"));
        let mut cells = Cells::new(packet, self.columns).ok_or_else(malformed)?;
        self.rows.write(&mut self.page.text, &mut cells).ok_or_else(malformed)?;
        let cell = cells.next(self.cursor).ok_or_else(malformed)?;
        let cursor = self.column.kind.read(cell).map_err(|reason| Trouble::Failure(Failure::fatal(reason)))?;
        let repeats = match self.column.kind {
            Kind::Text => self.repeats_weight(cells.next(Encoding::Bytes).ok_or_else(malformed)?),
            _ => self.page.lines.last().is_some_and(|line| line.cursor == cursor),
        };
        let place = if repeats { Place::Further } else { Place::First };
        let end = self.page.text.len();
        self.page.lines.push(Line { cursor, place, is_known: false, end });
        Ok(())
    }

    /// The page of all rows that came, of which there were to be so many at most.
    pub fn finish(mut self, most: usize) -> Page {
        self.page.full = self.is_heavy() || self.page.lines.len() >= most;
        self.page
    }

    fn is_heavy(&self) -> bool {
        self.page.text.len() > BYTES_MAX
    }

    fn repeats_weight(&mut self, cell: Cell<'_>) -> bool {
        let weight = if let Cell::Bytes(weight) = cell { weight } else { &[] };
        let repeats = self.weight.as_deref() == Some(weight);
        if !repeats {
            self.weight = Some(weight.to_vec());
        }
        repeats
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::consts::ColumnType;

    use super::*;

    /// A page of rows with these integers as cursor and body.
    fn page(numbers: &[i64]) -> Page {
        let column = Column::new(ColumnType::MYSQL_TYPE_LONGLONG).with_name(b"id");
        let cursor = CursorColumn { kind: Kind::Integer, unique: false };
        let mut writer =
            PageWriter::new(Format::Csv, &[column.clone(), column], cursor, 0).unwrap_or_else(|_| panic!());
        for number in numbers {
            let packet = [&[0, 0][..], &number.to_le_bytes(), &number.to_le_bytes()].concat();
            assert!(writer.add(&packet).is_ok());
        }
        writer.finish(numbers.len())
    }

    fn bodies(page: &Page, place: Range<usize>) -> Vec<String> {
        page.bodies(place).iter().map(|body| String::from_utf8(body.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_batch_has_at_least_one_row_and_no_more_than_is_asked_for() {
        let page = page(&[10, 20, 30, 40]);
        assert_eq!(page.reach(0, 2, 100), 2);
        assert_eq!(page.reach(0, 100, 5), 2);
        assert_eq!(page.reach(1, 100, 1), 2);
        assert_eq!(page.reach(2, 100, 100), 4);
        assert_eq!(bodies(&page, 1..3), ["20", "30"]);
    }

    #[test]
    fn rows_that_are_known_are_passed_and_do_not_count() {
        let mut page = page(&[10, 10, 20, 30]);
        let known = HashMap::from([(page.fingerprint(0), 1), (page.fingerprint(2), 3)]);
        page.mark_known(known);
        assert_eq!(page.lines().iter().map(|line| line.is_known).collect::<Vec<_>>(), [true, false, true, false]);
        assert_eq!(page.reach(0, 1, 100), 3);
        assert_eq!(bodies(&page, 0..4), ["10", "30"]);
    }

    #[test]
    fn the_last_group_begins_where_its_value_does() {
        let page = page(&[10, 20, 20, 30, 30]);
        assert_eq!((page.last_group(0..5), page.last_group(0..3), page.last_group(2..3)), (3, 1, 2));
        assert!(page.full);
    }

    #[test]
    fn a_row_that_is_cut_off_is_told() {
        let column = Column::new(ColumnType::MYSQL_TYPE_LONGLONG).with_name(b"id");
        let cursor = CursorColumn { kind: Kind::Integer, unique: false };
        let mut writer =
            PageWriter::new(Format::Json, &[column.clone(), column], cursor, 0).unwrap_or_else(|_| panic!());
        assert!(matches!(writer.add(&[0, 0, 1, 2, 3]), Err(Trouble::Database(_))));
        // The second column, which is the cursor, is NULL.
        let null = [&[0, 0b1000][..], &7i64.to_le_bytes()].concat();
        assert!(matches!(writer.add(&null), Err(Trouble::Failure(Failure::Fatal(_)))));
    }
}
