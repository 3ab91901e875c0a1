//! A changed pipeline file is applied while events flow: what is not touched neither loses, repeats nor reorders anything.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::ledger::{self, Ledger};
use wasmflow_tests::process::wait_until;
use wasmflow_tests::rolled::rolled_lines;
use wasmflow_tests::stop::RaisedAtEnd;

const LIMIT: Duration = Duration::from_secs(60);

/// A tailed folder, a channel of this type and a folder of rolled files; `more` are further keys of the source, the sink.
pub fn road(name: &str, channel: &str, [source, sink]: [&str; 2]) -> String {
    format!(
        r#"
[channels.{name}-events]
type = "{channel}"

[sources.{name}-log]
plugin = "tail"
channels = ["{name}-events"]
config = {{ files = ["{name}/*.log"], file_header = false, poll_interval = "20ms" }}
allow = {{ dirs = [{{ path = "{name}" }}] }}
{source}

[sinks.{name}-out]
plugin = "file-roll"
channel = "{name}-events"
config = {{ dir = "{name}-out", roll_interval = "0" }}
allow = {{ dirs = [{{ path = "{name}-out", write = true }}] }}
{sink}
"#
    )
}

/// A pipeline with this road and the folders of several, with a flow of lines on the road `main` until `work` is done; then what has
/// arrived on it is each line once, in order.
fn while_it_flows(name: &str, stages: &str, work: impl FnOnce(&PipelineFile, &Agent)) -> anyhow::Result<()> {
    let pipeline = PipelineFile::new(name, stages);
    for road in ["main", "other"] {
        std::fs::create_dir(pipeline.folder().join(road))?;
        std::fs::create_dir(pipeline.folder().join(format!("{road}-out")))?;
    }
    let agent = started(&pipeline);
    let stop = AtomicBool::new(false);
    let (log, out) = (pipeline.folder().join("main/app.log"), pipeline.folder().join("main-out"));
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| ledger::append_until(&log, &stop));
        let _at_end = RaisedAtEnd(&stop);
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&pipeline, &agent)));
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().expect("the writer does not panic");
        worked.map(|()| written).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    expect_lines(&agent, &out, written as usize);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Ledger::of(rolled_lines(&out)).assert_each_once_in_order("log", written);
    Ok(())
}

/// Waits until this many lines have arrived in a folder of rolled files.
pub fn expect_lines(agent: &Agent, out: &Path, count: usize) {
    let arrived = wait_until(LIMIT, || rolled_lines(out).len() >= count);
    assert!(arrived, "{} of {count} lines; the log:\n{}", rolled_lines(out).len(), agent.stderr().text());
}

/// An agent that takes signals by now.
pub fn started(pipeline: &PipelineFile) -> Agent {
    let agent = pipeline.run();
    agent.expect_log("pipeline started", LIMIT);
    agent
}

fn apply(pipeline: &PipelineFile, agent: &Agent, name: &str, stages: &str) -> String {
    pipeline.rewrite(name, stages);
    let said = agent.reload();
    assert!(!said.contains("not reloaded"), "{said}");
    said
}

#[test]
fn a_road_comes_and_goes_while_another_flows() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    while_it_flows("roads-come", &main, |pipeline, agent| {
        let other = pipeline.folder().join("other");
        let both = format!("{main}{}", road("other", "memory", ["", ""]));
        for round in 0..3 {
            std::fs::write(other.join(format!("{round}.log")), ledger::lines(&format!("r{round}"), 0..1000)).unwrap();
            let said = apply(pipeline, agent, "roads-come", &both);
            for added in ["added channel `other-events`", "added source `other-log`", "added sink `other-out`"] {
                assert!(said.contains(added), "{said}");
            }
            assert!(!said.contains("main"), "{said}");
            expect_lines(agent, &pipeline.folder().join("other-out"), 1000 * (round + 1));
            let said = apply(pipeline, agent, "roads-come", &main);
            assert!(said.contains("removed source `other-log`"), "{said}");
        }
        // A source that comes again goes on where it was.
        let arrived = Ledger::of(rolled_lines(&pipeline.folder().join("other-out")));
        (0..3).for_each(|round| arrived.assert_each_once_in_order(&format!("r{round}"), 1000));
    })
}

#[test]
fn a_second_sink_of_a_channel_gets_what_is_put_from_then_on() -> anyhow::Result<()> {
    for channel in ["memory", "file"] {
        let main = road("main", channel, ["", ""]);
        let extra = "[sinks.extra]\nplugin = \"file-roll\"\nchannel = \"main-events\"\n\
                     config = { dir = \"other-out\", roll_interval = \"0\" }\n\
                     allow = { dirs = [{ path = \"other-out\", write = true }] }\n";
        while_it_flows("second-sink", &main, |pipeline, agent| {
            expect_lines(agent, &pipeline.folder().join("main-out"), 100);
            apply(pipeline, agent, "second-sink", &format!("{main}{extra}"));
            expect_lines(agent, &pipeline.folder().join("other-out"), 1000);
            let numbers: Vec<u64> = rolled_lines(&pipeline.folder().join("other-out"))
                .iter()
                .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
                .collect();
            assert!(numbers[0] >= 100, "it starts at the next event put, and not at {}", numbers[0]);
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "each once, in order");
        })?;
    }
    Ok(())
}

