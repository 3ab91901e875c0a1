//! The consumer's side: the group, offsets, and records read in batches from one queue for each partition.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka_sys as sys;
use tokio::sync::Notify;

use super::error::{ClientError, Code, check};
use super::offsets::{OffsetList, TopicOffset};
use super::{Client, Event, c_string, event, milliseconds};

/// Records asked of librdkafka in one call: enough to make the call's cost vanish, few enough for the stack.
const READ_AT_ONCE: usize = 512;

impl Client {
    /// Joins the group for these topics and patterns.
    ///
    /// # Errors
    /// For a pattern that does not compile, or a client that is closed.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), ClientError> {
        let topics: Vec<_> = topics.iter().map(|topic| TopicOffset::new(topic, -1, 0)).collect();
        // SAFETY: client and list live for the call.
        check(unsafe { sys::rd_kafka_subscribe(self.rk(), OffsetList::new(&topics).as_ptr()) })
    }

    /// Takes partitions, each from its offset. With cooperative rebalancing they are added to those that are read already.
    pub fn assign(&self, partitions: &[TopicOffset]) -> Result<(), ClientError> {
        let list = OffsetList::new(partitions);
        // SAFETY: client and list live for the call.
        unsafe {
            if self.is_cooperative() {
                return ClientError::from_object(sys::rd_kafka_incremental_assign(self.rk(), list.as_ptr()));
            }
            check(sys::rd_kafka_assign(self.rk(), list.as_ptr()))
        }
    }

    /// Gives partitions back: these, or all of them where the group rebalances eagerly.
    pub fn unassign(&self, partitions: &[TopicOffset]) -> Result<(), ClientError> {
        let list = OffsetList::new(partitions);
        // SAFETY: client and list live for the call; a null list means all partitions.
        unsafe {
            if self.is_cooperative() {
                return ClientError::from_object(sys::rd_kafka_incremental_unassign(self.rk(), list.as_ptr()));
            }
            check(sys::rd_kafka_assign(self.rk(), std::ptr::null()))
        }
    }

    fn is_cooperative(&self) -> bool {
        // SAFETY: a static string.
        unsafe { super::text(sys::rd_kafka_rebalance_protocol(self.rk())) == "COOPERATIVE" }
    }

    /// Another member may own our partitions already: nothing of them may be committed.
    pub fn assignment_lost(&self) -> bool {
        // SAFETY: the client lives.
        unsafe { sys::rd_kafka_assignment_lost(self.rk()) != 0 }
    }

    /// The group's offsets of these partitions. Blocks.
    ///
    /// # Errors
    /// When the coordinator, or a partition, does not answer in time.
    pub fn committed(&self, partitions: &[TopicOffset], wait: Duration) -> Result<Vec<TopicOffset>, ClientError> {
        let list = OffsetList::new(partitions);
        // SAFETY: client and list live for the call.
        check(unsafe { sys::rd_kafka_committed(self.rk(), list.as_ptr(), milliseconds(wait)) })?;
        list.check()?;
        Ok(list.offsets())
    }

    /// The oldest offset kept, and the one behind the newest record. Blocks.
    ///
    /// # Errors
    /// When the partition's leader does not answer in time.
    pub fn watermarks(&self, topic: &str, partition: i32, wait: Duration) -> Result<(i64, i64), ClientError> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: client, name and the two numbers live for the call.
        check(unsafe {
            let topic = c_string(topic);
            let wait = milliseconds(wait);
            sys::rd_kafka_query_watermark_offsets(self.rk(), topic.as_ptr(), partition, &mut low, &mut high, wait)
        })?;
        Ok((low, high))
    }

    /// The offset behind the newest record that a fetch has heard of. Asks nobody; nothing while no fetch has heard of any.
    pub fn known_end(&self, topic: &str, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: client, name and the two numbers live for the call.
        check(unsafe {
            let topic = c_string(topic);
            sys::rd_kafka_get_watermark_offsets(self.rk(), topic.as_ptr(), partition, &mut low, &mut high)
        })
        .ok()?;
        (high >= 0).then_some(high)
    }

    /// Behind the last record read of each of these partitions, also where nobody is shown it: transactions end in such
    /// records. Asks nobody, so it is cheap; [`offset::NONE`](super::offset::NONE) where nothing was read yet.
    pub fn positions(&self, partitions: &[TopicOffset]) -> Vec<TopicOffset> {
        let list = OffsetList::new(partitions);
        // SAFETY: client and list live for the call. Errors are told for each partition, as an offset that is none.
        unsafe { sys::rd_kafka_position(self.rk(), list.as_ptr()) };
        list.offsets()
    }

    /// Commits in the background; the answer comes as [`Event::Committed`].
    pub fn commit(&self, offsets: &[TopicOffset]) -> Result<(), ClientError> {
        // SAFETY: client and list live for the call.
        check(unsafe { sys::rd_kafka_commit(self.rk(), OffsetList::new(offsets).as_ptr(), 1) })
    }

    /// Commits and waits for the answer. librdkafka's own blocking commit knows no deadline.
    ///
    /// # Errors
    /// When the coordinator refuses, or does not answer in time.
    pub fn commit_within(&self, offsets: &[TopicOffset], wait: Duration) -> Result<(), ClientError> {
        let answers = OwnQueue::new(self);
        // SAFETY: client, list and queue live for the call; the queue takes the answer as an event.
        check(unsafe {
            let list = OffsetList::new(offsets);
            sys::rd_kafka_commit_queue(self.rk(), list.as_ptr(), answers.0, None, std::ptr::null_mut())
        })?;
        // SAFETY: the queue is ours, and so is the event.
        let answer = unsafe {
            let event = sys::rd_kafka_queue_poll(answers.0, milliseconds(wait));
            NonNull::new(event).map(|event| event::take(event, &mut Vec::new()))
        };
        match answer {
            Some(Event::Committed { code: Code::OK, .. }) => Ok(()),
            Some(Event::Committed { code, .. }) => Err(ClientError::from_code(code)),
            _ => Err(ClientError::from_code(Code::TIMED_OUT)),
        }
    }

    /// Moves partitions that are being read to other offsets: nothing that was read ahead is brought any more. Blocks.
    ///
    /// # Errors
    /// When a partition is not ours any more, or the move takes longer.
    pub fn seek(&self, offsets: &[TopicOffset], wait: Duration) -> Result<(), ClientError> {
        let list = OffsetList::new(offsets);
        // SAFETY: client and list live for the call.
        unsafe {
            ClientError::from_object(sys::rd_kafka_seek_partitions(self.rk(), list.as_ptr(), milliseconds(wait)))?;
        }
        list.check()
    }

    /// Leaves the group (a static member keeps its place in it), answering rebalances on the way. True when that was
    /// done before the deadline; librdkafka waits for a coordinator that is away for ever.
    pub fn close_group(&self, deadline: Instant) -> bool {
        let events = OwnQueue::new(self);
        // SAFETY: client and queue live for the call.
        let closing = unsafe { ClientError::from_object(sys::rd_kafka_consumer_close_queue(self.rk(), events.0)) };
        if closing.is_err() {
            return true;
        }
        loop {
            // SAFETY: the client lives.
            if unsafe { sys::rd_kafka_consumer_closed(self.rk()) } != 0 {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // SAFETY: the queue is ours, and so is the event.
            let event = unsafe {
                let event = sys::rd_kafka_queue_poll(events.0, milliseconds(left.min(Duration::from_millis(50))));
                NonNull::new(event).map(|event| event::take(event, &mut Vec::new()))
            };
            let answered = match event {
                Some(Event::Revoke(partitions)) => self.unassign(&partitions),
                Some(Event::Assign(_)) => self.assign(&[]),
                _ => Ok(()),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "a rebalance while the consumer closes");
            }
        }
    }
}

