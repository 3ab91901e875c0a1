//! `wasmflow swap` on a running agent: what a user sees, and what a kill in the middle of one leaves behind.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wasmflow_tests::admin::Managed;
use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::component::{component, stamp_version};
use wasmflow_tests::process::wait_until;
use wasmflow_tests::soak;
use wasmflow_tests::stamped::{all_numbers_to_files, check_all, lines, two_versions};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_hundred_swaps_by_command_leave_each_event_once_in_order_and_each_batch_to_one_version() {
    let pipeline = PipelineFile::new("swap-command", &all_numbers_to_files(""));
    let versions = two_versions(pipeline.folder().path());
    let agent = Managed::run(&pipeline);
    let swaps = soak::times(200, 1000) as usize;
    let mut settled_in = 0;
    for swap in 0..swaps {
        if swap == 100 {
            settled_in = agent.agent().process().resident_bytes();
        }
        let arguments = ["swap", "stamp", &versions[(swap + 1) % 2], "--wait-for", "first-batch"];
        let report = agent.json(&arguments);
        assert_eq!(report["generation"], swap + 2, "{report}");
        assert!(swap == 0 || report["gap_ms"].is_number(), "the batch before, and the first one since: {report}");
    }
    let resident = agent.agent().process().resident_bytes();
    assert!(resident < settled_in + (24 << 20), "{settled_in} bytes after 100 swaps, {resident} after {swaps}");
    let status = agent.json(&["status", "stamp"]);
    assert_eq!(
        (&status["generation"], status["history"].as_array().map(Vec::len)),
        (&(swaps + 1).into(), Some(20)),
        "{status}"
    );
    let out = || agent.json(&["status", "files"])["counters"]["out_events"].as_u64();
    let ten_batches_more = out().map(|events| events + 1000);
    let came = wait_until(Duration::from_secs(60), || out() >= ten_batches_more);
    assert!(came, "{}", agent.json(&["status", "files"]));
    let back = agent.json(&["rollback", "swap-command/stamp"]);
    assert_eq!((&back["generation"], &back["watch"]), (&(swaps + 2).into(), &"passed".into()), "{back}");
    let usual = [&back["usual_gap_ms"], &back["usual_gap_p99_ms"]].map(serde_json::Value::as_f64);
    assert!(usual[0].is_some() && usual[0] <= usual[1], "the gaps between ten batches and more: {back}");
    assert_eq!(agent.into_agent().stop().code, Some(0));
    assert_eq!(check_all(&lines(&pipeline)).len(), swaps + 2);
}

#[test]
fn a_candidate_that_is_no_good_is_refused_with_its_step_and_what_serves_goes_on() {
    let pipeline = PipelineFile::new("swap-refused", &all_numbers_to_files(""));
    let folder = pipeline.folder();
    folder.write("half.wasm", "\0asm");
    folder.write("trap.toml", "fault = \"trap\"\nat = 200\n");
    folder.write("open.toml", "fault = \"trap\"\nat = 0\n");
    folder.write("typo.toml", "fautl = \"trap\"\n");
    let path = |name: &str| folder.join(name).display().to_string();
    let v2 = stamp_version(folder.path(), "v2").display().to_string();
    let describe = component("describe-trap-sink").display().to_string();
    let agent = Managed::run(&pipeline);
    let candidates: [(&str, &[&str]); 7] = [
        ("compile", &[&path("half.wasm")]),
        ("fetch", &["no-such-plugin"]),
        ("describe", &[&describe]),
        ("check", &["--config", &path("typo.toml")]),
        ("open", &[&v2, "--config", &path("open.toml")]),
        ("watch", &[&v2, "--config", &path("trap.toml")]),
        ("shadow", &[&v2, "--shadow", "5", "--require-equal"]),
    ];
    for (step, arguments) in candidates {
        let output = agent.command(&[&["swap", "stamp"], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{step}: {}", said(&output));
        assert!(said(&output).contains(&format!("`{step}`")), "{step}: {}", said(&output));
        assert_eq!(agent.json(&["status", "stamp"])["generation"], 1, "{step}");
    }
    let history = agent.json(&["status", "stamp"])["history"].clone();
    let steps: Vec<_> = history.as_array().into_iter().flatten().map(|swap| swap["result"].to_string()).collect();
    assert_eq!(steps.len(), 7, "{history}");
    let unknown = agent.command(&["swap", "stmp", &v2]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    assert_eq!(agent.into_agent().stop().code, Some(0));
    let versions = check_all(&lines(&pipeline));
    assert!(versions == ["v1", "v2", "v1"], "only the watched one had events: {versions:?}");
}

/// Swaps one stage after another as fast as they come, until the agent is gone.
fn swap_without_end(agent: &Managed, plugins: [String; 2], stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (command, stop) = (agent.commander(), stop.clone());
    std::thread::spawn(move || {
        for swap in 1.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let plugin = &plugins[swap % 2];
            let arguments: &[&str] = match swap % 3 {
                0 => &["swap", "numbers", "seq", "--wait-for", "switch"],
                1 => &["swap", "files", "file-roll", "--wait-for", "switch"],
                _ => &["swap", "stamp", plugin, "--wait-for", "first-batch"],
            };
            // It fails when the agent has been killed.
            command(arguments);
        }
    })
}

#[test]
fn an_agent_killed_in_the_middle_of_a_swap_starts_with_what_its_file_names_and_loses_nothing() {
    let mut random = StdRng::seed_from_u64(soak::seed());
    let pipeline = PipelineFile::new("swap-kill", &all_numbers_to_files(""));
    let versions = two_versions(pipeline.folder().path());
    let mut digest = None;
    for _ in 0..5 {
        let agent = Managed::run(&pipeline);
        let status = agent.json(&["status", "stamp"]);
        assert_eq!(status["generation"], 1, "{status}");
        let found = status["plugin"]["digest"].clone();
        assert_eq!(digest.get_or_insert_with(|| found.clone()), &found, "the file's plugin");
        let stop = Arc::<AtomicBool>::default();
        let swapping = swap_without_end(&agent, versions.clone(), &stop);
        std::thread::sleep(Duration::from_millis(random.random_range(20..400)));
        agent.into_agent().kill();
        stop.store(true, Ordering::Relaxed);
        swapping.join().unwrap();
    }
    let agent = Managed::run(&pipeline);
    assert_eq!(agent.json(&["status", "stamp"])["generation"], 1);
    assert_eq!(agent.into_agent().stop().code, Some(0));
    // A batch that was written and not yet settled comes twice; none is missing.
    let numbers: BTreeSet<u64> = lines(&pipeline).into_iter().map(|line| line.number).collect();
    assert_eq!(numbers.iter().copied().last(), Some(numbers.len() as u64 - 1), "numbers lost");
}
