//! Many stages in one agent that have nothing to do: memory a stage, and how much of a core they use.

use std::cell::Cell;
use std::time::Duration;

use anyhow::ensure;
use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::measure::load;
use wasmflow_tests::port::free_port;
use wasmflow_tests::process::wait_until;

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::report::Report;

/// How long idling is measured.
const SPAN: Duration = Duration::from_secs(6);
/// After the start, until everything has come to rest.
const REST: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(120);
/// What the memory of one stage is the difference to.
const FEWEST: usize = 2;

/// How stages are spread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A `netcat` source and a `null` sink in each pipeline.
    ManyPipelines,
    /// One source, the others are sinks of its channel.
    OnePipeline,
}

const WAYS: [(usize, Layout, &str); 4] = [
    (10, Layout::ManyPipelines, "10 stages"),
    (100, Layout::ManyPipelines, "100 stages"),
    (1000, Layout::ManyPipelines, "1000 stages"),
    (1000, Layout::OnePipeline, "1000 stages in one pipeline"),
];

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let fewest = Cell::new(0.0);
    let idled: [Cell<f64>; WAYS.len()] = Default::default();
    let mut contest = Contest::new(measuring.runs);
    contest.cost("2 stages: resident", "MB", None, |_| {
        fewest.set(idle(FEWEST, Layout::ManyPipelines)?.0);
        Ok(Sample::of(fewest.get()))
    });
    for ((stages, layout, name), idled) in WAYS.into_iter().zip(&idled) {
        let fewest = &fewest;
        contest.cost(format!("{name}: memory a stage"), "MB", None, move |_| {
            let (resident, percent) = idle(stages, layout)?;
            idled.set(percent);
            let a_stage = (resident - fewest.get()) / (stages - FEWEST) as f64;
            Ok(Sample { resident: Some(resident), ..Sample::of(a_stage) })
        });
        contest.cost(format!("{name}: idle processor"), "% of a core", None, move |_| Ok(Sample::of(idled.get())));
    }
    contest.run(report)
}

/// Resident MB of an agent with so many stages, and the percent of a core it uses.
fn idle(stages: usize, layout: Layout) -> anyhow::Result<(f64, f64)> {
    let files: Vec<_> = match layout {
        Layout::ManyPipelines => (0..stages / 2).map(|number| pipeline(number, 1)).collect(),
        Layout::OnePipeline => vec![pipeline(0, stages - 1)],
    };
    let agent = Agent::run_together(&files.iter().collect::<Vec<_>>());
    let started = || agent.stderr().all().iter().filter(|line| line.contains("pipeline started")).count();
    ensure!(wait_until(LIMIT, || started() == files.len()), "{} of {} pipelines started", started(), files.len());
    std::thread::sleep(REST);
    let percent = load(&agent, SPAN) * 100.0;
    let resident = agent.process().resident_bytes() as f64 / 1e6;
    agent.kill();
    Ok((resident, percent))
}

fn pipeline(number: usize, sinks: usize) -> PipelineFile {
    let port = free_port();
    let mut stages = format!(
        r#"
    [channels.events]
    type = "memory"
    [sources.netcat]
    plugin = "netcat"
    channels = ["events"]
    config = {{ bind = "127.0.0.1:{port}" }}
    allow = {{ listen = ["127.0.0.1:{port}"] }}
"#
    );
    for sink in 0..sinks {
        stages += &format!("    [sinks.nowhere{sink}]\n    plugin = \"null\"\n    channel = \"events\"\n");
    }
    PipelineFile::new(&format!("stages-{number}"), &stages)
}