/// A queue made for one answer.
struct OwnQueue(*mut sys::rd_kafka_queue_t);

impl OwnQueue {
    fn new(client: &Client) -> Self {
        // SAFETY: the client lives; librdkafka makes a queue or aborts.
        Self(unsafe { sys::rd_kafka_queue_new(client.rk()) })
    }
}

impl Drop for OwnQueue {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe { sys::rd_kafka_queue_destroy(self.0) }
    }
}

/// What librdkafka tells when records come to an empty partition queue.
struct Ready {
    /// Records may be waiting.
    raised: AtomicBool,
    reader: Arc<Notify>,
}

/// The records of one partition, fetched ahead by librdkafka and read in batches.
///
/// A queue of its own keeps the records away from the client's events, which is what makes batch reading safe beside
/// rebalances (rule 16 of `durability-and-kafka.md` B6). One trap is left: librdkafka 2.12 takes an error read in a batch for
/// a record read (`rd_kafka_q_serve_rkmessages`), and after a rebalance goes on behind it. So a partition that brought an error
/// must be moved, by [`Client::seek`], to where it really stands.
pub struct PartitionQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    ready: Arc<Ready>,
    client: Client,
}

// SAFETY: librdkafka's queues may be used from any thread; the client outlives this handle.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Splits a partition off the client's common queue. Do it before the partition is assigned: later, records may
    /// already be in the common queue. `reader` is notified when records come.
    ///
    /// # Errors
    /// When librdkafka does not know the partition.
    pub fn split(client: &Client, topic: &str, partition: i32, reader: &Arc<Notify>) -> Result<Self, ClientError> {
        let ready = Arc::new(Ready { raised: AtomicBool::new(true), reader: reader.clone() });
        // SAFETY: client and name live for the call. `ready` outlives the callback: it is taken off in `drop`, under
        // the queue's lock, which librdkafka also holds while it calls.
        let queue = unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client.rk(), c_string(topic).as_ptr(), partition);
            let queue = NonNull::new(queue).ok_or_else(|| ClientError::from_code(Code::UNKNOWN_PARTITION))?;
            sys::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut());
            let opaque = Arc::as_ptr(&ready).cast_mut().cast::<c_void>();
            sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(raise), opaque);
            queue
        };
        Ok(Self { queue, ready, client: client.clone() })
    }

    /// Whether there may be something to read: false only when there is not.
    pub fn is_ready(&self) -> bool {
        self.ready.raised.load(Ordering::Acquire)
    }

    /// Reads up to `max` records, without waiting, behind those that are in `messages`.
    pub fn read(&self, messages: &mut Messages, max: usize) {
        let max = max.min(READ_AT_ONCE);
        let mut buffer = [std::ptr::null_mut(); READ_AT_ONCE];
        // Lowered before reading, so that what comes meanwhile raises it again.
        self.ready.raised.store(false, Ordering::Release);
        // SAFETY: the queue is ours, and the buffer holds `max` pointers.
        let read = unsafe { sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, buffer.as_mut_ptr(), max) };
        let read = usize::try_from(read).unwrap_or(0);
        if read == max {
            self.ready.raised.store(true, Ordering::Release);
        }
        messages.list.extend(buffer[..read].iter().copied().filter_map(NonNull::new).map(Message));
        messages.client.get_or_insert_with(|| self.client.clone());
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours; without a callback librdkafka lets go of `ready`.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Called by librdkafka, with the queue locked: it must not call back.
unsafe extern "C" fn raise(_: *mut sys::rd_kafka_t, ready: *mut c_void) {
    // SAFETY: `PartitionQueue` keeps it alive while the callback is set.
    let ready = unsafe { &*ready.cast::<Ready>() };
    ready.raised.store(true, Ordering::Release);
    ready.reader.notify_one();
}

