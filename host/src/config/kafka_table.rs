//! `[kafka.NAME]`: librdkafka's own options, and the contradictions among them that it would only report at run time.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Span};
use super::pipeline::KafkaConnection;
use super::read::{At, Node, Reader, Value, entries};
use super::secret::{Secret, read_secret};
use crate::kafka::{Visibility, check_option};

/// A connection as written.
#[derive(Debug, Clone, Default)]
pub struct KafkaTable {
    embedded: Option<At<bool>>,
    /// Values by option; all of them as secrets, since passwords may be written out too.
    options: BTreeMap<String, At<SecretString>>,
    /// Options that came by reference, or whose name says that they are secret.
    secret: Vec<String>,
    is_partial: bool,
}

impl Value for KafkaTable {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut table = KafkaTable::default();
        for (key, node) in entries(reader.table(node)?) {
            table.read_option(key, node, reader);
        }
        table.check_servers(reader);
        table.check_contradictions(reader);
        Some(table)
    }

    fn schema() -> Json {
        let secret = |key: &str| {
            json!({
                "type": "object", "properties": { key: { "type": "string" } },
                "required": [key], "additionalProperties": false,
            })
        };
        json!({
            "type": "object",
            "properties": { "embedded": {
                "type": "boolean", "default": false,
                "description": "Start a broker in this process, for trying things out.",
            } },
            "additionalProperties": {
                "anyOf": [{ "type": ["string", "integer", "boolean", "number"] }, secret("env"), secret("file")],
            },
        })
    }
}

impl KafkaTable {
    fn read_option(&mut self, key: At<String>, node: &Node<'_>, reader: &mut Reader<'_>) {
        let name = key.value.clone();
        if name == "embedded" {
            let value = reader.within(key, |reader| bool::read(node, reader));
            self.embedded = value.map(|value| At { value, span: node.span() });
            return;
        }
        let key_span = key.span.clone();
        match reader.within(key, |reader| option_value(node, reader)) {
            None => self.is_partial = true,
            Some((value, by_reference)) => {
                let is_secret = by_reference || names_a_secret(&name);
                let visibility = if is_secret { Visibility::Secret } else { Visibility::Shown };
                if let Err(problem) = check_option(&name, &value, visibility) {
                    let diagnostic = Diagnostic::error("kafka-option", key_span, problem.message);
                    reader.push(problem.hint.into_iter().fold(diagnostic, Diagnostic::hint));
                }
                if is_secret {
                    self.secret.push(name.clone());
                }
                self.options.insert(name, At { value: SecretString::from(value), span: node.span() });
            }
        }
    }

    fn check_servers(&self, reader: &mut Reader<'_>) {
        let servers = self.options.get("bootstrap.servers").or_else(|| self.options.get("metadata.broker.list"));
        match (self.is_embedded(), servers) {
            (true, Some(servers)) => {
                let message = format!("{} is embedded and has servers too", reader.table_name());
                let diagnostic = Diagnostic::error("contradiction", servers.span.clone(), message);
                let embedded = self.embedded.as_ref().map_or(0..0, |at| at.span.clone());
                reader.push(diagnostic.related(embedded, "embedded").hint("leave one of them out"));
            }
            (false, None) if !self.is_partial => {
                let message = format!("{} lacks `bootstrap.servers`", reader.table_name());
                let hint =
                    "add `\"bootstrap.servers\" = \"localhost:9092\"`, or `embedded = true` for trying things out";
                reader.push(Diagnostic::error("missing-key", reader.key_span(), message).hint(hint));
            }
            _ => {}
        }
    }

    /// Fault 9: pairs that librdkafka refuses, or that lose records, once the client runs.
    fn check_contradictions(&self, reader: &mut Reader<'_>) {
        let timeout = self.number(&["message.timeout.ms", "delivery.timeout.ms"]);
        let linger = self.number(&["linger.ms", "queue.buffering.max.ms"]);
        let transaction = self.number(&["transaction.timeout.ms"]);
        // A message timeout of 0 means never.
        let Some((timeout_name, timeout_ms, timeout_span)) = timeout.filter(|(_, ms, _)| *ms > 0.0) else { return };
        if let Some((name, _, span)) = linger.filter(|(_, ms, _)| *ms >= timeout_ms) {
            let message =
                format!("`{name}` must be smaller than `{timeout_name}`, else records expire while they wait");
            reader.push(contradiction(span, timeout_span.clone(), message));
        }
        if let Some((name, _, span)) = transaction.filter(|(_, ms, _)| *ms < timeout_ms) {
            let message = format!("`{name}` must not be smaller than `{timeout_name}`");
            reader.push(contradiction(span, timeout_span, message));
        }
    }

    fn number(&self, names: &[&'static str]) -> Option<(&'static str, f64, Span)> {
        names.iter().find_map(|name| {
            let option = self.options.get(*name)?;
            Some((*name, option.value.expose_secret().trim().parse().ok()?, option.span.clone()))
        })
    }

    pub fn is_embedded(&self) -> bool {
        self.embedded.as_ref().is_some_and(|embedded| embedded.value)
    }

    /// Where `embedded = true` stands.
    pub fn embedded_span(&self) -> Option<Span> {
        self.embedded.as_ref().filter(|embedded| embedded.value).map(|embedded| embedded.span.clone())
    }

    /// An option's value, where it is no secret, and where it stands.
    pub fn option(&self, option: &str) -> Option<(String, Span)> {
        let written = self.options.get(option).filter(|_| !self.secret.iter().any(|secret| secret == option))?;
        Some((written.value.expose_secret().trim().to_owned(), written.span.clone()))
    }

    /// Where this option has this value.
    pub fn option_span(&self, option: &str, value: &str) -> Option<Span> {
        let written = self.options.get(option)?;
        (written.value.expose_secret().trim() == value).then(|| written.span.clone())
    }

    pub fn connection(&self) -> KafkaConnection {
        let mut connection = KafkaConnection { embedded: self.is_embedded(), ..KafkaConnection::default() };
        for (name, option) in &self.options {
            if self.secret.contains(name) {
                connection.secrets.insert(name.clone(), option.value.clone());
            } else {
                connection.options.insert(name.clone(), option.value.expose_secret().to_owned());
            }
        }
        connection
    }
}

fn contradiction(span: Span, other: Span, message: String) -> Diagnostic {
    Diagnostic::error("contradiction", span, message).related(other, "against this")
}

/// Passwords that are written out in the file are kept out of logs all the same.
fn names_a_secret(option: &str) -> bool {
    ["password", "secret", ".key.pem", "oauthbearer.config"].iter().any(|part| option.contains(part))
}

/// An option's text, and whether it came by reference.
fn option_value(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<(String, bool)> {
    match read_secret(node, reader) {
        Secret::Failed => return None,
        Secret::Resolved(secret) => return Some((secret.expose_secret().to_owned(), true)),
        Secret::No => {}
    }
    match node.get_ref() {
        DeValue::String(text) => Some((reader.substituted(text, node.span())?, false)),
        DeValue::Integer(integer) if integer.radix() == 10 => Some((integer.as_str().to_owned(), false)),
        DeValue::Float(float) => Some((float.as_str().to_owned(), false)),
        DeValue::Boolean(value) => Some((value.to_string(), false)),
        _ => {
            reader.wrong_type(node, "a string, a number, true or false, or a secret", "\"…\"");
            None
        }
    }
}
