//! What a call into a plugin costs, by `wasmflow plugin bench`: nothing done, a header set, bodies read, bodies rewritten; the latter in
//! columns and in rows. Beside a copy of the same bodies, and beside native functions that do the same.

use std::cell::Cell;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value as Json;
use wasmflow_tests::binary::wasmflow;
use wasmflow_tests::component::component;

use crate::Measuring;
use crate::contest::{Contest, Sample};
use crate::native::{self, Native};
use crate::report::Report;

/// What `cost-interceptor` does, and what this is called; then the native function that does the same.
const MODES: [(&str, &str, Option<Native>); 6] = [
    ("empty", "nothing done", None),
    ("header", "a header set", Some(Native::Header)),
    ("read", "bodies read", None),
    ("rewrite", "bodies rewritten", Some(Native::Affix)),
    ("read-rows", "bodies read in row form", None),
    ("rewrite-rows", "bodies rewritten in row form", Some(Native::Affix)),
];

pub fn measure(report: &mut Report, measuring: &Measuring) -> anyhow::Result<()> {
    let file = component("cost-interceptor").display().to_string();
    let copies: Vec<Cell<f64>> = MODES.iter().map(|_| Cell::new(0.0)).collect();
    let mut contest = Contest::new(measuring.runs);
    for ((mode, what, native), copy) in MODES.iter().zip(&copies) {
        let what = format!("1000 x 100 B a call, {what}");
        let arguments = [file.clone(), "--config".into(), format!("mode = \"{mode}\"")];
        let line = contest.line(what.as_str(), "events/s", None, move |_| {
            let measured = bench(&arguments)?;
            copy.set(median(&measured["references"]["copy"]["events_per_second"])?);
            sample(&measured)
        });
        contest.hold(line, "copy of the same bodies", move |_| Ok(Sample::of(copy.get())));
        if let Some(native) = native {
            contest.line(format!("{what}: reference: native"), "events/s", None, move |_| native::calls(native, 100));
        }
    }
    for (plugin, config) in [
        ("prefix-suffix", r#"prefix = "<""#.to_owned()),
        ("regex-filter", format!("pattern = '{}'", native::PATTERN)),
        ("search-replace", format!("pattern = '{}'\nreplacement = 'x'", native::SEARCH)),
        ("static", "headers = { site = \"north\" }".to_owned()),
    ] {
        let arguments = [plugin.into(), "--kind".into(), "interceptor".into(), "--config".into(), config];
        contest.line(format!("1000 x 100 B a call, {plugin}"), "events/s", None, move |_| sample(&bench(&arguments)?));
    }
    contest.run(report)
}

fn sample(measured: &Json) -> anyhow::Result<Sample> {
    Ok(Sample {
        cpu: Some(median(&measured["cpu_seconds_per_million"])?),
        ..Sample::of(median(&measured["events_per_second"])?)
    })
}

fn bench(arguments: &[String]) -> anyhow::Result<Json> {
    let mut command = Command::new(wasmflow());
    command.args(["plugin", "bench", "--runs", "1", "--json"]).args(arguments);
    let output = command.output().context("cannot start wasmflow")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("it prints no JSON")
}

fn median(figure: &Json) -> anyhow::Result<f64> {
    figure["median"].as_f64().context("a figure is missing")
}