/// Records read and not yet handed on. They hold memory of the client, and so keep it alive.
#[derive(Default)]
pub struct Messages {
    list: std::collections::VecDeque<Message>,
    client: Option<Client>,
}

impl Messages {
    pub fn front(&self) -> Option<&Message> {
        self.list.front()
    }

    pub fn pop(&mut self) {
        self.list.pop_front();
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }
}

/// A record, or an event in the place where it happened: [`code`](Self::code) tells.
pub struct Message(NonNull<sys::rd_kafka_message_t>);

// SAFETY: a message is read and destroyed by one owner at a time, on any thread.
unsafe impl Send for Message {}

/// [`Message::may_have_headers`] reads librdkafka's own arrangement of a record: it is to be looked at again before the version changes.
const _: () = assert!(sys::RD_KAFKA_VERSION == 0x020c_01ff, "another librdkafka than the one that was read");

impl Message {
    fn get(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: ours until it is dropped.
        unsafe { self.0.as_ref() }
    }

    pub fn code(&self) -> Code {
        // SAFETY: read as a number, since a broker's code may lack a name.
        Code(unsafe { std::ptr::addr_of!((*self.0.as_ptr()).err).cast::<i32>().read() })
    }

    /// What an event says.
    pub fn error_text(&self) -> String {
        // SAFETY: the message is ours; the text lives as long.
        unsafe { super::text(sys::rd_kafka_message_errstr(self.0.as_ptr())) }
    }

    pub fn offset(&self) -> i64 {
        self.get().offset
    }

    /// The value; nothing when it is null.
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka's own buffer of that length, alive as long as the message.
        unsafe { bytes(self.get().payload, self.get().len) }
    }

    /// The key; nothing when it is null.
    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: as for `value`.
        unsafe { bytes(self.get().key, self.get().key_len) }
    }

    /// Milliseconds since 1970; nothing where the topic keeps none.
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is ours.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(timestamp)
    }

    /// Whether headers are worth looking for: librdkafka makes and frees a buffer for every record that it is asked about, which
    /// costs a tenth of a whole copy.
    ///
    /// In the record format with headers their count stands behind the value, in the buffer in which librdkafka leaves it; what comes
    /// in that format has a leader's epoch. Of an empty value librdkafka keeps no place.
    fn may_have_headers(&self) -> bool {
        let message = self.get();
        // SAFETY: the message is ours; the byte behind its value is in the same record.
        unsafe {
            message.payload.is_null()
                || message.len == 0
                || sys::rd_kafka_message_leader_epoch(self.0.as_ptr()) < 0
                || *message.payload.cast::<u8>().add(message.len) != 0
        }
    }

    /// Every header in order: its name and its value, which may be null.
    pub fn each_header(&self, mut take: impl FnMut(&[u8], Option<&[u8]>)) {
        if !self.may_have_headers() {
            return;
        }
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is ours, and its headers live as long; names are C strings.
        unsafe {
            if Code::from(sys::rd_kafka_message_headers(self.0.as_ptr(), &mut headers)) != Code::OK {
                return;
            }
            let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
            for index in 0.. {
                let code = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length);
                if Code::from(code) != Code::OK {
                    return;
                }
                take(std::ffi::CStr::from_ptr(name).to_bytes(), bytes(value.cast_mut(), length));
            }
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `data` is null or points to `length` bytes that live long enough.
unsafe fn bytes<'a>(data: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: promised by the caller.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) })
}
