//! SIGKILL at random moments: what a source can replay is not lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::pipelines;
use wasmflow_tests::port::free_port;
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;
use wasmflow_tests::stop::RaisedAtEnd;

#[test]
fn fifty_kills_lose_no_tailed_line() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("killed", 1)?;
    let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), "killed");
    let source = pipelines::tail_to("poll_interval = \"20ms\"", &sink);
    let pipeline = PipelineFile::new("killed", &format!("{source}    batch_events = 100\n"));
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    let log = pipeline.folder().join("logs/app.log");
    let stop = AtomicBool::new(false);
    let kills = soak::times(50, 1000);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| ledger::append_until(&log, &stop));
        let _at_end = RaisedAtEnd(&stop);
        kill_at_random_moments(&pipeline, kills);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    })?;
    let agent = pipeline.run();
    let all = || Ledger::of(topics.read_all("killed").expect("the broker runs").iter().map(|record| record.text()));
    let arrived = wasmflow_tests::process::wait_until(Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(300));
        all().highest("log") == written.checked_sub(1)
    });
    assert!(arrived, "{:?} of {written} lines; the log:\n{}", all().highest("log"), agent.stderr().text());
    assert_eq!(agent.stop().code, Some(0));
    all().assert_none_lost("log", written);
    Ok(())
}

#[test]
fn a_line_that_was_answered_ok_is_on_the_console_whenever_the_agent_is_killed() {
    let mut random = rand::rngs::StdRng::seed_from_u64(soak::seed());
    let mut answered_in_all = 0;
    for round in 0..soak::times(15, 100) {
        let port = free_port();
        let pipeline = PipelineFile::new("answered", &pipelines::netcat_to(port, pipelines::CONSOLE));
        let console = pipeline.folder().join("console");
        let agent = pipeline.run_into(&console);
        let client = std::thread::spawn(move || {
            let mut client = NetcatClient::connect(port);
            let ask = |line: &u32| client.ask_if_open(&format!("{round}-{line}")).as_deref() == Some("OK");
            (0..).take_while(ask).last().map_or(0, |last| last + 1)
        });
        // Some lines at least are on their way then.
        wasmflow_tests::process::wait_until(Duration::from_secs(30), || {
            std::fs::metadata(&console).is_ok_and(|console| console.len() > 0)
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..100)));
        agent.kill();
        let answered: u32 = client.join().expect("the client does not panic");
        let shown = std::fs::read_to_string(&console).expect("the console is a file");
        let shown: Vec<_> = shown.lines().collect();
        let sent: Vec<_> = (0..shown.len()).map(|line| format!("{round}-{line}")).collect();
        assert_eq!(shown, sent);
        assert!(shown.len() >= answered as usize, "round {round}: {answered} answered, {} shown", shown.len());
        answered_in_all += answered;
    }
    println!("{answered_in_all} lines answered, all of them shown");
    assert!(answered_in_all > 0);
}

/// Runs an agent and kills it, again and again, each time between just started and well under way.
pub fn kill_at_random_moments(pipeline: &PipelineFile, kills: u32) {
    let mut random = rand::rngs::StdRng::seed_from_u64(soak::seed());
    for _ in 0..kills {
        let agent = pipeline.run();
        std::thread::sleep(Duration::from_millis(random.random_range(10..900)));
        agent.kill();
    }
}
