//! The partitions a consumer reads: what was handed out, what is settled, what is committed, and where the end is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::{Client, Code, Messages, PartitionQueue, TopicOffset, offset};
use super::fetch::Columns;
use crate::event::Batch;
use crate::position::{Part, Position};

/// The key of a partition's part in a position: `topic/partition`. A topic's name holds no `/`.
pub(super) fn part_key(topic: &str, partition: i32) -> Bytes {
    format!("{topic}/{partition}").into()
}

/// The value of a partition's part: the next offset to read, in decimal.
pub(super) fn part_value(offset: i64) -> Bytes {
    offset.to_string().into()
}

pub(super) fn part_offset(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A partition being read.
///
/// Invariant: `committed <= settled <= next`, as far as they are known.
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    key: Bytes,
    queue: PartitionQueue,
    /// Read from librdkafka and not handed out.
    waiting: Messages,
    /// What librdkafka was told to start at: an offset, the beginning or the end.
    assigned: i64,
    /// Where that is; nothing while only the broker knows.
    start: Option<i64>,
    /// Behind the last record handed out.
    next: Option<i64>,
    /// Behind the last record settled.
    settled: Option<i64>,
    /// Behind the last record that the group has been told of, and what was asked of it last.
    committed: Option<i64>,
    /// The oldest record that the broker had, and behind the newest, when it was assigned; nothing while the leader has not said.
    low: Option<i64>,
    end: Option<i64>,
    at_end: bool,
    /// Nothing more is handed out: it is being revoked or rewound.
    held: bool,
}

/// A partition as the group or the pipeline file gives it, and what was found out about it.
pub(super) struct NewPartition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    pub(super) queue: PartitionQueue,
    pub(super) assigned: i64,
    pub(super) start: Option<i64>,
    pub(super) committed: Option<i64>,
    pub(super) low: Option<i64>,
    pub(super) end: Option<i64>,
}

/// What one read of the queues brought.
pub(super) struct Gathered {
    pub(super) batch: Batch,
    pub(super) position: Vec<Part>,
}

/// Something in a partition's queue that is no record.
pub(super) struct PartitionError {
    pub(super) code: Code,
    pub(super) text: String,
    /// The partition, held, and where it goes on once it has been moved there.
    pub(super) resume: TopicOffset,
    /// What the broker had of the partition when it was assigned, as far as it was said.
    pub(super) low: Option<i64>,
    pub(super) end: Option<i64>,
}

/// A new member is given nothing before the others have given back: only after this has it really nothing to read.
const FIRST_PARTITIONS: Duration = Duration::from_secs(15);

/// All partitions of a consumer.
#[derive(Default)]
pub(super) struct Assignment {
    partitions: Vec<Partition>,
    /// Whose turn it is: each fetch begins with another partition, so none waits for a busy one.
    turn: usize,
    /// Since when the group, or the pipeline file, has given partitions; it may have given none.
    given: Option<Instant>,
    said_end: bool,
}

impl Assignment {
    pub(super) fn add(&mut self, new: NewPartition) {
        let at_end = match (new.start, new.end) {
            // A start behind the end is no end: the topic was made anew, and the broker will say that there is no such record.
            (Some(start), Some(end)) => start == end,
            _ => false,
        };
        self.partitions.push(Partition {
            key: part_key(&new.topic, new.number),
            topic: new.topic,
            number: new.number,
            queue: new.queue,
            waiting: Messages::default(),
            assigned: new.assigned,
            start: new.start,
            next: new.start,
            settled: None,
            committed: new.committed,
            low: new.low,
            end: new.end,
            at_end,
            held: false,
        });
    }

