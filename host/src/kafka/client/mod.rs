//! The one folder that names librdkafka: clients, queues, records and offsets as safe types.
//!
//! It calls `rdkafka_sys` rather than the `rdkafka` crate's producer and consumer, for three reasons: the batch calls cost
//! half of a call for each record, the crate's consumer takes rebalances out of our hands, and its clients can block for
//! ever when they are dropped. Here a client is destroyed on a thread of its own, whoever drops it.

mod admin;
mod brokers;
mod config;
mod consume;
mod embedded;
mod error;
mod event;
mod group;
mod log;
mod offsets;
mod partitioner;
mod produce;
mod transaction;

use std::any::Any;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka_sys as sys;

pub use config::{ClientConfig, option_names};
pub use consume::{Message, Messages, PartitionQueue};
pub use embedded::EmbeddedBroker;
pub use error::{ClientError, Code};
pub use event::{Event, Report};
pub use group::{Member, MembersQuestion};
pub use offsets::{TopicOffset, offset};
pub use produce::{Headers, RecordBatch, RecordToSend, Topic, send_one};
pub use transaction::{Class, GroupMetadata, TransactionError};

use partitioner::Partitioning;

/// Held by whatever must be gone before a pipeline may say that it has stopped.
pub type Alive = Arc<dyn Any + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Producer,
    Consumer,
}

/// A librdkafka client with the queue that its events arrive on. A clone shares it; the last one destroys it.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    rk: NonNull<sys::rd_kafka_t>,
    events: NonNull<sys::rd_kafka_queue_t>,
    /// What librdkafka may still point to: freed after the client.
    keep: Mutex<Vec<Box<dyn Any + Send>>>,
    alive: Option<Alive>,
    /// Connections that have ended.
    closed: Arc<AtomicU64>,
    /// Of a producer.
    partitioning: Option<Partitioning>,
}

// SAFETY: librdkafka's client and queue handles may be used from any thread at the same time; both pointers live as long as
// the handle does.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Client {
    /// Starts a client. Connecting happens in the background, and for as long as it takes.
    ///
    /// # Errors
    /// When librdkafka refuses the options as a whole: two that contradict each other, a certificate that cannot be read.
    pub fn start(role: Role, mut config: ClientConfig, alive: Alive) -> Result<Self, String> {
        let partitioning = (role == Role::Producer).then(|| Partitioning::take(&mut config)).transpose()?;
        let closed = Arc::<AtomicU64>::default();
        let rk = config.start(role, &closed)?;
        // SAFETY: `rk` is a client just made; a consumer has its group's queue as soon as `group.id` is set, which
        // the main queue is redirected to so that one poll serves all events.
        let events = unsafe {
            match role {
                Role::Producer => sys::rd_kafka_queue_get_main(rk.as_ptr()),
                Role::Consumer => {
                    sys::rd_kafka_poll_set_consumer(rk.as_ptr());
                    sys::rd_kafka_queue_get_consumer(rk.as_ptr())
                }
            }
        };
        let events = NonNull::new(events).ok_or("the client has no event queue: `group.id` is missing")?;
        Ok(Self(Arc::new(Handle { rk, events, keep: Mutex::default(), alive: Some(alive), closed, partitioning })))
    }

    /// The next event, or nothing within the wait. For a consumer this is the poll that `max.poll.interval.ms` watches.
    pub fn poll(&self, wait: Duration, reports: &mut Vec<Report>) -> Option<Event> {
        // SAFETY: the queue lives as long as the handle; the event is ours and `event::take` destroys it.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.0.events.as_ptr(), milliseconds(wait));
            NonNull::new(event).map(|event| event::take(event, reports))
        }
    }

    /// Makes a waiting [`poll`](Self::poll) return at once.
    pub fn wake(&self) {
        // SAFETY: the queue lives as long as the handle.
        unsafe { sys::rd_kafka_queue_yield(self.0.events.as_ptr()) }
    }

    /// Keeps something until the client is gone, since librdkafka may still read it.
    pub fn keep_until_gone(&self, what: impl Any + Send) {
        self.0.keep.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(what));
    }

    /// How many of its connections have ended. What was on its way on one of them may still arrive, after all that was sent since.
    pub fn closed_connections(&self) -> u64 {
        self.0.closed.load(Ordering::Acquire)
    }

    fn rk(&self) -> *mut sys::rd_kafka_t {
        self.0.rk.as_ptr()
    }
}

impl Drop for Handle {
    /// Destroying joins librdkafka's threads and can take for ever with a broker in a bad state (rust-rdkafka#453), so
    /// nobody waits for it here: `alive` says when it is done.
    fn drop(&mut self) {
        struct Doomed(NonNull<sys::rd_kafka_t>, NonNull<sys::rd_kafka_queue_t>);
        // SAFETY: as for `Handle`; this is the last owner.
        unsafe impl Send for Doomed {}

        let doomed = Doomed(self.rk, self.events);
        let keep = std::mem::take(self.keep.get_mut().unwrap_or_else(PoisonError::into_inner));
        let (alive, closed) = (self.alive.take(), self.closed.clone());
        let destroy = move || {
            let Doomed(rk, events) = { doomed };
            // SAFETY: no handle, queue, topic or message of this client is left: each of them holds a share of `Handle`.
            // A consumer has been closed before, or is not to be waited for.
            unsafe {
                sys::rd_kafka_queue_destroy(events.as_ptr());
                sys::rd_kafka_destroy_flags(rk.as_ptr(), DESTROY_WITHOUT_CLOSE);
            }
            // The client's threads counted in it until now.
            drop(closed);
            drop(keep);
            drop(alive);
        };
        // Without a thread to spare it is done here.
        if let Err(error) = std::thread::Builder::new().name("kafka-close".into()).spawn(destroy) {
            tracing::warn!(%error, "no thread to close a Kafka client on");
        }
    }
}

/// `RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE`, a macro that bindgen leaves out.
const DESTROY_WITHOUT_CLOSE: i32 = 0x8;

/// librdkafka's timeouts: whole milliseconds, rounded up so that a short wait is not a spin.
fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// A C string; what stands after a zero byte is cut, as librdkafka would.
fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).expect("no zero byte is left")
}

/// # Safety
/// `text` is null or a C string that lives long enough.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
