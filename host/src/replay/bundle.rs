//! A bundle as it stands in its file.
//!
//! ```text
//! { "format": 1, "wasmflow": version of the agent, "pipeline", "stage", "kind": source | interceptor | sink, "generation",
//!   "plugin":  { "name", "version", "digest": sha-256, "standard": name, or "file": path, and "bytes": base64 where the file was still the same },
//!   "config":  the stage's table, a placeholder for each secret,
//!   "allow":   the stage's grants as a line of TOML,  "random", "wall_clock": the two that a replay gives,
//!   "limits":  { "memory_bytes", "cpu_ms", "call_ms", "max_event_bytes" },
//!   "failure": { "kind", "text" },
//!   "events":  [{ "headers": [[name, BYTES], …], "body": BYTES }, …]   or   "position": [[BYTES, BYTES], …] }
//! BYTES: a string, or { "base64": … } for what is not text
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use crate::config::{Grants, Limits, grants_line, mask};
use crate::event::Event;
use crate::plugin::{PluginKind, PluginOrigin, TrapKind};
use crate::position::{Part, Position};
use crate::stage::Stage;

/// The format that is written, and the only one that is read.
const FORMAT: u64 = 1;

/// A failed call, with everything that it depended on.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub pipeline: String,
    pub stage: String,
    pub kind: PluginKind,
    pub generation: u64,
    pub plugin: PluginOrigin,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    pub bytes: PluginBytes,
    /// JSON, without secrets.
    pub config: String,
    /// What the stage was granted, as a line of TOML; nothing where that was nothing.
    pub allow: Option<String>,
    pub random: bool,
    pub wall_clock: bool,
    pub limits: Limits,
    pub max_event_bytes: usize,
    pub failure: (TrapKind, String),
    pub given: Given,
}

/// Whether the bundle brings its plugin along.
#[derive(Debug, Clone)]
pub enum PluginBytes {
    Inside(Vec<u8>),
    /// It is embedded in wasmflow, or its file had changed when the bundle was written.
    Elsewhere,
}

/// What the plugin was given in the call.
#[derive(Debug, Clone)]
pub enum Given {
    Events(Vec<Event>),
    /// A source: where it went on.
    Position(Position),
}

