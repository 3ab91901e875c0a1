//! The place of one reader of a file channel: the next sequence number, under the channel's creation id and the epoch of the cursor, which
//! every `channel seek` raises.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::note::{Counted, Note};
use super::{FORMAT, decode, not_understood};
use crate::kafka::{IfMissing, ProgressTopic, TransactionTrouble, TransactionalProducer};

/// What one reader is, to its progress.
#[derive(Debug, Clone)]
pub struct ReaderKey {
    pub pipeline: Arc<str>,
    pub instance: Arc<str>,
    pub channel: Arc<str>,
    /// Random when the channel is made: a channel that was deleted and made again counts from 0.
    pub channel_id: String,
    pub reader: Arc<str>,
    /// As the cursor has it.
    pub epoch: u64,
}

/// The progress of one reader.
pub struct ReaderProgress {
    topic: ProgressTopic,
    key: ReaderKey,
    note: Note,
    /// The channel's end as it was found at the start, or what was committed beyond it.
    end: u64,
}

/// A record of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    epoch: u64,
    next: u64,
}

impl ReaderProgress {
    /// `end` is the sequence number behind the last event that the channel held when it was opened.
    ///
    /// # Errors
    /// When there is a note that cannot be read.
    pub fn new(topic: ProgressTopic, key: ReaderKey, end: u64, state_dir: &Path) -> Result<Self, std::io::Error> {
        let note = Note::open(state_dir.join(format!("progress.{}.json", key.reader)))?;
        Ok(Self { topic, key, note, end })
    }

    /// In which epoch the reader's places are counted.
    pub fn epoch(&self) -> u64 {
        self.key.epoch
    }

    /// What is committed by now; nothing where the cursor is all that counts: nothing has been committed yet, or the reader has been
    /// moved since.
    ///
    /// # Errors
    /// `Again` while the brokers are away, `Stop` when what must be there is not.
    pub async fn next(&mut self) -> Result<Option<u64>, TransactionTrouble> {
        let counted = Counted { channel: self.key.channel_id.clone(), epoch: self.key.epoch };
        // Another channel's note, and one of before a seek, say nothing about this one.
        let holds = |counted: &Counted| counted.channel == self.key.channel_id && counted.epoch >= self.key.epoch;
        let noted = self.note.noted().filter(|noted| noted.reader.as_ref().is_some_and(holds)).cloned();
        let if_missing = if noted.is_some() { IfMissing::Say } else { IfMissing::Make };
        let found = self.topic.read(if_missing).await?;
        let place = self.newest(&found.records)?;
        if let Some(wrong) = noted.and_then(|noted| noted.missing(&found, place.is_none())) {
            return Err(TransactionTrouble::Stop(self.lost(&wrong)));
        }
        let place = place.filter(|place| place.epoch >= self.key.epoch);
        if let Some(Place { epoch, next }) = place {
            if next > self.end {
                let wrong = format!(
                    "{next} events of channel `{}` are counted there, and the channel ends at {}: its folder is older",
                    self.key.channel, self.end
                );
                return Err(TransactionTrouble::Stop(self.lost(&wrong)));
            }
            self.key.epoch = epoch;
        }
        self.note.set_found(&found, Some(Counted { epoch: self.key.epoch, ..counted }));
        Ok(place.map(|place| place.next))
    }

    fn lost(&self, what: &str) -> String {
        let ReaderKey { channel, reader, .. } = &self.key;
        format!(
            "what sink `{reader}` has delivered of channel `{channel}` is counted in topic `{}`, and {what}. Going on could deliver events \
             a second time. Restore the topic or the folder, or connect to the right cluster; or say where to go on, with `wasmflow channel \
             seek FILE {channel} {reader} --to SEQUENCE` (the note about it is `{}`)",
            self.topic.name(),
            self.note.path().display()
        )
    }

    /// Adds the reader's place to the open transaction.
    ///
    /// # Errors
    /// `Stop` where no broker would take the record.
    pub fn send(&mut self, producer: &TransactionalProducer, next: u64) -> Result<(), TransactionTrouble> {
        let ReaderKey { pipeline, instance, channel_id, reader, epoch, .. } = &self.key;
        let key = json!([&**pipeline, &**instance, "reader", channel_id, &**reader, epoch]).to_string();
        let value = json!({ "format": FORMAT, "next": next }).to_string();
        self.end = self.end.max(next);
        self.topic.send(producer, [(key.into_bytes(), Some(value.into_bytes()))])
    }

    /// The first transaction is committed: from now on its record must be there.
    pub async fn committed(&mut self) {
        self.note.committed(self.topic.name()).await;
    }

    /// The record of the greatest epoch.
    fn newest(&self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Option<Place>, TransactionTrouble> {
        let not_understood = || TransactionTrouble::Stop(not_understood(self.topic.name()));
        newest(&self.key, records).map_err(|()| not_understood())
    }
}

fn newest(key: &ReaderKey, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Option<Place>, ()> {
    let mut newest: Option<Place> = None;
    for (found, value) in records {
        let Some(epoch) = own_epoch(key, found) else { continue };
        let next = decode(value).and_then(|value| value.get("next")?.as_u64()).ok_or(())?;
        if newest.is_none_or(|newest| newest.epoch < epoch) {
            newest = Some(Place { epoch, next });
        }
    }
    Ok(newest)
}

/// The epoch of a record of this reader; nothing for another's.
fn own_epoch(key: &ReaderKey, found: &[u8]) -> Option<u64> {
    let found: Value = serde_json::from_slice(found).ok()?;
    let [pipeline, instance, kind, channel, reader, epoch] = &found.as_array()?[..] else { return None };
    let own = [&*key.pipeline, &*key.instance, "reader", &*key.channel_id, &*key.reader];
    let is_own = [pipeline, instance, kind, channel, reader].into_iter().zip(own).all(|(found, own)| found == own);
    if is_own { epoch.as_u64() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ReaderKey {
        ReaderKey {
            pipeline: "p".into(),
            instance: "i".into(),
            channel: "events".into(),
            channel_id: "abc".into(),
            reader: "to".into(),
            epoch: 0,
        }
    }

    fn records(records: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        records.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn the_record_of_our_channel_and_the_greatest_epoch_counts() {
        let found = records(&[
            (r#"["p","i","reader","abc","to",2]"#, r#"{"format":1,"next":20}"#),
            (r#"["p","i","reader","abc","to",10]"#, r#"{"format":1,"next":5}"#),
            (r#"["p","i","reader","older","to",11]"#, r#"{"format":1,"next":900}"#),
            (r#"["p","i","reader","abc","other",12]"#, r#"{"format":1,"next":901}"#),
            (r#"["p","j","reader","abc","to",13]"#, r#"{"format":1,"next":902}"#),
            (r#"["p","i","source","abc","to"]"#, r#"{"format":1,"part":"YQ=="}"#),
            ("not ours", "at all"),
        ]);
        assert_eq!(newest(&key(), &found), Ok(Some(Place { epoch: 10, next: 5 })));
        assert_eq!(newest(&key(), &BTreeMap::new()), Ok(None));
    }

    #[test]
    fn a_record_of_ours_of_another_format_is_not_passed_over() {
        let found = records(&[(r#"["p","i","reader","abc","to",2]"#, r#"{"format":2,"next":20}"#)]);
        assert_eq!(newest(&key(), &found), Err(()));
    }
}
