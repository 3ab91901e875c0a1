//! The positions of sources that are not consumers of Kafka's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::note::Note;
use super::{FORMAT, decode, not_understood};
use crate::kafka::{IfMissing, ProgressTopic, TransactionTrouble, TransactionalProducer};
use crate::position::{Part, Position};

/// The progress of an agent's sources.
pub struct SourceProgress {
    topic: ProgressTopic,
    pipeline: Arc<str>,
    instance: Arc<str>,
    note: Note,
}

impl SourceProgress {
    /// # Errors
    /// When there is a note that cannot be read.
    pub fn new(
        topic: ProgressTopic,
        pipeline: Arc<str>,
        instance: Arc<str>,
        state_dir: &Path,
    ) -> Result<Self, std::io::Error> {
        let note = Note::open(state_dir.join("progress.json"))?;
        Ok(Self { topic, pipeline, instance, note })
    }

    /// The position of each source that is committed by now.
    ///
    /// # Errors
    /// `Again` while the brokers are away, `Stop` when what must be there is not.
    pub async fn positions(&mut self) -> Result<BTreeMap<Arc<str>, Position>, TransactionTrouble> {
        let if_missing = if self.note.noted().is_some() { IfMissing::Say } else { IfMissing::Make };
        let found = self.topic.read(if_missing).await?;
        let positions = self.decode(&found.records)?;
        if let Some(wrong) = self.note.noted().and_then(|noted| noted.missing(&found, positions.is_empty())) {
            return Err(TransactionTrouble::Stop(self.lost(&wrong)));
        }
        self.note.set_found(&found, None);
        Ok(positions)
    }

    fn lost(&self, what: &str) -> String {
        format!(
            "the progress of this agent is kept in topic `{}`, and {what}. Going on would bring every event a second time. Restore the \
             topic, or connect to the right cluster; or, to start its sources anew, delete `{}`",
            self.topic.name(),
            self.note.path().display()
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
        self.note.committed(self.topic.name()).await;
    }

    fn decode(&self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<BTreeMap<Arc<str>, Position>, TransactionTrouble> {
        let mut positions: BTreeMap<Arc<str>, Position> = BTreeMap::new();
        for (key, value) in records {
            let Some((source, key)) = self.own_key(key) else { continue };
            let value =
                decode_value(value).ok_or_else(|| TransactionTrouble::Stop(not_understood(self.topic.name())))?;
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
    BASE64.decode(decode(value)?.get("part")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_format_is_not_understood() {
        assert_eq!(decode_value(br#"{"format":1,"part":"YQ=="}"#).as_deref(), Some(&b"a"[..]));
        assert_eq!(decode_value(br#"{"format":2,"part":"YQ=="}"#), None);
        assert_eq!(decode_value(b"7"), None);
    }
}
