//! `wasmflow status`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::agents::{Agent, Ask};
use super::logs::printable;
use super::{failed, pretty, print, runtime};

/// Shows what this user's agents run: pipelines, stages with their generations, rates and lag, channels, and what last went wrong.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Status {
    /// One stage, with the history of its swaps
    #[arg(value_name = "[PIPELINE/]STAGE")]
    stage: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ask: Ask,
}

const EXAMPLES: &str = "\
Rates are those of the last ten seconds; LAG is what a sink has still to settle, or a Kafka source to poll. An agent
is found by its socket in $WASMFLOW_RUNTIME_DIR, else $XDG_RUNTIME_DIR/wasmflow, else a folder of yours beside the temporary files.

Examples:
  wasmflow status
  wasmflow status orders/enrich                # generations of one stage, and its swaps
  wasmflow status --json | jq '.agents[].problems'
  wasmflow status --admin 127.0.0.1:9464

Exit codes: 0 answered; 1 no agent answers; 2 wrong usage, or no such stage.";

impl Status {
    pub fn execute(self) -> ExitCode {
        match runtime() {
            Err(error) => failed(&error),
            Ok(runtime) => runtime.block_on(self.show()).unwrap_or_else(|code| code),
        }
    }

    async fn show(self) -> Result<ExitCode, ExitCode> {
        let Self { stage, json, ask } = self;
        if let Some(stage) = stage {
            let detail = ask.target(&stage).await?.detail().await?;
            return Ok(print(&if json { pretty(&detail) } else { detail_text(&detail) }));
        }
        let agents = ask.agents().await?;
        if json {
            let agents: Vec<_> = agents.into_iter().map(|agent| agent.status).collect();
            return Ok(print(&pretty(&json!({ "agents": agents }))));
        }
        Ok(print(&agents.iter().map(agent_text).collect::<Vec<_>>().join("\n")))
    }
}

fn agent_text(agent: &Agent) -> String {
    let status = &agent.status;
    let ready = if status["is_ready"] == true { "ready" } else { "NOT READY" };
    let (process, version) = (&status["process"], word(&status["version"]));
    let mut text = format!("agent {process} at {} (wasmflow {version}): {ready}\n", agent.client.address);
    for problem in items(&status["problems"]) {
        text += &format!("  ! {}\n", word(problem));
    }
    for pipeline in items(&status["pipelines"]) {
        let state = [&pipeline["name"], &pipeline["state"], &pipeline["delivery"]].map(word);
        text += &format!("\npipeline {}: {}, {}\n", state[0], state[1], state[2]);
        text += &stage_table(items(&pipeline["stages"]));
        text += "\n";
        text += &channel_table(items(&pipeline["channels"]));
        for stage in items(&pipeline["stages"]).filter(|stage| !stage["last_error"].is_null()) {
            let error = &stage["last_error"];
            text += &format!(
                "  {} failed last at {}: {}\n",
                word(&stage["name"]),
                word(&error["at"]),
                word(&error["text"])
            );
        }
    }
    text
}

fn stage_table<'v>(stages: impl Iterator<Item = &'v Value>) -> String {
    let head = ["STAGE", "KIND", "STATE", "GEN", "PLUGIN", "IN/S", "OUT/S", "IN", "OUT", "LAG", "REJECTED", "TRAPS"];
    let row = |stage: &Value| {
        let (rates, counters, plugin) = (&stage["rates"], &stage["counters"], &stage["plugin"]);
        vec![
            word(&stage["name"]),
            word(&stage["kind"]),
            word(&stage["state"]),
            word(&stage["generation"]),
            format!("{} {}", word(&plugin["name"]), word(&plugin["version"])),
            short(&rates["in_events_per_s"]),
            short(&rates["out_events_per_s"]),
            short(&counters["in_events"]),
            short(&counters["out_events"]),
            short(if stage["lag_events"].is_null() { &stage["lag_records"] } else { &stage["lag_events"] }),
            short(&counters["rejected_events"]),
            short(&counters["traps"]),
        ]
    };
    table(&head, stages.map(row))
}

fn channel_table<'v>(channels: impl Iterator<Item = &'v Value>) -> String {
    let row = |channel: &Value| {
        let count = |key: &str| channel[key].as_f64().unwrap_or_default();
        let share = |held: f64, capacity: f64| if capacity > 0.0 { 100.0 * held / capacity } else { 0.0 };
        let fill = share(count("events"), count("capacity_events")).max(share(count("bytes"), count("capacity_bytes")));
        let readers: Vec<_> = items(&channel["readers"]).map(|reader| word(&reader["name"])).collect();
        vec![
            word(&channel["name"]),
            word(&channel["kind"]),
            short(&channel["events"]),
            short(&channel["bytes"]),
            format!("{fill:.0} %"),
            readers.join(", "),
        ]
    };
    table(&["CHANNEL", "KIND", "EVENTS", "BYTES", "FULL", "READERS"], channels.map(row))
}

fn detail_text(stage: &Value) -> String {
    let plugin = &stage["plugin"];
    let mut text =
        format!("{} {} of pipeline {}\n", word(&stage["kind"]), word(&stage["name"]), word(&stage["pipeline"]));
    text += &stage_table(std::iter::once(stage));
    text += &format!("\n  plugin    {} ({})\n", word(&plugin["origin"]), word(&plugin["digest"]));
    text += &format!("  since     {}\n", word(&stage["since"]));
    for other in items(&stage["generations"]).filter(|other| other["life"] != "serving") {
        let [life, number, since] = ["life", "number", "since"].map(|key| word(&other[key]));
        let (origin, digest) = (word(&other["plugin"]["origin"]), word(&other["plugin"]["digest"]));
        text += &format!("  {life:<9} generation {number}: {origin} ({digest:.12}), since {since}\n");
    }
    if !stage["last_error"].is_null() {
        let error = &stage["last_error"];
        text += &format!("  error     {} (at {})\n", word(&error["text"]), word(&error["at"]));
    }
    let row = |swap: &Value| {
        let reason = [&swap["step"], &swap["reason"]].map(word);
        vec![
            word(&swap["at"]),
            word(&swap["generation"]),
            word(&swap["trigger"]),
            word(&swap["result"]),
            word(&swap["pause_ms"]),
            word(&swap["plugin"]["version"]),
            reason.into_iter().filter(|text| text != "-").collect::<Vec<_>>().join(": "),
        ]
    };
    let mut swaps = items(&stage["history"]).map(row).peekable();
    if swaps.peek().is_some() {
        text += "\n";
        text += &table(&["SWAPPED AT", "GEN", "BY", "RESULT", "PAUSE MS", "VERSION", "REASON"], swaps);
    }
    text
}

/// Columns as wide as their widest cell, two blanks between them.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A value as one word, harmless on a terminal.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// A number in five characters or so.
fn short(value: &Value) -> String {
    let Some(number) = value.as_f64() else { return "-".into() };
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
    match units.iter().find(|(least, _)| number >= *least) {
        Some((1e4, unit)) => format!("{:.1}{unit}", number / 1e3),
        Some((least, unit)) => format!("{:.1}{unit}", number / least),
        None if number.fract() == 0.0 => format!("{number:.0}"),
        None => format!("{number:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = |number: f64| short(&json!(number));
        assert_eq!([0.0, 9999.0, 12_345.0, 7_170_528.3, 2e9].map(shown), ["0", "9999", "12.3k", "7.2M", "2.0G"]);
        assert_eq!(shown(0.5), "0.5");
        assert_eq!(short(&Value::Null), "-");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["long name".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["A", "B"], rows.into_iter()), "  A          B\n  long name  x\n");
    }
}
