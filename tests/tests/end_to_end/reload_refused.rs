//! A changed pipeline file that cannot be applied: it is said why, with the place, and what runs goes on as it is.

use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile, wasmflow_verb};
use wasmflow_tests::component::component;
use wasmflow_tests::ledger;
use wasmflow_tests::rolled::rolled_lines;

use super::reload::{expect_lines, road, started};

/// Runs the road `main` of this type, does `work`, and sees that events still flow.
fn still_flows_after(name: &str, stages: &str, work: impl FnOnce(&PipelineFile, &Agent)) -> anyhow::Result<()> {
    let pipeline = PipelineFile::new(name, stages);
    for folder in ["main", "main-out", "other", "other-out"] {
        std::fs::create_dir(pipeline.folder().join(folder))?;
    }
    let out = pipeline.folder().join("main-out");
    let agent = started(&pipeline);
    std::fs::write(pipeline.folder().join("main/1.log"), ledger::lines("log", 0..100))?;
    expect_lines(&agent, &out, 100);
    work(&pipeline, &agent);
    std::fs::write(pipeline.folder().join("main/2.log"), ledger::lines("log", 100..200))?;
    expect_lines(&agent, &out, 200);
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(rolled_lines(&out), (0..200).map(|number| ledger::line("log", number)).collect::<Vec<_>>());
    Ok(())
}

fn refused(agent: &Agent) -> String {
    let said = agent.reload();
    assert!(said.contains("not reloaded; what runs goes on as it is"), "{said}");
    said
}

#[test]
fn a_file_that_is_not_valid_changes_nothing_and_is_answered_as_validate_does() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    still_flows_after("invalid", &main, |pipeline, agent| {
        pipeline.rewrite(
            "invalid",
            &format!("{}\n[sinks.x]\nplugin = \"null\"\nchanel = \"y\"", main.replace("memory", "memry")),
        );
        let said = refused(agent);
        let validated = wasmflow_verb("validate", pipeline.path());
        let text = format!("{}{}", validated.stdout.join("\n"), validated.stderr);
        for problem in ["memry", "chanel", "did you mean"] {
            assert!(said.contains(problem) && text.contains(problem), "{problem}: {said}\n{text}");
        }
        let line = text.lines().find(|line| line.contains("--> ")).expect("validate names places").trim();
        assert!(said.contains(line), "{line} in {said}");
    })
}

#[test]
fn what_cannot_change_while_it_runs_is_named_field_by_field_with_its_place() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    still_flows_after("fixed", &main, |pipeline, agent| {
        pipeline.rewrite("other-name", &main.replace("\"memory\"", "\"file\""));
        pipeline.promise("max_event_bytes = \"1KiB\"\n");
        let said = refused(agent);
        for (field, line) in [("pipeline.name", 2), ("pipeline.max_event_bytes", 4), ("channels.main-events.type", 9)] {
            assert!(said.contains(&format!("`{field}` cannot change while the pipeline runs")), "{field}: {said}");
            assert!(said.contains(&format!("pipeline.toml:{line}:1")), "{field} in line {line}: {said}");
        }
    })
}

#[test]
fn what_cannot_be_built_leaves_everything_as_it_was() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    still_flows_after("unbuilt", &main, |pipeline, agent| {
        std::fs::copy(component("stamp-interceptor"), pipeline.folder().join("stamp.wasm")).unwrap();
        pipeline.rewrite(
            "unbuilt",
            &format!("{main}{}", road("other", "file", ["", ""]).replace("\"tail\"", "\"./missing.wasm\"")),
        );
        assert!(refused(agent).contains("missing.wasm"));
        // Valid, and it fails for good when it is opened: as part of a new road, in the middle of the old one, and as another
        // configuration of an interceptor that runs.
        let fatal = "[interceptors.fatal]\nplugin = \"./stamp.wasm\"\nconfig = { fault = \"fatal\", at = 0 }\n";
        let on = |name: &str| road(name, "memory", ["interceptors = [\"fatal\"]", ""]);
        for stages in [format!("{main}{fatal}{}", on("other")), format!("{fatal}{}", on("main"))] {
            pipeline.rewrite("unbuilt", &stages);
            assert!(refused(agent).contains("interceptor `fatal`"), "{}", agent.stderr().text());
        }
        let good = fatal.replace("config", "# config");
        pipeline.rewrite("unbuilt", &format!("{good}{}", on("main")));
        assert!(!agent.reload().contains("not reloaded"), "{}", agent.stderr().text());
        pipeline.rewrite("unbuilt", &format!("{fatal}{}", on("main")));
        assert!(refused(agent).contains("swap interceptor `fatal`"), "{}", agent.stderr().text());
    })
}