#[test]
fn runners_restart_in_the_middle_of_the_flow_and_each_line_arrives_once_in_order() -> anyhow::Result<()> {
    for channel in ["memory", "file"] {
        let stages = |number: usize| {
            let (source, sink) =
                (format!("batch_events = {}", 100 + number), format!("batch_events = {}", 50 + number));
            let mark = "[interceptors.mark]\nplugin = \"static\"\nconfig = { headers = { a = \"b\" } }\n";
            match number % 2 {
                0 => road("main", channel, [&source, &sink]),
                _ => {
                    format!("{mark}{}", road("main", channel, [&format!("{source}\ninterceptors = [\"mark\"]"), &sink]))
                }
            }
        };
        while_it_flows("restarts", &stages(0), |pipeline, agent| {
            for number in 1..=10 {
                let said = apply(pipeline, agent, "restarts", &stages(number));
                assert!(said.contains("restarted source `main-log`, restarted sink `main-out`"), "{said}");
            }
        })?;
    }
    Ok(())
}

#[test]
fn a_source_moves_from_one_channel_to_another_and_each_line_arrives_once() -> anyhow::Result<()> {
    let sinks = |channel: &str| {
        format!(
            "[channels.next]\ntype = \"{channel}\"\n[sinks.next-out]\nplugin = \"file-roll\"\nchannel = \"next\"\n\
             config = {{ dir = \"main-out\", prefix = \"next\", roll_interval = \"0\" }}\n\
             allow = {{ dirs = [{{ path = \"main-out\", write = true }}] }}\n"
        )
    };
    for (from, to) in [("memory", "file"), ("file", "memory"), ("file", "file")] {
        let pipeline = PipelineFile::new("moves", &road("main", from, ["", ""]));
        for folder in ["main", "main-out"] {
            std::fs::create_dir(pipeline.folder().join(folder))?;
        }
        let out = pipeline.folder().join("main-out");
        let agent = started(&pipeline);
        std::fs::write(pipeline.folder().join("main/1.log"), ledger::lines("log", 0..5000))?;
        // The channel that the source leaves ends; what is in it is delivered before it goes.
        let moved = road("main", from, ["", ""]);
        let (channel, rest) = moved.split_once("[sources").expect("the road has a source");
        let source = format!("[sources{}", rest.split_once("[sinks").expect("the road has a sink").0);
        assert!(channel.contains("main-events"));
        let stages = format!("{}{}", sinks(to), source.replace("main-events", "next"));
        apply(&pipeline, &agent, "moves", &stages);
        std::fs::write(pipeline.folder().join("main/2.log"), ledger::lines("log", 5000..10_000))?;
        expect_lines(&agent, &out, 10_000);
        let ended = agent.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let mut lines = rolled_lines(&out);
        lines.sort_by_key(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap());
        Ledger::of(lines).assert_each_once_in_order("log", 10_000);
        // And a start after that finds the position where it is kept now.
        let agent = pipeline.run();
        std::fs::write(pipeline.folder().join("main/3.log"), ledger::lines("log", 10_000..10_001))?;
        expect_lines(&agent, &out, 10_001);
        assert_eq!(agent.stop().code, Some(0));
        assert_eq!(rolled_lines(&out).len(), 10_001, "{from} to {to}");
    }
    Ok(())
}

#[test]
fn sinks_that_swap_names_share_the_flow_without_loss_or_repeat() -> anyhow::Result<()> {
    let sink = |name: &str, channel: &str| {
        format!(
            "[sinks.{name}]\nplugin = \"file-roll\"\nchannel = \"{channel}\"\n\
             config = {{ dir = \"{channel}\", roll_interval = \"0\" }}\n\
             allow = {{ dirs = [{{ path = \"{channel}\", write = true }}] }}\n"
        )
    };
    let stages = |left: &str, right: &str| {
        let source = "[channels.left]\n[channels.right]\n[sources.log]\nplugin = \"tail\"\nchannels = [\"left\", \"right\"]\n\
                      config = { files = [\"main/*.log\"], file_header = false, poll_interval = \"20ms\" }\n\
                      allow = { dirs = [{ path = \"main\" }] }\n";
        format!("{source}{}{}", sink(left, "left"), sink(right, "right"))
    };
    let pipeline = PipelineFile::new("swapped-names", &stages("a", "b"));
    for folder in ["main", "left", "right"] {
        std::fs::create_dir(pipeline.folder().join(folder))?;
    }
    let agent = started(&pipeline);
    let stop = AtomicBool::new(false);
    let log = pipeline.folder().join("main/app.log");
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| ledger::append_until(&log, &stop));
        let _at_end = RaisedAtEnd(&stop);
        for round in 0..4 {
            expect_lines(&agent, &pipeline.folder().join("left"), 200 * (round + 1));
            let names = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
            apply(&pipeline, &agent, "swapped-names", &stages(names.0, names.1));
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    })?;
    for folder in ["left", "right"] {
        expect_lines(&agent, &pipeline.folder().join(folder), written as usize);
    }
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for folder in ["left", "right"] {
        Ledger::of(rolled_lines(&pipeline.folder().join(folder))).assert_each_once_in_order("log", written);
    }
    Ok(())
}

