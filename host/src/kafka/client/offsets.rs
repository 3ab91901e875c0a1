//! Partitions with offsets, as librdkafka's lists carry them.

use std::ptr::NonNull;

use rdkafka_sys as sys;

use super::error::{ClientError, Code};
use super::{c_string, text};

/// A partition and an offset in it: a record's number, or one of [`offset`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// What is wrong with this partition, where a call answers for each of them.
    pub code: Code,
}

/// Offsets that are no record's number.
pub mod offset {
    /// The oldest record kept.
    pub const BEGINNING: i64 = -2;
    /// Behind the newest record.
    pub const END: i64 = -1;
    /// None.
    pub const NONE: i64 = -1001;
}

impl TopicOffset {
    pub fn new(topic: impl Into<String>, partition: i32, offset: i64) -> Self {
        Self { topic: topic.into(), partition, offset, code: Code::OK }
    }
}

/// librdkafka's list, owned.
pub(super) struct OffsetList(NonNull<sys::rd_kafka_topic_partition_list_t>);

impl OffsetList {
    pub(super) fn new<'a>(offsets: impl IntoIterator<Item = &'a TopicOffset>) -> Self {
        // SAFETY: the list is ours; `add` copies the name and answers an element that lives until the next `add`.
        unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(8);
            for one in offsets {
                let element =
                    sys::rd_kafka_topic_partition_list_add(list, c_string(&one.topic).as_ptr(), one.partition);
                (*element).offset = one.offset;
            }
            Self(NonNull::new(list).expect("librdkafka makes a list or aborts"))
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    pub(super) fn offsets(&self) -> Vec<TopicOffset> {
        // SAFETY: the list is ours.
        unsafe { Self::read(self.as_ptr()) }
    }

    /// # Errors
    /// The first partition's error, naming the partition.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        match self.offsets().into_iter().find(|one| one.code != Code::OK) {
            None => Ok(()),
            Some(TopicOffset { topic, partition, code, .. }) => {
                Err(ClientError { code, text: format!("`{topic}`/{partition}: {code}"), fatal: false })
            }
        }
    }

    /// # Safety
    /// `list` is null or a list that lives for the call.
    pub(super) unsafe fn read(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<TopicOffset> {
        if list.is_null() {
            return Vec::new();
        }
        // SAFETY: promised by the caller: `cnt` elements with C strings. Codes may lack a name, so they are read as numbers.
        unsafe {
            let elements = match (*list).cnt {
                0 => &[],
                count => std::slice::from_raw_parts((*list).elems, count as usize),
            };
            let read = |element: &sys::rd_kafka_topic_partition_t| TopicOffset {
                topic: text(element.topic),
                partition: element.partition,
                offset: element.offset,
                code: Code(std::ptr::addr_of!(element.err).cast::<i32>().read()),
            };
            elements.iter().map(read).collect()
        }
    }
}

impl Drop for OffsetList {
    fn drop(&mut self) {
        // SAFETY: the list is ours and nobody else's.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_back_what_was_put_in() {
        let offsets = [TopicOffset::new("a", 0, 7), TopicOffset::new("b", 3, offset::END)];
        assert_eq!(OffsetList::new(&offsets).offsets(), offsets);
        assert_eq!(OffsetList::new(&[]).offsets(), []);
    }
}
