//! What a pipeline file grants, and how far that leads.

use std::net::TcpListener;
use std::time::Duration;

use wasmflow_tests::agent::{Agent, PipelineFile};
use wasmflow_tests::component::component;
use wasmflow_tests::pipelines::NOWHERE;
use wasmflow_tests::process::wait_until;
use wasmflow_tests::skip::skip;

const LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "rebound.example.com";

/// A source that is granted a public name, and connects to it again and again.
fn connecting(port: u16) -> PipelineFile {
    let stages = format!(
        "{NOWHERE}[sources.guest]\nplugin = \"{}\"\nchannels = [\"events\"]\n\
         config = {{ mode = \"connect\", target = \"{NAME}:{port}\" }}\nallow = {{ net = [\"{NAME}:{port}\"] }}\n\
         limits = {{ call = \"1s\" }}\nretry = {{ initial = \"10ms\", max = \"100ms\" }}\n",
        component("hostile-source").display()
    );
    PipelineFile::new("rebound", &stages)
}

#[test]
fn a_public_name_that_leads_inside_is_not_followed_also_when_it_led_outside_before() {
    let inside = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    inside.set_nonblocking(true).expect("it is a socket");
    let port = inside.local_addr().expect("it is bound").port();
    let pipeline = connecting(port);
    let leads_to = |address: &str| pipeline.folder().write("hosts", format!("127.0.0.1 localhost\n{address} {NAME}\n"));
    // Set aside for documentation: it is public by its number, and nobody has it.
    let hosts = leads_to("198.51.100.1");
    let Some(agent) = Agent::run_with_hosts(pipeline.path(), &hosts) else {
        return skip("no mount of one's own is allowed here");
    };
    // Outside it is let out, and nobody answers.
    let tried = || {
        ["took longer than 1000 ms", &format!("connecting to {NAME}")]
            .iter()
            .any(|words| agent.stderr().text().contains(words))
    };
    assert!(wait_until(LIMIT, tried), "{}", agent.stderr().text());
    assert!(!agent.stderr().text().contains("is not granted"), "{}", agent.stderr().text());
    for address in ["127.0.0.1", "169.254.169.254", "10.1.2.3"] {
        leads_to(address);
        agent.expect_log(&format!("a connection to {address}:{port} (an address of `{NAME}`) is not granted"), LIMIT);
    }
    assert!(inside.accept().is_err(), "it was connected to");
    agent.kill();
}

#[test]
fn an_agent_gains_no_privileges_and_leaves_no_memory_dump() {
    let pipeline = connecting(9);
    let agent = pipeline.run();
    let of_process = |file: &str| {
        let path = format!("/proc/{}/{file}", agent.process().id());
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let hardened = || of_process("status").contains("NoNewPrivs:\t1");
    assert!(wait_until(LIMIT, hardened), "{}", of_process("status"));
    let limits = of_process("limits");
    let dump = limits.lines().find(|line| line.starts_with("Max core file size")).expect("Linux lists it");
    assert_eq!(dump.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    agent.kill();
}
