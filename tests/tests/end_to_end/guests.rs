//! Plugins that break the contract, and plugins that use its corners: `tests/plugins/README.md` lists what each does.

use std::time::Duration;

use wasmflow_tests::agent::{Ended, PipelineFile, wasmflow_verb};
use wasmflow_tests::component::component;
use wasmflow_tests::stamped;

const LIMIT: Duration = Duration::from_secs(60);

/// Ten numbers through the interceptor to the console; what is refused gets the prefix `refused `.
fn ten_through(name: &str, interceptor: &str, config: &str, limits: &str) -> PipelineFile {
    let interceptors = format!(
        "[interceptors.guest]\nplugin = \"{}\"\nconfig = {{ {config} }}\n{limits}\n",
        component(interceptor).display()
    );
    let console = "plugin = \"prefix-suffix\"\nconfig = { prefix = \"\" }\n";
    PipelineFile::new(name, &[TEN, "interceptors = [\"guest\"]\n", &interceptors, CONSOLE, console].concat())
}

/// Ten numbers to the sink; what is refused gets the prefix `refused ` on the console.
fn ten_to(name: &str, sink: &str, config: &str, limits: &str) -> PipelineFile {
    let sink = format!("plugin = \"{}\"\nconfig = {{ {config} }}\n{limits}\n", component(sink).display());
    PipelineFile::new(name, &[TEN, CONSOLE, &sink].concat())
}

/// Begins in the `[pipeline]` table and ends in that of the source.
const TEN: &str = r#"
    dead_letters = "refused"

    [channels.refused]
    type = "memory"

    [sinks.letters]
    plugin = "prefix-suffix"
    channel = "refused"
    config = { prefix = "refused " }

    [channels.events]
    type = "memory"

    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = { total = 10 }
"#;

/// Ends in the table of the sink.
const CONSOLE: &str = r#"
    [sinks.console]
    channel = "events"
"#;

/// The numbers below ten but `guilty`, in order, and the guilty one as a dead letter.
fn assert_only_the_guilty_is_refused(lines: &[String], guilty: &str, what: &str) {
    let (refused, passed): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with("refused "));
    let numbers: Vec<_> = (0..10).map(|number| number.to_string()).filter(|number| number != guilty).collect();
    assert_eq!(passed.into_iter().cloned().collect::<Vec<_>>(), numbers, "{what}");
    assert_eq!(refused, [&format!("refused {guilty}")], "{what}");
}

#[test]
fn only_the_event_that_an_interceptor_dies_of_is_refused() {
    for mode in ["trap", "panic", "stack-overflow", "out-of-bounds", "exit", "loop", "memory-fast", "handles"] {
        let config = format!("mode = \"{mode}\", when_body_contains = \"7\"");
        let pipeline = ten_through(mode, "hostile-interceptor", &config, "limits = { cpu = \"200ms\" }");
        assert_only_the_guilty_is_refused(&pipeline.run().expect_done(LIMIT), "7", mode);
    }
}

#[test]
fn only_the_event_that_a_sink_dies_of_is_refused() {
    for mode in ["trap", "loop", "memory-fast"] {
        let config = format!("mode = \"{mode}\", when_body_contains = \"7\"");
        let pipeline = ten_to(mode, "hostile-sink", &config, "limits = { cpu = \"200ms\" }");
        assert_only_the_guilty_is_refused(&pipeline.run().expect_done(LIMIT), "7", mode);
    }
}

#[test]
fn a_lie_about_a_batch_never_alters_or_loses_an_event() {
    let modes = [
        "ends-decrease",
        "ends-short",
        "ends-long",
        "count-wrong",
        "rows-unsorted",
        "row-out-of-range",
        "reject-out-of-range",
        "header-names",
    ];
    for mode in modes {
        let config = format!("mode = \"{mode}\", when_body_contains = \"7\"");
        let ended = ten_through(mode, "hostile-interceptor", &config, "").run().wait(LIMIT);
        assert!(!ended.stderr.contains("breach:"), "{mode}: {}", ended.stderr);
        assert_nothing_altered(&ended, mode);
    }
}

