//! Brings Kafka records as events, through the host's consumer.

mod silence;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wasmflow_sdk::config::Duration as ConfigDuration;
use wasmflow_sdk::kafka::{Consumer, Fetch, Partition, Start, Subscription};
use wasmflow_sdk::prelude::{Deserialize, Failure, JsonSchema, Need, Position, Problem, Progress, Source};

use silence::Silence;

/// Which records come.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// NAME of a `[kafka.NAME]` table of the pipeline file.
    #[serde(default = "main")]
    connection: String,
    /// The topics to read.
    topics: Option<Vec<String>>,
    /// Instead of `topics`: all topics whose whole name this regular expression matches, also those made later.
    topics_regex: Option<String>,
    /// The consumer group; left out: the pipeline's name.
    group: Option<String>,
    /// Fixed partitions of each topic, in place of those that the group assigns.
    partitions: Option<BTreeMap<String, Vec<u32>>>,
    /// Where a partition starts that has neither a stored position nor an offset of the group.
    #[serde(default)]
    from: From,
    /// False: ends at the partitions' ends as they were at the start.
    #[serde(default = "yes")]
    follow: bool,
    /// Ends after such a silence; left out: never.
    stop_after_idle: Option<ConfigDuration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum From {
    #[default]
    Earliest,
    Latest,
}

fn main() -> String {
    "main".into()
}

fn yes() -> bool {
    true
}

/// The source. Its position is made by the host: one part for each partition.
pub struct Kafka {
    consumer: Consumer,
    follow: bool,
    silence: Option<Silence>,
}

impl Source for Kafka {
    type Config = Config;
    const ABOUT: &'static str = "Brings Kafka records as events.";
    const REPLAYS: bool = true;

    fn check(config: &Config) -> Result<Vec<Need>, Vec<Problem>> {
        topics(config).map_err(|problem| vec![problem])?;
        Ok(vec![Need::new("kafka", &config.connection)])
    }

    fn open(config: Config, _position: &Position) -> Result<Self, Failure> {
        let consumer = Consumer::subscribe(&subscription(&config)?)?;
        let silence = config.stop_after_idle.map(|limit| Silence::new(limit.0));
        Ok(Kafka { consumer, follow: config.follow, silence })
    }

    fn poll(&mut self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Progress, Failure> {
        let wait = self.silence.as_ref().map_or(wait, |silence| silence.shorten(wait, Instant::now()));
        let fetch = self.consumer.poll(max_events, max_bytes, wait)?;
        Ok(self.progress(fetch, max_events == 0))
    }
}

wasmflow_sdk::export_source!(Kafka);

impl Kafka {
    /// What a fetch means for the pipeline: the end of a finite source, or else what it brought.
    fn progress(&mut self, fetch: Fetch, channel_full: bool) -> Progress {
        let read_to_end = matches!(fetch, Fetch::AtEnd) && !self.follow;
        let silent = self.silence.as_mut().is_some_and(|silence| silence.is_over(&fetch, channel_full, Instant::now()));
        if read_to_end || silent { Progress::Finished } else { fetch.into() }
    }
}

/// The topics as the host takes them: a pattern begins with `^`.
fn topics(config: &Config) -> Result<Vec<String>, Problem> {
    match (&config.topics, &config.topics_regex, &config.partitions) {
        (Some(_), Some(_), _) => Err(Problem::new("/topics_regex", "`topics` and `topics_regex` exclude each other")),
        (_, Some(_), Some(_)) => Err(Problem::new("/partitions", "fixed partitions need `topics`, not a pattern")),
        (None, None, None) => Err(Problem::new("/topics", "`topics` or `topics_regex` is needed")),
        (None, None, Some(partitions)) => Ok(partitions.keys().cloned().collect()),
        (None, Some(pattern), None) => Ok(vec![format!("^({pattern})$")]),
        (Some(topics), None, partitions) => match topics.iter().find(|topic| topic.starts_with('^')) {
            _ if topics.is_empty() => Err(Problem::new("/topics", "no topic")),
            Some(_) => Err(Problem::new("/topics", "a pattern belongs into `topics_regex`")),
            None if partitions.as_ref().is_some_and(|fixed| fixed.keys().any(|topic| !topics.contains(topic))) => {
                Err(Problem::new("/partitions", "names a topic that `topics` does not"))
            }
            None => Ok(topics.clone()),
        },
    }
}

fn subscription(config: &Config) -> Result<Subscription, Problem> {
    let fixed = |(topic, numbers): (&String, &Vec<u32>)| {
        let topic = topic.clone();
        numbers.iter().map(move |&number| Partition { topic: topic.clone(), number }).collect::<Vec<_>>()
    };
    Ok(Subscription {
        connection: config.connection.clone(),
        // The host puts the pipeline's name in place of an empty one.
        group: config.group.clone().unwrap_or_default(),
        topics: topics(config)?,
        partitions: config.partitions.as_ref().map(|partitions| partitions.iter().flat_map(fixed).collect()),
        start: match config.from {
            From::Earliest => Start::Earliest,
            From::Latest => Start::Latest,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        wasmflow_sdk::serde_json::from_str(json).unwrap()
    }

    #[test]
    fn topics_are_all_that_has_to_be_said() {
        let subscription = subscription(&config(r#"{ "topics": ["orders"] }"#)).unwrap();
        assert_eq!(subscription.connection, "main");
        assert_eq!(subscription.group, "");
        assert_eq!(subscription.topics, ["orders"]);
        assert_eq!(subscription.start, Start::Earliest);
        assert_eq!(subscription.partitions, None);
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let subscription = subscription(&config(r#"{ "topics_regex": "a|b.*", "from": "latest" }"#)).unwrap();
        assert_eq!(subscription.topics, ["^(a|b.*)$"]);
        assert_eq!(subscription.start, Start::Latest);
    }

    #[test]
    fn fixed_partitions_name_their_topics() {
        let subscription = subscription(&config(r#"{ "partitions": { "orders": [0, 2] } }"#)).unwrap();
        assert_eq!(subscription.topics, ["orders"]);
        let numbers: Vec<u32> = subscription.partitions.unwrap().iter().map(|partition| partition.number).collect();
        assert_eq!(numbers, [0, 2]);
    }

    #[test]
    fn what_excludes_each_other_is_a_problem_with_its_place() {
        let cases = [
            ("{}", "/topics"),
            (r#"{ "topics": [] }"#, "/topics"),
            (r#"{ "topics": ["^a"] }"#, "/topics"),
            (r#"{ "topics": ["a"], "topics_regex": "b" }"#, "/topics_regex"),
            (r#"{ "topics_regex": "b", "partitions": { "b": [0] } }"#, "/partitions"),
            (r#"{ "topics": ["a"], "partitions": { "b": [0] } }"#, "/partitions"),
        ];
        for (json, path) in cases {
            assert_eq!(Kafka::check(&config(json)).unwrap_err()[0].path, path, "{json}");
        }
    }

    #[test]
    fn it_needs_its_connection() {
        let needs = Kafka::check(&config(r#"{ "connection": "east", "topics": ["a"] }"#)).unwrap();
        assert_eq!(needs, [Need::new("kafka", "east")]);
    }
}
