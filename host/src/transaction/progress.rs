//! Positions in the progress topic: what its records say, and the note in the state folder that they must be there.
//!
//! ```text
//! key    ["<pipeline>","<instance>","source","<source>","<part's key, base64>"]
//! value  {"format":1,"part":"<part's value, base64>"}         null: the part is gone
//! ```
//!
//! `<state_dir>/progress.json`: `{"format":1,"cluster":"…","topic":"…","topic_id":"…"}`, written after the first commit. Once it is there,
//! a topic, a cluster or records that are missing are the operator's to decide about: going on without them would bring every event
//! a second time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::kafka::{IfMissing, Progress, ProgressTopic, TransactionTrouble, TransactionalProducer};
use crate::position::{Part, Position};
use crate::position_store::write_aside;

const FORMAT: u64 = 1;

/// The progress of one agent.
pub struct AgentProgress {
    topic: ProgressTopic,
    pipeline: Arc<str>,
    instance: Arc<str>,
    note: PathBuf,
    noted: Option<Noted>,
    /// As found when the transactions began.
    found: Option<Noted>,
}

/// Which topic the progress is in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    cluster: String,
    topic_id: String,
}

impl AgentProgress {
    /// # Errors
    /// When there is a note that cannot be read.
    pub fn new(
        topic: ProgressTopic,
        pipeline: Arc<str>,
        instance: Arc<str>,
        state_dir: &Path,
    ) -> Result<Self, std::io::Error> {
        let note = state_dir.join("progress.json");
        let noted = read_note(&note)?;
        Ok(Self { topic, pipeline, instance, note, noted, found: None })
    }

    /// The position of each source that is committed by now.
    ///
    /// # Errors
    /// `Again` while the brokers are away, `Stop` when what must be there is not.
    pub async fn positions(&mut self) -> Result<BTreeMap<Arc<str>, Position>, TransactionTrouble> {
        let if_missing = if self.noted.is_some() { IfMissing::Say } else { IfMissing::Make };
        let Progress { cluster, topic_id, records } = self.topic.read(if_missing).await?;
        let positions = self.decode(&records)?;
        let found = topic_id.map(|topic_id| Noted { cluster: cluster.clone(), topic_id });
        if let Some(noted) = &self.noted {
            let wrong = match &found {
                _ if cluster != noted.cluster => {
                    Some(format!("this is cluster {cluster}, and it is in {}", noted.cluster))
                }
                None => Some("the topic is gone".to_owned()),
                Some(found) if found.topic_id != noted.topic_id => {
                    Some("the topic was deleted and made again".to_owned())
                }
                Some(_) if positions.is_empty() => Some("the topic holds no record of this agent any more".to_owned()),
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                return Err(TransactionTrouble::Stop(self.lost(&wrong)));
            }
        }
        self.found = found;
        Ok(positions)
    }

    fn lost(&self, what: &str) -> String {
        format!(
            "the progress of this agent is kept in topic `{}`, and {what}. Going on would bring every event a second time. Restore the \
             topic, or connect to the right cluster; or, to start its sources anew, delete `{}`",
            self.topic.name(),
            self.note.display()
        )
    }

    /// Adds the positions of a source to the open transaction.
    ///
    /// # Errors
    /// `Stop` for a part that is too large for a record.
    pub fn send(
        &self,
        producer: &TransactionalProducer,
        source: &str,
        parts: &[Part],
    ) -> Result<(), TransactionTrouble> {
        let record = |part: &Part| {
            let key = json!([&*self.pipeline, &*self.instance, "source", source, BASE64.encode(&part.key)]);
            let value =
                part.value.as_ref().map(|value| json!({ "format": FORMAT, "part": BASE64.encode(value) }).to_string());
            (key.to_string().into_bytes(), value.map(String::into_bytes))
        };
        self.topic.send(producer, parts.iter().map(record))
    }

    /// The first transaction with progress is committed: from now on it must be there.
    pub async fn committed(&mut self) {
        if self.noted.is_some() || self.found.is_none() {
            return;
        }
        self.noted = self.found.clone();
        let Some(Noted { cluster, topic_id }) = &self.noted else { return };
        let text = json!({ "format": FORMAT, "cluster": cluster, "topic": &**self.topic.name(), "topic_id": topic_id });
        let path = self.note.clone();
        let written = tokio::task::spawn_blocking(move || write_aside(&path, &text.to_string()));
        if let Err(error) = written.await.expect("writing a note does not panic") {
            tracing::warn!(path = %self.note.display(), %error, "cannot note where the progress is kept; tried again after the next start");
        }
    }

    fn decode(&self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<BTreeMap<Arc<str>, Position>, TransactionTrouble> {
        let mut positions: BTreeMap<Arc<str>, Position> = BTreeMap::new();
        for (key, value) in records {
            let Some((source, key)) = self.own_key(key) else { continue };
            let value = decode_value(value).ok_or_else(|| {
                let reason =
                    "a record of this agent cannot be understood: it is of a newer version, or somebody else's";
                TransactionTrouble::Stop(format!("progress topic `{}`: {reason}", self.topic.name()))
            })?;
            let part = Part { key: key.into(), value: Some(value.into()) };
            positions.entry(source).or_default().apply(&[part]);
        }
        Ok(positions)
    }

    /// The source and the part's key; nothing for another agent's.
    fn own_key(&self, key: &[u8]) -> Option<(Arc<str>, Vec<u8>)> {
        let key: Value = serde_json::from_slice(key).ok()?;
        let key: Vec<&str> = key.as_array()?.iter().filter_map(Value::as_str).collect();
        match key[..] {
            [pipeline, instance, "source", source, part]
                if pipeline == &*self.pipeline && instance == &*self.instance =>
            {
                Some((source.into(), BASE64.decode(part).ok()?))
            }
            _ => None,
        }
    }
}

fn decode_value(value: &[u8]) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_slice(value).ok()?;
    if value.get("format")?.as_u64()? != FORMAT {
        return None;
    }
    BASE64.decode(value.get("part")?.as_str()?).ok()
}

fn read_note(path: &Path) -> Result<Option<Noted>, std::io::Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let note = || {
        let value: Value = serde_json::from_str(&text).ok()?;
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        (value.get("format")?.as_u64()? == FORMAT).then_some(())?;
        Some(Noted { cluster: text("cluster")?, topic_id: text("topic_id")? })
    };
    let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not a note of this version");
    note().ok_or_else(damaged).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_whole_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.json");
        assert_eq!(read_note(&path).unwrap(), None);
        std::fs::write(&path, r#"{"format":1,"cluster":"c","topic":"_wasmflow.p","topic_id":"t"}"#).unwrap();
        assert_eq!(read_note(&path).unwrap(), Some(Noted { cluster: "c".into(), topic_id: "t".into() }));
        for text in ["", "{}", r#"{"format":2,"cluster":"c","topic_id":"t"}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(read_note(&path).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_of_another_format_is_not_understood() {
        assert_eq!(decode_value(br#"{"format":1,"part":"YQ=="}"#).as_deref(), Some(&b"a"[..]));
        assert_eq!(decode_value(br#"{"format":2,"part":"YQ=="}"#), None);
        assert_eq!(decode_value(b"7"), None);
    }
}
