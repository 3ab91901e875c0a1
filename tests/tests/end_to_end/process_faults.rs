//! What happens to the process: signals at bad moments, a console that closes, too few file handles, sinks and dead letters that
//! fail.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use wasmflow_tests::agent::{Agent, Options, PipelineFile};
use wasmflow_tests::component::component;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::soak;

const LIMIT: Duration = Duration::from_secs(60);

/// Numbers, below `total` if there is one, into the channel `events`, which `rest` defines; `keys` go before all tables.
fn numbers(name: &str, total: Option<u64>, keys: &str, rest: &str) -> PipelineFile {
    let config = total.map(|total| format!("config = {{ total = {total} }}")).unwrap_or_default();
    let source = format!("{keys}\n[sources.numbers]\nplugin = \"seq\"\nchannels = [\"events\"]\n{config}\n{rest}");
    PipelineFile::new(name, &source)
}

fn corner_sink(name: &str, channel: &str, config: &str) -> String {
    let plugin = component("corner-sink");
    format!("[sinks.{name}]\nplugin = \"{}\"\nchannel = \"{channel}\"\nconfig = {{ {config} }}\n", plugin.display())
}

fn below(total: u64) -> Vec<String> {
    (0..total).map(|number| number.to_string()).collect()
}

#[test]
fn a_console_that_is_closed_stops_the_pipeline_with_one_reason() {
    let pipeline = numbers("closed-console", None, "", pipelines::CONSOLE);
    let mut agent = pipeline.run_unread();
    // As `head -n 1` does.
    assert_eq!(agent.read_line_and_close_console(), "0");
    let ended = agent.wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("standard output cannot be written any more"), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() < 30, "one reason, and not again and again:\n{}", ended.stderr);
}

#[test]
fn a_port_that_is_taken_stops_the_start_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let ended = PipelineFile::new("taken", &pipelines::netcat_to(port, pipelines::CONSOLE)).run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("127.0.0.1:{port}")), "{}", ended.stderr);
}

#[test]
fn without_file_handles_clients_wait_and_are_served_when_there_are_some() {
    let port = free_port();
    let pipeline = PipelineFile::new("handles", &pipelines::netcat_to(port, pipelines::CONSOLE));
    let agent = Agent::run_with(pipeline.path(), &Options { file_handles: Some(64), ..Options::default() });
    let mut first = NetcatClient::connect(port);
    assert_eq!(first.ask("before"), "OK");
    // The kernel connects them; the agent has no handle left to accept the last of them.
    let mut crowd: Vec<_> = (0..80).map(|_| NetcatClient::connect(port)).collect();
    agent.expect_log("cannot let a client in", LIMIT);
    assert_eq!(first.ask("meanwhile"), "OK", "those inside are served");
    let mut last = crowd.pop().expect("there are eighty");
    drop(crowd);
    assert_eq!(last.ask("after"), "OK", "the one that had to wait is let in when others have left");
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, ["before", "meanwhile", "after"]);
}

#[test]
fn a_term_at_any_moment_of_the_start_stops_cleanly_and_loses_nothing() {
    let rest = "[channels.events]\ntype = \"file\"\nmin_free = \"0B\"\nsegment_bytes = \"64KiB\"\n[sinks.console]\n\
                plugin = \"prefix-suffix\"\nchannel = \"events\"\nconfig = { prefix = \"\" }\n";
    let pipeline = numbers("early-term", Some(200_000), "", rest);
    let mut console = Vec::new();
    let (mut clean, mut at_once) = (0, 0);
    for round in 0..u64::from(soak::times(12, 100)) {
        let agent = pipeline.run();
        // From before the process has set itself up to the middle of its work; each later start recovers the folder.
        std::thread::sleep(Duration::from_millis(round * 7));
        let ended = agent.stop();
        match ended.code {
            Some(0) => clean += 1,
            // Not yet listening for signals: nothing was begun.
            None => {
                at_once += 1;
                assert!(ended.stdout.is_empty() && !ended.stderr.contains("started"), "{}", ended.stderr);
            }
            code => panic!("exit code {code:?}:\n{}", ended.stderr),
        }
        console.extend(ended.stdout);
    }
    println!("{clean} drained, {at_once} before anything had begun");
    console.extend(pipeline.run().expect_done(LIMIT));
    assert_eq!(console, below(200_000), "a stop that drains repeats nothing either");
}

