//! What follows from an error of librdkafka: whose fault it is, and the words an operator needs.

use std::time::Duration;

use crate::plugin::Failure;

use super::client::{ClientError, Code};

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// The broker will never take this record, and has taken its neighbours.
    Refused(String),
    /// The broker refused a batch of records because of one of them, and did not say which: they have to go again, each
    /// by itself.
    OneOfMany(String),
    /// Nothing wrong with the record: it has to go again, with everything behind it.
    Lost(Failure),
}

/// Reads a delivery report. `alone` says that records travel one by one, so that an answer is about this record.
///
/// What may pass is no report at all: librdkafka tries it again without end.
pub fn of_record(code: Code, topic: &str, alone: bool) -> Verdict {
    match code {
        Code::OK => Verdict::Delivered,
        Code::UNKNOWN_PARTITION => Verdict::Refused(format!("topic `{topic}` has no such partition")),
        Code::INVALID_ARGUMENT | Code::TOPIC_INVALID => Verdict::Refused(format!("topic `{topic}`: {code}")),
        Code::TOO_LARGE
        | Code::INVALID_RECORD
        | Code::INVALID_SIZE
        | Code::INVALID_TIMESTAMP
        | Code::RECORD_LIST_TOO_LARGE
        | Code::UNSUPPORTED_FORMAT
        | Code::VALUE_CORRUPT
        | Code::POLICY => match alone {
            true => Verdict::Refused(format!("topic `{topic}`: {code}")),
            false => Verdict::OneOfMany(format!("topic `{topic}`: {code}")),
        },
        Code::INVALID_NEIGHBOUR => Verdict::OneOfMany(format!("topic `{topic}`: {code}")),
        Code::UNKNOWN_TOPIC | Code::UNKNOWN_TOPIC_OR_PARTITION => {
            let reason =
                format!("topic `{topic}` does not exist: create it, or let the broker (auto.create.topics.enable)");
            Verdict::Lost(retry(reason))
        }
        Code::TOPIC_AUTHORIZATION => Verdict::Lost(Failure::Fatal(format!(
            "not allowed to write to topic `{topic}`: grant it, or use another user"
        ))),
        Code::CLUSTER_AUTHORIZATION => {
            let reason = "not allowed to produce idempotently: grant the user IdempotentWrite on the cluster";
            Verdict::Lost(Failure::Fatal(reason.into()))
        }
        code => Verdict::Lost(retry(format!("topic `{topic}`: {code}"))),
    }
}

/// Reads an error of a whole client: nothing when librdkafka goes on by itself, as it does when brokers are down.
pub fn of_client(connection: &str, error: &ClientError) -> Option<Failure> {
    let text = &error.text;
    match error.code {
        Code::AUTHENTICATION | Code::SASL_FAILED => {
            Some(Failure::Fatal(format!("connection `{connection}`: the broker refuses the credentials: {text}")))
        }
        Code::SSL => Some(Failure::Fatal(format!("connection `{connection}`: TLS with the broker fails: {text}"))),
        Code::FENCED_INSTANCE => Some(Failure::Fatal(format!(
            "connection `{connection}`: another agent with the same `instance` has taken this source's place in the group"
        ))),
        Code::GROUP_AUTHORIZATION | Code::TOPIC_AUTHORIZATION | Code::CLUSTER_AUTHORIZATION => {
            Some(Failure::Fatal(format!("connection `{connection}`: the broker does not allow it: {text}")))
        }
        _ if error.fatal => Some(retry(format!("connection `{connection}`: {text}"))),
        _ => None,
    }
}

pub fn retry(reason: String) -> Failure {
    Failure::Retry { reason, after: None::<Duration> }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_down_is_nobodys_failure() {
        // Transport failure, all brokers down, timed out.
        for code in [Code(-195), Code(-187), Code::TIMED_OUT] {
            let error = ClientError { code, text: "down".into(), fatal: false };
            assert_eq!(of_client("main", &error), None);
        }
    }

    #[test]
    fn refused_credentials_stop_the_stage() {
        let error = ClientError { code: Code::AUTHENTICATION, text: "SASL PLAIN".into(), fatal: false };
        assert!(matches!(of_client("main", &error), Some(Failure::Fatal(text)) if text.contains("credentials")));
    }

    #[test]
    fn a_record_is_refused_only_when_the_answer_is_about_it() {
        assert!(matches!(of_record(Code::TOO_LARGE, "t", true), Verdict::Refused(_)));
        assert!(matches!(of_record(Code::TOO_LARGE, "t", false), Verdict::OneOfMany(_)));
        assert!(matches!(of_record(Code::UNKNOWN_TOPIC, "t", true), Verdict::Lost(Failure::Retry { .. })));
    }
}
