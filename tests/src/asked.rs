//! Asking an agent's admin endpoint as a program would: plain HTTP over a socket.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::{Agent, PipelineFile, wasmflow_with};
use crate::port::free_port;
use crate::process::wait_until;

/// An agent with its endpoint at a free port, found by nobody else's `wasmflow status`.
#[derive(Debug)]
pub struct Asked {
    pub agent: Agent,
    pub port: u16,
    runtime_dir: PathBuf,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// # Panics
    /// When the body is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Asked {
    /// Runs the pipeline with further arguments, and waits until the endpoint says that it runs.
    ///
    /// # Panics
    /// With the log, when it does not within a minute.
    pub fn run(pipeline: &PipelineFile, arguments: &[&str]) -> Self {
        Self::run_with(pipeline, arguments, &[])
    }

    /// As [`run`](Self::run), with variables.
    ///
    /// # Panics
    /// With the log, when it does not answer within a minute.
    pub fn run_with(pipeline: &PipelineFile, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::begin(pipeline, arguments, variables).running()
    }

    /// As [`run_with`](Self::run_with), and waits for nothing.
    pub fn begin(pipeline: &PipelineFile, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let (port, runtime_dir) = (free_port(), pipeline.folder().join("run"));
        let at = port.to_string();
        let arguments: Vec<_> = ["--admin", &at].into_iter().chain(arguments.iter().copied()).collect();
        let folder = runtime_dir.to_str().expect("the test's folder is UTF-8");
        let variables: Vec<_> =
            [("WASMFLOW_RUNTIME_DIR", folder)].into_iter().chain(variables.iter().copied()).collect();
        let agent = Agent::run_arguments(pipeline.path(), &arguments, &variables);
        Self { agent, port, runtime_dir }
    }

    /// As [`run`](Self::run), with a console that nobody reads.
    ///
    /// # Panics
    /// With the log, when it does not answer within a minute.
    pub fn run_unread(pipeline: &PipelineFile, arguments: &[&str]) -> Self {
        let (port, runtime_dir) = (free_port(), pipeline.folder().join("run"));
        let at = port.to_string();
        let arguments: Vec<_> = ["--admin", &at].into_iter().chain(arguments.iter().copied()).collect();
        let folder = runtime_dir.to_str().expect("the test's folder is UTF-8");
        let agent = Agent::run_arguments_unread(pipeline.path(), &arguments, &[("WASMFLOW_RUNTIME_DIR", folder)]);
        Self { agent, port, runtime_dir }.running()
    }

    fn running(self) -> Self {
        let asked = self;
        let runs =
            || asked.try_get("/v1/status").is_some_and(|answer| answer.json()["pipelines"][0]["state"] == "running");
        assert!(wait_until(Duration::from_secs(60), runs), "no answer; the log:\n{}", asked.agent.stderr().text());
        asked
    }

    /// # Panics
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path)
            .unwrap_or_else(|| panic!("no answer to GET {path}; the log:\n{}", self.agent.stderr().text()))
    }

    /// # Panics
    /// When there is no answer.
    pub fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        self.send(&request)
            .unwrap_or_else(|| panic!("no answer to POST {path}; the log:\n{}", self.agent.stderr().text()))
    }

    /// Nothing: nobody answers.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
    }

    /// Sends a whole request, as it stands, and reads the answer. Nothing: nobody answers.
    pub fn send(&self, request: &str) -> Option<Answer> {
        ask(self.port, request)
    }

    /// Swaps a stage as the order says.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn swap(&self, stage: &str, order: &serde_json::Value) -> Answer {
        ask_for_swap(self.port, stage, order)
            .unwrap_or_else(|| panic!("no answer to a swap of {stage}; the log:\n{}", self.agent.stderr().text()))
    }

    /// As [`swap`](Self::swap), and gives the report.
    ///
    /// # Panics
    /// When it is refused.
    pub fn swapped(&self, stage: &str, order: &serde_json::Value) -> serde_json::Value {
        let answer = self.swap(stage, order);
        assert_eq!(answer.status, 200, "{stage}: {order}: {}\n{}", answer.body, self.agent.stderr().text());
        answer.json()
    }

    /// How a stage is.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn stage(&self, name: &str) -> serde_json::Value {
        self.get(&format!("/v1/stages/{name}")).json()
    }

    /// Waits until so many events have gone through a stage.
    ///
    /// # Panics
    /// When they have not after two minutes.
    pub fn until_out(&self, stage: &str, events: u64) {
        let out = || self.stage(stage)["counters"]["out_events"].as_u64().unwrap_or_default();
        let came = wait_until(Duration::from_secs(120), || out() >= events);
        assert!(came, "{} of {events} events; the log:\n{}", out(), self.agent.stderr().text());
    }

    pub fn connect(&self) -> Option<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port)).ok()
    }

    /// The metrics, series by series: `name{labels}` with its value.
    ///
    /// # Panics
    /// When the answer is not what Prometheus reads.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        series(&answer.body)
    }

    /// Runs a `wasmflow` command that finds this agent by its socket.
    ///
    /// # Panics
    /// When the command does not end within a minute.
    pub fn wasmflow(&self, arguments: &[&str]) -> crate::agent::Ended {
        wasmflow_with(arguments, &[("WASMFLOW_RUNTIME_DIR", self.runtime_dir())])
    }

    pub fn runtime_dir(&self) -> &str {
        self.runtime_dir.to_str().expect("the test's folder is UTF-8")
    }

    /// The agent's own socket.
    pub fn socket(&self) -> PathBuf {
        Path::new(&self.runtime_dir).join(format!("{}.sock", self.agent.process().id()))
    }
}

/// Asks the agent at this port to swap a stage. Nothing: nobody answers, or not to the end.
pub fn ask_for_swap(port: u16, stage: &str, order: &serde_json::Value) -> Option<Answer> {
    let body = order.to_string();
    let length = body.len();
    let head = format!("POST /v1/stages/{stage}/swap HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}");
    ask(port, &format!("{head}\r\n\r\n{body}"))
}

fn ask(port: u16, request: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // A swap that no runner takes up is refused after 60 s, and that is an answer too.
    stream.set_read_timeout(Some(Duration::from_secs(90))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    answer(&mut stream)
}

/// Reads one answer: its head, and as much body as that says.
fn answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if bytes.len() >= whole {
                let status = head.split(' ').nth(1)?.parse().ok()?;
                return Some(Answer {
                    status,
                    body: String::from_utf8_lossy(&bytes[end + 4..whole]).into_owned(),
                    head,
                });
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend(&chunk[..count]),
        }
    }
}

/// Series of a text in the format 0.0.4.
///
/// # Panics
/// When it is not in that format: a family without a known kind, a series of another family, or there twice, or without a number.
pub fn series(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or_else(|| panic!("no kind: {line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = name.to_owned();
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(name.starts_with(&family) && !family.is_empty(), "{line} in family {family}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(series.insert(name.to_owned(), value).is_none(), "there twice: {line}");
    }
    series
}
