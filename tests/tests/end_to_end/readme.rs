//! The README as a new user takes it: its pipeline, its command and its plugin, copied out of the page and run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wasmflow_tests::agent::{Agent, Options};
use wasmflow_tests::binary::{repository, target_folder, wasmflow};
use wasmflow_tests::folder::Folder;
use wasmflow_tests::port::free_port;

const LIMIT: Duration = Duration::from_secs(60);

/// The code block that comes first behind `mark`, of the language `language`.
fn block(mark: &str, language: &str) -> String {
    let page = std::fs::read_to_string(repository().join("README.md")).expect("the page is part of the repository");
    let (_, rest) = page.split_once(mark).unwrap_or_else(|| panic!("README.md no longer says `{mark}`"));
    let (_, rest) = rest.split_once(&format!("```{language}\n")).expect("a code block follows");
    rest.split_once("```").expect("the block ends").0.to_owned()
}

fn run_at(folder: &Folder, pipeline: &Path) -> Agent {
    let home = folder.path().to_string_lossy().into_owned();
    Agent::run_with(pipeline, &Options { env: vec![("XDG_STATE_HOME", &home)], ..Options::default() })
}

#[test]
fn the_first_pipeline_prints_what_the_page_says() {
    let folder = Folder::new("readme-pipeline");
    let port = free_port().to_string();
    let pipeline = folder.write("hello.toml", block("`hello.toml`:", "toml").replace("44444", &port));
    let agent = run_at(&folder, &pipeline);
    agent.expect_log("listening on", LIMIT);
    let commands = block("`hello.toml`:", "sh").replace("44444", &port);
    let command = commands.lines().find(|line| line.starts_with("bash -c")).expect("the page shows how to send a line");
    let answer = Command::new("bash").args(["-c", command]).output().expect("bash can be started");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "OK\n", "{answer:?}");
    assert_eq!(agent.expect_lines(1, LIMIT), ["hello, world"]);
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn the_first_plugin_compiles_and_its_pipeline_runs() -> anyhow::Result<()> {
    let folder = Folder::new("readme-plugin");
    let manifest = format!(
        "[package]\nname = \"shout-interceptor\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{}",
        block("then in `Cargo.toml`", "toml")
    );
    let sdk = repository().join("sdk/rust");
    let plugin = folder.join("shout-interceptor");
    std::fs::create_dir_all(plugin.join("src"))?;
    let manifest = manifest.replace("../wasmflow/sdk/rust", &sdk.to_string_lossy());
    std::fs::write(plugin.join("Cargo.toml"), manifest + "\n[workspace]\n")?;
    std::fs::write(plugin.join("src/lib.rs"), block("and in `src/lib.rs`", "rust"))?;
    // The versions that this repository builds with, so that nothing is asked of a registry.
    std::fs::copy(repository().join("Cargo.lock"), plugin.join("Cargo.lock"))?;
    let build = block("wasmflow_sdk::export_interceptor!(Shout);", "sh");
    let build = build.lines().next().expect("the page shows how to build");
    let mut cargo = Command::new("bash");
    cargo.args(["-c", build]).current_dir(&plugin).env("CARGO_TARGET_DIR", target_folder().join("readme"));
    cargo.env_remove("RUSTFLAGS").env("CARGO_INCREMENTAL", "0");
    anyhow::ensure!(cargo.status()?.success(), "the README's plugin does not compile");
    let component = target_folder().join("readme/wasm32-wasip2/release/shout_interceptor.wasm");
    let inspected = Command::new(wasmflow()).args(["plugin", "inspect"]).arg(&component).output()?;
    let shown = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(inspected.status.success() && shown.contains("What to put behind each body."), "{shown}");
    let table = block("with `interceptors = [\"shout\"]` on the source", "toml");
    let built_at = "shout-interceptor/target/wasm32-wasip2/release/shout_interceptor.wasm";
    assert!(table.contains(built_at), "{table}");
    let pipeline = format!(
        "[pipeline]\nname = \"shout\"\n{}\n[channels.events]\n[sinks.console]\nplugin = \"prefix-suffix\"\nchannel = \"events\"\n\
         [sources.words]\nplugin = \"tail\"\nchannels = [\"events\"]\ninterceptors = [\"shout\"]\n\
         config = {{ files = [\"words.log\"], follow = false }}\nallow = {{ dirs = [{{ path = \".\" }}] }}\n",
        table.replace(built_at, &component.to_string_lossy())
    );
    let pipeline = folder.write("shout.toml", pipeline);
    folder.write("words.log", "one\ntwo\n");
    let lines = run_at(&folder, &pipeline).expect_done(LIMIT);
    assert_eq!(lines, ["hello:ONE!", "hello:TWO!"]);
    // As the page says: without its key the line is pointed at.
    let without = std::fs::read_to_string(&pipeline)?.replace("config = { mark = \"!\" }", "config = {}");
    let refused = Command::new(wasmflow()).arg("validate").arg(folder.write("without.toml", without)).output()?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("mark"), "{refused:?}");
    Ok(())
}
