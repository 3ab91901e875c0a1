//! What a broker and its operators do to topics and records while pipelines use them, and records that nobody expects.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::component::component;
use wasmflow_tests::ledger;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::{Record, Topics};

const LIMIT: Duration = Duration::from_secs(60);

/// The stages that read `topic` into the channel `events`; `config` are further keys of the source, `settings` of the connection.
fn from_topic(broker: &KafkaBroker, topic: &str, config: &str, settings: &str) -> String {
    format!(
        r#"
    [kafka.main]
    {connection}
    {settings}
    [sources.topic]
    plugin = "kafka"
    channels = ["events"]
    config = {{ topics = ["{topic}"], {config} }}
    allow = {{ kafka = ["main"] }}
"#,
        connection = pipelines::connection(&broker.address())
    )
}

fn to_console(broker: &KafkaBroker, name: &str, config: &str, settings: &str) -> PipelineFile {
    PipelineFile::new(name, &[&from_topic(broker, name, config, settings), pipelines::CONSOLE].concat())
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn partitions_that_are_added_while_it_runs_are_read() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("grows", 1)?;
    topics.produce("grows", 0, ["first"])?;
    let pipeline = to_console(broker, "grows", "", "\"topic.metadata.refresh.interval.ms\" = 500");
    let agent = pipeline.run();
    agent.expect_lines(1, LIMIT);
    topics.add_partitions("grows", 3)?;
    topics.produce("grows", 1, ["second"])?;
    topics.produce("grows", 2, ["third"])?;
    agent.expect_lines(3, LIMIT);
    let mut ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.sort();
    assert_eq!(ended.stdout, ["first", "second", "third"]);
    Ok(())
}

/// Reads the first hundred of two hundred records of the topic `name`, and has the broker throw away all below the 150th.
fn half_gone(broker: &KafkaBroker, name: &str) -> anyhow::Result<(Topics, PipelineFile)> {
    let topics = Topics::at(broker.address());
    topics.create(name, 1)?;
    topics.produce(name, 0, numbers(0..100))?;
    let pipeline = to_console(broker, name, "follow = false", "");
    assert_eq!(pipeline.run().expect_done(LIMIT), numbers(0..100));
    topics.produce(name, 0, numbers(100..200))?;
    topics.delete_below(name, 0, 150)?;
    Ok((topics, pipeline))
}

#[test]
fn records_gone_before_they_were_read_stop_the_source_with_their_count() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let (_, pipeline) = half_gone(broker, "gone-fail")?;
    for _ in 0..2 {
        let ended = pipeline.run().wait(LIMIT);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stdout.is_empty(), "nothing is skipped silently: {:?}", ended.stdout);
        for words in ["offsets 100 to 149 of `gone-fail`/0, 50 records", "auto.offset.reset", "[kafka.main]"] {
            assert!(ended.stderr.contains(words), "`{words}` is not in:\n{}", ended.stderr);
        }
    }
    // What the error says to do, does.
    let text = std::fs::read_to_string(pipeline.path())?;
    std::fs::write(
        pipeline.path(),
        text.replace("[kafka.main]", "[kafka.main]\n\"auto.offset.reset\" = \"earliest\""),
    )?;
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.stdout, numbers(150..200), "{}", ended.stderr);
    assert!(ended.stderr.contains("records=50"), "they are counted: {}", ended.stderr);
    Ok(())
}