    /// The group, or the pipeline file, has said which partitions are ours.
    pub(super) fn set_given(&mut self) {
        self.given.get_or_insert_with(Instant::now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Takes partitions out, with what was read of them and not handed out.
    pub(super) fn remove(&mut self, revoked: &[TopicOffset]) {
        self.partitions.retain(|partition| !partition.is_among(revoked));
    }

    pub(super) fn clear(&mut self) {
        self.partitions.clear();
    }

    /// Whether this partition is still read.
    pub(super) fn holds(&self, one: &TopicOffset) -> bool {
        self.partitions.iter().any(|partition| partition.is_among(std::slice::from_ref(one)))
    }

    /// Hands out nothing more of these partitions.
    pub(super) fn hold(&mut self, revoked: &[TopicOffset]) {
        for partition in self.partitions.iter_mut().filter(|partition| partition.is_among(revoked)) {
            partition.held = true;
            partition.waiting.clear();
        }
    }

    /// Whether everything handed out of these partitions is settled.
    pub(super) fn is_settled(&self, revoked: &[TopicOffset]) -> bool {
        let mut revoked = self.partitions.iter().filter(|partition| partition.is_among(revoked));
        revoked.all(|partition| partition.next == partition.start || partition.settled >= partition.next)
    }

    /// Reads up to `max_records` and about `max_bytes`, in turn over the partitions. A record larger than `max_bytes` comes
    /// alone.
    pub(super) fn gather(&mut self, max_records: usize, max_bytes: usize) -> Result<Option<Gathered>, PartitionError> {
        let count = self.partitions.len();
        let mut columns = Columns::default();
        let mut position = Vec::new();
        for step in 0..count {
            let partition = &mut self.partitions[(self.turn + step) % count];
            if partition.held {
                continue;
            }
            let before = columns.len();
            let error = partition.gather(&mut columns, max_records, max_bytes).err();
            if columns.len() > before {
                let next = partition.next.expect("a record was handed out");
                position.push(Part { key: partition.key.clone(), value: Some(part_value(next)) });
            }
            match error {
                // What came before it is handed out first; the error is still at the head of the queue.
                Some(error) if columns.len() == 0 => {
                    partition.held = true;
                    partition.waiting.clear();
                    return Err(error);
                }
                Some(_) => break,
                None if columns.len() >= max_records || columns.bytes() >= max_bytes => break,
                None => {}
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        Ok((columns.len() > 0).then(|| Gathered { batch: columns.finish(), position }))
    }

    /// True once, when every partition has been read to the end it had when it was assigned. Ask when nothing was gathered:
    /// then what was read is what was handed out.
    pub(super) fn reaches_end(&mut self, client: &Client) -> bool {
        let Some(given) = self.given else { return false };
        if self.said_end || (self.is_empty() && given.elapsed() < FIRST_PARTITIONS) {
            return false;
        }
        self.look_for_ends(client);
        self.said_end = self.partitions.iter().all(|partition| partition.at_end);
        self.said_end
    }

    /// The end is where the consumer stands, not behind the last record seen: transactions end in records that nobody is
    /// shown.
    fn look_for_ends(&mut self, client: &Client) {
        let is_open = |partition: &Partition| !partition.at_end && !partition.held && partition.end.is_some();
        if !self.partitions.iter().any(is_open) {
            return;
        }
        let open: Vec<_> =
            self.partitions.iter().filter(|partition| is_open(partition)).map(|partition| partition.at(0)).collect();
        for position in client.positions(&open) {
            let one = std::slice::from_ref(&position);
            if let Some(partition) = self.partitions.iter_mut().find(|partition| partition.is_among(one)) {
                partition.at_end = partition.end.is_some_and(|end| position.offset >= end);
            }
        }
    }

    /// Records between what was handed out and the ends that the brokers have told with the records so far.
    pub(super) fn lag(&self, client: &Client) -> Vec<(Arc<str>, u64)> {
        let lag = |partition: &Partition| {
            let behind = client.known_end(&partition.topic, partition.number)? - partition.next?;
            Some((partition.topic.clone(), u64::try_from(behind).unwrap_or(0)))
        };
        self.partitions.iter().filter_map(lag).collect()
    }

    /// Partitions whose end is not known yet.
    pub(super) fn endless(&self) -> Vec<TopicOffset> {
        let endless = self.partitions.iter().filter(|partition| partition.end.is_none());
        endless.map(|partition| partition.at(partition.assigned)).collect()
    }

    /// Where a partition ends, found out later than it was assigned.
    pub(super) fn set_end(&mut self, partition: &TopicOffset, low: i64, high: i64) {
        let one = std::slice::from_ref(partition);
        if let Some(partition) = self.partitions.iter_mut().find(|known| known.is_among(one)) {
            (partition.low, partition.end) = (Some(low), Some(high));
            // Nothing to read, and so nothing that would show where the consumer stands.
            let nothing = low >= high && partition.assigned <= high;
            partition.at_end |= nothing || partition.assigned == offset::END;
        }
    }

    /// Takes note of what is settled. True when there is something new to commit.
    pub(super) fn settle(&mut self, parts: &[Part]) -> bool {
        let mut changed = false;
        for part in parts {
            let Some(offset) = part.value.as_deref().and_then(part_offset) else { continue };
            let Some(partition) = self.partitions.iter_mut().find(|partition| partition.key == part.key) else {
                continue;
            };
            // A settlement of an earlier time of ours with this partition says nothing about this one.
            if Some(offset) <= partition.next && Some(offset) > partition.settled && partition.start <= Some(offset) {
                partition.settled = Some(offset);
                changed = true;
            }
        }
        changed
    }

    /// What is settled and not committed, of these partitions or of all; from here on it counts as committed.
    pub(super) fn take_commit(&mut self, only: Option<&[TopicOffset]>) -> Vec<TopicOffset> {
        let wanted = |partition: &&mut Partition| only.is_none_or(|only| partition.is_among(only));
        let mut offsets = Vec::new();
        for partition in self.partitions.iter_mut().filter(wanted) {
            if let Some(settled) = partition.settled
                && partition.settled > partition.committed
            {
                partition.committed = Some(settled);
                offsets.push(partition.at(settled));
            }
        }
        offsets
    }

    /// A commit failed: what it said has to be said again.
    pub(super) fn forget_commit(&mut self, offsets: &[TopicOffset]) {
        for partition in self.partitions.iter_mut().filter(|partition| partition.is_among(offsets)) {
            partition.committed = None;
        }
    }

    /// Prepares to go on from `position`: holds the partitions that were read further, and says where to seek.
    pub(super) fn rewind(&mut self, position: &Position) -> Vec<TopicOffset> {
        let mut seeks = Vec::new();
        for partition in &mut self.partitions {
            let stored = position.get(&partition.key).and_then(|value| part_offset(value));
            seeks.extend(partition.go_back(stored.max(partition.start)));
        }
        seeks
    }

    /// Every partition that is read.
    pub(super) fn all(&self) -> Vec<TopicOffset> {
        self.partitions.iter().map(|partition| partition.at(offset::NONE)).collect()
    }

    /// The offsets of these parts; nothing when one of them is not of a partition that is read, or of an earlier time with it.
    pub(super) fn offsets(&self, parts: &[Part]) -> Option<Vec<TopicOffset>> {
        let offset = |part: &Part| {
            let offset = part.value.as_deref().and_then(part_offset)?;
            let partition = self.partitions.iter().find(|partition| partition.key == part.key)?;
            let is_ours = partition.start <= Some(offset) && Some(offset) <= partition.next;
            is_ours.then(|| partition.at(offset))
        };
        parts.iter().map(offset).collect()
    }

    /// Goes on from what is committed, or from where the time with a partition began: nothing handed out counts any more. Says
    /// where to seek.
    pub(super) fn restart(&mut self, committed: &Position) -> Vec<TopicOffset> {
        self.said_end = false;
        let mut seeks = Vec::new();
        for partition in &mut self.partitions {
            let committed = committed.get(&partition.key).and_then(|value| part_offset(value));
            let target = committed.max(partition.start);
            if target.is_some() {
                partition.settled = target;
            }
            seeks.extend(partition.go_back(target));
        }
        seeks
    }

    /// Goes on reading partitions that were held to be rewound.
    pub(super) fn release(&mut self, rewound: &[TopicOffset]) {
        for partition in self.partitions.iter_mut().filter(|partition| partition.is_among(rewound)) {
            partition.held = false;
        }
    }
}

impl Partition {
    fn at(&self, offset: i64) -> TopicOffset {
        TopicOffset::new(&*self.topic, self.number, offset)
    }

    fn is_among(&self, offsets: &[TopicOffset]) -> bool {
        offsets.iter().any(|one| one.partition == self.number && one.topic == *self.topic)
    }

    /// Goes back to `target` where it was read further, and says so: nothing is handed out before it is there.
    fn go_back(&mut self, target: Option<i64>) -> Option<TopicOffset> {
        let target = target.filter(|target| Some(*target) < self.next)?;
        self.held = true;
        self.waiting.clear();
        self.next = Some(target);
        self.at_end = self.end.is_some_and(|end| target >= end);
        Some(self.at(target))
    }

    /// Moves records into the columns until they are full or there are no more.
    fn gather(&mut self, columns: &mut Columns, max_records: usize, max_bytes: usize) -> Result<(), PartitionError> {
        while columns.len() < max_records && (columns.bytes() < max_bytes || columns.len() == 0) {
            let Some(message) = self.waiting.front() else {
                if !self.queue.is_ready() {
                    return Ok(());
                }
                self.queue.read(&mut self.waiting, max_records - columns.len());
                if self.waiting.front().is_none() {
                    return Ok(());
                }
                continue;
            };
            match message.code() {
                Code::OK => {
                    let next = message.offset() + 1;
                    columns.push(&self.topic, self.number, message);
                    // The beginning, or the end, has turned out to be here.
                    self.start.get_or_insert(message.offset());
                    self.next = Some(next);
                    self.at_end |= self.end.is_some_and(|end| next >= end);
                }
                code => {
                    let resume = self.at(self.next.unwrap_or(self.assigned));
                    let (low, end) = (self.low, self.end);
                    return Err(PartitionError { code, text: message.error_text(), resume, low, end });
                }
            }
            self.waiting.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_its_partition_and_the_next_offset() {
        assert_eq!(part_key("orders", 12), "orders/12");
        assert_eq!(part_offset(&part_value(77)), Some(77));
        assert_eq!(part_offset(b"soon"), None);
    }
}
