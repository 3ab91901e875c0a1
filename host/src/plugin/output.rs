//! What a guest hands over, checked once; from here on it is trusted by type.

use std::collections::HashSet;

use super::Rejected;
use crate::event::{Batch, MADE_HERE};

/// Takes out the events that are larger than `max_event_bytes`: they are refused for good.
pub fn without_oversized(batch: Batch, max_event_bytes: usize, rejected: &mut Vec<Rejected>) -> Batch {
    // No event is larger than all of them with every header, so most batches are not looked into.
    if batch.byte_size() <= max_event_bytes {
        return batch;
    }
    let sizes: Vec<usize> = (0..batch.count()).map(|row| event_bytes(&batch, row)).collect();
    let kept: Vec<u32> =
        (0..batch.count()).filter(|&row| sizes[row] <= max_event_bytes).map(|row| row as u32).collect();
    if kept.len() == batch.count() {
        return batch;
    }
    for (row, size) in sizes.into_iter().enumerate().filter(|&(_, size)| size > max_event_bytes) {
        let reason = format!("the event has {size} bytes, more than the {max_event_bytes} of max_event_bytes");
        rejected.push(Rejected { event: batch.slice(row..row + 1), reason });
    }
    batch.select(&kept).expect("the rows kept are rows of the batch")
}

fn event_bytes(batch: &Batch, row: usize) -> usize {
    let headers = batch.columns().filter_map(|(name, column)| Some(name.len() + column.get(row)?.len()));
    let records = batch.records().into_iter().flat_map(|records| records.untouched(row));
    let records = records.map(|header| header.name.len() + header.value.as_ref().map_or(0, |value| value.len()));
    let times = if batch.times().is_some() { 8 } else { 0 };
    batch.bodies().get(row).len() + headers.sum::<usize>() + records.sum::<usize>() + times
}

/// How many events of `before` are neither in `after` nor refused.
///
/// Where an interceptor made new events, nobody knows what they stand for: as many are taken to be filtered as there are fewer.
pub fn filtered(before: &Batch, after: &Batch, rejected: &[Rejected]) -> u64 {
    if rejected.is_empty() && counts_up(before) && counts_up(after) {
        // Each is there once at most, as with any filter: no need to look for them.
        return (before.count() - after.count()) as u64;
    }
    let origins = |batch: &Batch| (0..batch.count()).map(|row| batch.origin(row)).collect::<Vec<_>>();
    let (given, left) = (origins(before), origins(after));
    if left.contains(&MADE_HERE) || given.contains(&MADE_HERE) {
        return before.count().saturating_sub(after.count() + rejected.len()) as u64;
    }
    let seen: HashSet<u32> = left.into_iter().chain(rejected.iter().map(|refused| refused.event.origin(0))).collect();
    given.iter().filter(|origin| !seen.contains(origin)).count() as u64
}

/// Whether each event stands for a later one than the event before it, and none was made here.
fn counts_up(batch: &Batch) -> bool {
    let origins = (0..batch.count()).map(|row| batch.origin(row));
    // No origin is greater than `MADE_HERE`: so only the last can be it.
    batch.is_empty() || batch.origin(batch.count() - 1) != MADE_HERE && origins.is_sorted_by(|one, next| one < next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Column;

    fn batch(bodies: &[&str]) -> Batch {
        Batch::new(bodies.iter().collect())
    }

    #[test]
    fn an_event_larger_than_the_limit_is_refused_and_the_others_stay() {
        let mut rejected = Vec::new();
        let kept = without_oversized(batch(&["a", "bbbbbb", "c"]), 5, &mut rejected);
        assert_eq!(kept.bodies().iter().collect::<Vec<_>>(), [b"a", b"c"]);
        assert_eq!(rejected.len(), 1);
        assert_eq!(rejected[0].reason, "the event has 6 bytes, more than the 5 of max_event_bytes");
        assert_eq!(rejected[0].event.origin(0), 1);
    }

    #[test]
    fn headers_count_as_part_of_an_event() {
        let mut large = batch(&["a", "b"]);
        large.set_header("k", Column::Constant("123".into())).unwrap();
        let mut rejected = Vec::new();
        assert!(without_oversized(large, 4, &mut rejected).is_empty());
        assert_eq!(rejected.len(), 2);
    }

    #[test]
    fn filtered_are_the_events_of_which_nothing_is_left() {
        let before = batch(&["a", "b", "c", "d"]);
        let refused = [Rejected { event: before.slice(3..4), reason: String::new() }];
        let after = before.select(&[0, 0, 0, 0]).unwrap();
        assert_eq!(filtered(&before, &after, &refused), 2);
        let made = batch(&["x"]).with_origin_of(&before);
        assert_eq!(filtered(&before, &made, &refused), 2);
        assert_eq!(filtered(&before, &batch(&["x"; 9]).with_origin_of(&before), &[]), 0);
    }
}
