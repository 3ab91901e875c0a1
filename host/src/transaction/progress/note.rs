//! The note in the state folder that there is progress, and where: once it is there, a topic, a cluster or records that are missing are the
//! operator's to decide about. Going on without them would bring every event a second time.
//!
//! `<state_dir>/progress.json`, or `progress.<reader>.json` for a reader of a file channel:
//! `{"format":1,"cluster":"…","topic":"…","topic_id":"…"}`, for a reader with `"channel":"…","epoch":…`.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::FORMAT;
use crate::kafka::Progress as Found;
use crate::position_store::write_aside;

/// Which topic the progress is in, and for a reader what it is counted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    cluster: String,
    topic_id: String,
    pub(super) reader: Option<Counted>,
}

/// A reader's channel by its id, and the epoch of its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) channel: String,
    pub(super) epoch: u64,
}

/// The note, as it stands in the folder.
pub(super) struct Note {
    path: PathBuf,
    noted: Option<Noted>,
    /// As found when the transactions began: noted with the first commit.
    found: Option<Noted>,
}

impl Note {
    /// # Errors
    /// When there is a note that cannot be read.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let noted = read(&path)?;
        Ok(Self { path, noted, found: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn noted(&self) -> Option<&Noted> {
        self.noted.as_ref()
    }

    /// What is to be noted with the first commit.
    pub(super) fn set_found(&mut self, found: &Found, reader: Option<Counted>) {
        let topic_id = found.topic_id.clone();
        self.found = topic_id.map(|topic_id| Noted { cluster: found.cluster.clone(), topic_id, reader });
    }

    /// The first transaction with progress is committed: from now on it must be there.
    pub(super) async fn committed(&mut self, topic: &str) {
        if self.found.is_none() || self.noted == self.found {
            return;
        }
        self.noted = self.found.clone();
        let Some(Noted { cluster, topic_id, reader }) = &self.noted else { return };
        let mut text = json!({ "format": FORMAT, "cluster": cluster, "topic": topic, "topic_id": topic_id });
        if let Some(Counted { channel, epoch }) = reader {
            text["channel"] = json!(channel);
            text["epoch"] = json!(epoch);
        }
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write_aside(&path, &text.to_string()));
        if let Err(error) = written.await.expect("writing a note does not panic") {
            tracing::warn!(path = %self.path.display(), %error, "cannot note where the progress is kept; tried again after the next start");
        }
    }
}

impl Noted {
    /// What is wrong with what was found in the place of this, if anything. `is_empty`: there is no record of ours.
    pub(super) fn missing(&self, found: &Found, is_empty: bool) -> Option<String> {
        match &found.topic_id {
            _ if found.cluster != self.cluster => {
                Some(format!("this is cluster {}, and it is in {}", found.cluster, self.cluster))
            }
            None => Some("the topic is gone".to_owned()),
            Some(topic_id) if *topic_id != self.topic_id => Some("the topic was deleted and made again".to_owned()),
            Some(_) if is_empty => Some("the topic holds no record of this agent any more".to_owned()),
            Some(_) => None,
        }
    }
}

fn read(path: &Path) -> Result<Option<Noted>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let note = || {
        let value: Value = serde_json::from_str(&text).ok()?;
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        (value.get("format")?.as_u64()? == FORMAT).then_some(())?;
        let counted = || Some(Counted { channel: text("channel")?, epoch: value.get("epoch")?.as_u64()? });
        Some(Noted { cluster: text("cluster")?, topic_id: text("topic_id")?, reader: counted() })
    };
    note().ok_or_else(|| Error::new(ErrorKind::InvalidData, "it is not a note of this version")).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_whole_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.json");
        assert_eq!(read(&path).unwrap(), None);
        std::fs::write(&path, r#"{"format":1,"cluster":"c","topic":"_wasmflow.p","topic_id":"t"}"#).unwrap();
        let noted = Noted { cluster: "c".into(), topic_id: "t".into(), reader: None };
        assert_eq!(read(&path).unwrap(), Some(noted));
        for text in ["", "{}", r#"{"format":2,"cluster":"c","topic_id":"t"}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_noted_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.to.json");
        let mut note = Note::open(path.clone()).unwrap();
        let found = Found { cluster: "c".into(), topic_id: Some("t".into()), records: Default::default() };
        note.set_found(&found, Some(Counted { channel: "id".into(), epoch: 3 }));
        note.committed("_wasmflow.p").await;
        let again = Note::open(path).unwrap();
        assert_eq!(again.noted().unwrap().reader, Some(Counted { channel: "id".into(), epoch: 3 }));
        assert_eq!(again.noted().unwrap().missing(&found, false), None);
    }
}
