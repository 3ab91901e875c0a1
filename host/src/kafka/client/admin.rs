//! The little of administration that the host needs: make a topic, and learn which topic and cluster this is.

use std::ffi::c_char;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka_sys as sys;

use super::error::{ClientError, Code};
use super::{Client, c_string, milliseconds, text};

/// "As many as the broker thinks right", which every broker since Kafka 2.4 understands.
const BROKERS_CHOICE: i32 = -1;

impl Client {
    /// Makes a topic of one partition that keeps the newest record of each key, unless it is there. Blocks.
    ///
    /// # Errors
    /// When the controller refuses, or does not answer in time.
    pub fn make_compacted_topic(&self, topic: &str, wait: Duration) -> Result<(), ClientError> {
        let name = c_string(topic);
        let mut explanation: [c_char; 256] = [0; 256];
        // SAFETY: name, buffer and client live for the calls; topic, options, queue and event are ours and destroyed once.
        unsafe {
            let new = sys::rd_kafka_NewTopic_new(
                name.as_ptr(),
                1,
                BROKERS_CHOICE,
                explanation.as_mut_ptr(),
                explanation.len(),
            );
            let Some(new) = NonNull::new(new) else {
                return Err(ClientError { code: Code::TOPIC_INVALID, text: text(explanation.as_ptr()), fatal: false });
            };
            sys::rd_kafka_NewTopic_set_config(new.as_ptr(), c"cleanup.policy".as_ptr(), c"compact".as_ptr());
            let mut topics = [new.as_ptr()];
            let answer = self.asked(Op::RD_KAFKA_ADMIN_OP_CREATETOPICS, wait, |options, queue| {
                sys::rd_kafka_CreateTopics(self.rk(), topics.as_mut_ptr(), 1, options, queue);
            });
            sys::rd_kafka_NewTopic_destroy(new.as_ptr());
            let answer = answer?;
            let result = sys::rd_kafka_event_CreateTopics_result(answer.0.as_ptr());
            let mut count = 0;
            let results = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
            for index in 0..count {
                let one = *results.add(index);
                let code = Code::from(sys::rd_kafka_topic_result_error(one));
                if code != Code::OK && code != Code::TOPIC_EXISTS {
                    let text = text(sys::rd_kafka_topic_result_error_string(one));
                    return Err(ClientError {
                        code,
                        text: if text.is_empty() { code.to_string() } else { text },
                        fatal: false,
                    });
                }
            }
            Ok(())
        }
    }

    /// The id that the cluster has given a topic: another one after it was deleted and made again. Nothing when there is no such
    /// topic. Blocks.
    ///
    /// # Errors
    /// When no broker answers in time, or none may.
    pub fn topic_id(&self, topic: &str, wait: Duration) -> Result<Option<String>, ClientError> {
        // SAFETY: the description lives for the call.
        self.described(topic, wait, |topic| unsafe {
            text(sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic)))
        })
    }

    /// How many partitions a topic has. Nothing when there is no such topic. Blocks.
    ///
    /// # Errors
    /// When no broker answers in time, or none may.
    pub fn partition_count(&self, topic: &str, wait: Duration) -> Result<Option<i32>, ClientError> {
        self.described(topic, wait, |topic| {
            let mut count = 0;
            // SAFETY: the description lives for the call.
            unsafe { sys::rd_kafka_TopicDescription_partitions(topic, &mut count) };
            i32::try_from(count).unwrap_or(i32::MAX)
        })
    }

    fn described<T>(
        &self,
        topic: &str,
        wait: Duration,
        read: impl FnOnce(*const sys::rd_kafka_TopicDescription_t) -> T,
    ) -> Result<Option<T>, ClientError> {
        let name = c_string(topic);
        // SAFETY: name and client live for the calls; topics and event are ours and destroyed once.
        unsafe {
            let mut names = [name.as_ptr()];
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            let answer = self.asked(Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, wait, |options, queue| {
                sys::rd_kafka_DescribeTopics(self.rk(), topics, options, queue);
            });
            sys::rd_kafka_TopicCollection_destroy(topics);
            let answer = answer?;
            let result = sys::rd_kafka_event_DescribeTopics_result(answer.0.as_ptr());
            let mut count = 0;
            let results = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if count == 0 {
                return Ok(None);
            }
            let one = *results;
            let error = sys::rd_kafka_TopicDescription_error(one);
            let code = if error.is_null() { Code::OK } else { Code::from(sys::rd_kafka_error_code(error)) };
            match code {
                Code::OK => Ok(Some(read(one))),
                Code::UNKNOWN_TOPIC_OR_PARTITION | Code::UNKNOWN_TOPIC => Ok(None),
                code => Err(ClientError::from_code(code)),
            }
        }
    }

    /// The cluster's own id. Blocks.
    pub fn cluster_id(&self, wait: Duration) -> Option<String> {
        // SAFETY: the client lives; the string is ours and given back.
        unsafe {
            let id = NonNull::new(sys::rd_kafka_clusterid(self.rk(), milliseconds(wait)))?;
            let copy = text(id.as_ptr());
            sys::rd_kafka_mem_free(self.rk(), id.as_ptr().cast());
            Some(copy)
        }
    }

    /// Asks, and waits for the answer.
    fn asked(
        &self,
        op: Op,
        wait: Duration,
        ask: impl FnOnce(*const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Answer, ClientError> {
        // A little longer than librdkafka's own timeout, whose words are better.
        self.ask(op, wait, ask).answer(wait + Duration::from_secs(2))
    }

    /// Asks; librdkafka waits for the answer for so long.
    pub(super) fn ask(
        &self,
        op: Op,
        wait: Duration,
        ask: impl FnOnce(*const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Question {
        let mut explanation: [c_char; 256] = [0; 256];
        // SAFETY: the client lives; options and queue are ours and destroyed once.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.rk(), op);
            for set in
                [sys::rd_kafka_AdminOptions_set_request_timeout, sys::rd_kafka_AdminOptions_set_operation_timeout]
            {
                // Describing knows no operation timeout; then the other one counts.
                set(options, milliseconds(wait), explanation.as_mut_ptr(), explanation.len());
            }
            let queue = sys::rd_kafka_queue_new(self.rk());
            ask(options, queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            Question { queue, _client: self.clone() }
        }
    }
}

pub(super) use sys::rd_kafka_admin_op_t as Op;

/// A question on its way, and the queue for its answer.
pub(super) struct Question {
    queue: *mut sys::rd_kafka_queue_t,
    /// The queue must not outlive it.
    _client: Client,
}

impl Question {
    pub(super) fn answer(self, wait: Duration) -> Result<Answer, ClientError> {
        // SAFETY: the queue is ours, and so is the event.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue, milliseconds(wait));
            let Some(event) = NonNull::new(event) else { return Err(ClientError::from_code(Code::TIMED_OUT)) };
            let answer = Answer(event);
            match Code::from(sys::rd_kafka_event_error(event.as_ptr())) {
                Code::OK => Ok(answer),
                code => {
                    let text = text(sys::rd_kafka_event_error_string(event.as_ptr()));
                    Err(ClientError { code, text, fatal: false })
                }
            }
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's; an answer that is still to come finds it closed.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

/// An event that is destroyed when it has been read.
pub(super) struct Answer(NonNull<sys::rd_kafka_event_t>);

impl Answer {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
