//! Settled positions on disk, for sources whose channels are gone with the process.
//!
//! One JSON file for each source in `<state_dir>/positions`: `{"format":1,"source":"…","parts":[["<key>","<value>"],…]}`, keys
//! and values in base64. Written beside and renamed, off the event path, within 100 ms of a settlement.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::position::{Part, Position};

/// The least time between two writes of one source's position, so that a busy source costs ten small writes a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);
const FORMAT: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    #[error("cannot read the position file `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write the position file `{}`", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The operator decides: starting from nothing would bring everything again.
    #[error("the position file `{}` cannot be understood: {detail}", path.display())]
    Damaged { path: PathBuf, detail: String },
}

/// Keeps the settled position of one source.
#[derive(Debug)]
pub struct PositionStore {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    source: String,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    position: Position,
    dirty: bool,
    closed: bool,
}

impl PositionStore {
    /// Reads what is stored for `source` and starts the task that keeps it up to date.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn open(state_dir: &Path, source: &str) -> Result<Self, PositionError> {
        let path = state_dir.join("positions").join(format!("{source}.json"));
        let position = read(&path)?;
        let shared = Arc::new(Shared {
            path,
            source: source.into(),
            state: Mutex::new(State { position, dirty: false, closed: false }),
            changed: Notify::new(),
        });
        let writer = tokio::spawn(keep_writing(shared.clone()));
        Ok(Self { shared, writer })
    }

    /// The settled position as far as it is known.
    pub fn position(&self) -> Position {
        self.shared.state.lock().position.clone()
    }

    /// Takes over parts that are settled now.
    pub fn settle(&self, parts: &[Part]) {
        if parts.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        state.position.apply(parts);
        state.dirty = true;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Writes what is not yet written, and ends.
    pub async fn close(self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
        if let Err(error) = self.writer.await {
            warn!(source = self.shared.source, %error, "the position writer failed");
        }
    }
}

async fn keep_writing(shared: Arc<Shared>) {
    loop {
        let (due, closed) = {
            let mut state = shared.state.lock();
            let due = std::mem::take(&mut state.dirty).then(|| state.position.clone());
            (due, state.closed)
        };
        match due {
            Some(position) => {
                if let Err(error) = write(&shared, position).await {
                    warn!(source = shared.source, error = %report(&error), "position not stored; trying again");
                    shared.state.lock().dirty = true;
                    if closed {
                        return;
                    }
                }
                // A close need not wait out the interval.
                _ = tokio::time::timeout(WRITE_INTERVAL, until_closed(&shared)).await;
            }
            None if closed => return,
            None => shared.changed.notified().await,
        }
    }
}

async fn until_closed(shared: &Shared) {
    while !shared.state.lock().closed {
        shared.changed.notified().await;
    }
}

async fn write(shared: &Arc<Shared>, position: Position) -> Result<(), PositionError> {
    let shared = shared.clone();
    let written = tokio::task::spawn_blocking(move || {
        write_aside(&shared.path, &encode(&shared.source, &position))
            .map_err(|source| PositionError::Write { path: shared.path.clone(), source })
    });
    written.await.expect("writing a position does not panic")
}

/// Crash: the new file is complete and synced before it takes the old one's name, so one of the two is always there whole.
pub(crate) fn write_aside(path: &Path, text: &str) -> std::io::Result<()> {
    let aside = path.with_extension("json.new");
    std::fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&aside, path)
}

fn read(path: &Path) -> Result<Position, PositionError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            decode(&text).ok_or_else(|| PositionError::Damaged { path: path.into(), detail: "not a position".into() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Position::default()),
        Err(source) => Err(PositionError::Read { path: path.into(), source }),
    }
}

fn encode(source: &str, position: &Position) -> String {
    let parts: Vec<_> = position.iter().map(|(key, value)| json!([BASE64.encode(key), BASE64.encode(value)])).collect();
    json!({ "format": FORMAT, "source": source, "parts": parts }).to_string()
}

fn decode(text: &str) -> Option<Position> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value.get("format")?.as_u64()? != FORMAT {
        return None;
    }
    let bytes = |value: &Value| Some(Bytes::from(BASE64.decode(value.as_str()?).ok()?));
    let part = |part: &Value| Some((bytes(part.get(0)?)?, bytes(part.get(1)?)?));
    value.get("parts")?.as_array()?.iter().map(part).collect()
}

fn report(error: &PositionError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(key: &'static str, value: &'static [u8]) -> Part {
        Part { key: key.into(), value: Some(Bytes::from_static(value)) }
    }

    #[tokio::test]
    async fn what_is_settled_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = PositionStore::open(dir.path(), "logs").unwrap();
        assert!(store.position().is_empty());
        store.settle(&[part("a", b"1"), part("b", b"\xff\x00")]);
        store.settle(&[part("a", b"2")]);
        store.close().await;
        let store = PositionStore::open(dir.path(), "logs").unwrap();
        assert_eq!(store.position().parts(), [part("a", b"2"), part("b", b"\xff\x00")]);
    }

    #[tokio::test]
    async fn a_settlement_reaches_the_disk_without_a_close() {
        let dir = tempfile::tempdir().unwrap();
        let store = PositionStore::open(dir.path(), "logs").unwrap();
        store.settle(&[part("a", b"1")]);
        let path = dir.path().join("positions/logs.json");
        for _ in 0..100 {
            if path.exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not written within a second");
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_position_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("positions")).unwrap();
        let path = dir.path().join("positions/logs.json");
        for text in ["", "{}", r#"{"format":2,"parts":[]}"#, r#"{"format":1,"parts":[["!",""]]}"#] {
            std::fs::write(&path, text).unwrap();
            let error = PositionStore::open(dir.path(), "logs").unwrap_err();
            assert!(matches!(error, PositionError::Damaged { .. }), "{text}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
