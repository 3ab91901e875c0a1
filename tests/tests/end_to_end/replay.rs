//! What a plugin failed on is kept as one file, and fails again by that file alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmflow_tests::agent::{Agent, Options, PipelineFile, wasmflow_run};
use wasmflow_tests::component::component;
use wasmflow_tests::folder::Folder;
use wasmflow_tests::pipelines;

const LIMIT: Duration = Duration::from_secs(60);

/// A guest of this kind that panics at `poison`, or when it has brought two numbers, from a file of its own beside the pipeline.
fn failing(kind: &str) -> PipelineFile {
    let guest = |config: &str| format!("plugin = \"guest.wasm\"\nconfig = {{ mode = \"panic\", {config} }}\n");
    let numbers = "[sources.numbers]\nplugin = \"seq\"\nchannels = [\"events\"]\nconfig = { total = 500 }\n";
    let (poison, console) = (guest("when_body_contains = \"321\""), pipelines::CONSOLE);
    let stages = match kind {
        "source" => format!(
            "{console}[sources.guest]\nchannels = [\"events\"]\nretry = {{ initial = \"1ms\", attempts = 2 }}\n{}",
            guest("after = 2")
        ),
        "interceptor" => format!("{console}{numbers}interceptors = [\"guest\"]\n[interceptors.guest]\n{poison}"),
        _ => format!("[channels.events]\ntype = \"memory\"\n{numbers}[sinks.guest]\nchannel = \"events\"\n{poison}"),
    };
    let pipeline = PipelineFile::new(&format!("replay-{kind}"), &stages);
    std::fs::copy(component(&format!("hostile-{kind}")), pipeline.folder().join("guest.wasm"))
        .expect("it can be copied");
    pipeline
}

/// The bundles that the agent has kept, oldest first.
fn bundles(pipeline: &PipelineFile) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(pipeline.folder().join("state/replay")).expect("something was kept");
    let mut bundles: Vec<_> = folder.map(|entry| entry.expect("it can be listed").path()).collect();
    bundles.sort();
    bundles
}

fn replay(bundle: &Path, more: &[&str]) -> wasmflow_tests::agent::Ended {
    wasmflow_run(&[&["replay", bundle.to_str().expect("the path is text")], more].concat())
}

#[test]
fn each_kind_of_plugin_fails_again_by_its_bundle_alone() {
    for kind in ["source", "interceptor", "sink"] {
        let pipeline = failing(kind);
        let ended = pipeline.run().wait(LIMIT);
        // A fresh source goes on behind what was put, and does well for two polls more: it gets to its end.
        assert_eq!(ended.code, Some(i32::from(kind != "source")), "{kind}: {}", ended.stderr);
        assert!(ended.stderr.contains("wasmflow replay"), "the log names the bundle: {}", ended.stderr);
        let kept = bundles(&pipeline);
        let elsewhere = Folder::new("elsewhere");
        let bundle = elsewhere.join("bundle.json");
        std::fs::copy(kept.last().expect("it failed"), &bundle).expect("it can be copied");
        let text = std::fs::read_to_string(&bundle).expect("it is text");
        let count = text.matches("\"body\"").count();
        assert_eq!(count, usize::from(kind != "source"), "the guilty event is alone in the last one: {text}");
        assert_owner_only(&kept[0]);
        // The other machine has neither the pipeline nor the plugin.
        drop(pipeline);
        let replayed = replay(&bundle, &[]);
        assert_eq!(replayed.code, Some(0), "{kind}: {}", replayed.stderr);
        for part in ["it failed in the same way", "panicked at", "hostile_acts::perform", "generation 1", "sha256:"] {
            assert!(replayed.stderr.contains(part), "{kind}: {part} is missing: {}", replayed.stderr);
        }
        let harmless = replay(&bundle, &["--config", "mode = \"panic\"\nafter = 1000"]);
        assert_eq!(harmless.code, Some(1), "{kind}: {}", harmless.stderr);
        assert!(harmless.stderr.contains("it went well"), "{kind}: {}", harmless.stderr);
    }
}

fn assert_owner_only(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for path in [path, path.parent().expect("it is in a folder")] {
        let mode = std::fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
}

#[test]
fn a_bundle_holds_no_secret_and_reproduces_a_standard_plugins_failure() {
    const SECRET: &str = "canary-in-a-cage";
    let stages = format!(
        "{}interceptors = [\"affix\"]\n[interceptors.affix]\nplugin = \"prefix-suffix\"\nconfig = {{ suffix = {{ env = \"AFFIX\" }} }}\nlimits = {{ memory = \"4MiB\" }}\n",
        pipelines::tail_to("follow = false", pipelines::CONSOLE)
    );
    let pipeline = PipelineFile::new("replay-secret", &stages);
    pipeline.promise("dead_letters = \"events\"\n");
    std::fs::create_dir(pipeline.folder().join("logs")).expect("the test's own folder is writable");
    pipeline.folder().write("logs/app.log", format!("good\n{}\ngood\n", "x".repeat(900 << 10)).repeat(3));
    let agent = Agent::run_with(pipeline.path(), &Options { env: vec![("AFFIX", SECRET)], ..Options::default() });
    let ended = agent.wait(LIMIT);
    let kept = bundles(&pipeline);
    for bundle in &kept {
        let text = std::fs::read_to_string(bundle).expect("it is text");
        assert!(!text.contains(SECRET) && text.contains("<secret>"), "{text:.2000}");
    }
    let replayed = replay(&kept[0], &[]);
    assert_eq!(replayed.code, Some(0), "{}\n{:.3000}", replayed.stderr, ended.stderr);
    assert!(replayed.stderr.contains("memory") && replayed.stderr.contains("--config"), "{}", replayed.stderr);
}

#[test]
fn what_is_no_bundle_or_no_fitting_plugin_is_refused() {
    let folder = Folder::new("no-bundle");
    let not_json = folder.write("text.json", "text");
    for (bundle, words) in [(&not_json, "it is not JSON"), (&folder.join("none.json"), "cannot be read")] {
        let ended = replay(bundle, &[]);
        assert!(ended.code == Some(2) && ended.stderr.contains(words), "{:?}: {}", ended.code, ended.stderr);
    }
    let pipeline = failing("interceptor");
    pipeline.run().wait(LIMIT);
    let sink = component("hostile-sink");
    let ended = replay(&bundles(&pipeline)[0], &["--plugin", sink.to_str().expect("the path is text")]);
    assert!(
        ended.code == Some(2) && ended.stderr.contains("is a plugin for sink"),
        "{:?}: {}",
        ended.code,
        ended.stderr
    );
}
