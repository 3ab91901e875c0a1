//! Sends events to Kafka as records, through the host's producer.

mod topic;

use wasmflow_sdk::kafka::{Choice, Producer, SendOptions};
use wasmflow_sdk::prelude::*;

use topic::Topic;

/// Which record an event becomes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// NAME of a `[kafka.NAME]` table of the pipeline file.
    #[serde(default = "main")]
    connection: String,
    /// The topic; `%{name}` in it stands for the event's header `name`.
    topic: Option<String>,
    /// A header that names the topic of an event; `topic` is for those without it.
    topic_header: Option<String>,
    /// The header that becomes the record key; an event without it has a null key.
    #[serde(default = "key")]
    key_header: String,
    /// The header that holds the partition number; left out: chosen by the key. `kafka.partition` keeps a Kafka source's.
    partition_header: Option<String>,
    /// The headers that become record headers; left out: all but the above and those whose name begins with `kafka.`.
    headers: Option<Vec<String>>,
    /// The header that holds the timestamp in milliseconds since 1970; left out: the time of sending.
    timestamp_header: Option<String>,
}

fn main() -> String {
    "main".into()
}

fn key() -> String {
    "key".into()
}

/// Set by the Kafka source where a record has a null value, so that a tombstone stays one.
const NULL_HEADER: &str = "kafka.null";
/// Carries a topic put together here to the host. No record header, as all names that begin with `kafka.`.
const TOPIC_HEADER: &str = "kafka.sink.topic";

/// The sink.
pub struct Kafka {
    producer: Producer,
    topic: Topic,
    options: SendOptions,
}

impl Sink for Kafka {
    type Config = Config;
    const ABOUT: &'static str = "Sends events to Kafka as records.";
    const ONLY_KAFKA: bool = true;

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        Topic::parse(config.topic.as_deref(), config.topic_header.as_deref()).map_err(|problem| vec![problem])?;
        Ok(vec![Need::new("kafka", &config.connection)])
    }

    fn open(config: Config) -> Result<Self, Failure> {
        let topic = Topic::parse(config.topic.as_deref(), config.topic_header.as_deref())?;
        let producer = Producer::open(&config.connection)?;
        Ok(Kafka { producer, options: options(config, &topic), topic })
    }

    /// What is sent here goes out when this has answered ok, and is settled once the broker has acknowledged it.
    fn deliver(&mut self, batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
        match &self.topic {
            Topic::Chosen(_) => self.producer.send(batch, &self.options)?,
            Topic::Computed(computed) => {
                let topics = computed.topics(batch)?;
                batch.set_header(TOPIC_HEADER, topics)?;
                self.producer.send(batch, &self.options)?;
                batch.remove_header(TOPIC_HEADER);
            }
        }
        Ok(Outcome::Delivered)
    }
}

wasmflow_sdk::export_sink!(Kafka);

fn options(config: Config, topic: &Topic) -> SendOptions {
    SendOptions {
        topic: match topic {
            Topic::Chosen(choice) => choice.clone(),
            Topic::Computed(_) => Choice::Header(TOPIC_HEADER.into()),
        },
        key_header: Some(config.key_header),
        partition_header: config.partition_header,
        timestamp_header: config.timestamp_header,
        null_header: Some(NULL_HEADER.into()),
        forward_headers: config.headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        wasmflow_sdk::serde_json::from_str(json).unwrap()
    }

    fn options_of(json: &str) -> SendOptions {
        let config = config(json);
        let topic = Topic::parse(config.topic.as_deref(), config.topic_header.as_deref()).unwrap();
        options(config, &topic)
    }

    #[test]
    fn a_topic_is_all_that_has_to_be_said() {
        let options = options_of(r#"{ "topic": "orders" }"#);
        assert_eq!(options.topic, Choice::Fixed("orders".into()));
        assert_eq!(options.key_header.as_deref(), Some("key"));
        assert_eq!(options.null_header.as_deref(), Some("kafka.null"));
        assert_eq!((options.partition_header, options.timestamp_header, options.forward_headers), (None, None, None));
    }

    #[test]
    fn a_computed_topic_travels_in_a_header_that_is_not_forwarded() {
        let options = options_of(r#"{ "topic": "logs-%{site}", "headers": ["site"] }"#);
        assert_eq!(options.topic, Choice::Header("kafka.sink.topic".into()));
        assert_eq!(options.forward_headers, Some(vec!["site".into()]));
    }

    #[test]
    fn it_needs_its_connection_and_a_topic() {
        let needs = Kafka::check(&config(r#"{ "topic": "orders" }"#)).unwrap();
        assert_eq!(needs, [Need::new("kafka", "main")]);
        assert_eq!(Kafka::check(&config("{}")).unwrap_err()[0].path, "/topic");
    }
}
