//! The words an operator sees: `wasmflow validate` on every file of `tests/config`, compared with what is written beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CANARY: &str = "c4nary-in-a-c0al-mine";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/config")
}

/// `wasmflow` in the folder of the cases, with an environment that is the same everywhere.
fn wasmflow(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmflow"));
    command.current_dir(folder()).env_clear().args(arguments);
    // Compiled plugins are kept between runs of the test, beside the binary.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache");
    command.env("HOME", "/nonexistent").env("WASMFLOW_CACHE_DIR", cache);
    command.env("EMPTY", "").env("GREETING", "\"hello\"\nb = 1").env("SECRET", CANARY);
    command.output().expect("wasmflow starts")
}

/// The names of the files with this ending, without it.
fn cases(ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).expect("tests/config is there");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_suffix(ending)?.to_owned()))
        .filter(|name| !name.ends_with(".also"))
        .collect()
}

fn arguments(case: &str) -> Vec<String> {
    let files = [format!("{case}.toml"), format!("{case}.also.toml")];
    files.into_iter().filter(|file| folder().join(file).exists()).collect()
}

fn validate(case: &str, options: &[&str]) -> Output {
    let files = arguments(case);
    let files = files.iter().map(String::as_str);
    wasmflow(&["validate"].into_iter().chain(options.iter().copied()).chain(files).collect::<Vec<_>>())
}

#[test]
fn every_case_says_what_is_written_beside_it() {
    let mut wrong = Vec::new();
    for case in cases(".toml") {
        let output = validate(&case, &[]);
        let said = String::from_utf8(output.stderr).expect("diagnostics are UTF-8");
        let has_error = said.lines().any(|line| line.starts_with("error: "));
        assert_eq!(output.status.code(), Some(if has_error { 2 } else { 0 }), "{case}: {said}");
        let path = folder().join(format!("{case}.err"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &said).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if said != expected {
            wrong.push(format!("==== {case}: expected\n{expected}---- but it is\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n(UPDATE=1 rewrites the expected texts)", wrong.join("\n"));
}

#[test]
fn every_case_has_its_expected_text_and_the_other_way_round() {
    assert_eq!(cases(".toml"), cases(".err"));
}

#[test]
fn the_json_says_the_same_as_the_text() {
    for case in cases(".toml") {
        let text = String::from_utf8(validate(&case, &[]).stderr).unwrap();
        let output = validate(&case, &["--json"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        assert_eq!(json["valid"], output.status.success(), "{case}");
        assert!(output.stderr.is_empty(), "{case}");
        for file in json["files"].as_array().unwrap() {
            for problem in file["problems"].as_array().unwrap() {
                let message = problem["message"].as_str().unwrap().lines().next().unwrap();
                let line = format!("{}: {message}", problem["severity"].as_str().unwrap());
                assert!(text.contains(&line), "{case}: `{line}` is not in the text");
                let place = format!("{}:{}:{}", file["file"].as_str().unwrap(), problem["line"], problem["column"]);
                assert!(problem["line"].is_null() || text.contains(&place), "{case}: {place} is not in the text");
            }
        }
    }
}

#[test]
fn a_secret_is_in_no_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let state = dir.path().join("state");
    // The plugin is opened with a pattern that does not compile, and answers with an error that quotes it.
    let text = format!(
        r#"
        [pipeline]
        name = "canary"
        state_dir = "{}"
        dead_letters = "events"
        [kafka.main]
        embedded = true
        "sasl.password" = {{ env = "SECRET" }}
        [channels.events]
        [sources.s]
        plugin = "seq"
        channels = ["events"]
        config = {{ total = 3 }}
        interceptors = ["find"]
        [interceptors.find]
        plugin = "search-replace"
        config = {{ pattern = {{ file = "secret" }} }}
        [sinks.t]
        plugin = "logger"
        channel = "events"
        "#,
        state.display()
    );
    fs::write(&path, text).unwrap();
    fs::write(dir.path().join("secret"), format!("({CANARY}\n")).unwrap();
    let path = path.to_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["validate", path],
        &["validate", "--json", path],
        &["run", path, "--log-level", "trace"],
        &["run", path, "--log-level", "trace", "--log-format", "json"],
    ];
    for arguments in commands {
        let output = wasmflow(arguments);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!shown.contains(CANARY), "{arguments:?} shows the secret:\n{shown}");
    }
    for case in cases(".toml") {
        let output = validate(&case, &["--json"]);
        assert!(!String::from_utf8_lossy(&output.stdout).contains(CANARY), "{case} shows the secret");
    }
}

#[test]
fn a_file_of_ten_megabytes_a_folder_and_no_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large.toml");
    fs::write(&large, "# \n".repeat(10 << 20 >> 2)).unwrap();
    let refused = |path: &Path, words: &str| {
        let output = wasmflow(&["validate", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    };
    refused(&large, "larger than 1 MiB");
    refused(dir.path(), "this is a folder");
    refused(&dir.path().join("none.toml"), "No such file or directory");
}

#[test]
fn an_invalid_file_keeps_a_valid_one_from_starting() {
    let output = wasmflow(&["run", "variables_in_place.toml", "unknown_keys.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was started"));
}

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    assert_eq!(wasmflow(&["run"]).status.code(), Some(2));
    assert_eq!(wasmflow(&["run", "--log-level", "lou[d", "x.toml"]).status.code(), Some(2));
    assert_eq!(wasmflow(&["plugin", "inspect", "no-such-plugin"]).status.code(), Some(2));
    for arguments in [&["--help"][..], &["run", "--help"], &["completions", "bash"], &["plugin", "inspect", "seq"]] {
        let output = wasmflow(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

/// The schema and the reader are made from the same tables; this compares what they accept.
#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    let schema = wasmflow(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is JSON Schema");
    let examples = glob_toml(&folder().join("../../examples"));
    let golden = ["notes", "file_channels", "variables_in_place", "grants_lacking", "batch_larger_than_channel"];
    for path in golden.iter().map(|case| folder().join(format!("{case}.toml"))).chain(examples) {
        let errors = schema_errors(&validator, &path);
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
    }
    for case in ["unknown_keys", "wrong_types", "missing_keys", "not_in_this_version", "file_channel_keys"] {
        assert!(!schema_errors(&validator, &folder().join(format!("{case}.toml"))).is_empty(), "{case}");
    }
}

fn schema_errors(validator: &jsonschema::Validator, path: &Path) -> Vec<String> {
    let pipeline: serde_json::Value = toml::from_str(&fs::read_to_string(path).unwrap()).expect("it is TOML");
    validator.iter_errors(&pipeline).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Pipeline files below a folder: TOML files with a table `pipeline`.
fn glob_toml(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { glob_toml(&path) } else { vec![path] });
    let is_pipeline = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "toml")
            && fs::read_to_string(path).is_ok_and(|text| text.contains("[pipeline]"))
    };
    files.filter(is_pipeline).collect()
}
