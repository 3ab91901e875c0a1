//! Where the source stands in its rows: what is kept in the position.
//!
//! Rows come in the order of the cursor. `cursor` is the greatest value up to which all rows that there were have been delivered.
//! `after` is where the next page begins, exclusive: at `cursor`, or `look_back` before it. `seen` marks the rows behind `after`
//! that have been delivered already: those of the window, and those of a group of equal cursors in whose middle a batch or a
//! page ended. So nothing is delivered twice and nothing of a group is left out, wherever a batch ends.

use std::cmp::Ordering;
use std::collections::HashMap;

use wasmflow_sdk::prelude::{Deserialize, Failure, Serialize};

use crate::cursor::{Cursor, LookBack};

/// Limit: about 250 KB in the position of each batch. A window with more rows is made shorter; a group of equal cursors with
/// more rows stops the source.
pub const SEEN_MAX: usize = 4096;

/// The value of the part of the position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    seen: Vec<Seen>,
    /// The row before the next one of this page.
    #[serde(skip)]
    passing: Option<Cursor>,
    /// The greatest value whose rows have all passed, until `settle`.
    #[serde(skip)]
    complete: Option<Cursor>,
}

/// A delivered row, by its cursor and a fingerprint. Cursors of text are not kept: all rows
/// that are known then have the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen(Option<Cursor>, u64);

/// Whether a row is delivered now, or was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    New { fingerprint: u64 },
    Known,
}

/// Whether a row is the first of its page with its cursor's value, in the eyes of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    First,
    Further,
}

impl Standing {
    /// # Errors
    ///
    /// `Fatal` when this is not what a source of this kind stored.
    pub fn read(stored: &[u8]) -> Result<Standing, Failure> {
        serde_json::from_slice(stored).map_err(|_| Failure::fatal("the stored position is not of this source"))
    }

    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can always be written")
    }

    /// How many rows a page may bring that were delivered before.
    pub fn known_rows(&self) -> usize {
        self.seen.len()
    }

    /// How often each delivered row was delivered: two equal rows are two.
    pub fn known(&self) -> HashMap<u64, usize> {
        let mut known = HashMap::new();
        for Seen(_, fingerprint) in &self.seen {
            *known.entry(*fingerprint).or_default() += 1;
        }
        known
    }

    /// A new page begins, at `after` again.
    pub fn begin_page(&mut self) {
        self.passing = None;
    }

    /// The next row of the page goes out. The standing may be written after the next [`settle`](Self::settle).
    pub fn pass(&mut self, cursor: &Cursor, place: Place, row: Row) {
        if place == Place::First {
            self.reached();
        }
        self.passing = Some(cursor.clone());
        if let Row::New { fingerprint } = row {
            let cursor = (!matches!(cursor, Cursor::Text(_))).then(|| cursor.clone());
            self.seen.push(Seen(cursor, fingerprint));
        }
    }

    /// Rows go out whose values lie before that of the row that passes next; this is the last one's cursor. Only without a
    /// [window](Self::has_window): then as good as passing each of them, and much faster.
    pub fn pass_over(&mut self, last: &Cursor) {
        self.seen.retain(|Seen(cursor, _)| cursor.as_ref().is_some_and(|cursor| cursor > last));
        self.passing = Some(last.clone());
    }

    /// Whether pages begin before the greatest cursor.
    pub fn has_window(&self) -> bool {
        self.after != self.cursor
    }

    /// The page has been delivered, and there was no row behind it.
    pub fn end(&mut self) {
        self.reached();
    }

    /// No further row has the value of the one that passed last.
    fn reached(&mut self) {
        let Some(value) = self.passing.take() else { return };
        if matches!(value, Cursor::Text(_)) {
            self.seen.clear();
        }
        self.complete = Some(value);
    }

    /// Lets go of the rows that need not be known any more. Once a batch, as it looks at all of them.
    ///
    /// # Errors
    ///
    /// `Fatal` when too many rows have one cursor, or the window does not fit the cursor's type.
    pub fn settle(&mut self, look_back: Option<&LookBack>) -> Result<(), Failure> {
        if let Some(value) = self.complete.take() {
            self.advance(value, look_back).map_err(Failure::fatal)?;
        }
        self.bound()
    }

    /// All rows up to `value` have been delivered. Never goes back: late rows of the window have smaller values.
    fn advance(&mut self, value: Cursor, look_back: Option<&LookBack>) -> Result<(), String> {
        if self.cursor.as_ref().is_some_and(|cursor| value <= *cursor) {
            return Ok(());
        }
        let after = look_back.map_or_else(|| Ok(value.clone()), |window| value.minus(window))?;
        self.cursor = Some(value);
        if !self.after.as_ref().is_some_and(|before| after <= *before) {
            self.begin_after(after);
        }
        Ok(())
    }

    fn begin_after(&mut self, after: Cursor) {
        self.seen.retain(|Seen(cursor, _)| cursor.as_ref().is_none_or(|cursor| *cursor > after));
        self.after = Some(after);
    }

    fn bound(&mut self) -> Result<(), Failure> {
        let Some(excess) = self.seen.len().checked_sub(SEEN_MAX).filter(|excess| *excess > 0) else { return Ok(()) };
        let mut cursors: Vec<&Cursor> = self.seen.iter().filter_map(|Seen(cursor, _)| cursor.as_ref()).collect();
        cursors.sort_by(|one, other| one.partial_cmp(other).unwrap_or(Ordering::Equal));
        match (cursors.get(excess - 1).copied().cloned(), &self.cursor) {
            // Late rows up to there are not found any more.
            (Some(after), Some(cursor)) if after <= *cursor => {
                self.begin_after(after);
                Ok(())
            }
            _ => {
                let value = self.passing.as_ref().map(ToString::to_string).unwrap_or_default();
                Err(Failure::fatal(format!(
                    "more than {SEEN_MAX} rows have the cursor `{value}`: take a `cursor_column` that tells rows apart"
                )))
            }
        }
    }
}

