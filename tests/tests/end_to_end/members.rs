//! Agents that come back to their consumer group within their session and under their name: the group has kept their place, and what it
//! kept need not be what they ask for now.

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::Topics;

use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// One of the agents of a group, printing the records of the topics that it is told to read.
struct Member<'b> {
    broker: &'b KafkaBroker,
    group: &'static str,
    pipeline: PipelineFile,
}

impl<'b> Member<'b> {
    /// Of the group of this name.
    fn of(broker: &'b KafkaBroker, group: &'static str) -> Self {
        Self { broker, group, pipeline: PipelineFile::new(group, "") }
    }

    /// Starts the agent `instance` with these keys of the Kafka source.
    fn starts(&self, instance: &str, subscription: &str) -> Agent {
        // A session that outlasts the test: no place is lost by the time that it takes to come back.
        let stages = format!(
            r#"{}
    [kafka.main]
    {}
    "session.timeout.ms" = 240000

    [sources.in]
    plugin = "kafka"
    channels = ["events"]
    config = {{ {subscription} }}
    allow = {{ kafka = ["main"] }}
"#,
            pipelines::CONSOLE,
            pipelines::connection(&self.broker.address())
        );
        self.pipeline.rewrite(self.group, &stages);
        let text = std::fs::read_to_string(self.pipeline.path()).expect("it has been written");
        let text = text.replace("instance = \"test\"", &format!("instance = \"{instance}\""));
        self.pipeline.folder().write("pipeline.toml", text);
        self.pipeline.run()
    }
}

/// Waits until these lines have been printed, in whatever order, and no other.
fn expect(agent: &Agent, expected: &[&str]) {
    let mut lines = agent.expect_lines(expected.len(), LIMIT);
    lines.sort_unstable();
    assert_eq!(lines, expected, "{}", agent.stderr().text());
}

/// Stops the agent in order; it has printed these lines and no other.
fn stop(agent: Agent, expected: &[&str]) {
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut lines = ended.stdout;
    lines.sort_unstable();
    assert_eq!(lines, expected, "{}", ended.stderr);
}

#[test]
fn an_agent_that_comes_back_reads_what_it_asks_for_now_and_rebalances_for_nothing_else() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    for topic in ["back-old", "back-new", "back-more", "back-most"] {
        topics.create(topic, 2)?;
        (0..2).try_for_each(|partition| topics.produce(topic, partition, [format!("{topic} {partition}")]))?;
    }
    let member = Member::of(broker, "back");
    let agent = member.starts("one", r#"topics = ["back-old"]"#);
    expect(&agent, &["back-old 0", "back-old 1"]);
    agent.kill();

    // Killed, and back with another topic: nothing of the old one is read.
    topics.produce("back-old", 0, ["behind it"])?;
    let agent = member.starts("one", r#"topics = ["back-new"]"#);
    expect(&agent, &["back-new 0", "back-new 1"]);
    stop(agent, &["back-new 0", "back-new 1"]);

    // Stopped in order, which keeps the place as well, and back with one topic more.
    let agent = member.starts("one", r#"topics = ["back-new", "back-more"]"#);
    expect(&agent, &["back-more 0", "back-more 1"]);
    stop(agent, &["back-more 0", "back-more 1"]);

    // A topic has got a partition meanwhile.
    topics.add_partitions("back-more", 3)?;
    topics.produce("back-more", 2, ["back-more 2"])?;
    let agent = member.starts("one", r#"topics = ["back-new", "back-more"]"#);
    expect(&agent, &["back-more 2"]);
    stop(agent, &["back-more 2"]);

    // Nothing is new but records: nobody else would have to rebalance.
    let generation = topics.generation("back")?;
    topics.produce("back-new", 0, ["one more"])?;
    let agent = member.starts("one", r#"topics = ["back-new", "back-more"]"#);
    expect(&agent, &["one more"]);
    stop(agent, &["one more"]);
    assert_eq!(topics.generation("back")?, generation, "it came back to its place");

    // A pattern that matches one topic more.
    let agent = member.starts("one", r#"topics_regex = "back-(new|mo.*)""#);
    expect(&agent, &["back-most 0", "back-most 1"]);
    stop(agent, &["back-most 0", "back-most 1"]);
    Ok(())
}

#[test]
fn what_an_agent_reads_no_more_goes_to_the_others_of_its_group() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    ["parted-a", "parted-b"].iter().try_for_each(|topic| topics.create(topic, 2))?;
    let (one, two) = (Member::of(broker, "parted"), Member::of(broker, "parted"));
    let stays = one.starts("one", r#"topics = ["parted-a"]"#);
    let goes = two.starts("two", r#"topics = ["parted-a"]"#);
    // The second round of the rebalance: each has a partition.
    goes.expect_log("partitions=1", LIMIT);
    (0..2).try_for_each(|partition| topics.produce("parted-a", partition, [format!("a {partition}")]))?;
    goes.expect_lines(1, LIMIT);
    stays.expect_lines(1, LIMIT);
    goes.kill();

    let back = two.starts("two", r#"topics = ["parted-b"]"#);
    (0..2).try_for_each(|partition| topics.produce("parted-a", partition, [format!("a {partition} later")]))?;
    (0..2).try_for_each(|partition| topics.produce("parted-b", partition, [format!("b {partition}")]))?;
    expect(&back, &["b 0", "b 1"]);
    // What the killed one had printed may not have been committed: then it comes once more, to the other one.
    for line in ["a 0 later", "a 1 later"] {
        let came = stays.stdout().wait_for(0, line, LIMIT);
        assert!(came.is_some(), "{line}: {}", stays.stderr().text());
    }
    stop(back, &["b 0", "b 1"]);
    assert_eq!(stays.stop().code, Some(0));
    Ok(())
}
