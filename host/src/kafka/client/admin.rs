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
        let name = c_string(topic);
        // SAFETY: as above.
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
                Code::OK => {
                    let id = sys::rd_kafka_TopicDescription_topic_id(one);
                    Ok(Some(text(sys::rd_kafka_Uuid_base64str(id))))
                }
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
            // A little longer than librdkafka's own timeout, whose words are better.
            let event = sys::rd_kafka_queue_poll(queue, milliseconds(wait + Duration::from_secs(2)));
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
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

use sys::rd_kafka_admin_op_t as Op;

/// An event that is destroyed when it has been read.
struct Answer(NonNull<sys::rd_kafka_event_t>);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
