//! `run --watch`: files are applied when they change on disk, however they change.

use std::path::Path;
use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::component::component;
use wasmflow_tests::ledger;
use wasmflow_tests::rolled::rolled_lines;

use super::reload::{expect_lines, road};

const LIMIT: Duration = Duration::from_secs(60);

struct Watched {
    pipeline: PipelineFile,
    agent: Agent,
}

impl Watched {
    fn run(name: &str, stages: &str) -> Self {
        let pipeline = PipelineFile::new(name, stages);
        for folder in ["main", "main-out", "other", "other-out"] {
            std::fs::create_dir(pipeline.folder().join(folder)).expect("the test's own folder is writable");
        }
        let agent = Agent::run_arguments(pipeline.path(), &["--watch"], &[]);
        agent.expect_log("pipeline started", LIMIT);
        Self { pipeline, agent }
    }

    /// Waits for this in the log, behind the first `seen` lines.
    fn said(&self, seen: usize, needle: &str) -> String {
        let said = self.agent.stderr().wait_for(seen, needle, LIMIT);
        said.unwrap_or_else(|| panic!("the log does not say `{needle}`:\n{}", self.agent.stderr().text())).text
    }

    fn count(&self, seen: usize, needle: &str) -> usize {
        self.agent.stderr().all().iter().skip(seen).filter(|line| line.contains(needle)).count()
    }

    fn flows(&self, number: u64) {
        let lines = ledger::lines("log", number..number + 1);
        std::fs::write(self.pipeline.folder().join(format!("main/{number}.log")), lines)
            .expect("the folder is writable");
        expect_lines(&self.agent, &self.pipeline.folder().join("main-out"), number as usize + 1);
    }
}

fn batch(events: u32) -> String {
    road("main", "memory", [&format!("batch_events = {events}"), ""])
}

#[test]
fn a_saved_file_is_applied_and_a_bad_one_is_said_once_until_it_is_good() {
    let watched = Watched::run("watched", &batch(100));
    watched.flows(0);
    let seen = watched.agent.stderr().count();
    watched.pipeline.rewrite("watched", &batch(200));
    assert!(watched.said(seen, "reloaded").contains("restarted source `main-log`"));
    watched.flows(1);
    let seen = watched.agent.stderr().count();
    let text = std::fs::read_to_string(watched.pipeline.path()).expect("it was written");
    watched.pipeline.folder().write("pipeline.toml", &text[..text.len() / 2]);
    watched.said(seen, "not reloaded");
    watched.flows(2);
    // Looked at again several times by now, whatever made the agent look.
    for _ in 0..3 {
        watched.pipeline.folder().write("unrelated", "x");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(watched.count(seen, "not reloaded"), 1, "{}", watched.agent.stderr().text());
    watched.pipeline.rewrite("watched", &batch(300));
    assert!(watched.said(seen, "changes=").contains("restarted source"));
    watched.flows(3);
    assert_eq!(watched.agent.stop().code, Some(0));
}

#[test]
fn three_saves_in_a_tenth_of_a_second_end_with_the_last() {
    let watched = Watched::run("saves", &batch(100));
    let seen = watched.agent.stderr().count();
    let with = |other: &str| format!("{}{}", batch(100), other);
    for other in
        [road("other", "memory", ["", ""]), "nonsense".into(), road("other", "memory", ["batch_events = 7", ""])]
    {
        watched.pipeline.rewrite("saves", &with(&other));
        std::thread::sleep(Duration::from_millis(30));
    }
    watched.said(seen, "other-log");
    std::fs::write(watched.pipeline.folder().join("other/1.log"), ledger::lines("o", 0..10))
        .expect("the folder is writable");
    expect_lines(&watched.agent, &watched.pipeline.folder().join("other-out"), 10);
    // What was saved last is what runs: applying it once more changes nothing.
    assert!(watched.agent.reload().contains("nothing has changed"), "{}", watched.agent.stderr().text());
    watched.flows(0);
    assert_eq!(watched.agent.stop().code, Some(0));
}

#[test]
fn a_config_map_that_is_replaced_by_a_link_is_applied() -> anyhow::Result<()> {
    let map = PipelineFile::new("map", &batch(100));
    let folder = map.folder();
    for name in ["main", "main-out"] {
        std::fs::create_dir(folder.join(name))?;
    }
    // As Kubernetes mounts them: the file is a link through `..data`, which is replaced by another link.
    let version = |number: u32| -> anyhow::Result<()> {
        map.rewrite("map", &batch(number * 100));
        let dir = folder.join(format!("..{number}"));
        std::fs::create_dir(&dir)?;
        std::fs::rename(map.path(), dir.join("pipeline.toml"))?;
        std::os::unix::fs::symlink(format!("..{number}"), folder.join("..data_tmp"))?;
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
        Ok(())
    };
    version(1)?;
    std::os::unix::fs::symlink("..data/pipeline.toml", map.path())?;
    let agent = Agent::run_arguments(map.path(), &["--watch"], &[]);
    agent.expect_log("pipeline started", LIMIT);
    std::fs::write(folder.join("main/1.log"), ledger::lines("log", 0..10))?;
    expect_lines(&agent, &folder.join("main-out"), 10);
    let seen = agent.stderr().count();
    map_version(&map, folder.path(), 2)?;
    let said = agent.stderr().wait_for(seen, "restarted source `main-log`", LIMIT);
    assert!(said.is_some(), "{}", agent.stderr().text());
    std::fs::write(folder.join("main/2.log"), ledger::lines("log", 10..20))?;
    expect_lines(&agent, &folder.join("main-out"), 20);
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

/// The next version of a config map whose file is a link by now.
fn map_version(map: &PipelineFile, folder: &Path, number: u32) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(map.path())?.replace("batch_events = 100", &format!("batch_events = {number}00"));
    let dir = folder.join(format!("..{number}"));
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("pipeline.toml"), text)?;
    std::os::unix::fs::symlink(format!("..{number}"), folder.join("..data_tmp"))?;
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    Ok(())
}

