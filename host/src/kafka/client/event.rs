//! What a client tells on its queue.

use std::ptr::NonNull;

use rdkafka_sys as sys;

use super::error::{ClientError, Code};
use super::offsets::{OffsetList, TopicOffset};

/// One event of a client.
#[derive(Debug)]
pub enum Event {
    /// Delivery reports: they are in the buffer that was handed to `poll`.
    Reports,
    Error(ClientError),
    /// The group gives these partitions: answer with `assign`.
    Assign(Vec<TopicOffset>),
    /// The group takes these partitions back: answer with `unassign`.
    Revoke(Vec<TopicOffset>),
    /// A commit is done, or has failed.
    Committed {
        code: Code,
        offsets: Vec<TopicOffset>,
    },
    Other,
}

/// The broker's word on one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What the record was given to carry.
    pub tag: u64,
    pub code: Code,
    /// Where the record went; -1 where it got nowhere.
    pub partition: i32,
}

/// Reads an event and destroys it.
///
/// # Safety
/// The event is the caller's own.
pub(super) unsafe fn take(event: NonNull<sys::rd_kafka_event_t>, reports: &mut Vec<Report>) -> Event {
    let event = event.as_ptr();
    // SAFETY: promised by the caller; everything read is copied before the event is destroyed.
    unsafe {
        let taken = match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_DR => {
                read_reports(event, reports);
                Event::Reports
            }
            sys::RD_KAFKA_EVENT_ERROR => Event::Error(read_error(event)),
            sys::RD_KAFKA_EVENT_REBALANCE => {
                let partitions = OffsetList::read(sys::rd_kafka_event_topic_partition_list(event));
                match Code::from(sys::rd_kafka_event_error(event)) {
                    Code::ASSIGN => Event::Assign(partitions),
                    _ => Event::Revoke(partitions),
                }
            }
            sys::RD_KAFKA_EVENT_OFFSET_COMMIT => Event::Committed {
                code: Code::from(sys::rd_kafka_event_error(event)),
                offsets: OffsetList::read(sys::rd_kafka_event_topic_partition_list(event)),
            },
            _ => Event::Other,
        };
        sys::rd_kafka_event_destroy(event);
        taken
    }
}

unsafe fn read_reports(event: *mut sys::rd_kafka_event_t, reports: &mut Vec<Report>) {
    // SAFETY: the messages live as long as the event.
    unsafe {
        reports.reserve(sys::rd_kafka_event_message_count(event));
        loop {
            let message = sys::rd_kafka_event_message_next(event);
            if message.is_null() {
                return;
            }
            let code = std::ptr::addr_of!((*message).err).cast::<i32>().read();
            let (tag, partition) = ((*message)._private as u64, (*message).partition);
            reports.push(Report { tag, code: Code(code), partition });
        }
    }
}

unsafe fn read_error(event: *mut sys::rd_kafka_event_t) -> ClientError {
    // SAFETY: the event's text lives as long as the event.
    unsafe {
        ClientError {
            code: Code::from(sys::rd_kafka_event_error(event)),
            text: super::text(sys::rd_kafka_event_error_string(event)),
            fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
        }
    }
}