#[test]
fn with_the_policy_latest_what_is_there_is_passed_over_and_counted() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let (topics, pipeline) = half_gone(broker, "gone-latest")?;
    pipeline.rewrite(
        "gone-latest",
        &[&from_topic(broker, "gone-latest", "", "\"auto.offset.reset\" = \"latest\""), pipelines::CONSOLE].concat(),
    );
    let agent = pipeline.run();
    agent.expect_log("records=50", LIMIT);
    // Where the end is turns out at the first fetch, so records may have to come more than once until one is behind it.
    let mut sent = 200;
    let deadline = Instant::now() + LIMIT;
    while agent.stdout().count() == 0 {
        assert!(Instant::now() < deadline, "{}", agent.stderr().text());
        topics.produce("gone-latest", 0, [sent.to_string()])?;
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let first: u64 = agent.expect_lines(1, LIMIT)[0].parse()?;
    assert!(first >= 200, "{first} was there before");
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn a_topic_that_is_made_anew_is_not_taken_for_one_that_is_read_to_its_end() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("anew", 1)?;
    topics.produce("anew", 0, numbers(0..100))?;
    let pipeline = to_console(broker, "anew", "follow = false", "");
    assert_eq!(pipeline.run().expect_done(LIMIT), numbers(0..100));
    topics.delete("anew")?;
    topics.create("anew", 1)?;
    topics.produce("anew", 0, numbers(0..10))?;
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("was read up to offset 100 and ends at 10"), "{}", ended.stderr);
    assert!(ended.stderr.contains("source reset"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn what_kafka_allows_in_a_record_passes_unchanged() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let large = [("max.message.bytes", "4000000")];
    topics.create_with("odd-in", 1, &large)?;
    let plain = Record { partition: 0, offset: 0, key: None, value: Some(b"plain".to_vec()), headers: vec![] };
    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let no_text = b"\xff\xfe\0\xc3\x28 \r\n".to_vec();
    let mut records = vec![
        plain.clone(),
        Record { value: None, key: Some(b"deleted".to_vec()), ..plain.clone() },
        Record { value: None, ..plain.clone() },
        Record { value: Some(vec![]), key: Some(vec![]), ..plain.clone() },
        Record { value: Some(no_text.clone()), key: Some(no_text.clone()), ..plain.clone() },
        Record {
            headers: vec![header("twice", b"a"), header("bytes", &no_text), header("twice", b"b")],
            ..plain.clone()
        },
        Record {
            headers: vec![header("", b"no name"), header("größe \u{1f5dc}", b""), header("large", &[7; 1 << 20])],
            ..plain.clone()
        },
        Record { value: Some(vec![]), headers: vec![header("of", b"nothing")], ..plain.clone() },
        Record { value: None, headers: vec![header("of", b"a tombstone")], ..plain.clone() },
        Record { value: Some(b"last".to_vec()), ..plain },
    ];
    topics.produce_whole("odd-in", &records, &[("message.max.bytes", "4000000")])?;
    records.iter_mut().enumerate().for_each(|(offset, record)| record.offset = offset as i64);
    // With the times of the records they are sent one by one, without them in batches as far as they have no headers.
    for (to, time) in [("odd-timed", ", timestamp_header = \"timestamp\""), ("odd-untimed", "")] {
        topics.create_with(to, 1, &large)?;
        let copy = format!(
            r#"
    [channels.events]
    type = "memory"
    [sinks.copy]
    plugin = "kafka"
    channel = "events"
    config = {{ topic = "{to}"{time} }}
    allow = {{ kafka = ["main"] }}
"#
        );
        let source = from_topic(broker, "odd-in", "follow = false", "\"message.max.bytes\" = 4000000");
        PipelineFile::new(to, &[&source, &copy[..]].concat()).run().expect_done(LIMIT);
        let arrived = topics.read_all(to)?;
        assert_eq!(arrived.len(), records.len());
        for (arrived, sent) in arrived.iter().zip(&records) {
            assert!(arrived == sent, "{:?} came as {:?} in {to}", short(sent), short(arrived));
        }
    }
    Ok(())
}

/// A record as a test's message can bear it.
fn short(record: &Record) -> String {
    format!("{record:?}").chars().take(300).collect()
}

#[test]
fn a_record_that_its_topic_does_not_take_is_a_dead_letter_and_its_neighbours_arrive() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create_with("narrow", 1, &[("max.message.bytes", "1500")])?;
    let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), "narrow");
    let letters = "[channels.refused]\ntype = \"memory\"\n[sinks.letters]\nplugin = \"prefix-suffix\"\nchannel = \
                   \"refused\"\nconfig = { prefix = \"\" }\n";
    let stages = format!("dead_letters = \"refused\"\n{}{letters}", pipelines::tail_to("follow = false", &sink));
    let pipeline = PipelineFile::new("narrow", &stages);
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let wide = "x".repeat(3000);
    let lines: Vec<_> =
        (0..50).map(|number| if number % 20 == 7 { wide.clone() } else { number.to_string() }).collect();
    pipeline.folder().write("logs/app.log", lines.join("\n") + "\n");
    assert_eq!(pipeline.run().expect_done(LIMIT), vec![wide.clone(); 3]);
    let arrived: Vec<_> = topics.read_all("narrow")?.iter().map(Record::text).collect();
    assert_eq!(arrived, lines.into_iter().filter(|line| *line != wide).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_sink_slower_than_the_poll_interval_costs_no_partition() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("slow", 1)?;
    topics.produce("slow", 0, numbers(0..30))?;
    let slow = format!(
        "[channels.events]\ntype = \"memory\"\ncapacity_events = 10\n[sinks.slow]\nplugin = \"{}\"\nchannel = \"events\"\n\
         batch_events = 10\nconfig = {{ mode = \"slow\", delay = \"7s\" }}\n",
        component("corner-sink").display()
    );
    let settings = "\"max.poll.interval.ms\" = 6000\n\"session.timeout.ms\" = 6000";
    let source = from_topic(broker, "slow", "follow = false", settings);
    let source = source.replace("plugin = \"kafka\"", "plugin = \"kafka\"\nbatch_events = 10");
    let ended = PipelineFile::new("slow", &[&source, slow.as_str()].concat()).run().wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, numbers(0..30));
    assert_eq!(ended.stderr.matches("partitions assigned").count(), 1, "it stays in its group: {}", ended.stderr);
    Ok(())
}

