//! Byte strings laid end to end: the form in which bodies and header values travel.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// Byte strings laid end to end: item `i` is `data[ends[i - 1] .. ends[i]]`, where `ends[-1]` is 0.
///
/// Invariant: `ends` never decreases and its last entry is the length of `data`. Both halves are shared, so a clone copies
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    data: Bytes,
    ends: Arc<[u32]>,
}

/// Why two lists are not a [`Packed`]. The fault of whoever made them: a plugin, or a damaged file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    #[error("`ends` decreases at item {item}: {end} after {previous}")]
    Decreasing { item: usize, previous: u32, end: u32 },
    #[error("the last of `ends` is {last}, but `data` holds {bytes} bytes")]
    Length { last: u32, bytes: usize },
    /// Limit: ends are 32 bits wide, as in the plugin contract.
    #[error("{bytes} bytes in one column; at most {} fit", u32::MAX)]
    TooLarge { bytes: usize },
}

impl Packed {
    /// # Errors
    /// When `ends` decreases or does not end at the length of `data`.
    pub fn new(data: impl Into<Bytes>, ends: impl Into<Arc<[u32]>>) -> Result<Self, PackedError> {
        let (data, ends) = (data.into(), ends.into());
        if data.len() > u32::MAX as usize {
            return Err(PackedError::TooLarge { bytes: data.len() });
        }
        // Compared without stopping at the first, which is several times as fast; almost all are well.
        if ends.windows(2).fold(false, |decreases, pair| decreases | (pair[1] < pair[0])) {
            let item = (1..ends.len()).find(|&item| ends[item] < ends[item - 1]).expect("one has just been seen");
            return Err(PackedError::Decreasing { item, previous: ends[item - 1], end: ends[item] });
        }
        let previous = ends.last().copied().unwrap_or(0);
        if previous as usize != data.len() {
            return Err(PackedError::Length { last: previous, bytes: data.len() });
        }
        Ok(Self { data, ends })
    }

    pub fn empty() -> Self {
        Self { data: Bytes::new(), ends: Arc::from([]) }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All items, end to end.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Item `index`.
    ///
    /// # Panics
    /// When there is no such item.
    pub fn get(&self, index: usize) -> &[u8] {
        &self.data[self.span(index)]
    }

    /// Item `index` as a share of the data.
    pub fn get_bytes(&self, index: usize) -> Bytes {
        self.data.slice(self.span(index))
    }

    /// The length of the longest item; 0 without items.
    pub fn largest(&self) -> usize {
        let starts = std::iter::once(&0).chain(self.ends.iter());
        starts.zip(self.ends.iter()).map(|(start, end)| end - start).max().unwrap_or(0) as usize
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// A run of items: shares the data, copies the ends.
    pub fn slice(&self, items: Range<usize>) -> Self {
        if items == (0..self.len()) {
            return self.clone();
        }
        let start = self.start(items.start);
        let ends: Arc<[u32]> = self.ends[items.clone()].iter().map(|end| end - start).collect();
        let stop = start + ends.last().copied().unwrap_or(0);
        Self { data: self.data.slice(start as usize..stop as usize), ends }
    }

    /// These items in this order; copies them, unless they are a run.
    pub fn select(&self, items: &[u32]) -> Self {
        if let Some(run) = as_run(items) {
            return self.slice(run);
        }
        let bytes = items.iter().map(|&item| self.span(item as usize).len()).sum();
        let mut builder = PackedBuilder::with_capacity(items.len(), bytes);
        for &item in items {
            builder.push(self.get(item as usize));
        }
        builder.finish()
    }

    fn start(&self, index: usize) -> u32 {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }

    fn span(&self, index: usize) -> Range<usize> {
        self.start(index) as usize..self.ends[index] as usize
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Packed {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut builder = PackedBuilder::default();
        for item in items {
            builder.push(item.as_ref());
        }
        builder.finish()
    }
}

/// The range that `rows` counts up through, if it does.
pub(super) fn as_run(rows: &[u32]) -> Option<Range<usize>> {
    let (first, last) = (*rows.first()?, *rows.last()?);
    let is_run = rows.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
    is_run.then(|| first as usize..last as usize + 1)
}

/// Makes a [`Packed`] item by item.
#[derive(Debug, Default)]
pub struct PackedBuilder {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl PackedBuilder {
    pub fn with_capacity(items: usize, bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(items) }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// # Panics
    /// When the data would pass 4 GiB: batches are bounded far below by `batch_bytes`.
    pub fn push(&mut self, item: &[u8]) {
        self.data.extend_from_slice(item);
        self.end_item();
    }

    /// Adds one item that `write` appends to the data.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.end_item();
    }

    /// Adds all items of `other`.
    pub fn append(&mut self, other: &Packed) {
        let base = self.data.len();
        self.data.extend_from_slice(&other.data);
        assert!(self.data.len() <= u32::MAX as usize, "a column holds at most 4 GiB");
        self.ends.extend(other.ends.iter().map(|end| end + base as u32));
    }

    pub fn finish(self) -> Packed {
        Packed { data: self.data.into(), ends: self.ends.into() }
    }

    fn end_item(&mut self) {
        let end = u32::try_from(self.data.len()).expect("a column holds at most 4 GiB");
        self.ends.push(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_decrease_or_do_not_fit_are_refused() {
        assert_eq!(Packed::new(&b"abc"[..], [2, 1, 3]), Err(PackedError::Decreasing { item: 1, previous: 2, end: 1 }));
        assert_eq!(Packed::new(&b"abc"[..], [2]), Err(PackedError::Length { last: 2, bytes: 3 }));
        assert_eq!(Packed::new(&b"abc"[..], []), Err(PackedError::Length { last: 0, bytes: 3 }));
        assert!(Packed::new(&b""[..], [0, 0]).is_ok());
    }

    #[test]
    fn a_slice_has_the_same_items() {
        let packed: Packed = ["a", "", "bcd", "e"].into_iter().collect();
        let slice = packed.slice(1..3);
        assert_eq!(slice.iter().collect::<Vec<_>>(), [&b""[..], b"bcd"]);
        assert_eq!(packed.slice(2..2).len(), 0);
        assert_eq!(packed.slice(4..4).len(), 0);
    }

    #[test]
    fn a_selection_follows_the_order_asked_for() {
        let packed: Packed = ["a", "bb", "ccc"].into_iter().collect();
        assert_eq!(packed.select(&[2, 0, 0]).iter().collect::<Vec<_>>(), [&b"ccc"[..], b"a", b"a"]);
        assert_eq!(packed.select(&[1, 2]).iter().collect::<Vec<_>>(), [&b"bb"[..], b"ccc"]);
        assert_eq!(packed.select(&[]).len(), 0);
    }
}
