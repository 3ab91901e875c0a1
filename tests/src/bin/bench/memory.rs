//! The road through memory: `stress` -> interceptors -> memory -> `null`, in an agent of its own, beside a road whose interceptors
//! are native functions called in place of the plugins, and beside `memcpy` of the same bytes.

use std::process::Command;

use wasmflow_tests::agent::{PipelineFile, quiet_run};
use wasmflow_tests::run::{Cost, run};

use crate::Measuring;
use crate::contest::{Contest, Sample, enough};
use crate::native::{self, Native};
use crate::report::Report;

/// One cell: bodies of this size, through these interceptors, to so many sinks.
#[derive(Clone, Copy)]
struct Road {
    body_bytes: usize,
    steps: &'static [Step],
    sinks: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Static,
    Timestamp,
    Affix,
    Regex,
    Replace,
}

use Step::{Affix, Regex, Replace, Static, Timestamp};

const ROADS: &[Road] = &[
    Road { body_bytes: 100, steps: &[], sinks: 1 },
    Road { body_bytes: 100, steps: &[Static], sinks: 1 },
    Road { body_bytes: 100, steps: &[Timestamp], sinks: 1 },
    Road { body_bytes: 100, steps: &[Affix], sinks: 1 },
    Road { body_bytes: 100, steps: &[Regex], sinks: 1 },
    Road { body_bytes: 100, steps: &[Static, Timestamp, Replace], sinks: 1 },
    Road { body_bytes: 100, steps: &[Static; 4], sinks: 1 },
    Road { body_bytes: 100, steps: &[Affix; 4], sinks: 1 },
    Road { body_bytes: 100, steps: &[], sinks: 3 },
    Road { body_bytes: 100, steps: &[Affix], sinks: 3 },
    Road { body_bytes: 1024, steps: &[], sinks: 1 },
    Road { body_bytes: 1024, steps: &[Static], sinks: 1 },
    Road { body_bytes: 1024, steps: &[Affix], sinks: 1 },
    Road { body_bytes: 1024, steps: &[Regex], sinks: 1 },
    Road { body_bytes: 1024, steps: &[Affix; 4], sinks: 1 },
    Road { body_bytes: 1024, steps: &[], sinks: 3 },
];

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let mut contest = Contest::turning(measuring.runs);
    for road in ROADS {
        let events = enough(|events| Ok(road.agent(events, quiet_run)?.wall))?;
        let in_place = contest
            .reference(road.reference(), move |_| native::road(road.body_bytes, &road.natives(), road.sinks, events));
        contest.line(road.name(), "events/s", Some(in_place), move |_| road.cost(events, quiet_run));
    }
    // The two bounds of it all: one core, and bytes that are only copied.
    let bare = &ROADS[0];
    let events = enough(|events| Ok(bare.agent(events, quiet_run)?.wall))?;
    for body_bytes in [100, 1024] {
        let copied = contest.reference("memcpy of the same bytes", move |_| native::copied(body_bytes, events));
        let road = Road { body_bytes, ..*bare };
        let name = format!("{} (beside memcpy)", road.name());
        contest.line(name, "events/s", Some(copied), move |_| road.cost(events, quiet_run));
    }
    for road in [&ROADS[0], &ROADS[1], &ROADS[3]] {
        let name = format!("{} (on one core)", road.name());
        contest.line(name, "events/s", None, move |_| road.cost(events, on_one_core));
    }
    contest.run(report)
}

impl Road {
    fn name(&self) -> String {
        let size = if self.body_bytes == 1024 { "1 KiB".into() } else { format!("{} B", self.body_bytes) };
        let names: Vec<_> = self.steps.iter().map(|step| step.plugin()).collect();
        let steps = match names.as_slice() {
            [] => "no interceptor".to_owned(),
            [first, others @ ..] if names.len() > 1 && others.iter().all(|name| name == first) => {
                format!("{} x {first}", names.len())
            }
            names => names.join(" + "),
        };
        let sinks = if self.sinks == 1 { String::new() } else { format!(", {} sinks", self.sinks) };
        format!("{size}, {steps}{sinks}")
    }

    fn reference(&self) -> &'static str {
        if self.steps.is_empty() { "no runners around the same calls" } else { "native in place of the plugins" }
    }

    fn natives(&self) -> Vec<Native> {
        self.steps.iter().map(|step| step.native()).collect()
    }

    /// What all events cost beyond the first one, whose cost is that of the start.
    fn cost(&self, events: u64, command: fn(&PipelineFile) -> Command) -> anyhow::Result<Sample> {
        let one = self.agent(1, command)?;
        let all = self.agent(events, command)?.beyond(one);
        Ok(Sample::rate(events as f64, &all))
    }

    /// In a folder of its own, so without a position to go on from.
    fn agent(&self, events: u64, command: fn(&PipelineFile) -> Command) -> anyhow::Result<Cost> {
        run(command(&PipelineFile::new("memory", &self.stages(events))))
    }

    fn stages(&self, events: u64) -> String {
        let names: Vec<_> = (0..self.steps.len()).map(|number| format!("\"step{number}\"")).collect();
        let mut text = format!(
            r#"
    [channels.events]
    type = "memory"
    [sources.stress]
    plugin = "stress"
    channels = ["events"]
    config = {{ size_bytes = {}, total = {events} }}
    interceptors = [{}]
"#,
            self.body_bytes,
            names.join(", ")
        );
        for (number, step) in self.steps.iter().enumerate() {
            text +=
                &format!("    [interceptors.step{number}]\n    plugin = \"{}\"\n    {}\n", step.plugin(), step.keys());
        }
        for sink in 0..self.sinks {
            text += &format!("    [sinks.nowhere{sink}]\n    plugin = \"null\"\n    channel = \"events\"\n");
        }
        text
    }
}

impl Step {
    fn plugin(self) -> &'static str {
        match self {
            Static => "static",
            Timestamp => "timestamp",
            Affix => "prefix-suffix",
            Regex => "regex-filter",
            Replace => "search-replace",
        }
    }

    fn keys(self) -> String {
        match self {
            Static => r#"config = { headers = { site = "north" } }"#.into(),
            Timestamp => "allow = { wall_clock = true }".into(),
            Affix => r#"config = { prefix = "<", suffix = ">" }"#.into(),
            Regex => format!("config = {{ pattern = '{}' }}", native::PATTERN),
            Replace => format!("config = {{ pattern = '{}', replacement = \"x\" }}", native::SEARCH),
        }
    }

    fn native(self) -> Native {
        match self {
            Static => Native::Header,
            Timestamp => Native::Timestamp,
            Affix => Native::Affix,
            Regex => Native::Regex,
            Replace => Native::Replace,
        }
    }
}

fn on_one_core(pipeline: &PipelineFile) -> Command {
    let command = quiet_run(pipeline);
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args()).env("RUST_LOG", "warn");
    pinned
}
