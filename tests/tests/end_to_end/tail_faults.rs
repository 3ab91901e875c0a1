//! Files that cannot be read, are not text or hold a line without end.

use std::process::Command;
use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::pipelines;

const LIMIT: Duration = Duration::from_secs(60);

/// Tails the files of `logs` to their ends, onto the console.
fn files_to_console(name: &str, config: &str) -> PipelineFile {
    let pipeline = PipelineFile::new(name, &pipelines::tail_to(config, pipelines::CONSOLE));
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the folder is fresh");
    pipeline
}

#[test]
fn bytes_that_are_not_utf8_pass_unchanged() {
    let pipeline = files_to_console("not-utf8", "follow = false");
    pipeline.folder().write("logs/a.log", b"caf\xe9\n\xff\xfe\n");
    let console = pipeline.folder().join("console");
    pipeline.run_into(&console).expect_done(LIMIT);
    assert_eq!(std::fs::read(console).expect("the agent has written it"), b"caf\xe9\n\xff\xfe\n");
}

#[test]
fn a_line_of_100_mb_is_cut_and_the_lines_around_it_arrive() {
    let pipeline = files_to_console("long-line", "follow = false, max_line_bytes = \"64KiB\"");
    let mut text = b"before\n".to_vec();
    text.resize(100_000_000, b'x');
    text.extend_from_slice(b"\nafter\n");
    pipeline.folder().write("logs/a.log", text);
    let agent = pipeline.run();
    agent.stdout().wait_for(0, "after", LIMIT);
    let peak = agent.process().peak_resident_bytes();
    let lines = agent.expect_done(LIMIT);
    assert_eq!((lines.first().map(String::as_str), lines.last().map(String::as_str)), (Some("before"), Some("after")));
    assert!(lines.iter().all(|line| line.len() <= 64 * 1024), "a line longer than `max_line_bytes` came through");
    assert!(peak < 400_000_000, "{peak} bytes resident");
}

#[test]
fn a_file_without_permission_is_said_and_the_others_are_read() {
    let pipeline = files_to_console("no-permission", "poll_interval = \"50ms\"");
    pipeline.folder().write("logs/open.log", "open\n");
    let closed = pipeline.folder().write("logs/closed.log", "closed\n");
    let chmod = |mode: &str| Command::new("chmod").arg(mode).arg(&closed).status().expect("chmod is everywhere");
    chmod("000");
    // Root reads everything; without these capabilities the mode counts for root too.
    let agent =
        wasmflow_tests::agent::Agent::run_without_capabilities(pipeline.path(), "-dac_override,-dac_read_search");
    assert_eq!(agent.expect_lines(1, LIMIT), ["open"]);
    agent.expect_log("closed.log", LIMIT);
    chmod("644");
    assert_eq!(agent.expect_lines(2, LIMIT), ["open", "closed"]);
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn a_missing_folder_is_waited_for() {
    let pipeline = files_to_console("missing-folder", "poll_interval = \"50ms\"");
    std::fs::remove_dir(pipeline.folder().join("logs")).expect("it is empty");
    let agent = pipeline.run();
    agent.expect_log("logs", LIMIT);
    std::fs::create_dir(pipeline.folder().join("logs")).expect("it is gone");
    pipeline.folder().write("logs/a.log", "late\n");
    assert_eq!(agent.expect_lines(1, LIMIT), ["late"]);
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn a_file_replaced_while_it_is_read_is_read_to_its_end_and_then_the_new_one() {
    let pipeline = files_to_console("replaced", "poll_interval = \"50ms\"");
    let log = pipeline.folder().write("logs/a.log", "old 1\n");
    let agent = pipeline.run();
    agent.expect_lines(1, LIMIT);
    let aside = pipeline.folder().write("aside", "new 1\nnew 2\n");
    std::fs::rename(aside, &log).expect("the same folder");
    assert_eq!(agent.expect_lines(3, LIMIT), ["old 1", "new 1", "new 2"]);
    assert_eq!(agent.stop().code, Some(0));
}
