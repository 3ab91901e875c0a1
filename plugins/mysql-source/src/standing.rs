//! Where the source stands in its rows: what is kept in the position.
//!
//! Rows come in the order of the cursor. `cursor` is the greatest value up to which all rows that there were have been delivered.
//! `after` is where the next page begins, exclusive: at `cursor`, or `look_back` before it. `seen` marks the rows behind `after`
//! that have been delivered already: those of the window, and those of a group of equal cursors in whose middle a batch or a
//! page ended. So nothing is delivered twice and nothing of a group is left out, wherever a batch ends.

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
}

/// A delivered row, by its cursor and a fingerprint. Cursors of text are not kept: they are behind `after` until all are let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen(Option<Cursor>, u64);

/// Whether a row is delivered now, or was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    New { fingerprint: u64 },
    Known,
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

    /// The next row of the page goes out.
    ///
    /// # Errors
    ///
    /// `Fatal` when too many rows have this cursor, or the window does not fit the cursor's type.
    pub fn pass(&mut self, cursor: &Cursor, row: Row, look_back: Option<&LookBack>) -> Result<(), Failure> {
        match &self.passing {
            Some(before) if before.ties(cursor) => {}
            Some(before) => self.complete(before.clone(), look_back)?,
            None => {}
        }
        self.passing = Some(cursor.clone());
        if let Row::New { fingerprint } = row {
            let cursor = (!matches!(cursor, Cursor::Text(_))).then(|| cursor.clone());
            self.seen.push(Seen(cursor, fingerprint));
            self.bound()?;
        }
        Ok(())
    }

    /// The page has been delivered, and there was no row behind it.
    ///
    /// # Errors
    ///
    /// As `pass`.
    pub fn end(&mut self, look_back: Option<&LookBack>) -> Result<(), Failure> {
        match self.passing.take() {
            Some(last) => self.complete(last, look_back),
            None => Ok(()),
        }
    }

    /// All rows up to `value` have been delivered. Never goes back: late rows of the window have smaller values.
    fn complete(&mut self, value: Cursor, look_back: Option<&LookBack>) -> Result<(), Failure> {
        if self.cursor.as_ref().is_some_and(|cursor| value <= *cursor) {
            return Ok(());
        }
        let after =
            look_back.map_or_else(|| Ok(value.clone()), |window| value.minus(window)).map_err(Failure::fatal)?;
        self.cursor = Some(value);
        if !self.after.as_ref().is_some_and(|before| after <= *before) {
            self.begin_after(after);
        }
        Ok(())
    }

    fn begin_after(&mut self, after: Cursor) {
        self.seen.retain(|Seen(cursor, _)| cursor.as_ref().is_some_and(|cursor| *cursor > after));
        self.after = Some(after);
    }

    fn bound(&mut self) -> Result<(), Failure> {
        if self.seen.len() <= SEEN_MAX {
            return Ok(());
        }
        let least = self
            .seen
            .iter()
            .filter_map(|Seen(cursor, _)| cursor.clone())
            .reduce(|one, other| if other < one { other } else { one });
        match (least, &self.cursor) {
            // A late row in such a full window is not found any more.
            (Some(least), Some(cursor)) if least <= *cursor => {
                self.begin_after(least);
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
            let row = Row::New { fingerprint: row as u64 * 1000 + *value as u64 };
            standing.pass(&number(*value), row, look_back).unwrap();
        }
    }

    fn stored(standing: &Standing) -> Standing {
        Standing::read(&standing.write()).unwrap()
    }

    #[test]
    fn at_the_end_of_the_rows_only_the_cursor_is_kept() {
        let mut standing = Standing::default();
        pass(&mut standing, &[1, 5, 9], None);
        standing.end(None).unwrap();
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
    fn equal_rows_are_counted() {
        let mut standing = Standing::default();
        for _ in 0..2 {
            standing.pass(&number(1), Row::New { fingerprint: 7 }, None).unwrap();
        }
        assert_eq!(standing.known()[&7], 2);
    }

    #[test]
    fn the_window_remembers_its_rows_and_moves_with_the_cursor() {
        let window = LookBack::parse("3").unwrap();
        let mut standing = Standing::default();
        pass(&mut standing, &[1, 2, 5, 6], Some(&window));
        standing.end(Some(&window)).unwrap();
        let mut standing = stored(&standing);
        assert_eq!((standing.cursor.clone(), standing.after.clone()), (Some(number(6)), Some(number(3))));
        assert_eq!(standing.known_rows(), 2);
        // A late row; it moves nothing back.
        standing.begin_page();
        pass(&mut standing, &[4], Some(&window));
        standing.end(Some(&window)).unwrap();
        assert_eq!((standing.cursor.clone(), standing.known_rows()), (Some(number(6)), 3));
    }

    #[test]
    fn a_window_with_too_many_rows_becomes_shorter() {
        let window = LookBack::parse("1000000").unwrap();
        let mut standing = Standing::default();
        let rows: Vec<i64> = (0..SEEN_MAX as i64 + 10).collect();
        pass(&mut standing, &rows, Some(&window));
        standing.end(Some(&window)).unwrap();
        assert_eq!(standing.known_rows(), SEEN_MAX);
        assert_eq!(standing.after, Some(number(9)));
    }

    #[test]
    fn too_many_equal_cursors_stop_the_source_rather_than_lose_rows() {
        let mut standing = Standing::default();
        let same = |standing: &mut Standing| standing.pass(&number(4), Row::New { fingerprint: 1 }, None);
        for _ in 0..SEEN_MAX {
            same(&mut standing).unwrap();
        }
        assert!(matches!(same(&mut standing), Err(Failure::Fatal(reason)) if reason.contains("`4`")));
    }

    #[test]
    fn text_is_taken_in_the_order_in_which_it_comes() {
        let text = |text: &str| Cursor::Text(text.into());
        let mut standing = Standing::default();
        for value in ["b", "Ä", "z", "Z"] {
            standing.pass(&text(value), Row::New { fingerprint: 1 }, None).unwrap();
        }
        assert_eq!((standing.after.clone(), standing.known_rows()), (Some(text("Ä")), 2));
        standing.end(None).unwrap();
        assert_eq!((stored(&standing).after, standing.known_rows()), (Some(text("Z")), 0));
    }
}