#[test]
fn a_flood_made_of_a_batch_is_stopped() {
    for mode in ["empty-items", "header-flood"] {
        let config = format!("mode = \"{mode}\", when_body_contains = \"7\"");
        let ended = ten_through(mode, "hostile-interceptor", &config, "").run().wait(LIMIT);
        assert!(!ended.stderr.contains("breach:"), "{mode}: {}", ended.stderr);
        assert!(ended.stdout.len() <= 10, "{mode}: {} lines", ended.stdout.len());
        assert_nothing_altered(&ended, mode);
    }
}

/// Every number came through, or was refused, or the pipeline says that it stopped.
fn assert_nothing_altered(ended: &Ended, what: &str) {
    let numbers: Vec<_> = ended.stdout.iter().map(|line| line.trim_start_matches("refused ").parse::<u32>()).collect();
    assert!(numbers.iter().all(|number| matches!(number, Ok(0..10))), "{what}: {:?}", ended.stdout);
    if ended.code == Some(0) {
        assert_eq!(numbers.len(), 10, "{what}: {:?}", ended.stdout);
    } else {
        assert_eq!(ended.code, Some(1), "{what}: {}", ended.stderr);
    }
}

#[test]
fn a_source_that_lies_stops_with_a_reason_and_nothing_comes_through() {
    for mode in ["more-than-asked", "oversize-event", "ends-decrease", "ends-short", "ends-long"] {
        let source = format!(
            "[sources.guest]\nplugin = \"{}\"\nchannels = [\"events\"]\nconfig = {{ mode = \"{mode}\" }}\nretry = {{ initial = \"10ms\", attempts = 2 }}\n",
            component("hostile-source").display()
        );
        let pipeline = PipelineFile::new(mode, &format!("{}{source}", wasmflow_tests::pipelines::CONSOLE));
        let ended = pipeline.run().wait(LIMIT);
        assert_eq!(ended.code, Some(1), "{mode}: {}", ended.stderr);
        assert!(ended.stderr.contains("guest"), "{mode}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{mode}: {:?}", ended.stdout);
    }
}

#[test]
fn a_call_that_waits_too_long_is_tried_again_and_nothing_is_refused() {
    let config = r#"mode = "sleep", when_body_contains = "7""#;
    let limits = "limits = { call = \"300ms\" }\nretry = { initial = \"10ms\", attempts = 2, then = \"stop\" }";
    let ended = ten_to("sleep", "hostile-sink", config, limits).run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("console"), "{}", ended.stderr);
    assert!(!ended.stdout.iter().any(|line| line.starts_with("refused")), "{:?}", ended.stdout);
}

#[test]
fn what_was_not_granted_is_denied() {
    for mode in ["files", "sockets", "environment", "wall-clock", "random"] {
        let config = format!("mode = \"{mode}\"");
        let ended = ten_through(mode, "hostile-interceptor", &config, "").run().wait(LIMIT);
        assert!(!ended.stderr.contains("breach:"), "{mode}: {}", ended.stderr);
    }
}

#[test]
fn a_storm_of_log_lines_is_bounded_and_the_events_pass() {
    for mode in ["log-storm", "stdout-storm", "stderr-storm", "log-huge", "log-control"] {
        let config = format!("mode = \"{mode}\", when_body_contains = \"7\"");
        let ended = ten_through(mode, "hostile-interceptor", &config, "limits = { cpu = \"20s\" }").run().wait(LIMIT);
        assert_eq!(ended.code, Some(0), "{mode}: {}", &ended.stderr[..ended.stderr.len().min(4000)]);
        assert!(ended.stderr.len() < 20_000_000, "{mode}: {} bytes of log", ended.stderr.len());
        assert!(!ended.stderr.contains('\u{1b}'), "{mode}: a control character reached the log");
        assert_eq!(ended.stdout, (0..10).map(|number| number.to_string()).collect::<Vec<_>>(), "{mode}");
    }
}