#[test]
fn a_name_that_changes_its_kind_is_started_once() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    let names = |source: &str, sink: &str| {
        let other = road("other", "memory", ["", ""]);
        format!("{main}{}", other.replace("sources.other-log", source).replace("sinks.other-out", sink))
    };
    while_it_flows("kinds", &names("sources.x", "sinks.y"), |pipeline, agent| {
        let (other, out) = (pipeline.folder().join("other"), pipeline.folder().join("other-out"));
        std::fs::write(other.join("1.log"), ledger::lines("x", 0..100)).unwrap();
        expect_lines(agent, &out, 100);
        apply(pipeline, agent, "kinds", &names("sources.y", "sinks.x"));
        // `y` is another source, so it reads the folder from its beginning.
        expect_lines(agent, &out, 200);
        std::fs::write(other.join("2.log"), ledger::lines("z", 0..100)).unwrap();
        expect_lines(agent, &out, 300);
        assert_eq!(rolled_lines(&out).len(), 300);
    })
}

#[test]
fn a_hundred_reloads_leave_nothing_behind() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    let with = format!("{main}{}", road("other", "file", ["", ""]));
    while_it_flows("hundred", &main, |pipeline, agent| {
        let count = |what: &str| {
            let folder = format!("/proc/{}/{what}", agent.process().id());
            std::fs::read_dir(folder).expect("the agent runs").count()
        };
        let round = || {
            apply(pipeline, agent, "hundred", &with);
            apply(pipeline, agent, "hundred", &main);
        };
        // What is made once and kept is there after a few.
        (0..5).for_each(|_| round());
        let files = count("fd");
        (0..45).for_each(|_| round());
        // Threads and files of what has gone may take a moment.
        let gone = wait_until(Duration::from_secs(20), || count("fd") <= files + 2);
        assert!(gone, "{} open files after a hundred reloads, {files} before", count("fd"));
    })
}

#[test]
fn reloads_that_come_during_a_reload_end_with_the_last() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    let with = format!("{main}{}", road("other", "memory", ["", ""]));
    while_it_flows("during", &main, |pipeline, agent| {
        for round in 0..20 {
            pipeline.rewrite("during", if round % 2 == 0 { &with } else { &main });
            agent.process().signal(rustix::process::Signal::HUP);
            std::thread::sleep(Duration::from_millis(3));
        }
        pipeline.rewrite("during", &with);
        // Those that still wait read the last file too, so soon there is nothing left to do.
        let done = wait_until(LIMIT, || agent.reload().contains("nothing has changed"));
        assert!(done, "{}", agent.stderr().text());
        std::fs::write(pipeline.folder().join("other/1.log"), ledger::lines("other", 0..100)).unwrap();
        expect_lines(agent, &pipeline.folder().join("other-out"), 100);
        assert_eq!(rolled_lines(&pipeline.folder().join("other-out")).len(), 100, "one source, one sink");
    })
}

#[test]
fn a_stop_in_the_middle_of_reloads_drains_and_ends_in_order() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    let with = format!("{main}{}", road("other", "file", ["", ""]));
    for wait in [0, 5, 20, 50] {
        let pipeline = PipelineFile::new("stopped", &main);
        for folder in ["main", "main-out", "other", "other-out"] {
            std::fs::create_dir(pipeline.folder().join(folder))?;
        }
        let agent = started(&pipeline);
        std::fs::write(pipeline.folder().join("main/1.log"), ledger::lines("log", 0..1000))?;
        expect_lines(&agent, &pipeline.folder().join("main-out"), 1000);
        pipeline.rewrite("stopped", &with);
        agent.process().signal(rustix::process::Signal::HUP);
        std::thread::sleep(Duration::from_millis(wait));
        let ended = agent.stop();
        assert_eq!(ended.code, Some(0), "after {wait} ms: {}", ended.stderr);
        // Whatever of the reload was done, the same file starts again and brings nothing twice.
        let agent = started(&pipeline);
        std::fs::write(pipeline.folder().join("main/2.log"), ledger::lines("log", 1000..2000))?;
        expect_lines(&agent, &pipeline.folder().join("main-out"), 2000);
        assert_eq!(agent.stop().code, Some(0));
        let arrived = Ledger::of(rolled_lines(&pipeline.folder().join("main-out")));
        arrived.assert_each_once_in_order("log", 2000);
    }
    Ok(())
}
