//! Every folder of `examples/`, run as its README says, against servers of the test's own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wasmflow_tests::agent::{Agent, Options};
use wasmflow_tests::binary::{repository, wasmflow};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::database::MariaDb;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::port::free_port;
use wasmflow_tests::records::Topics;

const LIMIT: Duration = Duration::from_secs(60);

/// A copy of an example, with the addresses that its README takes for granted replaced by those of the test's servers.
struct Example {
    folder: Folder,
}

impl Example {
    fn copy(name: &str, replaced: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = Folder::new(name);
        for file in std::fs::read_dir(original(name))? {
            let path = file?.path();
            if path.is_dir() {
                continue;
            }
            let to = folder.join(path.file_name().expect("it is listed by its name"));
            match path.extension().is_some_and(|extension| extension == "toml") {
                true => {
                    let text = std::fs::read_to_string(&path)?;
                    std::fs::write(to, replaced.iter().fold(text, |text, (from, to)| text.replace(from, to)))?;
                }
                false => _ = std::fs::copy(&path, to)?,
            }
        }
        Ok(Self { folder })
    }

    fn run(&self, pipeline: &str) -> Agent {
        Agent::run(&self.folder.join(pipeline))
    }

    /// Runs a pipeline that says nothing of its state, with the user's state folder inside the example's.
    fn run_at_home(&self, pipeline: &str) -> Agent {
        let home = self.folder.path().to_string_lossy().into_owned();
        let options = Options { env: vec![("XDG_STATE_HOME", &home)], ..Options::default() };
        Agent::run_with(&self.folder.join(pipeline), &options)
    }

    /// What the README does with `echo … >> file`.
    fn append(&self, file: &str, line: &str) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(file))?;
        Ok(writeln!(file, "{line}")?)
    }
}

fn original(name: &str) -> std::path::PathBuf {
    repository().join("examples").join(name)
}

/// Builds an example's own plugin by its Makefile.
fn make(folder: &Path) {
    let mut make = Command::new("make");
    // What the outer cargo says of itself is not meant for this build.
    make.current_dir(folder).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").env_remove("MAKEFLAGS");
    assert!(make.status().expect("make can be started").success(), "the example's plugin does not compile");
}

#[test]
fn every_example_has_a_test_and_a_readme() {
    let tested = include_str!("examples.rs");
    for folder in std::fs::read_dir(repository().join("examples")).unwrap().flatten() {
        let name = folder.file_name().into_string().unwrap();
        if folder.path().is_dir() {
            assert!(tested.contains(&format!("\"{name}\"")), "examples/{name} is run by no test");
            assert!(folder.path().join("README.md").exists(), "examples/{name} has no README.md");
        }
    }
}

#[test]
fn every_pipeline_of_the_examples_names_the_schema_and_the_schema_is_the_current_one() -> anyhow::Result<()> {
    let examples = repository().join("examples");
    for file in
        std::fs::read_dir(&examples)?.flatten().filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten()
    {
        let path = file?.path();
        let is_pipeline =
            path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with("Cargo.toml");
        let text = if is_pipeline { std::fs::read_to_string(&path)? } else { continue };
        assert!(text.starts_with("#:schema ../pipeline.schema.json\n"), "{}", path.display());
    }
    let printed = Command::new(wasmflow()).arg("schema").output()?.stdout;
    let kept = std::fs::read(examples.join("pipeline.schema.json"))?;
    assert!(kept == printed, "run: wasmflow schema > examples/pipeline.schema.json");
    Ok(())
}

#[test]
fn the_quick_start_prints_the_masked_sample_and_ends_by_itself() -> anyhow::Result<()> {
    let example = Example::copy("quickstart", &[])?;
    let mut lines = example.run("pipeline.toml").expect_done(LIMIT);
    lines.sort();
    let sample = std::fs::read_to_string(original("quickstart").join("sample.log"))?;
    assert_eq!(lines.len(), sample.lines().count(), "{lines:?}");
    for (line, original) in lines.iter().zip(sample.lines()) {
        assert!(line.starts_with(&format!("from kafka: {}", &original[..20])), "{line}");
        assert!(line.ends_with(" <end>"), "{line}");
    }
    let text = lines.join("\n");
    assert!(text.contains("card=************1111") && !text.contains("4111111111111111"), "{text}");
    Ok(())
}

#[test]
fn a_tailed_file_reaches_its_topic_through_two_kills() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let example =
        Example::copy("tail-to-kafka", &[("localhost:9092", &broker.address()), ("kafka-test", "tailed-test")])?;
    let topics = Topics::at(broker.address());
    topics.create("tailed-test", 1)?;
    let mut written = 0;
    for round in 0..3 {
        let agent = example.run("pipeline.toml");
        for _ in 0..20 {
            example.append("flume-test.log", &format!("line {written:03}"))?;
            written += 1;
        }
        match round {
            2 => topics.wait_for_count("tailed-test", written, LIMIT)?,
            _ => std::thread::sleep(Duration::from_millis(400)),
        }
        agent.kill();
    }
    let mut lines: Vec<_> = topics.read_all("tailed-test")?.iter().map(|record| record.text()).collect();
    lines.sort();
    lines.dedup();
    let expected: Vec<_> = (0..written).map(|number| format!("line {number:03}")).collect();
    assert_eq!(lines, expected);
    Ok(())
}