#[test]
fn a_leak_is_recycled_and_loses_nothing() {
    let pipeline =
        ten_through("leak", "hostile-interceptor", "mode = \"memory-slow\"", "limits = { memory = \"16MiB\" }");
    let text = std::fs::read_to_string(pipeline.path()).expect("it was just written");
    let text = text.replace("total = 10 }", "total = 100 }\nbatch_events = 1");
    pipeline.folder().write("pipeline.toml", text);
    let lines = pipeline.run().expect_done(LIMIT);
    assert_eq!(lines, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn an_instance_that_has_grown_old_is_replaced_and_loses_nothing() {
    let limits = "limits = { age = \"1ms\" }";
    for (name, pipeline) in [
        ("interceptor", ten_through("old", "corner-interceptor", "mode = \"reject\", pattern = \"x\"", limits)),
        ("sink", ten_to("old", "corner-sink", "mode = \"hold\", count = 3", limits)),
    ] {
        let text = std::fs::read_to_string(pipeline.path()).expect("it was just written");
        let text = text.replace("total = 10 }", "total = 2000 }\nbatch_events = 1");
        pipeline.folder().write("pipeline.toml", text);
        let ended = pipeline.run().wait(LIMIT);
        assert_eq!(ended.stdout, (0..2000).map(|number| number.to_string()).collect::<Vec<_>>(), "{name}");
        assert!(ended.stderr.contains("it reached the age of limits.age"), "{name}: {}", ended.stderr);
    }
}

#[test]
fn interceptors_that_keep_back_pair_multiply_reject_or_fail_lose_nothing() {
    let ten: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let run = |mode: &str, more: &str| {
        ten_through(mode, "corner-interceptor", &format!("mode = \"{mode}\"{more}"), "").run().expect_done(LIMIT)
    };
    assert_eq!(run("hold", ""), ten);
    assert_eq!(run("pair", ""), ["0+1", "2+3", "4+5", "6+7", "8+9"]);
    let doubled: Vec<_> = ten.iter().flat_map(|number| [number.clone(), number.clone()]).collect();
    assert_eq!(run("multiply", ""), doubled);
    assert_only_the_guilty_is_refused(&run("reject", ", pattern = \"4\""), "4", "reject");
    assert_eq!(run("retry", ""), ten);
}

#[test]
fn sinks_that_hold_take_a_part_reject_or_fail_lose_nothing() {
    let ten: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let run = |mode: &str, more: &str| {
        ten_to(mode, "corner-sink", &format!("mode = \"{mode}\"{more}"), "").run().expect_done(LIMIT)
    };
    assert_eq!(run("hold", ", count = 4"), ten);
    assert_eq!(run("hold", ", count = 1000, release_on_tick = true"), ten);
    assert_eq!(run("partly", ""), ten);
    let mut odd = run("partly-odd", "");
    odd.sort();
    assert_eq!(odd, ten);
    assert_only_the_guilty_is_refused(&run("reject", ", pattern = \"4\""), "4", "reject");
    assert_eq!(run("retry", ", delay = \"50ms\""), ten);
    let whole = run("reject-batch", ", pattern = \"4\"");
    assert!(whole.contains(&"refused 4".to_owned()), "{whole:?}");
    assert_eq!(whole.len(), 10, "{whole:?}");
}

#[test]
fn what_a_plugin_remembers_is_gone_with_its_instance_and_its_events_are_not() {
    let stages = stamped::all_numbers_to_files("config = { fault = \"trap\", at = 5 }");
    let total = "batch_events = 100\n    config = { total = 2000 }\n    interceptors";
    let pipeline = PipelineFile::new("forgets", &stages.replace("batch_events = 100\n    interceptors", total));
    let ended = pipeline.run().wait(LIMIT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines = stamped::lines(&pipeline);
    assert_eq!((stamped::check_all(&lines), lines.len()), (vec!["v1".to_owned()], 2000));
    // Four batches of a hundred each, and the fifth is the first of the next one, which counts from one again.
    let mut batches: Vec<(&str, &str)> = lines.iter().filter_map(|line| line.batch.split_once('-')).collect();
    batches.dedup();
    let numbers: Vec<&str> = batches.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, ["1/100", "2/100", "3/100", "4/100"].repeat(5));
    assert_eq!(ended.stderr.matches("plugin trapped; it goes on with a fresh instance").count(), 4, "{}", ended.stderr);
}

#[test]
fn a_fatal_answer_stops_the_stage_with_its_reason() {
    let ended = ten_to("fatal", "corner-sink", "mode = \"fatal\", pattern = \"4\"", "").run().wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot go on") && ended.stderr.contains("console"), "{}", ended.stderr);
}

#[test]
fn sources_that_only_move_on_have_parts_or_fail_for_a_while_lose_nothing() {
    let run = |mode: &str| {
        let source = format!(
            "[sources.guest]\nplugin = \"{}\"\nchannels = [\"events\"]\nconfig = {{ mode = \"{mode}\", total = 20 }}\nretry = {{ initial = \"5ms\" }}\n",
            component("corner-source").display()
        );
        PipelineFile::new(mode, &format!("{}{source}", wasmflow_tests::pipelines::CONSOLE)).run().expect_done(LIMIT)
    };
    let numbers = |keep: fn(&u32) -> bool| (0..20).filter(keep).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(run("position-only"), numbers(|number| number % 3 != 0));
    for mode in ["parts", "retry", "late", "forgetful"] {
        assert_eq!(run(mode), numbers(|_| true), "{mode}");
    }
}

#[test]
fn what_is_no_plugin_of_the_right_kind_is_refused_before_anything_starts() {
    let core_module = b"\0asm\x01\0\0\0";
    let truncated = &std::fs::read(component("corner-sink")).expect("it was just compiled")[..1000];
    let files: [(&str, &[u8], &str); 3] = [
        ("text.wasm", b"#!/bin/sh\n", "is not a WebAssembly file"),
        ("core.wasm", core_module, "not a component"),
        ("truncated.wasm", truncated, "cut short or damaged"),
    ];
    for (file, bytes, words) in files {
        let pipeline = PipelineFile::new("no-plugin", &format!("{TEN}{CONSOLE}plugin = \"{file}\"\n"));
        pipeline.folder().write(file, bytes);
        assert_refused(&pipeline, words);
    }
    let components = [
        ("hostile-source", "", "is a plugin for sources"),
        ("describe-trap-sink", "", "cannot say what this is"),
        ("bad-schema-sink", "", "is not JSON Schema"),
        ("hostile-sink", "config = { mode = \"trap\", call = \"check\" }", "failed in `check`"),
    ];
    for (package, config, words) in components {
        let sink = format!("plugin = \"{}\"\n{config}\n", component(package).display());
        assert_refused(&PipelineFile::new(package, &format!("{TEN}{CONSOLE}{sink}")), words);
    }
}

/// Both `validate` and `run` exit with 2, name the stage and say `words`, and nothing has run.
fn assert_refused(pipeline: &PipelineFile, words: &str) {
    for verb in ["validate", "run"] {
        let ended = wasmflow_verb(verb, pipeline.path());
        assert_eq!(ended.code, Some(2), "{words}, {verb}: {}", ended.stderr);
        assert!(ended.stderr.contains(words) && ended.stderr.contains("console"), "{words}, {verb}: {}", ended.stderr);
        assert!(verb == "validate" || ended.stdout.is_empty(), "{words}, {verb}: {:?}", ended.stdout);
    }
}

#[test]
fn a_trap_in_any_other_call_ends_in_a_reason_and_never_in_a_crash() {
    for (kind, calls) in [("source", ["open", "work", "acked", "close"]), ("sink", ["open", "work", "flush", "close"])]
    {
        for call in calls {
            let guest = format!(
                "plugin = \"{}\"\nconfig = {{ mode = \"trap\", call = \"{call}\" }}\nretry = {{ initial = \"10ms\", attempts = 2 }}\n",
                component(&format!("hostile-{kind}")).display()
            );
            let stages = match kind {
                "source" => {
                    format!("{}[sources.guest]\nchannels = [\"events\"]\n{guest}", wasmflow_tests::pipelines::CONSOLE)
                }
                _ => format!("{TEN}[sinks.guest]\nchannel = \"events\"\n{guest}"),
            };
            let ended = PipelineFile::new(&format!("{kind}-{call}"), &stages).run().wait(LIMIT);
            assert!(matches!(ended.code, Some(0 | 1)), "{kind} {call}: {:?}\n{}", ended.code, ended.stderr);
            assert!(!ended.stderr.contains("panicked at host"), "{kind} {call}: {}", ended.stderr);
            if ended.code == Some(1) {
                assert!(ended.stderr.contains("guest"), "{kind} {call}: {}", ended.stderr);
            }
        }
    }
}
