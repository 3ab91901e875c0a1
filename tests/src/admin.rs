//! Commands that ask and act on one running agent: it and they meet in a folder of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::agent::{Agent, Options, PipelineFile};
use crate::binary::wasmflow;
use crate::process::wait_until;

/// The variable that names the folder of the agents' sockets.
const RUNTIME_DIR: &str = "WASMFLOW_RUNTIME_DIR";
/// Far above what a start takes on a busy machine.
const START: Duration = Duration::from_secs(60);

/// An agent that runs a pipeline, and can be told what to do.
#[derive(Debug)]
pub struct Managed {
    agent: Agent,
    sockets: PathBuf,
}

impl Managed {
    /// Runs the pipeline file, and waits until the agent answers and the pipeline has started: it answers before that.
    ///
    /// # Panics
    /// When either does not come within a minute.
    pub fn run(pipeline: &PipelineFile) -> Self {
        let sockets = pipeline.folder().join("sockets");
        let text = sockets.to_string_lossy().into_owned();
        let agent =
            Agent::run_with(pipeline.path(), &Options { env: vec![(RUNTIME_DIR, &text)], ..Options::default() });
        let managed = Self { agent, sockets };
        let answers = wait_until(START, || managed.command(&["status"]).status.success());
        assert!(answers, "the agent does not answer; its log:\n{}", managed.agent.stderr().text());
        managed.agent.expect_log("pipeline started", START);
        managed
    }

    /// Runs `wasmflow` with these arguments beside the agent.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Output {
        command(&self.sockets, arguments)
    }

    /// As [`command`](Self::command), for a thread that outlives the agent.
    pub fn commander(&self) -> impl Fn(&[&str]) -> Output + Send + 'static {
        let sockets = self.sockets.clone();
        move |arguments| command(&sockets, arguments)
    }

    /// What a command answers as JSON.
    ///
    /// # Panics
    /// When it fails.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}\nthe agent:\n{}", self.agent.stderr().text());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The agent alone: to stop it, or to kill it.
    pub fn into_agent(self) -> Agent {
        self.agent
    }
}

fn command(sockets: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(wasmflow());
    command.args(arguments).env(RUNTIME_DIR, sockets).env_remove("RUST_LOG");
    command.output().expect("the binary was built")
}