/// FNV-1a: the same in every version of the plugin, as it is stored.
pub fn fingerprint(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: i64) -> Cursor {
        Cursor::Number { unscaled: value.into(), scale: 0 }
    }

    fn pass(standing: &mut Standing, values: &[i64], look_back: Option<&LookBack>) {
        for (row, value) in values.iter().enumerate() {
            let repeats = row > 0 && values[row - 1] == *value;
            let place = if repeats { Place::Further } else { Place::First };
            standing.pass(&number(*value), place, Row::New { fingerprint: row as u64 * 1000 + *value as u64 });
        }
        standing.settle(look_back).unwrap();
    }

    fn end(standing: &mut Standing, look_back: Option<&LookBack>) {
        standing.end();
        standing.settle(look_back).unwrap();
    }

    fn stored(standing: &Standing) -> Standing {
        Standing::read(&standing.write()).unwrap()
    }

    #[test]
    fn at_the_end_of_the_rows_only_the_cursor_is_kept() {
        let mut standing = Standing::default();
        pass(&mut standing, &[1, 5, 9], None);
        end(&mut standing, None);
        assert_eq!(String::from_utf8(standing.write()).unwrap(), r#"{"cursor":{"number":"9"},"after":{"number":"9"}}"#);
    }

    #[test]
    fn in_the_middle_of_equal_cursors_the_rest_of_them_is_still_to_come() {
        let mut standing = Standing::default();
        pass(&mut standing, &[1, 2, 2], None);
        let standing = stored(&standing);
        assert_eq!(standing.after, Some(number(1)));
        assert_eq!(standing.known_rows(), 2);
    }

    #[test]
    fn what_is_passed_over_is_as_good_as_passed() {
        // A late row, one that was delivered before, and a group in whose middle the batch ends.
        let rows = [(4, Row::New { fingerprint: 4 }), (5, Row::Known), (6, Row::New { fingerprint: 6 })];
        for count in 1..rows.len() {
            let mut known = Standing::default();
            pass(&mut known, &[3, 5], None);
            known.begin_page();
            let mut over = known.clone();
            for (value, row) in rows {
                known.pass(&number(value), Place::First, row);
            }
            over.pass_over(&number(rows[count - 1].0));
            for (value, row) in &rows[count..] {
                over.pass(&number(*value), Place::First, *row);
            }
            known.settle(None).unwrap();
            over.settle(None).unwrap();
            assert_eq!(stored(&over), stored(&known), "{count}");
        }
    }

    #[test]
    fn equal_rows_are_counted() {
        let mut standing = Standing::default();
        for _ in 0..2 {
            standing.pass(&number(1), Place::First, Row::New { fingerprint: 7 });
        }
        assert_eq!(standing.known()[&7], 2);
    }

    #[test]
    fn the_window_remembers_its_rows_and_moves_with_the_cursor() {
        let window = LookBack::parse("3").unwrap();
        let mut standing = Standing::default();
        pass(&mut standing, &[1, 2, 5, 6], Some(&window));
        end(&mut standing, Some(&window));
        let mut standing = stored(&standing);
        assert_eq!((standing.cursor.clone(), standing.after.clone()), (Some(number(6)), Some(number(3))));
        assert_eq!(standing.known_rows(), 2);
        // A late row; it moves nothing back.
        standing.begin_page();
        pass(&mut standing, &[4], Some(&window));
        end(&mut standing, Some(&window));
        assert_eq!((standing.cursor.clone(), standing.known_rows()), (Some(number(6)), 3));
    }

    #[test]
    fn a_window_with_too_many_rows_becomes_shorter() {
        let window = LookBack::parse("1000000").unwrap();
        let mut standing = Standing::default();
        let rows: Vec<i64> = (0..SEEN_MAX as i64 + 10).collect();
        pass(&mut standing, &rows, Some(&window));
        end(&mut standing, Some(&window));
        assert_eq!(standing.known_rows(), SEEN_MAX);
        assert_eq!(standing.after, Some(number(9)));
    }

    #[test]
    fn too_many_equal_cursors_stop_the_source_rather_than_lose_rows() {
        let mut standing = Standing::default();
        pass(&mut standing, &[1], None);
        pass(&mut standing, &[4; SEEN_MAX], None);
        standing.pass(&number(4), Place::Further, Row::New { fingerprint: 1 });
        assert!(matches!(standing.settle(None), Err(Failure::Fatal(reason)) if reason.contains("`4`")));
    }

    #[test]
    fn text_is_taken_in_the_order_in_which_it_comes() {
        let text = |text: &str| Cursor::Text(text.into());
        let mut standing = Standing::default();
        for (value, place) in [("b", Place::First), ("Ä", Place::First), ("z", Place::First), ("Z", Place::Further)] {
            standing.pass(&text(value), place, Row::New { fingerprint: 1 });
        }
        standing.settle(None).unwrap();
        assert_eq!((standing.after.clone(), standing.known_rows()), (Some(text("Ä")), 2));
        end(&mut standing, None);
        assert_eq!((stored(&standing).after, standing.known_rows()), (Some(text("Z")), 0));
    }
}
