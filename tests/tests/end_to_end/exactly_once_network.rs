//! `delivery = "exactly-once"` over a network that loses or delays what ends a transaction: nobody learns what became of it, and still each
//! event arrives once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::ledger;
use wasmflow_tests::pipelines;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::proxy::{Fault, Proxy};
use wasmflow_tests::records::Topics;
use wasmflow_tests::soak;
use wasmflow_tests::stop::RaisedAtEnd;

use crate::exactly_once::finish;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn ends_of_transactions_that_are_lost_or_late_cost_no_line_and_repeat_none() -> anyhow::Result<()> {
    let proxy = Proxy::start();
    let Some(broker) = KafkaBroker::behind(&proxy) else { return Ok(()) };
    let topics = Topics::at(broker.address());
    let mut random = StdRng::seed_from_u64(soak::seed());
    for channel in ["memory", "file"] {
        let name = format!("once-late-{channel}");
        topics.create(&name, 1)?;
        let connection = pipelines::connection_as_user(&proxy.address());
        let sink = pipelines::topic_sink(&connection, &name).replace("\"memory\"", &format!("\"{channel}\""));
        let stages = pipelines::tail_to("poll_interval = \"20ms\"", &sink);
        let pipeline = PipelineFile::new(&name, &format!("{stages}    batch_events = 100\n"));
        pipeline.promise("delivery = \"exactly-once\"\ntransaction = { interval = \"50ms\" }\n");
        std::fs::create_dir(pipeline.folder().join("logs"))?;
        let log = pipeline.folder().join("logs/app.log");
        // Each fault in a row doubles the back-off before the next try.
        let rounds = soak::times(6, 10);
        let stop = AtomicBool::new(false);
        let agent = pipeline.run();
        let count = std::thread::scope(|scope| -> anyhow::Result<u64> {
            let writer = scope.spawn(|| ledger::append_until(&log, &stop));
            let _at_end = RaisedAtEnd(&stop);
            let mut went_on = true;
            for round in 0..rounds {
                if !went_on {
                    break;
                }
                let before = (topics.count(&name)?, proxy.struck());
                proxy.arm(match round % 2 {
                    0 => Fault::Late(Duration::from_millis(random.random_range(5..400))),
                    _ => Fault::AnswerLost,
                });
                went_on = wait_until(LIMIT, || {
                    std::thread::sleep(Duration::from_millis(50));
                    proxy.struck() > before.1 && topics.count(&name).is_ok_and(|count| count > before.0 + 100)
                });
            }
            // Before anything can fail: the writer would never end.
            stop.store(true, Ordering::Relaxed);
            let count = writer.join().expect("the writer does not panic")?;
            assert!(went_on, "{name}: the log:\n{}", agent.stderr().text());
            Ok(count)
        })?;
        agent.expect_log("ended during the commit", LIMIT);
        finish(agent, &topics, &[&name], count)?;
        println!("{name}: {rounds} faults, {count} lines, each once and in order");
    }
    Ok(())
}
