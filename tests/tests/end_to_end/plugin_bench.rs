//! `wasmflow plugin bench`: every kind of plugin goes through it, and who asks wrongly is told what to write.

use serde_json::Value as Json;
use wasmflow_tests::agent::wasmflow_run;
use wasmflow_tests::component::component;
use wasmflow_tests::folder::Folder;

/// A short run's document.
fn bench(arguments: &[&str]) -> Json {
    let ended = wasmflow_run(&[&["plugin", "bench", "--runs", "2", "--json"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout.join("\n")).unwrap_or_else(|error| panic!("{error}: {:?}", ended.stdout))
}

fn refused(arguments: &[&str], code: i32, says: &[&str]) {
    let ended = wasmflow_run(&[&["plugin", "bench"], arguments].concat());
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    for words in says {
        assert!(ended.stderr.contains(words), "no `{words}` in {}", ended.stderr);
    }
}

#[test]
fn an_interceptor_is_given_the_batches_that_were_asked_for() {
    let told = bench(&[
        "prefix-suffix",
        "--kind",
        "interceptor",
        "--config",
        "prefix = '<'",
        "--events",
        "5000",
        "--batch",
        "500",
        "--bytes",
        "40",
    ]);
    assert_eq!(
        (told["events"].as_u64(), told["calls"].as_u64(), told["batch_bytes"].as_u64()),
        (Some(5000), Some(10), Some(20_000))
    );
    assert_eq!(
        (told["kind"].as_str(), told["runs"].as_u64(), told["rejected"].as_u64()),
        (Some("interceptor"), Some(2), Some(0))
    );
    assert!(told["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{told}");
    for figure in ["/events_per_second", "/call_microseconds", "/references/copy/events_per_second", "/times_the_copy"]
    {
        let spread = told.pointer(figure).unwrap_or(&Json::Null);
        let [min, median, max] = ["min", "median", "max"].map(|name| spread[name].as_f64().unwrap_or(f64::NAN));
        assert!(0.0 < min && min <= median && median <= max, "{figure}: {spread}");
    }
}

#[test]
fn bodies_can_be_the_lines_of_a_file_and_refusals_are_told() {
    let folder = Folder::new("bench-input");
    let input = folder.write("lines", "good\nbad\ngood\ngood\n");
    let corner = component("corner-interceptor");
    let arguments =
        [corner.to_str().unwrap(), "--config", "mode = 'reject'", "--batch", "4", "--events", "400", "--input"];
    let told = bench(&[&arguments[..], &[input.to_str().unwrap()]].concat());
    assert_eq!((told["events"].as_u64(), told["rejected"].as_u64()), (Some(400), Some(100)), "{told}");
}

#[test]
fn what_a_sink_prints_is_not_mixed_with_the_figures() {
    let told = bench(&["logger", "--events", "3000"]);
    assert_eq!((told["kind"].as_str(), told["events"].as_u64()), (Some("sink"), Some(3000)));
}

#[test]
fn a_source_is_measured_to_its_end() {
    let told = bench(&["seq", "--config", "total = 2500", "--events", "100000"]);
    assert_eq!(told["events"].as_u64(), Some(2500), "{told}");
    let folder = Folder::new("bench-tail");
    folder.write("a.log", "one\ntwo\n");
    let path = folder.path().display();
    let (config, allow) =
        (format!("files = ['{path}/a.log']\nfollow = false"), format!("dirs = [{{ path = '{path}' }}]"));
    assert_eq!(bench(&["tail", "--config", &config, "--allow", &allow])["events"].as_u64(), Some(2));
    refused(&["tail", "--config", &config], 2, &["not allowed", "hint: --allow 'dirs = [{ path ="]);
}

#[test]
fn who_asks_wrongly_is_told_what_to_write() {
    refused(&["prefix-suffix"], 2, &["the name of several plugins", "--kind interceptor"]);
    refused(&["prefix-sufix"], 2, &["no standard plugin `prefix-sufix`", "did you mean"]);
    refused(&["static", "--config", "header = 1"], 2, &["unknown key `header`", "--config TOML"]);
    refused(
        &["kafka", "--kind", "source", "--config", "topics = ['t']"],
        2,
        &["needs a Kafka connection", "wasmflow run"],
    );
    let corner = component("corner-interceptor");
    refused(&[corner.to_str().unwrap(), "--config", "mode = 'retry'", "--events", "10"], 1, &["error: "]);
}
