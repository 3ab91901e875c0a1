//! One header down a whole batch, in the form that costs least.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::packed::{Packed, PackedBuilder, as_run};

/// One header, down a whole batch. Which form it has is nobody's business but speed's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// Every event carries this value: one value, whatever the size of the batch.
    Constant(Bytes),
    /// One value an event, in order.
    Dense(Packed),
    /// Only these events carry the header. Invariant: `rows` is strictly increasing and as long as `values`.
    Sparse { rows: Arc<[u32]>, values: Packed },
    /// One integer an event, shown in decimal: what comes from Kafka keeps this form until somebody asks for it.
    Numbers(Arc<[i64]>),
}

/// Why a column does not fit a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    #[error("the column has {values} values, the batch {count} events")]
    Count { values: usize, count: usize },
    #[error("{rows} rows but {values} values")]
    Uneven { rows: usize, values: usize },
    #[error("row {row} does not come after row {previous}")]
    Order { row: u32, previous: u32 },
    #[error("row {row} is outside the batch of {count} events")]
    Outside { row: u32, count: usize },
}

impl Column {
    /// Checks that this column fits a batch of `count` events.
    ///
    /// # Errors
    /// When it does not; the message is for the plugin's author.
    pub fn check(&self, count: usize) -> Result<(), ColumnError> {
        match self {
            Self::Constant(_) => Ok(()),
            Self::Dense(values) => same_count(values.len(), count),
            Self::Numbers(values) => same_count(values.len(), count),
            Self::Sparse { rows, values } => check_sparse(rows, values, count),
        }
    }

    /// The value of one event, or nothing where it does not carry the header.
    pub fn get(&self, row: usize) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Constant(value) => Some(Cow::Borrowed(value)),
            Self::Dense(values) => Some(Cow::Borrowed(values.get(row))),
            Self::Sparse { rows, values } => {
                rows.binary_search(&(row as u32)).ok().map(|index| Cow::Borrowed(values.get(index)))
            }
            Self::Numbers(values) => Some(Cow::Owned(values[row].to_string().into_bytes())),
        }
    }

    /// The value of one event as an integer: without text where the column holds numbers.
    pub fn get_integer(&self, row: usize) -> Option<i64> {
        match self {
            Self::Numbers(values) => Some(values[row]),
            _ => std::str::from_utf8(&self.get(row)?).ok()?.trim().parse().ok(),
        }
    }

    /// Bytes of the values that `count` events carry.
    pub fn values_bytes(&self, count: usize) -> usize {
        match self {
            Self::Constant(value) => value.len() * count,
            Self::Dense(values) | Self::Sparse { values, .. } => values.data().len(),
            Self::Numbers(_) => self.written_out().values_bytes(count),
        }
    }

    /// Bytes held, for the channel's byte capacity.
    pub fn byte_size(&self) -> usize {
        match self {
            Self::Constant(value) => value.len(),
            Self::Dense(values) => values.data().len() + 4 * values.len(),
            Self::Sparse { rows, values } => values.data().len() + 8 * rows.len(),
            Self::Numbers(values) => 8 * values.len(),
        }
    }

    /// With numbers written out: the three forms that the plugin contract knows.
    pub fn written_out(&self) -> Cow<'_, Column> {
        let Self::Numbers(values) = self else { return Cow::Borrowed(self) };
        if let Some(&first) = values.first()
            && values.iter().all(|&value| value == first)
        {
            return Cow::Owned(Self::Constant(first.to_string().into()));
        }
        let mut builder = PackedBuilder::with_capacity(values.len(), 13 * values.len());
        for value in values.iter() {
            builder.push_with(|data| {
                use std::io::Write;
                write!(data, "{value}").expect("writing to memory cannot fail");
            });
        }
        Cow::Owned(Self::Dense(builder.finish()))
    }

    /// A run of rows; nothing when none of them carries the header.
    pub(super) fn slice(&self, range: Range<usize>) -> Option<Self> {
        match self {
            Self::Constant(_) => Some(self.clone()),
            Self::Dense(values) => Some(Self::Dense(values.slice(range))),
            Self::Numbers(values) => Some(Self::Numbers(values[range].into())),
            Self::Sparse { rows, values } => {
                let first = rows.partition_point(|&row| (row as usize) < range.start);
                let last = rows.partition_point(|&row| (row as usize) < range.end);
                (first < last).then(|| Self::Sparse {
                    rows: rows[first..last].iter().map(|row| row - range.start as u32).collect(),
                    values: values.slice(first..last),
                })
            }
        }
    }

    /// These rows in this order; nothing when none of them carries the header.
    pub(super) fn select(&self, selected: &[u32]) -> Option<Self> {
        if let Some(run) = as_run(selected) {
            return self.slice(run);
        }
        match self {
            Self::Constant(_) => Some(self.clone()),
            Self::Dense(values) => Some(Self::Dense(values.select(selected))),
            Self::Numbers(values) => Some(Self::Numbers(selected.iter().map(|&row| values[row as usize]).collect())),
            Self::Sparse { rows, values } => {
                let (new_rows, items): (Vec<u32>, Vec<u32>) = selected
                    .iter()
                    .enumerate()
                    .filter_map(|(new, row)| rows.binary_search(row).ok().map(|item| (new as u32, item as u32)))
                    .unzip();
                let values = values.select(&items);
                (!new_rows.is_empty()).then(|| Self::Sparse { rows: new_rows.into(), values })
            }
        }
    }

    /// One header of several batches laid end to end: `parts` has each batch's column, if any, and its count.
    pub(super) fn concat(parts: &[(Option<&Column>, usize)]) -> Self {
        if let Some(constant) = common_constant(parts) {
            return Self::Constant(constant);
        }
        if let Some(numbers) = common_numbers(parts) {
            return Self::Numbers(numbers);
        }
        let everywhere = parts.iter().all(|(part, _)| !matches!(part, None | Some(Self::Sparse { .. })));
        let mut values = PackedBuilder::default();
        let mut rows = Vec::new();
        let mut base = 0;
        for &(part, count) in parts {
            if let Some(column) = part {
                append(column, count, base, &mut values, &mut rows);
            }
            base += count as u32;
        }
        let values = values.finish();
        if everywhere { Self::Dense(values) } else { Self::Sparse { rows: rows.into(), values } }
    }
}