#[test]
fn a_stop_under_load_leaves_nothing_behind_and_repeats_nothing() -> anyhow::Result<()> {
    const LINES: u64 = 300_000;
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("loaded", 1)?;
    let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), "loaded");
    let pipeline = PipelineFile::new("loaded", &pipelines::tail_to("follow = false", &sink));
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..LINES));
    for so_many in [1, 50_000, 120_000] {
        let agent = pipeline.run();
        topics.wait_for_count("loaded", so_many, LIMIT)?;
        agent.process().signal(Signal::TERM);
        let ended = agent.wait(LIMIT);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    pipeline.run().expect_done(LIMIT);
    topics.ledger("loaded")?.assert_each_once_in_order("log", LINES);
    Ok(())
}

#[test]
fn a_broker_that_throttles_slows_the_flow_and_drops_nothing() -> anyhow::Result<()> {
    const LINES: u64 = 100_000;
    const BYTES_A_SECOND: u64 = 150_000;
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    broker.limit_client("throttled", BYTES_A_SECOND)?;
    let topics = Topics::at(broker.address());
    topics.create("throttle", 1)?;
    let connection = format!("{}\n\"client.id\" = \"throttled\"", pipelines::connection(&broker.address()));
    let stages = pipelines::tail_to("follow = false", &pipelines::topic_sink(&connection, "throttle"));
    let pipeline = PipelineFile::new("throttle", &stages);
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let lines = ledger::lines("log", 0..LINES);
    // The quota is an average over eleven seconds: what goes beyond it in these has to wait.
    let least = Duration::from_secs(lines.len() as u64 / BYTES_A_SECOND - 11);
    assert!(least > Duration::ZERO);
    pipeline.folder().write("logs/app.log", lines);
    let start = Instant::now();
    let ended = pipeline.run().wait(2 * LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(start.elapsed() >= least, "{:?} is too fast for a client that is throttled", start.elapsed());
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
    topics.ledger("throttle")?.assert_each_once_in_order("log", LINES);
    Ok(())
}

#[test]
fn a_batch_that_cannot_be_unpacked_stops_the_source_until_the_connection_allows_it() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("bomb", 1)?;
    let zeros = Record { partition: 0, offset: 0, key: None, value: Some(vec![0; 1 << 20]), headers: vec![] };
    // Forty MiB that travel as some kB, in one batch.
    let packed = [
        ("compression.type", "zstd"),
        ("linger.ms", "1000"),
        ("message.max.bytes", "100000000"),
        ("batch.size", "100000000"),
    ];
    topics.produce_whole("bomb", &vec![zeros; 40], &packed)?;
    let narrow =
        "\"receive.message.max.bytes\" = 8000000\n\"fetch.max.bytes\" = 4000000\n\"message.max.bytes\" = 4000000";
    let nowhere =
        |settings: &str| [&from_topic(broker, "bomb", "follow = false", settings), pipelines::NOWHERE].concat();
    let pipeline = PipelineFile::new("bomb", &nowhere(narrow));
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in ["`bomb`/0 from offset 0 on cannot be unpacked", "receive.message.max.bytes", "source reset --part"] {
        assert!(ended.stderr.contains(words), "`{words}` is not in:\n{}", ended.stderr);
    }
    pipeline.rewrite("bomb", &nowhere(""));
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("stage=nowhere kind=sink in_events=40 out_events=40"), "{}", ended.stderr);
    Ok(())
}
