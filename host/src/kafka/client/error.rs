//! Errors as librdkafka numbers them.

use std::fmt;

use rdkafka_sys as sys;
use sys::rd_kafka_resp_err_t as E;

/// A librdkafka error code: negative ones are the client's own, positive ones the broker's.
///
/// A number rather than the binding's enum: a newer broker may answer with a code that this librdkafka has no name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub i32);

macro_rules! codes {
    ($($name:ident = $code:ident),* $(,)?) => {
        impl Code { $(pub const $name: Code = Code(E::$code as i32);)* }
    };
}

codes! {
    OK = RD_KAFKA_RESP_ERR_NO_ERROR,
    ALL_BROKERS_DOWN = RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
    ASSIGN = RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS,
    AUTHENTICATION = RD_KAFKA_RESP_ERR__AUTHENTICATION,
    BAD_COMPRESSION = RD_KAFKA_RESP_ERR__BAD_COMPRESSION,
    CLUSTER_AUTHORIZATION = RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
    FENCED = RD_KAFKA_RESP_ERR__FENCED,
    FENCED_INSTANCE = RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
    GROUP_AUTHORIZATION = RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
    INVALID_ARGUMENT = RD_KAFKA_RESP_ERR__INVALID_ARG,
    INVALID_NEIGHBOUR = RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD,
    INVALID_PRODUCER_EPOCH = RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
    INVALID_RECORD = RD_KAFKA_RESP_ERR_INVALID_RECORD,
    INVALID_SIZE = RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
    INVALID_TIMESTAMP = RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
    INVALID_TRANSACTION_TIMEOUT = RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
    NO_OFFSET = RD_KAFKA_RESP_ERR__NO_OFFSET,
    NO_START = RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
    PRODUCER_FENCED = RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
    PURGED_IN_FLIGHT = RD_KAFKA_RESP_ERR__PURGE_INFLIGHT,
    PURGED_IN_QUEUE = RD_KAFKA_RESP_ERR__PURGE_QUEUE,
    RECORD_LIST_TOO_LARGE = RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
    SASL_FAILED = RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
    SSL = RD_KAFKA_RESP_ERR__SSL,
    TIMED_OUT = RD_KAFKA_RESP_ERR__TIMED_OUT,
    TOO_LARGE = RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
    TOPIC_AUTHORIZATION = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    TOPIC_EXISTS = RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS,
    TOPIC_INVALID = RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
    TRANSACTIONAL_ID_AUTHORIZATION = RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    UNKNOWN_PARTITION = RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
    UNKNOWN_TOPIC = RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
    UNKNOWN_TOPIC_OR_PARTITION = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    UNSUPPORTED_FORMAT = RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
    VALUE_CORRUPT = RD_KAFKA_RESP_ERR_INVALID_MSG,
    POLICY = RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
}

impl From<E> for Code {
    fn from(code: E) -> Self {
        Self(code as i32)
    }
}

impl fmt::Display for Code {
    /// librdkafka's own words, which operators find on the web.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut known, mut count) = (std::ptr::null(), 0);
        // SAFETY: librdkafka hands out a static table of `count` entries, with static texts (null in gaps).
        let descriptions = unsafe {
            sys::rd_kafka_get_err_descs(&mut known, &mut count);
            std::slice::from_raw_parts(known, count)
        };
        let found = descriptions.iter().find(|entry| {
            // SAFETY: the table's gaps hold numbers outside the enum's names, so the field is read as a number.
            let code = unsafe { std::ptr::addr_of!(entry.code).cast::<i32>().read() };
            code == self.0 && !entry.desc.is_null()
        });
        match found {
            // SAFETY: a static C string of the table.
            Some(entry) => f.write_str(&unsafe { super::text(entry.desc) }),
            None => write!(f, "Kafka error {}", self.0),
        }
    }
}

/// An error with librdkafka's explanation, which names the broker or topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ClientError {
    pub code: Code,
    pub text: String,
    /// The client will not recover: only a new one goes on.
    pub fatal: bool,
}

impl ClientError {
    pub(super) fn from_code(code: Code) -> Self {
        Self { code, text: code.to_string(), fatal: false }
    }

    /// # Safety
    /// `error` is null or an error object that nobody else destroys.
    pub(super) unsafe fn from_object(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: promised by the caller; the object is destroyed once, after its last use.
        unsafe {
            let code = Code::from(sys::rd_kafka_error_code(error));
            let text = super::text(sys::rd_kafka_error_string(error));
            let fatal = sys::rd_kafka_error_is_fatal(error) != 0;
            sys::rd_kafka_error_destroy(error);
            Err(Self { code, text, fatal })
        }
    }
}

/// # Errors
/// When the code is one.
pub(super) fn check(code: E) -> Result<(), ClientError> {
    match Code::from(code) {
        Code::OK => Ok(()),
        code => Err(ClientError::from_code(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_without_a_name_is_a_number() {
        assert_eq!(Code(9999).to_string(), "Kafka error 9999");
        assert_eq!(Code::TOO_LARGE.to_string(), "Broker: Message size too large");
    }
}