#[test]
fn kafka_in_and_kafka_out_share_a_file_and_do_not_loop() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let example = Example::copy("kafka-in-out", &[("localhost:9092", &broker.address())])?;
    let topics = Topics::at(broker.address());
    for topic in ["test1", "test2", "mytopic", "flume_test"] {
        topics.create(topic, 1)?;
    }
    topics.produce("test1", 0, ["one", "two"])?;
    topics.produce("test2", 0, ["three"])?;
    let agent = example.run("pipeline.toml");
    topics.wait_for_count("mytopic", 3, LIMIT)?;
    example.append("flume-test", "hello")?;
    let shown = agent.expect_lines(1, LIMIT);
    assert!(shown[0].ends_with("body: 68 65 6C 6C 6F hello }"), "{shown:?}");
    // Time enough for a loop to show.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((topics.count("mytopic")?, topics.count("test1")?, topics.count("test2")?), (3, 2, 1));
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn consumers_of_one_group_share_what_another_group_has_for_itself() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let address = broker.address();
    let replaced = [("localhost:9092", &*address), ("test-topic", "shared-topic")];
    let example = Example::copy("consumer-groups", &replaced)?;
    let topics = Topics::at(broker.address());
    topics.create("shared-topic", 4)?;
    let agents: Vec<_> = ["group-a-1.toml", "group-a-2.toml", "group-b.toml"].map(|file| example.run(file)).into();
    let producer = example.run("producer.toml");
    for number in 0..40 {
        example.append("test.log", &format!("event {number}"))?;
    }
    let alone = agents[2].expect_lines(40, LIMIT);
    assert!(alone.iter().all(|line| line.starts_with("b: event ")), "{alone:?}");
    let shared = || -> Vec<_> { agents[..2].iter().flat_map(|agent| agent.stdout().all()).collect() };
    wasmflow_tests::process::wait_until(LIMIT, || shared().len() >= 40);
    let mut seen: Vec<_> = shared().iter().filter_map(|line| Some(line.split_once(": ")?.1.to_owned())).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 40, "each event reaches one of the group");
    producer.stop();
    agents.into_iter().for_each(|agent| assert_eq!(agent.stop().code, Some(0)));
    Ok(())
}

#[test]
fn netcat_to_logger_answers_ok_and_shows_the_event_as_flume_does() -> anyhow::Result<()> {
    let port = free_port();
    let example = Example::copy("netcat-to-logger", &[("44444", &port.to_string())])?;
    let agent = example.run_at_home("pipeline.toml");
    let mut client = NetcatClient::connect(port);
    assert_eq!(client.ask("hello flume"), "OK");
    let shown = agent.expect_lines(1, LIMIT);
    assert!(shown[0].starts_with("Event: { headers:{remote=127.0.0.1:"), "{shown:?}");
    assert!(shown[0].ends_with("} body: 68 65 6C 6C 6F 20 66 6C 75 6D 65 hello flume }"), "{shown:?}");
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn a_source_of_ones_own_brings_five_events_and_pauses() -> anyhow::Result<()> {
    make(&original("my-source"));
    let example = Example::copy("my-source", &[("delay = \"1s\"", "delay = \"200ms\"")])?;
    let agent = example.run_at_home("pipeline.toml");
    let lines = agent.expect_lines(12, LIMIT);
    for (number, line) in lines.iter().enumerate() {
        assert!(line.ends_with(&format!(" mySource-{} }}", number % 5)), "{lines:?}");
        assert!(line.starts_with("Event: { headers:{} body: "), "{lines:?}");
    }
    let stopping = std::time::Instant::now();
    assert_eq!(agent.stop().code, Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(5), "stopping does not wait for the source");
    Ok(())
}

#[test]
fn a_sink_of_ones_own_prints_between_prefix_and_suffix() -> anyhow::Result<()> {
    make(&original("my-sink"));
    let port = free_port();
    let example = Example::copy("my-sink", &[("44444", &port.to_string())])?;
    let agent = example.run_at_home("pipeline.toml");
    let mut client = NetcatClient::connect(port);
    assert_eq!([client.ask("hello"), client.ask("flume")], ["OK", "OK"]);
    let lines = agent.expect_lines(2, LIMIT);
    assert_eq!(lines, ["mysinkprefix:hello:myskinsuffix", "mysinkprefix:flume:myskinsuffix"]);
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn rows_of_a_table_reach_the_logger_and_a_new_row_follows() -> anyhow::Result<()> {
    let Some(database) = MariaDb::shared() else { return Ok(()) };
    let address = database.address();
    let replaced =
        [("127.0.0.1:3306", &*address), ("mysqlsource\"", "example\""), ("root", "reader"), ("\"5s\"", "\"100ms\"")];
    let example = Example::copy("mysql-source", &replaced)?;
    let rows = std::fs::read_to_string(original("mysql-source").join("student.sql"))?;
    database.sql(&format!("CREATE DATABASE example; USE example; {rows}"))?;
    database.sql("CREATE USER reader IDENTIFIED BY 'pass word'; GRANT SELECT ON example.* TO reader")?;
    let options = Options { env: vec![("MYSQL_PASSWORD", "pass word")], ..Options::default() };
    let agent = Agent::run_with(&example.folder.join("pipeline.toml"), &options);
    let lines = agent.expect_lines(4, LIMIT);
    assert!(lines[0].starts_with("Event: { headers:{} body: 31 2C 7A 68 61 6E 67 73 61 6E 2C "), "{lines:?}");
    database.sql("INSERT INTO example.student (name) VALUES ('qianqi')")?;
    let lines = agent.expect_lines(5, LIMIT);
    assert!(lines[4].ends_with(" 5,qianqi, }"), "{lines:?}");
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}
