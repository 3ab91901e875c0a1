//! Many stages in one agent: what each costs is in the benchmarks, that they live together is here.

use std::fmt::Write as _;
use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::Asked;
use wasmflow_tests::netcat::NetcatClient;
use wasmflow_tests::process::wait_until;

const LIMIT: Duration = Duration::from_secs(120);

/// So many sources, each with a channel and a sink of its own.
fn pairs(count: usize) -> String {
    let mut stages = String::new();
    for number in 0..count {
        write!(
            stages,
            r#"
    [sources.source{number}]
    plugin = "netcat"
    channels = ["channel{number}"]
    config = {{ bind = "127.0.0.1:0" }}
    allow = {{ listen = ["127.0.0.1:0"] }}
    [channels.channel{number}]
    type = "memory"
    [sinks.sink{number}]
    plugin = "null"
    channel = "channel{number}"
"#
        )
        .expect("a string can always be written to");
    }
    stages
}

#[test]
fn hundreds_of_stages_in_many_pipelines_start_are_listed_serve_and_stop_on_few_threads() {
    let large = PipelineFile::new("many-stages", &pairs(100));
    let small: Vec<_> = (0..20).map(|number| PipelineFile::new(&format!("few-stages-{number}"), &pairs(1))).collect();
    let paths: Vec<_> = small.iter().map(|file| file.path().to_str().expect("the folder is UTF-8")).collect();
    let asked = Asked::run(&large, &paths);
    let log = asked.agent.stderr();
    let ports = || -> Vec<u16> {
        let of_sources = log.all().into_iter().filter(|line| line.contains("source"));
        let at = |line: String| line.split_once("listening on 127.0.0.1:").map(|(_, behind)| behind.to_owned());
        let digits = |text: String| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        of_sources.filter_map(at).filter_map(|text| digits(text).parse().ok()).collect()
    };
    assert!(wait_until(LIMIT, || ports().len() == 120), "{} of 120 sources listen:\n{}", ports().len(), log.text());
    for port in ports().into_iter().step_by(40) {
        assert_eq!(NetcatClient::connect(port).ask("anybody there?"), "OK");
    }
    let status = asked.get("/v1/status").json();
    let pipelines = status["pipelines"].as_array();
    let pipelines = pipelines.expect("it is a list");
    let stages: Vec<_> = pipelines.iter().flat_map(|pipeline| pipeline["stages"].as_array().expect("a list")).collect();
    assert_eq!((pipelines.len(), stages.len()), (21, 240));
    assert!(stages.iter().all(|stage| stage["state"] == "running"), "{stages:?}");
    let proc = std::fs::read_to_string(format!("/proc/{}/status", asked.agent.process().id())).expect("it runs");
    let threads = proc.lines().find_map(|line| line.strip_prefix("Threads:")).expect("Linux counts them");
    let threads: usize = threads.trim().parse().expect("it is a number");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(threads < cores + 64, "{threads} threads for 240 stages");
    let ended = asked.agent.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("pipeline ended; everything is settled").count(), 21, "{}", ended.stderr);
}
