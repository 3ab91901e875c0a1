//! `workers = N` on an interceptor: N instances side by side, and nobody can tell by what comes out.

use std::time::Duration;

use wasmflow_tests::admin::Managed;
use wasmflow_tests::agent::{PipelineFile, wasmflow_run};
use wasmflow_tests::component::{component, stamp_version};
use wasmflow_tests::pipelines;
use wasmflow_tests::soak;
use wasmflow_tests::stamped::{all_numbers_to_files, check_all, lines};

use super::kills::kill_at_random_moments;

const LIMIT: Duration = Duration::from_secs(120);

/// Numbers below `total`, through the interceptor `many`, in batches that no number of workers divides.
fn numbers(total: u64, channel: &str) -> String {
    format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = {total} }}
    batch_events = 997
    interceptors = ["many"]
    {}"#,
        channel.replace("[sinks.console]", "[sinks.console]\n    interceptors = [\"more\"]")
    )
}

/// Puts `before` and `after` around each body, with so many workers.
fn affix(name: &str, workers: u32, before: &str, after: &str) -> String {
    format!(
        r#"
    [interceptors.{name}]
    plugin = "prefix-suffix"
    workers = {workers}
    config = {{ prefix = "{before}", suffix = "{after}" }}
"#
    )
}

#[test]
fn events_come_out_in_the_order_in_which_they_went_in_by_way_of_all_instances() {
    let stages = numbers(50_000, pipelines::CONSOLE) + &affix("many", 4, "<", ">") + &affix("more", 3, "(", ")");
    let pipeline = PipelineFile::new("workers-order", &stages);
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let expected: Vec<_> = (0..50_000).map(|number| format!("(<{number}>)")).collect();
    assert!(ended.stdout == expected, "{} lines, or in another order", ended.stdout.len());
}

#[test]
fn filtered_events_are_gone_and_the_others_stay_in_order() {
    let stages = numbers(20_000, pipelines::CONSOLE) + &affix("more", 4, "", "");
    let many = "\n    [interceptors.many]\n    plugin = \"regex-filter\"\n    workers = 4\n    config = { pattern = \"7\", exclude = true }\n";
    let lines = PipelineFile::new("workers-filter", &(stages + many)).run().expect_done(LIMIT);
    let expected: Vec<_> = (0..20_000).map(|number| number.to_string()).filter(|line| !line.contains('7')).collect();
    assert!(lines == expected, "{} of {} lines, or in another order", lines.len(), expected.len());
}

#[test]
fn kills_neither_lose_nor_repeat_what_goes_into_a_file_channel_by_way_of_all_instances() {
    const TOTAL: u64 = 400_000;
    let channel = r#"
    [channels.events]
    type = "file"
    retain = "1d"
    min_free = "0B"
    [sinks.nowhere]
    plugin = "null"
    channel = "events"
"#;
    let pipeline = PipelineFile::new("workers-kills", &(numbers(TOTAL, channel) + &affix("many", 4, "<", ">")));
    kill_at_random_moments(&pipeline, soak::times(10, 100));
    pipeline.run().expect_done(LIMIT);
    let file = pipeline.path().to_str().expect("the folder is UTF-8");
    let exported = wasmflow_run(&["channel", "export", file, "events", "--format", "raw"]);
    let misplaced = exported.stdout.iter().zip(0..).find(|(line, number)| **line != format!("<{number}>"));
    assert_eq!((misplaced, exported.stdout.len() as u64), (None, TOTAL));
}

#[test]
fn poison_is_found_in_the_piece_of_one_instance_and_the_others_go_on() {
    let many = format!(
        r#"
    [interceptors.many]
    plugin = "{}"
    workers = 4
    config = {{ mode = "panic", when_body_contains = "poison" }}
    [interceptors.name-it]
    plugin = "search-replace"
    config = {{ pattern = "^(1234|4321|9999)$", replacement = "poison $1" }}
{}"#,
        component("hostile-interceptor").display(),
        pipelines::LETTERS
    );
    let stages = numbers(20_000, pipelines::CONSOLE).replace("[\"many\"]", "[\"name-it\", \"many\"]");
    let pipeline = PipelineFile::new("workers-poison", &(stages + &affix("more", 2, "", "") + &many));
    pipeline.promise("dead_letters = \"refused\"\n");
    let lines = pipeline.run().expect_done(LIMIT);
    let (mut letters, good): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with("refused "));
    letters.sort();
    assert_eq!(letters, ["refused poison 1234", "refused poison 4321", "refused poison 9999"]);
    let expected: Vec<_> =
        (0..20_000).filter(|number| ![1234, 4321, 9999].contains(number)).map(|number| number.to_string()).collect();
    assert!(good == expected, "{} of {} lines, or in another order", good.len(), expected.len());
}

#[test]
fn all_instances_are_swapped_between_the_same_two_batches() {
    let pipeline = PipelineFile::new("workers-swap", &all_numbers_to_files("workers = 4"));
    let versions = ["v1", "v2"].map(|version| stamp_version(pipeline.folder().path(), version).display().to_string());
    let agent = Managed::run(&pipeline);
    for swap in 0..50 {
        let report = agent.json(&["swap", "stamp", &versions[(swap + 1) % 2], "--wait-for", "first-batch"]);
        assert_eq!(report["generation"], swap + 2, "{report}");
    }
    assert_eq!(agent.json(&["status", "stamp"])["uses"], 1, "one source, however many instances");
    assert_eq!(agent.into_agent().stop().code, Some(0));
    let lines = lines(&pipeline);
    assert!(lines.iter().any(|line| line.batch.ends_with("/25")), "a batch of 100 is cut in four: {:?}", lines.first());
    for batch in lines.chunks(100) {
        assert!(batch.iter().all(|line| line.version == batch[0].version), "one batch by two versions: {batch:?}");
    }
    assert_eq!(check_all(&lines).len(), 51);
}

#[test]
fn all_instances_go_back_when_one_of_them_does_worse() {
    let pipeline = PipelineFile::new("workers-back", &all_numbers_to_files("workers = 4"));
    let folder = pipeline.folder();
    folder.write("trap.toml", "fault = \"trap\"\nat = 30\n");
    let (v2, trap) = (stamp_version(folder.path(), "v2"), folder.join("trap.toml"));
    let agent = Managed::run(&pipeline);
    let output = agent.command(&["swap", "stamp", &v2.display().to_string(), "--config", &trap.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`watch`"), "{output:?}");
    assert_eq!(agent.json(&["status", "stamp"])["generation"], 1);
    assert_eq!(agent.into_agent().stop().code, Some(0));
    let lines = lines(&pipeline);
    assert!(lines.iter().any(|line| line.version == "v2") && lines.last().is_some_and(|line| line.version == "v1"));
    let misplaced = lines.iter().zip(0..).find(|(line, number)| line.number != *number);
    assert_eq!(misplaced, None, "out of order");
}