fn append(column: &Column, count: usize, base: u32, values: &mut PackedBuilder, rows: &mut Vec<u32>) {
    match column.written_out().as_ref() {
        Column::Constant(value) => (0..count).for_each(|_| values.push(value)),
        Column::Dense(dense) => values.append(dense),
        Column::Sparse { rows: sparse, values: some } => {
            values.append(some);
            rows.extend(sparse.iter().map(|row| row + base));
            return;
        }
        Column::Numbers(_) => unreachable!("numbers have been written out"),
    }
    rows.extend(base..base + count as u32);
}

fn common_constant(parts: &[(Option<&Column>, usize)]) -> Option<Bytes> {
    let mut constants = parts.iter().map(|(part, _)| match part {
        Some(Column::Constant(value)) => Some(value),
        _ => None,
    });
    let first = constants.next()??;
    constants.all(|value| value == Some(first)).then(|| first.clone())
}

fn common_numbers(parts: &[(Option<&Column>, usize)]) -> Option<Arc<[i64]>> {
    let mut numbers = Vec::new();
    for (part, _) in parts {
        let Some(Column::Numbers(values)) = part else { return None };
        numbers.extend_from_slice(values);
    }
    Some(numbers.into())
}

fn same_count(values: usize, count: usize) -> Result<(), ColumnError> {
    if values == count { Ok(()) } else { Err(ColumnError::Count { values, count }) }
}

fn check_sparse(rows: &[u32], values: &Packed, count: usize) -> Result<(), ColumnError> {
    if rows.len() != values.len() {
        return Err(ColumnError::Uneven { rows: rows.len(), values: values.len() });
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[1] <= pair[0]) {
        return Err(ColumnError::Order { row: pair[1], previous: pair[0] });
    }
    match rows.last() {
        Some(&row) if row as usize >= count => Err(ColumnError::Outside { row, count }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(rows: &[u32], values: &[&str]) -> Column {
        Column::Sparse { rows: rows.into(), values: values.iter().collect() }
    }

    #[test]
    fn a_sparse_column_must_count_up_inside_the_batch() {
        assert!(sparse(&[0, 2], &["a", "b"]).check(3).is_ok());
        assert_eq!(sparse(&[0, 3], &["a", "b"]).check(3), Err(ColumnError::Outside { row: 3, count: 3 }));
        assert_eq!(sparse(&[2, 2], &["a", "b"]).check(3), Err(ColumnError::Order { row: 2, previous: 2 }));
        assert_eq!(sparse(&[2], &["a", "b"]).check(3), Err(ColumnError::Uneven { rows: 1, values: 2 }));
    }

    #[test]
    fn a_selection_of_a_sparse_column_keeps_values_with_their_rows() {
        let column = sparse(&[1, 3], &["b", "d"]);
        assert_eq!(column.select(&[3, 0, 3, 1]), Some(sparse(&[0, 2, 3], &["d", "d", "b"])));
        assert_eq!(column.select(&[2, 0]), None);
        assert_eq!(column.slice(1..3), Some(sparse(&[0], &["b"])));
    }

    #[test]
    fn laid_end_to_end_each_row_keeps_its_value() {
        let constant = Column::Constant("x".into());
        let numbers = Column::Numbers([7, -8].into());
        let joined = Column::concat(&[(Some(&constant), 2), (None, 1), (Some(&numbers), 2)]);
        assert_eq!(joined, sparse(&[0, 1, 3, 4], &["x", "x", "7", "-8"]));
        assert_eq!(Column::concat(&[(Some(&constant), 2), (Some(&constant), 3)]), constant);
    }

    #[test]
    fn numbers_read_as_decimal() {
        let numbers = Column::Numbers([12, -3].into());
        assert_eq!(numbers.get(1).as_deref(), Some(&b"-3"[..]));
        assert_eq!(numbers.get_integer(0), Some(12));
        assert_eq!(Column::Constant("42".into()).get_integer(5), Some(42));
    }
}