/// Once a runner has left for another place there is no way back, so what it is to be there is opened before.
#[test]
fn what_does_not_open_in_another_place_is_refused_and_goes_on_in_its_own() -> anyhow::Result<()> {
    let main = road("main", "memory", ["", ""]);
    let other = road("other", "memory", ["", ""]).replace("[\"other-events\"]", "[\"other-events\", \"main-events\"]");
    let fails = |kind: &str| {
        let plugin = component(&format!("hostile-{kind}"));
        format!("plugin = \"{}\"\nconfig = {{ mode = \"panic\", call = \"open\" }}\n", plugin.display())
    };
    let (source, sink) = (main.find("[sources").expect("it is there"), main.find("[sinks").expect("it is there"));
    still_flows_after("tried", &main, |pipeline, agent| {
        let moved = format!("[sources.main-log]\n{}channels = [\"other-events\"]\n", fails("source"));
        pipeline.rewrite("tried", &format!("{}{moved}{}{other}", &main[..source], &main[sink..]));
        let said = refused(agent);
        assert!(said.contains("open source `main-log`") && said.contains("panicked at"), "{said}");
        let moved = format!("[sinks.main-out]\n{}channel = \"other-events\"\n", fails("sink"));
        let rest = "[sinks.rest]\nplugin = \"null\"\nchannel = \"main-events\"\n";
        pipeline.rewrite("tried", &format!("{}{moved}{rest}{other}", &main[..sink]));
        let said = refused(agent);
        assert!(said.contains("open sink `main-out`") && said.contains("panicked at"), "{said}");
    })
}

#[test]
fn a_reader_on_disk_is_given_up_only_when_that_is_allowed() -> anyhow::Result<()> {
    let main = road("main", "file", ["", ""]);
    let extra = "[sinks.extra]\nplugin = \"null\"\nchannel = \"main-events\"\n";
    still_flows_after("reader", &format!("{main}{extra}"), |pipeline, agent| {
        pipeline.rewrite("reader", &main);
        let said = refused(agent);
        assert!(said.contains("sink `extra` would leave file channel `main-events`"), "{said}");
        assert!(said.contains("--remove-readers"), "{said}");
    })?;
    let pipeline = PipelineFile::new("reader-removed", &format!("{main}{extra}"));
    for folder in ["main", "main-out"] {
        std::fs::create_dir(pipeline.folder().join(folder))?;
    }
    let agent = Agent::run_arguments(pipeline.path(), &["--remove-readers"], &[]);
    agent.expect_log("pipeline started", Duration::from_secs(60));
    pipeline.rewrite("reader-removed", &main);
    let said = agent.reload();
    assert!(said.contains("removed sink `extra`"), "{said}");
    std::fs::write(pipeline.folder().join("main/1.log"), ledger::lines("log", 0..100))?;
    expect_lines(&agent, &pipeline.folder().join("main-out"), 100);
    assert_eq!(agent.stop().code, Some(0));
    // The reader has gone from the disk too.
    let agent = pipeline.run();
    agent.expect_log("pipeline started", Duration::from_secs(60));
    assert_eq!(agent.stop().code, Some(0));
    Ok(())
}

#[test]
fn a_secret_that_changes_is_applied_and_never_shown() -> anyhow::Result<()> {
    let stages = |file: &str| {
        format!(
            "{}[interceptors.mark]\nplugin = \"static\"\nconfig = {{ headers = {{ token = {{ file = \"{file}\" }} }} }}\n",
            road("main", "memory", ["interceptors = [\"mark\"]", ""])
                .replace("roll_interval", "format = \"json\", roll_interval")
        )
    };
    let pipeline = PipelineFile::new("secret", &stages("token"));
    for folder in ["main", "main-out"] {
        std::fs::create_dir(pipeline.folder().join(folder))?;
    }
    pipeline.folder().write("token", "first-canary");
    let agent = started(&pipeline);
    let out = pipeline.folder().join("main-out");
    std::fs::write(pipeline.folder().join("main/1.log"), "one\n")?;
    expect_lines(&agent, &out, 1);
    pipeline.folder().write("token", "second-canary");
    assert!(agent.reload().contains("swapped interceptor `mark`"));
    std::fs::write(pipeline.folder().join("main/2.log"), "two\n")?;
    expect_lines(&agent, &out, 2);
    let lines = rolled_lines(&out);
    assert!(lines[0].contains("first-canary") && lines[1].contains("second-canary"), "{lines:?}");
    pipeline.rewrite("secret", &stages("token-that-is-missing"));
    assert!(refused(&agent).contains("token-that-is-missing"));
    let ended = agent.stop();
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    Ok(())
}
