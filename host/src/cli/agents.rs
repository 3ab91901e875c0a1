//! Finding the agents that a command asks.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use wasmflow::admin::client::{Client, ClientError, Reply};
use wasmflow::admin::{Address, Found};

use super::admin::{token, told};
use super::{FAILED, INVALID};

/// Whom to ask.
#[derive(Args)]
pub struct Ask {
    /// The agent's address: HOST:PORT, a PORT of this machine, or the path of its socket; default: this user's agents on this machine
    #[arg(long = "admin", value_name = "ADDR")]
    address: Option<Address>,
    /// The token of an agent that is asked over TCP, in the first line of this file; also in the variable WASMFLOW_ADMIN_TOKEN
    #[arg(long = "admin-token-file", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// An agent and what it says of itself.
pub struct Agent {
    pub client: Client,
    pub status: Value,
}

/// A stage and the agent that has it.
pub struct Target {
    client: Client,
    path: String,
}

impl Ask {
    /// Every agent that answers; at least one.
    ///
    /// # Errors
    /// The exit code, when it has been said that there is none.
    pub async fn agents(self) -> Result<Vec<Agent>, ExitCode> {
        let token = token(self.token_file).map_err(|error| told(&error, None, INVALID))?;
        let client = |address| Client { address, token: token.clone() };
        if let Some(address) = self.address {
            return Ok(vec![Agent::ask(client(address)).await.map_err(|error| unanswered(&error))?]);
        }
        let Found { folder, addresses } = Found::look();
        let mut agents = Vec::new();
        for address in addresses {
            match Agent::ask(client(address)).await {
                Ok(agent) => agents.push(agent),
                // It has just ended, or just begun; its neighbours answer all the same.
                Err(ClientError::Connect { .. }) => {}
                Err(error) => _ = unanswered(&error),
            }
        }
        if agents.is_empty() {
            eprintln!("error: no agent of yours runs on this machine (looked in {})", folder.display());
            eprintln!(
                "  hint: start one with `wasmflow run FILE`, or name one with `--admin ADDR`: one of another user, of another \
                 machine, or with another WASMFLOW_RUNTIME_DIR"
            );
            return Err(ExitCode::from(FAILED));
        }
        Ok(agents)
    }

    /// The one agent that has a stage of this name, `STAGE` or `PIPELINE/STAGE`.
    ///
    /// # Errors
    /// The exit code, when it has been said that none has, or several have.
    pub async fn target(self, name: &str) -> Result<Target, ExitCode> {
        let (pipeline, stage) = match name.split_once('/') {
            Some((pipeline, stage)) => (Some(pipeline), stage),
            None => (None, name),
        };
        let agents = self.agents().await?;
        let mut found = Vec::new();
        let mut known = Vec::new();
        for agent in &agents {
            for (of, name) in agent.stages() {
                let is_meant = name == stage && pipeline.is_none_or(|pipeline| pipeline == of);
                known.push(format!("{of}/{name}"));
                if is_meant {
                    found.push((agent, of.to_owned()));
                }
            }
        }
        match &*found {
            [(agent, pipeline)] => {
                let path = format!("/v1/pipelines/{}/stages/{}", encoded(pipeline), encoded(stage));
                Ok(Target { client: agent.client.clone(), path })
            }
            [] => {
                eprintln!("error: there is no stage `{name}`");
                eprintln!("  hint: running: {}", known.join(", "));
                Err(ExitCode::from(INVALID))
            }
            several => {
                let places: Vec<_> = several
                    .iter()
                    .map(|(agent, pipeline)| format!("{pipeline}/{stage} of the agent at {}", agent.client.address))
                    .collect();
                eprintln!("error: several stages are called `{name}`: {}", places.join(", "));
                eprintln!("  hint: write PIPELINE/STAGE, and name the agent with `--admin ADDR`");
                Err(ExitCode::from(INVALID))
            }
        }
    }
}

impl Agent {
    async fn ask(client: Client) -> Result<Self, ClientError> {
        let reply = client.get("/v1/status").await?;
        match reply.status {
            200 => Ok(Self { client, status: reply.body }),
            status => {
                let message = reply.body["error"]["message"].as_str().unwrap_or("it says nothing more");
                Err(ClientError::Foreign { address: client.address, what: format!("status {status}: {message}") })
            }
        }
    }

    /// Pipelines and stages.
    fn stages(&self) -> impl Iterator<Item = (&str, &str)> {
        let pipelines = self.status["pipelines"].as_array().into_iter().flatten();
        let stages = pipelines.flat_map(|pipeline| pipeline["stages"].as_array().into_iter().flatten());
        stages.filter_map(|stage| Some((stage["pipeline"].as_str()?, stage["name"].as_str()?)))
    }
}

impl Target {
    pub fn is_local(&self) -> bool {
        matches!(self.client.address, Address::Unix(_))
    }

    /// # Errors
    /// The exit code, when it has been said why there is none.
    pub async fn detail(&self) -> Result<Value, ExitCode> {
        answer(self.client.get(&self.path).await)
    }

    /// Has it done.
    ///
    /// # Errors
    /// The exit code, when it has been said what went wrong.
    pub async fn act(&self, verb: &str, order: &Value) -> Result<Value, ExitCode> {
        answer(self.client.post(&format!("{}/{verb}", self.path), order).await)
    }
}

/// The body of a good answer; of a bad one its step, message and remedy are printed.
fn answer(reply: Result<Reply, ClientError>) -> Result<Value, ExitCode> {
    let Reply { status, body } = reply.map_err(|error| unanswered(&error))?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let error = &body["error"];
    let text = |key: &str| error[key].as_str().map(super::logs::printable_lines);
    let message = text("message").unwrap_or_else(|| format!("status {status}"));
    match text("step") {
        Some(step) => eprintln!("error: at step `{step}`: {message}"),
        None => eprintln!("error: {message}"),
    }
    if let Some(remedy) = text("remedy") {
        eprintln!("  hint: {remedy}");
    }
    // What the caller could have known: nothing was begun.
    Err(ExitCode::from(if matches!(status, 400 | 404) { INVALID } else { FAILED }))
}

fn unanswered(error: &ClientError) -> ExitCode {
    let remedy = matches!(error, ClientError::Connect { .. })
        .then_some("`wasmflow run --admin ADDR` says where an agent listens");
    told(error, remedy, FAILED)
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
