//! `workers = N` on a sink: N deliveries side by side, in no order; nothing is lost, and nothing repeated but what was under way at a kill.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use wasmflow_tests::admin::Managed;
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::asked::Asked;
use wasmflow_tests::component::component;
use wasmflow_tests::pipelines;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::soak;

const LIMIT: Duration = Duration::from_secs(120);

/// A sink that prints each body as it is.
const PRINT: &str = "plugin = \"prefix-suffix\"\n    config = { prefix = \"\" }";

/// Numbers below `total` to the sink `many` with four workers and these keys, ten at a time.
fn numbers(total: u64, sink: &str) -> String {
    format!(
        r#"
    [sources.numbers]
    plugin = "seq"
    channels = ["events"]
    config = {{ total = {total} }}
    batch_events = 100
    [channels.events]
    type = "memory"
    [sinks.many]
    channel = "events"
    workers = 4
    batch_events = 10
    {sink}
"#
    )
}

/// `corner-sink` with this configuration.
fn corner(config: &str) -> String {
    format!("plugin = \"{}\"\n    config = {{ {config} }}", component("corner-sink").display())
}

/// The lines are the numbers below `total`, each once, in whatever order.
fn assert_each_once(lines: &[String], total: u64) {
    let mut numbers: Vec<u64> = lines.iter().map(|line| line.parse().expect("it is a number")).collect();
    numbers.sort_unstable();
    let misplaced = numbers.iter().zip(0..).find(|(number, expected)| *number != expected);
    assert_eq!((misplaced, numbers.len() as u64), (None, total));
}

#[test]
fn each_worker_has_a_batch_of_its_own_and_all_of_them_arrive_once() {
    let pipeline = PipelineFile::new("sink-workers", &numbers(100_000, PRINT));
    let mut asked = Asked::run_unread(&pipeline, &[]);
    let under_way = || {
        let metrics = asked.metrics();
        let of = |name: &str| {
            metrics[&format!("wasmflow_channel_{name}{{pipeline=\"sink-workers\",channel=\"events\",reader=\"many\"}}")]
        };
        of("take_attempts_total") - of("taken_events_total")
    };
    // Nobody reads the console, so each worker waits in the middle of its batch; one alone would have ten events under way.
    assert!(wait_until(LIMIT, || under_way() >= 40.0), "{} events under way", under_way());
    assert_eq!(asked.get("/v1/stages/many").json()["uses"], 1);
    asked.agent.read_console();
    assert_each_once(&asked.agent.expect_done(LIMIT), 100_000);
}

#[test]
fn what_is_held_taken_in_part_or_tried_again_is_delivered_once() {
    for (name, config) in [
        ("hold", "mode = \"hold\", count = 25"),
        ("partly", "mode = \"partly\", count = 3"),
        ("retry", "mode = \"retry\", count = 5"),
        ("flaky", "mode = \"flaky\", count = 7"),
    ] {
        let pipeline = PipelineFile::new(&format!("sink-workers-{name}"), &numbers(2000, &corner(config)));
        println!("{name}");
        assert_each_once(&pipeline.run().expect_done(LIMIT), 2000);
    }
}

#[test]
fn each_worker_finds_its_own_poison_and_the_rest_arrives_once() {
    let sink = format!(
        r#"plugin = "{}"
    config = {{ mode = "panic", when_body_contains = "poison" }}
    interceptors = ["name-it"]
    [interceptors.name-it]
    plugin = "search-replace"
    config = {{ pattern = "^(.*77)$", replacement = "poison $1" }}
{}"#,
        component("hostile-sink").display(),
        pipelines::LETTERS
    );
    let pipeline = PipelineFile::new("sink-workers-poison", &numbers(1000, &sink));
    pipeline.promise("dead_letters = \"refused\"\n");
    let lines = pipeline.run().expect_done(LIMIT);
    let (letters, good): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with("refused "));
    let poison: BTreeSet<_> = (0..10).map(|hundred| format!("refused poison {}", 100 * hundred + 77)).collect();
    assert_eq!((letters.len(), letters.into_iter().collect::<BTreeSet<_>>()), (10, poison));
    let mut good: Vec<u64> = good.iter().map(|line| line.parse().expect("it is a number")).collect();
    good.sort_unstable();
    assert_eq!(good, (0..1000).filter(|number| number % 100 != 77).collect::<Vec<_>>());
}

#[test]
fn kills_lose_nothing_although_deliveries_end_in_any_order() {
    const TOTAL: u64 = 1_000_000;
    let pipeline = PipelineFile::new("sink-workers-kills", &numbers(TOTAL, PRINT));
    let mut random = rand::rngs::StdRng::seed_from_u64(soak::seed());
    let mut arrived = vec![false; TOTAL as usize];
    let mut collect = |console: &std::path::Path| {
        let text = std::fs::read_to_string(console).expect("the console is a file");
        // The line under way at a kill may be cut.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().for_each(|line| arrived[line.parse::<usize>().expect("it is a number")] = true);
    };
    for kill in 0..soak::times(10, 100) {
        let console = pipeline.folder().join(format!("console-{kill}"));
        let agent = pipeline.run_into(&console);
        std::thread::sleep(Duration::from_millis(random.random_range(10..900)));
        agent.kill();
        collect(&console);
    }
    let console = pipeline.folder().join("console-last");
    pipeline.run_into(&console).expect_done(LIMIT);
    collect(&console);
    assert_eq!(arrived.iter().position(|arrived| !arrived), None, "lost");
}

#[test]
fn a_sink_with_workers_is_swapped_as_one_and_starts_anew_with_others() {
    let endless = numbers(0, PRINT).replace("config = { total = 0 }", "");
    let pipeline = PipelineFile::new("sink-workers-swap", &endless);
    let config = pipeline.folder().write("same.toml", "prefix = \"\"\n");
    let config = config.to_str().expect("the folder is UTF-8");
    let agent = Managed::run(&pipeline);
    for swap in 0..20 {
        let report = agent.json(&["swap", "many", "--config", config, "--wait-for", "first-batch"]);
        assert_eq!(report["generation"], swap + 2, "{report}");
    }
    for workers in [1, 3, 4] {
        pipeline.rewrite("sink-workers-swap", &endless.replace("workers = 4", &format!("workers = {workers}")));
        let said = agent.agent().reload();
        assert!(said.contains("restarted sink `many`"), "{said}");
    }
    let ended = agent.into_agent().stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_each_once(&ended.stdout, ended.stdout.len() as u64);
}
