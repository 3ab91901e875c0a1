//! A wasmflow agent: the binary running one pipeline file in a folder of its own.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::binary::wasmflow;
use crate::lines::Lines;
use crate::process::Process;

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    stdout: Lines,
    stderr: Lines,
}

/// How an agent ended and everything it wrote.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<String>,
    pub stderr: String,
}

/// How an agent is started beyond its pipeline file.
#[derive(Debug, Default)]
pub struct Options<'o> {
    /// Environment variables, beside those of the test.
    pub env: Vec<(&'o str, &'o str)>,
    /// The filter of the log, as `RUST_LOG` takes it.
    pub log: Option<&'o str>,
    /// The most file handles it may have, set with `prlimit`, which is part of every Debian.
    pub file_handles: Option<u32>,
}

impl Agent {
    /// Runs `wasmflow run` on the pipeline file.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run(pipeline: &Path) -> Self {
        Self::run_with(pipeline, &Options::default())
    }

    /// Runs all these pipeline files in one agent, without the plugins' own words in its log.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run_together(pipelines: &[&PipelineFile]) -> Self {
        let (first, others) = pipelines.split_first().expect("there is one to run");
        let mut command = command("run", first.path());
        command.args(others.iter().map(|pipeline| pipeline.path()));
        // What plugins say is not printed: whoever measures would measure this process as it reads a storm.
        command.env("RUST_LOG", "info,wasmflow::plugin=off");
        Self::start(command)
    }

    /// As [`run`](Self::run), with options.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run_with(pipeline: &Path, options: &Options<'_>) -> Self {
        let mut command = command("run", pipeline);
        if let Some(handles) = options.file_handles {
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={handles}")).arg(command.get_program()).args(command.get_args());
            command = limited;
            command.env_remove("RUST_LOG");
        }
        command.envs(options.env.iter().copied());
        if let Some(filter) = options.log {
            command.env("RUST_LOG", filter);
        }
        Self::start(command)
    }

    /// Runs `wasmflow run` on the pipeline file with further arguments and variables.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run_arguments(pipeline: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command("run", pipeline);
        command.args(arguments).envs(variables.iter().copied());
        Self::start(command)
    }

    /// As [`run_arguments`](Self::run_arguments), with a console that nobody reads until [`read_console`](Self::read_console).
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run_arguments_unread(pipeline: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command("run", pipeline);
        command.args(arguments).envs(variables.iter().copied()).stdout(Stdio::piped());
        Self::start_quiet(command)
    }

    /// Has it read its pipeline files anew with SIGHUP, and waits until the log says how that went.
    ///
    /// # Panics
    /// With the log, when it does not say so within a minute.
    pub fn reload(&self) -> String {
        let seen = self.stderr.count();
        self.process.signal(Signal::HUP);
        let said = self.stderr.wait_for(seen, "reloaded", Duration::from_secs(60));
        said.unwrap_or_else(|| panic!("no word of a reload; the log:\n{}", self.stderr.text())).text
    }

    /// Runs the pipeline file without some of root's capabilities, as `setpriv --bounding-set` lists them.
    ///
    /// # Panics
    /// When `setpriv`, which is part of every Debian, cannot be started.
    pub fn run_without_capabilities(pipeline: &Path, capabilities: &str) -> Self {
        let wasmflow = command("run", pipeline);
        if !rustix::process::geteuid().is_root() {
            return Self::start(wasmflow);
        }
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={capabilities}")).arg(wasmflow.get_program()).args(wasmflow.get_args());
        Self::start(command)
    }

    /// Runs the pipeline file with another `/etc/hosts`: names lead where the test says. The file may be written anew meanwhile.
    /// Nothing: this machine allows no mount of one's own.
    ///
    /// # Panics
    /// When `unshare`, which is part of every Debian, cannot be started.
    pub fn run_with_hosts(pipeline: &Path, hosts: &Path) -> Option<Self> {
        const MOUNTED: &str = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
        let unshared = || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--map-root-user", "sh", "-c", MOUNTED, "sh"]).arg(hosts);
            command
        };
        let allowed = unshared().arg("true").output().expect("`unshare` can be started").status.success();
        let wasmflow = command("run", pipeline);
        let mut command = unshared();
        command.arg(wasmflow.get_program()).args(wasmflow.get_args()).env_remove("RUST_LOG");
        allowed.then(|| Self::start(command))
    }

    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut agent = Self::start_quiet(command);
        let console = agent.process.child_mut().stdout.take().expect("it was piped");
        agent.stdout = Lines::collect(console);
        agent
    }

    /// Starts `command` with its standard output as it stands there, not collected.
    fn start_quiet(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(command).expect("the binary was built");
        let stderr = Lines::collect(process.child_mut().stderr.take().expect("it was piped"));
        Self { process, stdout: Lines::ended(), stderr }
    }

    /// Reads the console from now on, after [`PipelineFile::run_unread`].
    ///
    /// # Panics
    /// When it is read already.
    pub fn read_console(&mut self) {
        let console = self.process.child_mut().stdout.take().expect("nobody has read the console yet");
        self.stdout = Lines::collect(console);
    }

    /// Reads one line of the console after [`PipelineFile::run_unread`] and closes it, as `head -n 1` does.
    ///
    /// # Panics
    /// When no line comes.
    pub fn read_line_and_close_console(&mut self) -> String {
        let console = self.process.child_mut().stdout.take().expect("nobody has read the console yet");
        let line = std::io::BufReader::new(console).lines().next();
        line.expect("the console sink prints").expect("the pipe can be read")
    }

    /// What console sinks wrote.
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// The log.
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the console holds `count` lines and gives them.
    ///
    /// # Panics
    /// With the log, when it holds fewer after `limit`, or the agent ends before.
    pub fn expect_lines(&self, count: usize, limit: Duration) -> Vec<String> {
        let lines = self.stdout.wait_for_count(count, limit);
        assert!(
            lines.len() >= count,
            "{} of {count} lines after {limit:?}; the log:\n{}",
            lines.len(),
            self.stderr.text()
        );
        lines
    }

    /// Waits until the log holds `needle`.
    ///
    /// # Panics
    /// With the log, when it does not hold it after `limit`, or the agent ends before.
    pub fn expect_log(&self, needle: &str, limit: Duration) {
        let found = self.stderr.wait_for(0, needle, limit);
        assert!(found.is_some(), "the log does not say `{needle}` within {limit:?}:\n{}", self.stderr.text());
    }

    /// Waits until the agent ends by itself.
    ///
    /// # Panics
    /// With the log, when it still runs after `limit`.
    pub fn wait(mut self, limit: Duration) -> Ended {
        let status = self.process.wait(limit);
        let status =
            status.unwrap_or_else(|| panic!("still running after {limit:?}; the log:\n{}", self.stderr.text()));
        self.stdout.wait_for_end(Duration::from_secs(5));
        self.stderr.wait_for_end(Duration::from_secs(5));
        Ended { code: status.code(), stdout: self.stdout.all(), stderr: self.stderr.text() }
    }

    /// Waits until the agent has done all its work, and gives the console's lines.
    ///
    /// # Panics
    /// With the log, when it does not end with exit code 0 within `limit`.
    pub fn expect_done(self, limit: Duration) -> Vec<String> {
        let ended = self.wait(limit);
        assert_eq!(ended.code, Some(0), "the log:\n{}", ended.stderr);
        ended.stdout
    }

    /// Asks it to drain and stop with SIGTERM, and gives how it ended.
    ///
    /// # Panics
    /// With the log, when it does not end within 40 s, which is 10 s more than it may drain.
    pub fn stop(self) -> Ended {
        self.process.signal(Signal::TERM);
        self.wait(Duration::from_secs(40))
    }

    /// Ends it at once with SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

