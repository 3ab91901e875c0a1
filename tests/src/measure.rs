//! Latency and throughput of a running agent, measured from outside; used by the timing tests and the benchmarks.

use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::netcat::NetcatClient;

/// The middle one of the values.
///
/// # Panics
/// When there are none.
pub fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("measured values have an order"));
    values[values.len() / 2]
}

/// The median time from sending a line until the console shows it, over `count` lines that each find the pipeline idle.
///
/// `send` gets the line and hands it to the pipeline.
///
/// # Panics
/// When a line does not arrive.
pub fn latency_to_console(agent: &Agent, count: usize, mut send: impl FnMut(&str)) -> Duration {
    let mut times: Vec<_> = (0..count)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(20));
            let line = format!("latency {number}.");
            let shown = agent.stdout().count();
            let start = Instant::now();
            send(&line);
            let arrived = agent.stdout().wait_for(shown, &line, Duration::from_secs(10));
            arrived.unwrap_or_else(|| panic!("`{line}` did not arrive")).at.duration_since(start)
        })
        .collect();
    median(&mut times)
}

/// The median time from sending a line to a `netcat` source until its `OK`, over `count` lines that each find the pipeline idle.
pub fn latency_to_ok(client: &mut NetcatClient, count: usize) -> Duration {
    let mut times: Vec<_> = (0..count)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            assert_eq!(client.ask(&format!("latency {number}.")), "OK");
            start.elapsed()
        })
        .collect();
    median(&mut times)
}

/// How many lines a second a client gets an `OK` for that waits for each before it sends the next.
pub fn answers_per_second(client: &mut NetcatClient, span: Duration) -> f64 {
    let start = Instant::now();
    let mut answers = 0_u32;
    while start.elapsed() < span {
        assert_eq!(client.ask("ping"), "OK");
        answers += 1;
    }
    f64::from(answers) / start.elapsed().as_secs_f64()
}

/// The part of one core that the agent uses over `span`.
pub fn load(agent: &Agent, span: Duration) -> f64 {
    let before = agent.process().cpu_time();
    std::thread::sleep(span);
    (agent.process().cpu_time() - before).as_secs_f64() / span.as_secs_f64()
}
