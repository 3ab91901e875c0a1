//! Records that the broker has refused for good inside a transaction: what is sent again after the abort leaves them out.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::records::{Records, RefusedRow};

/// Limit: refused records remembered. They are found one abort at a time, so more than this at once would take hours; beyond it
/// the memory begins anew, which costs an abort for each that comes again.
const REMEMBERED: usize = 10_000;

/// A record by its content: what comes again after an abort may be cut into other batches, but a refused record stays the same.
type Fingerprint = [u64; 2];

/// Refused records and why.
#[derive(Debug, Default)]
pub struct LeftOut {
    refused: Mutex<HashMap<Fingerprint, String>>,
    count: AtomicU64,
}

impl LeftOut {
    /// Notes a record of a delivery. `index` counts the delivery's records.
    pub(super) fn add(&self, records: &Records, index: usize, reason: &str) {
        let mut refused = self.lock();
        if refused.len() >= REMEMBERED {
            refused.clear();
        }
        if refused.insert(fingerprint(records, index), reason.to_owned()).is_none() {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// How many have been noted so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes out what was refused before, and answers it.
    pub(super) fn take_out(&self, records: &mut Records) -> Vec<RefusedRow> {
        let refused = self.lock();
        if refused.is_empty() {
            return Vec::new();
        }
        let reasons: Vec<_> = (0..records.rows.len()).map(|index| refused.get(&fingerprint(records, index))).collect();
        let rows = records.rows.iter().zip(&reasons);
        let answer = rows.filter_map(|(row, reason)| Some((*row, reason.cloned()?))).collect::<Vec<_>>();
        if !answer.is_empty() {
            let keep: Vec<bool> = reasons.iter().map(Option::is_none).collect();
            records.keep_only(&keep);
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 128 bits of everything that makes the record what it is; the timestamp is not among them, since it may be the time of sending.
fn fingerprint(records: &Records, index: usize) -> Fingerprint {
    [1_u8, 2].map(|seed| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        records.hash_record(index, &mut hasher);
        hasher.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::super::records::{Choice, SendOptions};
    use super::*;
    use crate::event::{Batch, Event};

    fn records(bodies: &[&str]) -> Records {
        let events: Vec<_> = bodies.iter().map(|body| Event { headers: Vec::new(), body: (*body).into() }).collect();
        let options = SendOptions {
            topic: Choice::Fixed("t".into()),
            key_header: Some("key".into()),
            partition_header: None,
            timestamp_header: None,
            null_header: None,
            forward_headers: None,
        };
        Records::new(&Batch::from_events(&events), &options, 1000).0
    }

    #[test]
    fn a_refused_record_is_left_out_wherever_it_comes_again() {
        let left_out = LeftOut::default();
        left_out.add(&records(&["a", "b", "c"]), 1, "too large");
        let mut again = records(&["x", "c", "b"]);
        assert_eq!(left_out.take_out(&mut again), [(2, "too large".to_owned())]);
        assert_eq!(again.rows, [0, 1]);
        assert_eq!(left_out.take_out(&mut records(&["a", "c"])), []);
    }
}