/// Runs `wasmflow VERB PIPELINE` to its end and gives what it wrote; for verbs that end by themselves.
///
/// # Panics
/// When it still runs after a minute.
pub fn wasmflow_verb(verb: &str, pipeline: &Path) -> Ended {
    Agent::start(command(verb, pipeline)).wait(Duration::from_secs(60))
}

/// Runs `wasmflow` with these arguments to its end and gives what it wrote; for commands that end by themselves.
///
/// # Panics
/// When it still runs after a minute.
pub fn wasmflow_run(arguments: &[&str]) -> Ended {
    wasmflow_with(arguments, &[])
}

/// As [`wasmflow_run`], with variables.
///
/// # Panics
/// When it still runs after a minute.
pub fn wasmflow_with(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(wasmflow());
    command.args(arguments).env_remove("RUST_LOG").envs(variables.iter().copied());
    Agent::start(command).wait(Duration::from_secs(60))
}

/// The command that runs the pipeline file with only warnings in the log, for a benchmark to run and account.
pub fn quiet_run(pipeline: &PipelineFile) -> Command {
    let mut command = command("run", pipeline.path());
    command.env("RUST_LOG", "warn");
    command
}

fn command(verb: &str, pipeline: &Path) -> Command {
    let mut command = Command::new(wasmflow());
    command.arg(verb).arg(pipeline).env_remove("RUST_LOG");
    command
}

/// A pipeline file in a fresh folder, which is also where relative paths in it start and its state lives.
#[derive(Debug)]
pub struct PipelineFile {
    folder: crate::folder::Folder,
    path: PathBuf,
}

impl PipelineFile {
    /// Writes `stages` below a `[pipeline]` table that names the pipeline `name` and keeps its state in the folder.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn new(name: &str, stages: &str) -> Self {
        let folder = crate::folder::Folder::new(name);
        let path = folder.join("pipeline.toml");
        let file = Self { folder, path };
        file.rewrite(name, stages);
        file
    }

    /// Replaces the stages; the state stays.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn rewrite(&self, name: &str, stages: &str) {
        let text = format!("[pipeline]\nname = \"{name}\"\ninstance = \"test\"\nstate_dir = \"state\"\n\n{stages}");
        self.folder.write("pipeline.toml", text);
    }

    /// Adds lines to the `[pipeline]` table, as `delivery = …`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn promise(&self, lines: &str) {
        let text = std::fs::read_to_string(&self.path).expect("it has been written");
        let text = text.replacen("state_dir", &format!("{lines}state_dir"), 1);
        std::fs::write(&self.path, text).expect("the folder is writable");
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn folder(&self) -> &crate::folder::Folder {
        &self.folder
    }

    /// Runs an agent on it.
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run(&self) -> Agent {
        Agent::run(&self.path)
    }

    /// Runs an agent on it whose console is the file `console`.
    ///
    /// # Panics
    /// When the binary cannot be started or the file not be made.
    pub fn run_into(&self, console: &Path) -> Agent {
        let mut command = command("run", &self.path);
        command.stdout(std::fs::File::create(console).expect("the test's own folder is writable"));
        Agent::start_quiet(command)
    }

    /// Runs an agent on it whose console nobody reads, so that console sinks block once the pipe is full (64 KiB), until
    /// [`Agent::read_console`].
    ///
    /// # Panics
    /// When the binary cannot be started.
    pub fn run_unread(&self) -> Agent {
        let mut command = command("run", &self.path);
        command.stdout(Stdio::piped());
        Agent::start_quiet(command)
    }
}
