//! `copy`: one thread reads and sends, one takes delivery reports; batches all the way.

use std::collections::VecDeque;
use std::ffi::{CString, c_void};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka_sys as sys;

use crate::client::{self, CONSUMER, Producer, check, record};
use crate::measure::Measurement;

const PREFIX: &[u8] = b"prefix:";
const SUFFIX: &[u8] = b":suffix";
/// Records in one call.
const BATCH: usize = 1000;
/// Limit: records in flight.
const IN_FLIGHT: u64 = 200_000;
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

/// One partition's queue.
pub struct Partition {
    pub number: i32,
    queue: *mut sys::rd_kafka_queue_t,
}

/// Records handed over together: once all are acknowledged, `next` may be committed.
struct Delivery {
    partition: i32,
    next: i64,
    waiting: usize,
}

/// The deliveries in flight, oldest first; `first` is the number of the oldest.
#[derive(Default)]
struct InFlight {
    first: usize,
    deliveries: VecDeque<Delivery>,
    acknowledged: u64,
}

#[derive(Default)]
struct Shared {
    in_flight: Mutex<InFlight>,
    /// Reports have come.
    reported: Condvar,
}

pub fn run(brokers: &str, topic: &str, out: &str, count: u64) -> Result<String> {
    let consumer = client::start(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, brokers, CONSUMER)?;
    let producer = Producer::start(brokers, out)?;
    let (ready, woken) = channel();
    let mut partitions = assign(consumer, topic, &ready)?;
    let shared = Arc::new(Shared::default());
    let reporter = shared.clone();
    std::thread::spawn(move || take_reports(producer, &reporter));

    let mut copy = Copy { producer, shared, read: 0, batch: Batch::default() };
    let mut measurement = None;
    let mut last_commit = Instant::now();
    while copy.read < count {
        let mut idle = true;
        for partition in &mut partitions {
            let records = copy.batch(partition)?;
            if records > 0 && measurement.is_none() {
                measurement = Some(Measurement::start()?);
            }
            idle &= records == 0;
        }
        if last_commit.elapsed() >= COMMIT_INTERVAL {
            copy.commit(consumer, topic, true)?;
            last_commit = Instant::now();
        }
        if idle {
            wait(&woken);
        }
        // Serves the consumer's own events; its records come by the partitions' queues.
        serve(consumer);
    }
    copy.wait_until_empty();
    let line = measurement.expect("records have come").finish(copy.read)?;
    copy.commit(consumer, topic, false)?;
    Ok(line)
}

struct Copy {
    producer: Producer,
    shared: Arc<Shared>,
    read: u64,
    batch: Batch,
}

/// Records of one partition, read and changed.
#[derive(Default)]
pub struct Batch {
    values: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
    /// The offset behind the last record.
    pub next: i64,
}

impl Copy {
    /// Reads, changes and sends what is there, a batch at most; answers how many records that was.
    fn batch(&mut self, partition: &mut Partition) -> Result<usize> {
        let records = self.batch.read(partition)?;
        if records > 0 {
            self.send(partition.number)?;
            self.read += records as u64;
        }
        Ok(records)
    }

    fn send(&mut self, partition: i32) -> Result<()> {
        let delivery = Delivery { partition, next: self.batch.next, waiting: self.batch.ends.len() };
        let number = {
            let mut in_flight = self.shared.in_flight.lock().expect("no thread panics");
            while self.read - in_flight.acknowledged >= IN_FLIGHT {
                in_flight = self.shared.reported.wait(in_flight).expect("no thread panics");
            }
            in_flight.deliveries.push_back(delivery);
            in_flight.first + in_flight.deliveries.len() - 1
        };
        self.producer.send(&mut self.batch.records(partition, number))
    }

    fn wait_until_empty(&self) {
        let mut in_flight = self.shared.in_flight.lock().expect("no thread panics");
        while in_flight.acknowledged < self.read {
            in_flight = self.shared.reported.wait(in_flight).expect("no thread panics");
        }
    }

    /// Commits what is acknowledged from the oldest delivery on.
    fn commit(&self, consumer: *mut sys::rd_kafka_t, topic: &str, in_background: bool) -> Result<()> {
        let mut done = Vec::new();
        {
            let mut in_flight = self.shared.in_flight.lock().expect("no thread panics");
            while in_flight.deliveries.front().is_some_and(|delivery| delivery.waiting == 0) {
                done.extend(in_flight.deliveries.pop_front());
                in_flight.first += 1;
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        let topic = CString::new(topic)?;
        // SAFETY: the list is ours and destroyed once; client and name live for the calls.
        unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(4);
            for Delivery { partition, next, .. } in done {
                let known = sys::rd_kafka_topic_partition_list_find(list, topic.as_ptr(), partition);
                let element = match known.is_null() {
                    true => sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition),
                    false => known,
                };
                (*element).offset = next;
            }
            let code = sys::rd_kafka_commit(consumer, list, i32::from(in_background));
            sys::rd_kafka_topic_partition_list_destroy(list);
            check(code)
        }
    }
}