impl Given {
    /// How many events it holds.
    pub fn count(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::Position(_) => 0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot read the bundle")]
    Read(#[from] std::io::Error),
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// Use the wasmflow that it names, or a newer one.
    #[error("its format is {found}; this version reads {FORMAT}")]
    Format { found: Json },
    #[error("its `{field}` is missing or is not what it should be")]
    Field { field: &'static str },
}

impl Bundle {
    pub fn of(stage: &Stage, given: Given, kind: TrapKind, text: &str) -> Self {
        let context = &stage.context;
        Self {
            pipeline: context.pipeline.to_string(),
            stage: stage.name.to_string(),
            kind: stage.kind(),
            generation: stage.generation,
            plugin: stage.plugin.origin().clone(),
            digest: stage.plugin.digest().to_owned(),
            bytes: PluginBytes::Elsewhere,
            config: stage.config.redacted().to_owned(),
            allow: (context.grants != Grants::default()).then(|| grants_line(&context.grants)),
            random: context.grants.random,
            wall_clock: context.grants.wall_clock,
            limits: context.limits,
            max_event_bytes: context.max_event_bytes,
            // The plugin's own words, and it knows the secrets.
            failure: (kind, mask(text).into_owned()),
            given,
        }
    }

    pub fn to_json(&self) -> Json {
        let (plugin, given) = (self.plugin_json(), self.given_json());
        let Limits { memory_bytes, cpu, call, .. } = self.limits;
        let mut json = json!({
            "format": FORMAT,
            "wasmflow": env!("CARGO_PKG_VERSION"),
            "pipeline": self.pipeline,
            "stage": self.stage,
            "kind": self.kind.interface(),
            "generation": self.generation,
            "plugin": plugin,
            "config": serde_json::from_str::<Json>(&self.config).unwrap_or_default(),
            "allow": self.allow,
            "random": self.random,
            "wall_clock": self.wall_clock,
            "limits": {
                "memory_bytes": memory_bytes,
                "cpu_ms": milliseconds(cpu),
                "call_ms": milliseconds(call),
                "max_event_bytes": self.max_event_bytes,
            },
            "failure": { "kind": self.failure.0.label(), "text": self.failure.1 },
        });
        let (name, value) = given;
        json[name] = value;
        json
    }

    fn plugin_json(&self) -> Json {
        let mut plugin = match &self.plugin {
            PluginOrigin::Standard { name, .. } => json!({ "digest": self.digest, "standard": name }),
            PluginOrigin::File(path) | PluginOrigin::Pinned { path, .. } => {
                json!({ "digest": self.digest, "file": path.to_string_lossy() })
            }
        };
        if let PluginBytes::Inside(bytes) = &self.bytes {
            plugin["bytes"] = BASE64.encode(bytes).into();
        }
        plugin
    }

    fn given_json(&self) -> (&'static str, Json) {
        match &self.given {
            Given::Events(events) => ("events", events.iter().map(event_json).collect()),
            Given::Position(position) => {
                let parts = position.parts();
                let pair = |part: Part| json!([to_json(&part.key), part.value.map(|value| to_json(&value))]);
                ("position", parts.into_iter().map(pair).collect())
            }
        }
    }

    /// # Errors
    /// When it is not a bundle of this format.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        let json: Json = serde_json::from_str(text)?;
        if json["format"] != FORMAT {
            return Err(BundleError::Format { found: json["format"].clone() });
        }
        let kind = PluginKind::ALL.into_iter().find(|kind| json["kind"] == kind.interface());
        let kind = kind.ok_or(BundleError::Field { field: "kind" })?;
        let plugin = &json["plugin"];
        let origin = match (plugin["standard"].as_str(), plugin["file"].as_str()) {
            (Some(name), None) => PluginOrigin::Standard { name: name.into(), kind },
            (None, Some(path)) => PluginOrigin::File(PathBuf::from(path)),
            _ => return Err(BundleError::Field { field: "plugin" }),
        };
        let bytes = match plugin["bytes"].as_str() {
            None => PluginBytes::Elsewhere,
            Some(bytes) => {
                PluginBytes::Inside(BASE64.decode(bytes).map_err(|_| BundleError::Field { field: "plugin.bytes" })?)
            }
        };
        Ok(Self {
            pipeline: text_of(&json["pipeline"], "pipeline")?,
            stage: text_of(&json["stage"], "stage")?,
            kind,
            generation: number_of(&json["generation"], "generation")?,
            plugin: origin,
            digest: text_of(&plugin["digest"], "plugin.digest")?,
            bytes,
            config: json["config"].to_string(),
            allow: json["allow"].as_str().map(str::to_owned),
            random: json["random"] == true,
            wall_clock: json["wall_clock"] == true,
            limits: limits_of(&json["limits"])?,
            max_event_bytes: number_of(&json["limits"]["max_event_bytes"], "limits.max_event_bytes")? as usize,
            failure: failure_of(&json["failure"])?,
            given: given_of(&json)?,
        })
    }
}

fn limits_of(json: &Json) -> Result<Limits, BundleError> {
    Ok(Limits {
        memory_bytes: number_of(&json["memory_bytes"], "limits.memory_bytes")? as usize,
        cpu: Duration::from_millis(number_of(&json["cpu_ms"], "limits.cpu_ms")?),
        call: Duration::from_millis(number_of(&json["call_ms"], "limits.call_ms")?),
        age: None,
    })
}

fn failure_of(json: &Json) -> Result<(TrapKind, String), BundleError> {
    let kind = TrapKind::ALL.into_iter().find(|kind| json["kind"] == kind.label());
    Ok((kind.ok_or(BundleError::Field { field: "failure.kind" })?, text_of(&json["text"], "failure.text")?))
}

fn given_of(json: &Json) -> Result<Given, BundleError> {
    if let Some(events) = json["events"].as_array() {
        return events
            .iter()
            .map(event_of)
            .collect::<Option<_>>()
            .map(Given::Events)
            .ok_or(BundleError::Field { field: "events" });
    }
    let wrong = BundleError::Field { field: "position" };
    let Some(parts) = json["position"].as_array() else { return Err(wrong) };
    let part = |pair: &Json| {
        let value = if pair[1].is_null() { None } else { Some(from_json(&pair[1])?.into()) };
        Some(Part { key: from_json(&pair[0])?.into(), value })
    };
    let Some(parts) = parts.iter().map(part).collect::<Option<Vec<_>>>() else { return Err(wrong) };
    let mut position = Position::default();
    position.apply(&parts);
    Ok(Given::Position(position))
}

fn event_json(event: &Event) -> Json {
    let headers: Vec<Json> = event.headers.iter().map(|(name, value)| json!([**name, to_json(value)])).collect();
    json!({ "headers": headers, "body": to_json(&event.body) })
}

fn event_of(json: &Json) -> Option<Event> {
    let header = |pair: &Json| Some((Arc::from(pair[0].as_str()?), from_json(&pair[1])?));
    let headers = json["headers"].as_array()?.iter().map(header).collect::<Option<_>>()?;
    Some(Event { headers, body: from_json(&json["body"])? })
}

fn to_json(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": BASE64.encode(bytes) }),
    }
}

fn from_json(json: &Json) -> Option<Vec<u8>> {
    match json.as_str() {
        Some(text) => Some(text.as_bytes().to_vec()),
        None => BASE64.decode(json["base64"].as_str()?).ok(),
    }
}

fn text_of(json: &Json, field: &'static str) -> Result<String, BundleError> {
    json.as_str().map(str::to_owned).ok_or(BundleError::Field { field })
}

fn number_of(json: &Json, field: &'static str) -> Result<u64, BundleError> {
    json.as_u64().ok_or(BundleError::Field { field })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(given: Given) -> Bundle {
        Bundle {
            pipeline: "p".into(),
            stage: "s".into(),
            kind: PluginKind::Interceptor,
            generation: 3,
            plugin: PluginOrigin::File("/plugins/a.wasm".into()),
            digest: "00ff".into(),
            bytes: PluginBytes::Inside(vec![0, 255]),
            config: r#"{"password":"<secret>"}"#.into(),
            allow: Some("allow = { random = true }".into()),
            random: true,
            wall_clock: false,
            limits: Limits { age: None, ..Limits::default() },
            max_event_bytes: 1000,
            failure: (TrapKind::Memory, "too much".into()),
            given,
        }
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let event = Event { headers: vec![("key".into(), b"\xff".to_vec())], body: b"text".to_vec() };
        let mut position = Position::default();
        position.apply(&[Part { key: vec![1, 200].into(), value: Some(b"9".to_vec().into()) }]);
        for given in [Given::Events(vec![event]), Given::Position(position)] {
            let written = bundle(given).to_json();
            assert_eq!(Bundle::parse(&written.to_string()).unwrap().to_json(), written);
        }
    }

    #[test]
    fn what_is_no_bundle_is_answered_with_what_is_wrong() {
        let error = |text: &str| Bundle::parse(text).unwrap_err().to_string();
        assert_eq!(error("{"), "it is not JSON");
        assert_eq!(error("{}"), "its format is null; this version reads 1");
        assert_eq!(error(r#"{"format":2}"#), "its format is 2; this version reads 1");
        assert!(error(r#"{"format":1,"kind":"sink"}"#).contains("`plugin`"));
        let mut json = bundle(Given::Events(Vec::new())).to_json();
        json["events"] = json!([{ "headers": [["a"]], "body": "b" }]);
        assert!(error(&json.to_string()).contains("`events`"));
    }
}