#[test]
fn a_sink_that_fails_now_and_then_keeps_the_order_and_the_others_go_on() {
    let flaky = corner_sink("flaky", "events", "mode = \"flaky\", count = 100");
    let flaky = format!("{flaky}batch_events = 1\nretry = {{ initial = \"1ms\" }}\n");
    let steady = "[sinks.steady]\nplugin = \"file-roll\"\nchannel = \"events\"\nconfig = { dir = \"out\", \
                  roll_interval = \"0s\" }\nallow = { dirs = [{ path = \"out\", write = true }] }\n";
    let pipeline = numbers("flaky", Some(1000), "", &format!("[channels.events]\ntype = \"memory\"\n{flaky}{steady}"));
    std::fs::create_dir(pipeline.folder().join("out")).expect("the folder is fresh");
    assert_eq!(pipeline.run().expect_done(LIMIT), below(1000));
    let files = std::fs::read_dir(pipeline.folder().join("out")).expect("the sink has written");
    let text: String =
        files.map(|file| std::fs::read_to_string(file.expect("it is read").path()).expect("it is text")).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), below(1000));
}

/// Twenty numbers of which ten are refused, into the channel `refused` with room for two, which `sink` reads.
fn refusing(name: &str, sink: &str) -> PipelineFile {
    let rest = format!(
        "[channels.events]\ntype = \"memory\"\n[channels.refused]\ntype = \"memory\"\ncapacity_events = 2\n{}{sink}",
        corner_sink("picky", "events", "mode = \"reject\", pattern = \"1\"")
    );
    numbers(name, Some(20), "dead_letters = \"refused\"\ndrain_timeout = \"2s\"", &rest)
}

/// The numbers below twenty that the sink refuses.
fn with_a_one() -> Vec<String> {
    below(20).into_iter().filter(|number| number.contains('1')).collect()
}

#[test]
fn dead_letters_without_room_hold_the_pipeline_and_none_is_dropped() {
    let letters = corner_sink("letters", "refused", "mode = \"slow\", delay = \"50ms\"") + "batch_events = 1\n";
    let lines = refusing("full-letters", &letters).run().expect_done(LIMIT);
    let (mut letters, passed): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.contains('1'));
    letters.sort_by_key(|line| line.parse::<u32>().expect("a number"));
    assert_eq!(letters, with_a_one());
    assert_eq!(passed, below(20).into_iter().filter(|number| !number.contains('1')).collect::<Vec<_>>());
}

#[test]
fn dead_letters_that_are_refused_stop_the_pipeline_and_come_again_once_it_is_mended() {
    let refuses = corner_sink("letters", "refused", "mode = \"reject\", pattern = \"11\"");
    let pipeline = refusing("refused-letters", &refuses);
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("a dead letter was rejected by the sink that takes them"), "{}", ended.stderr);
    let mended = refusing("refused-letters", &corner_sink("letters", "refused", "mode = \"slow\""));
    std::fs::copy(mended.path(), pipeline.path()).expect("the folder is ours");
    let lines = pipeline.run().expect_done(LIMIT);
    // At least once: what was refused, and what was not settled behind it.
    assert!(lines.contains(&"11".to_owned()), "{lines:?}");
    let mut all: Vec<_> = ended.stdout.into_iter().chain(lines).collect();
    all.sort_by_key(|line| line.parse::<u32>().expect("a number"));
    all.dedup();
    assert_eq!(all, below(20));
}

#[test]
fn dead_letters_whose_sink_hangs_are_no_reason_to_drop_or_to_stop() {
    let letters = corner_sink("letters", "refused", "mode = \"slow\", delay = \"1h\"");
    let pipeline = refusing("hanging-letters", &format!("{letters}limits = {{ call = \"200ms\" }}\n"));
    let agent = pipeline.run();
    agent.expect_log("took longer", LIMIT);
    agent.process().signal(Signal::TERM);
    agent.expect_log("a second signal stops at once", LIMIT);
    agent.process().signal(Signal::TERM);
    let ended = agent.wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let mended = refusing("hanging-letters", &corner_sink("letters", "refused", "mode = \"slow\""));
    std::fs::copy(mended.path(), pipeline.path()).expect("the folder is ours");
    let lines = pipeline.run().expect_done(LIMIT);
    let letters: Vec<_> = lines.into_iter().filter(|line| line.contains('1')).collect();
    assert_eq!(letters, with_a_one(), "none was settled, so all come again");
}
