//! Columns: byte strings laid end to end, and the headers made of them.

use crate::append::append;

pub use crate::bindings::imports::wasmflow::plugin::events::{Column, Packed, SparseValues};

impl Packed {
    /// How many items there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Item `index`; panics when there is none, as a slice does.
    pub fn get(&self, index: usize) -> &[u8] {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        };
        &self.data[start..self.ends[index] as usize]
    }

    /// All items in order.
    pub fn iter(&self) -> Items<'_> {
        self.iter_from(0)
    }

    /// The items from `index` on.
    pub(crate) fn iter_from(&self, index: usize) -> Items<'_> {
        let start = index.checked_sub(1).map_or(0, |last| self.ends[last] as usize);
        Items { data: &self.data, ends: self.ends[index..].iter(), start }
    }

    /// Whether this is `count` items laid end to end without a gap; what the host asks of a column.
    ///
    /// # Errors
    ///
    /// Says which of the rules is broken.
    pub fn fits(&self, count: usize) -> Result<(), String> {
        if self.ends.len() != count {
            return Err(format!("{} values for {count} events", self.ends.len()));
        }
        if self.ends.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err("`ends` decreases".into());
        }
        let last = self.ends.last().copied().unwrap_or(0) as usize;
        if last != self.data.len() {
            return Err(format!("`ends` stops at {last}, but there are {} bytes", self.data.len()));
        }
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Packed {
    type Item = &'a [u8];
    type IntoIter = Items<'a>;

    fn into_iter(self) -> Items<'a> {
        self.iter()
    }
}

impl<B: AsRef<[u8]>> FromIterator<B> for Packed {
    fn from_iter<I: IntoIterator<Item = B>>(items: I) -> Packed {
        let mut packed = PackedBuilder::new();
        for item in items {
            packed.push(item.as_ref());
        }
        packed.finish()
    }
}

/// The items of a [`Packed`], in order.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    data: &'a [u8],
    ends: std::slice::Iter<'a, u32>,
    start: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = *self.ends.next()? as usize;
        let item = &self.data[self.start..end];
        self.start = end;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for Items<'_> {}

/// Writes a [`Packed`] column front to back, in two allocations however many items there are.
#[derive(Debug, Default)]
pub struct PackedBuilder {
    pub(crate) data: Vec<u8>,
    pub(crate) ends: Vec<u32>,
}

impl PackedBuilder {
    /// An empty column that grows as it is written.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty column with room for so many items and bytes; both are only a guess to save moves.
    pub fn with_capacity(items: usize, bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(items) }
    }

    /// Adds one item.
    #[inline]
    pub fn push(&mut self, item: &[u8]) {
        append(&mut self.data, item);
        self.end_item();
    }

    /// Adds one item, which is whatever `write` appends. What stands in the buffer before belongs to other items.
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.end_item();
    }

    /// Adds the first `count` items of another column, in one copy.
    pub fn push_first(&mut self, count: usize, items: &Packed) {
        let bytes = count.checked_sub(1).map_or(0, |last| items.ends[last]);
        let base = self.data.len() as u32;
        self.data.extend_from_slice(&items.data[..bytes as usize]);
        self.ends.extend(items.ends[..count].iter().map(|end| base + end));
    }

    /// How many items there are so far.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes there are so far.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The column.
    pub fn finish(self) -> Packed {
        Packed { data: self.data, ends: self.ends }
    }

    #[inline]
    fn end_item(&mut self) {
        // Limit: lossless, as the memory of a guest ends at 4 GiB; a native test that goes beyond stops here.
        self.ends.push(u32::try_from(self.data.len()).expect("a column holds under 4 GiB"));
    }
}

impl Column {
    /// The same value for every event.
    pub fn constant(value: impl AsRef<[u8]>) -> Column {
        Column::Constant(value.as_ref().to_vec())
    }

    /// The value of event `row`, if it carries the header.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Column::Constant(value) => Some(value),
            Column::Dense(values) => Some(values.get(row)),
            Column::Sparse(sparse) => {
                let row = u32::try_from(row).ok()?;
                sparse.rows.binary_search(&row).ok().map(|index| sparse.values.get(index))
            }
        }
    }

    /// The value of each of `count` events in turn; cheaper than asking for every row.
    pub fn iter(&self, count: usize) -> impl Iterator<Item = Option<&[u8]>> {
        let mut sparse_index = 0;
        (0..count).map(move |row| match self {
            Column::Sparse(sparse) => {
                let found = sparse.rows.get(sparse_index).is_some_and(|&next| next as usize == row);
                found.then(|| {
                    sparse_index += 1;
                    sparse.values.get(sparse_index - 1)
                })
            }
            other => other.get(row),
        })
    }

    /// A column of the values that are there: dense when all of them are, else sparse.
    pub fn from_options<B: AsRef<[u8]>>(values: impl IntoIterator<Item = Option<B>>) -> Column {
        let mut rows = Vec::new();
        let mut packed = PackedBuilder::new();
        let mut count = 0;
        for (row, value) in (0u32..).zip(values) {
            count += 1;
            if let Some(value) = value {
                rows.push(row);
                packed.push(value.as_ref());
            }
        }
        let values = packed.finish();
        match rows.len() == count {
            true => Column::Dense(values),
            false => Column::Sparse(SparseValues { rows, values }),
        }
    }
}

impl From<Packed> for Column {
    fn from(values: Packed) -> Column {
        Column::Dense(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_were_pushed() {
        let packed: Packed = ["a", "", "bcd"].into_iter().collect();
        assert_eq!(packed.ends, [1, 1, 4]);
        assert_eq!(packed.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bcd"]);
        assert_eq!(packed.get(2), b"bcd");
        assert_eq!(packed.fits(3), Ok(()));
    }

    #[test]
    fn the_first_items_of_a_column_are_added_behind_others() {
        let packed: Packed = ["a", "", "bcd"].into_iter().collect();
        let mut builder = PackedBuilder::new();
        builder.push(b"x");
        builder.push_first(0, &packed);
        builder.push_first(2, &packed);
        assert_eq!(builder.finish().iter().collect::<Vec<_>>(), [&b"x"[..], b"a", b""]);
    }

    #[test]
    fn a_column_that_does_not_fit_says_why() {
        let packed = |ends: &[u32]| Packed { data: b"abcd".to_vec(), ends: ends.to_vec() };
        assert_eq!(packed(&[4]).fits(2).unwrap_err(), "1 values for 2 events");
        assert_eq!(packed(&[3, 2]).fits(2).unwrap_err(), "`ends` decreases");
        assert_eq!(packed(&[1, 3]).fits(2).unwrap_err(), "`ends` stops at 3, but there are 4 bytes");
    }

    #[test]
    fn a_sparse_column_answers_for_its_rows_only() {
        let column = Column::from_options([None, Some("x"), None, Some("y")]);
        assert!(matches!(column, Column::Sparse(_)));
        let all: Vec<_> = column.iter(4).collect();
        assert_eq!(all, [None, Some(&b"x"[..]), None, Some(b"y")]);
        assert_eq!((0..4).map(|row| column.get(row)).collect::<Vec<_>>(), all);
        assert!(matches!(Column::from_options([Some("x")]), Column::Dense(_)));
    }
}