#[test]
fn a_file_that_is_gone_is_said_once_and_waited_for_even_in_another_folder() -> anyhow::Result<()> {
    let watched = Watched::run("gone", &batch(100));
    watched.flows(0);
    let seen = watched.agent.stderr().count();
    std::fs::remove_file(watched.pipeline.path())?;
    watched.said(seen, "gone or cannot be read");
    watched.flows(1);
    for _ in 0..3 {
        watched.pipeline.folder().write("unrelated", "x");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(watched.count(seen, "gone or cannot be read"), 1);
    watched.pipeline.rewrite("gone", &batch(200));
    watched.said(seen, "restarted source `main-log`");
    watched.flows(2);
    assert_eq!(watched.agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn a_plugin_that_is_saved_again_is_swapped_in_and_half_of_one_is_not() -> anyhow::Result<()> {
    let first = std::fs::read(component("stamp-interceptor"))?;
    let second = replaced(&first, b"stamp-version=v1", b"stamp-version=v2");
    let mark = "[interceptors.mark]\nplugin = \"./mark.wasm\"\n";
    let road = road("main", "memory", ["interceptors = [\"mark\"]", ""]);
    let stages = format!("{}{mark}", road.replace("roll_interval", "format = \"json\", roll_interval"));
    let pipeline = PipelineFile::new("saved-plugin", &stages);
    for folder in ["main", "main-out"] {
        std::fs::create_dir(pipeline.folder().join(folder))?;
    }
    let (wasm, out) = (pipeline.folder().write("mark.wasm", &first), pipeline.folder().join("main-out"));
    let agent = Agent::run_arguments(pipeline.path(), &["--watch"], &[]);
    agent.expect_log("pipeline started", LIMIT);
    std::fs::write(pipeline.folder().join("main/1.log"), "one\n")?;
    expect_lines(&agent, &out, 1);
    let seen = agent.stderr().count();
    std::fs::write(&wasm, &second[..second.len() / 2])?;
    assert!(agent.stderr().wait_for(seen, "not reloaded", LIMIT).is_some(), "{}", agent.stderr().text());
    std::fs::write(pipeline.folder().join("main/2.log"), "two\n")?;
    expect_lines(&agent, &out, 2);
    let seen = agent.stderr().count();
    std::fs::write(&wasm, &second)?;
    let said = agent.stderr().wait_for(seen, "swapped interceptor `mark`", LIMIT);
    assert!(said.is_some(), "{}", agent.stderr().text());
    std::fs::write(pipeline.folder().join("main/3.log"), "three\n")?;
    expect_lines(&agent, &out, 3);
    let lines = rolled_lines(&out);
    let versions: Vec<_> = lines.iter().map(|line| if line.contains("v2") { 2 } else { 1 }).collect();
    assert_eq!(versions, [1, 1, 2], "{lines:?}");
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

/// The bytes with every `from` as `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<_> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "the component has its version in it");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}
