//! What a plugin that loops may cost: a quarter of a core, whatever kind of plugin it is.

use std::time::Duration;

use wasmflow_tests::agent::PipelineFile;
use wasmflow_tests::component::component;
use wasmflow_tests::measure::load;
use wasmflow_tests::pipelines::CONSOLE;
use wasmflow_tests::process::wait_until;

use crate::alone;

/// A guest of this kind that loops in every call, in an otherwise harmless pipeline.
fn looping(kind: &str) -> PipelineFile {
    let guest = format!(
        "plugin = \"{}\"\nconfig = {{ mode = \"loop\" }}\nlimits = {{ cpu = \"200ms\" }}\nretry = {{ initial = \"1ms\", max = \"1ms\" }}\n",
        component(&format!("hostile-{kind}")).display()
    );
    let numbers = "[sources.numbers]\nplugin = \"seq\"\nchannels = [\"events\"]\nconfig = { total = 1000 }\n";
    let stages = match kind {
        "source" => format!("{CONSOLE}[sources.guest]\nchannels = [\"events\"]\n{guest}"),
        "interceptor" => format!("{CONSOLE}{numbers}interceptors = [\"guest\"]\n[interceptors.guest]\n{guest}"),
        _ => format!("{CONSOLE}{numbers}[sinks.guest]\nchannel = \"events\"\n{guest}"),
    };
    PipelineFile::new(&format!("looping-{kind}"), &stages)
}

/// Computing time is what is measured, so a busy machine can only lower it.
#[test]
fn a_looping_stage_has_a_quarter_of_a_core_after_its_third_timeout() {
    let _alone = alone();
    for kind in ["source", "interceptor", "sink"] {
        let pipeline = looping(kind);
        let agent = pipeline.run();
        let timeouts = || agent.stderr().text().matches("computed longer than 200 ms").count();
        assert!(wait_until(Duration::from_secs(60), || timeouts() >= 3), "{kind}: {}", agent.stderr().text());
        let before = timeouts();
        let load = load(&agent, Duration::from_secs(5));
        println!("{kind}: {:.1} % of a core", load * 100.0);
        assert!(load < 0.25, "{kind}: {:.1} % of a core", load * 100.0);
        assert!(timeouts() > before, "{kind} was not tried again: {}", agent.stderr().text());
        agent.kill();
    }
}