impl Batch {
    /// Reads and changes what is there, [`BATCH`] records at most; answers how many that was.
    pub fn read(&mut self, partition: &Partition) -> Result<usize> {
        let mut messages = [std::ptr::null_mut::<sys::rd_kafka_message_t>(); BATCH];
        // SAFETY: the queue lives, the buffer has that length.
        let read = unsafe { sys::rd_kafka_consume_batch_queue(partition.queue, 0, messages.as_mut_ptr(), BATCH) };
        let messages = &messages[..usize::try_from(read).unwrap_or(0)];
        self.values.clear();
        self.ends.clear();
        for &message in messages {
            // SAFETY: the message is ours until it is destroyed, and its value lives as long.
            unsafe {
                check((*message).err)?;
                self.next = (*message).offset + 1;
                let value = std::slice::from_raw_parts((*message).payload.cast::<u8>(), (*message).len);
                [PREFIX, value, SUFFIX].iter().for_each(|part| self.values.extend_from_slice(part));
                self.ends.push(self.values.len());
                sys::rd_kafka_message_destroy(message);
            }
        }
        Ok(messages.len())
    }

    /// The records to send to the partition of the same number. They point into this batch.
    pub fn records(&self, partition: i32, tag: usize) -> Vec<sys::rd_kafka_message_t> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let values = starts.zip(&self.ends).map(|(start, &end)| &self.values[start..end]);
        values.map(|value| record(partition, value, tag)).collect()
    }
}

/// Takes all partitions from their beginning, each with a queue of its own.
pub fn assign(consumer: *mut sys::rd_kafka_t, topic: &str, ready: &Sender<()>) -> Result<Vec<Partition>> {
    let count = client::partitions(consumer, topic)?;
    let name = CString::new(topic)?;
    // SAFETY: client and name live for the calls, the list is ours, the sender lives as long as the process.
    unsafe {
        check(sys::rd_kafka_poll_set_consumer(consumer))?;
        let list = sys::rd_kafka_topic_partition_list_new(count);
        let mut partitions = Vec::new();
        for number in 0..count {
            (*sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), number)).offset = -2;
            let queue = sys::rd_kafka_queue_get_partition(consumer, name.as_ptr(), number);
            if queue.is_null() {
                bail!("partition {number} has no queue");
            }
            sys::rd_kafka_queue_forward(queue, std::ptr::null_mut());
            let opaque = Box::into_raw(Box::new(ready.clone())).cast::<c_void>();
            sys::rd_kafka_queue_cb_event_enable(queue, Some(wake), opaque);
            partitions.push(Partition { number, queue });
        }
        check(sys::rd_kafka_assign(consumer, list))?;
        sys::rd_kafka_topic_partition_list_destroy(list);
        Ok(partitions)
    }
}

/// Called by librdkafka when records come to an empty queue.
unsafe extern "C" fn wake(_: *mut sys::rd_kafka_t, ready: *mut c_void) {
    // SAFETY: the sender was leaked for this.
    let ready = unsafe { &*ready.cast::<Sender<()>>() };
    // Nobody listens once all is read.
    let _ = ready.send(());
}

/// Waits for records, and no longer than it takes to look after commits.
pub fn wait(woken: &Receiver<()>) {
    let _ = woken.recv_timeout(Duration::from_millis(100));
    while woken.try_recv().is_ok() {}
}

pub fn serve(consumer: *mut sys::rd_kafka_t) {
    // SAFETY: client, queue and event are ours.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(consumer);
        let event = sys::rd_kafka_queue_poll(queue, 0);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
    }
}

fn take_reports(producer: Producer, shared: &Shared) {
    let mut tags = Vec::new();
    loop {
        if let Err(error) = producer.reports(100, |tag| tags.push(tag)) {
            eprintln!("a record was lost: {error}");
            std::process::exit(1);
        }
        let mut in_flight = shared.in_flight.lock().expect("no thread panics");
        for number in tags.drain(..) {
            let index = number - in_flight.first;
            in_flight.deliveries[index].waiting -= 1;
            in_flight.acknowledged += 1;
        }
        drop(in_flight);
        shared.reported.notify_one();
    }
}
