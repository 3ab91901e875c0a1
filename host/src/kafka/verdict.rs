//! What follows from an error of librdkafka: whose fault it is, and the words an operator needs.

use std::time::Duration;

use crate::plugin::Failure;

use super::assignment::PartitionError;
use super::client::{ClientError, Code, TopicOffset};

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

/// Reads what stands in a partition's queue in place of a record.
pub(super) fn of_partition(connection: &str, error: &PartitionError) -> Failure {
    let PartitionError { code, text, resume, .. } = error;
    let TopicOffset { topic, partition, .. } = resume;
    match *code {
        Code::NO_START => Failure::Fatal(no_start(connection, error)),
        Code::BAD_COMPRESSION => Failure::Fatal(format!(
            "records of `{topic}`/{partition} from offset {} on cannot be unpacked ({text}): if they are large, raise \
             \"receive.message.max.bytes\" in [kafka.{connection}]; if they are damaged, `wasmflow source reset --part` leads past them",
            resume.offset
        )),
        Code::TOPIC_AUTHORIZATION => Failure::Fatal(format!("not allowed to read topic `{topic}`: grant it")),
        _ => retry(format!("topic `{topic}`, partition {partition}: {text}")),
    }
}

/// The broker has no such offset: it has thrown away what was to be read, or it has never had it.
fn no_start(connection: &str, error: &PartitionError) -> String {
    let TopicOffset { topic, partition, offset: next, .. } = &error.resume;
    if let Some(end) = error.end.filter(|end| end < next) {
        return format!(
            "`{topic}`/{partition} was read up to offset {next} and ends at {end}: the topic was made anew, or has lost records; \
             `wasmflow source reset` begins it again"
        );
    }
    let gone = match error.low.filter(|low| low > next) {
        Some(low) => {
            format!("offsets {next} to {} of `{topic}`/{partition}, {} records at most, were", low - 1, low - next)
        }
        None => format!("offset {next} of `{topic}`/{partition} ({}) was", error.text),
    };
    format!(
        "{gone} not yet read and gone from the broker; to go on without them, set \"auto.offset.reset\" = \"earliest\" in \
         [kafka.{connection}]"
    )
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
