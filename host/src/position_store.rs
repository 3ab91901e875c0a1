//! Settled positions on disk, for sources whose channels are gone with the process.
//!
//! One JSON file for each source in `<state_dir>/positions`: `{"format":1,"source":"…","parts":[["<key>","<value>"],…]}`, keys
//! and values in base64. Written beside and renamed, off the event path, within 100 ms of a settlement. Where file channels
//! keep the position, the file says so instead: `{"format":2,"source":"…","kept_in":["<channel id>",…]}`.

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
/// Of a file that refers to channels: a wasmflow that knows only positions must not take it for an empty one.
const FORMAT_KEPT_IN: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    #[error("cannot read the position file `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write the position file `{}`", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The operator decides: starting from nothing would bring everything again.
    #[error("the position file `{}` cannot be understood: {detail}", path.display())]
    Damaged { path: PathBuf, detail: String },
    /// The operator decides here too.
    #[error(
        "the position of source `{name}` is kept in the file channel with the id `{ids}`, which is gone; put its folder back, \
         or say where the source goes on with `wasmflow source reset FILE {name}`"
    )]
    Gone { name: String, ids: String },
}

impl PositionError {
    /// With its cause, in one line.
    pub fn report(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// What keeps a source's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The store.
    Here(Position),
    /// File channels, with the events: these ids.
    InChannels(Vec<String>),
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
    kept: Kept,
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
        let kept = read(&path)?;
        let shared = Arc::new(Shared {
            path,
            source: source.into(),
            state: Mutex::new(State { kept, dirty: false, closed: false }),
            changed: Notify::new(),
        });
        let writer = tokio::spawn(keep_writing(shared.clone()));
        Ok(Self { shared, writer })
    }

    /// What keeps the position, and the settled one as far as it is known here.
    pub fn kept(&self) -> Kept {
        self.shared.state.lock().kept.clone()
    }

    /// The settled position as far as the store keeps it.
    pub fn position(&self) -> Position {
        match self.kept() {
            Kept::Here(position) => position,
            Kept::InChannels(_) => Position::default(),
        }
    }

    /// The file channels with these ids keep the position from now on; with none, the store does, from `position` on. It is on
    /// disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, position: &Position, channels: &[String]) -> Result<(), PositionError> {
        let mut state = self.shared.state.lock();
        let kept = match (&state.kept, channels) {
            (Kept::Here(_), []) => return Ok(()),
            (Kept::InChannels(ids), channels) if ids == channels => return Ok(()),
            (_, []) => Kept::Here(position.clone()),
            (_, channels) => Kept::InChannels(channels.to_vec()),
        };
        self.write_now(&kept)?;
        state.kept = kept;
        Ok(())
    }

    /// Puts another position in place of the stored one, in the store. It is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace(&self, position: &Position) -> Result<(), PositionError> {
        let mut state = self.shared.state.lock();
        state.kept = Kept::Here(position.clone());
        self.write_now(&state.kept)
    }

    fn write_now(&self, kept: &Kept) -> Result<(), PositionError> {
        write_aside(&self.shared.path, &encode(&self.shared.source, kept))
            .map_err(|source| PositionError::Write { path: self.shared.path.clone(), source })
    }

    /// Takes over parts that are settled now. Nothing to do where file channels keep the position.
    pub fn settle(&self, parts: &[Part]) {
        if parts.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        let Kept::Here(position) = &mut state.kept else { return };
        position.apply(parts);
        state.dirty = true;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Writes what is not yet written, and ends.
    pub async fn close(mut self) {
        self.end();
        if let Err(error) = (&mut self.writer).await {
            warn!(source = self.shared.source, %error, "the position writer failed");
        }
    }
}

impl PositionStore {
    fn end(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

/// A store whose runner was cut off still writes what it knows.
impl Drop for PositionStore {
    fn drop(&mut self) {
        self.end();
    }
}

async fn keep_writing(shared: Arc<Shared>) {
    loop {
        let (due, closed) = {
            let mut state = shared.state.lock();
            let due = std::mem::take(&mut state.dirty).then(|| state.kept.clone());
            (due, state.closed)
        };
        match due {
            Some(kept) => {
                if let Err(error) = write(&shared, kept).await {
                    warn!(source = shared.source, error = error.report(), "position not stored; trying again");
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

async fn write(shared: &Arc<Shared>, kept: Kept) -> Result<(), PositionError> {
    let shared = shared.clone();
    let written = tokio::task::spawn_blocking(move || {
        write_aside(&shared.path, &encode(&shared.source, &kept))
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

fn read(path: &Path) -> Result<Kept, PositionError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            decode(&text).ok_or_else(|| PositionError::Damaged { path: path.into(), detail: "not a position".into() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::Here(Position::default())),
        Err(source) => Err(PositionError::Read { path: path.into(), source }),
    }
}

fn encode(source: &str, kept: &Kept) -> String {
    match kept {
        Kept::Here(position) => {
            let part = |(key, value)| json!([BASE64.encode(key), BASE64.encode(value)]);
            let parts: Vec<_> = position.iter().map(part).collect();
            json!({ "format": FORMAT, "source": source, "parts": parts }).to_string()
        }
        Kept::InChannels(ids) => json!({ "format": FORMAT_KEPT_IN, "source": source, "kept_in": ids }).to_string(),
    }
}

fn decode(text: &str) -> Option<Kept> {
    let value: Value = serde_json::from_str(text).ok()?;
    let bytes = |value: &Value| Some(Bytes::from(BASE64.decode(value.as_str()?).ok()?));
    let part = |part: &Value| Some((bytes(part.get(0)?)?, bytes(part.get(1)?)?));
    match value.get("format")?.as_u64()? {
        FORMAT => value.get("parts")?.as_array()?.iter().map(part).collect::<Option<_>>().map(Kept::Here),
        FORMAT_KEPT_IN => {
            let ids = value.get("kept_in")?.as_array()?.iter();
            ids.map(|id| Some(id.as_str()?.to_owned())).collect::<Option<_>>().map(Kept::InChannels)
        }
        _ => None,
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
        assert_eq!(store.kept(), Kept::Here(Position::default()));
        store.settle(&[part("a", b"1"), part("b", b"\xff\x00")]);
        store.settle(&[part("a", b"2")]);
        store.close().await;
        let store = PositionStore::open(dir.path(), "logs").unwrap();
        let expected = [("a", &b"2"[..]), ("b", b"\xff\x00")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(store.kept(), Kept::Here(expected.into_iter().collect()));
    }

    #[tokio::test]
    async fn what_file_channels_keep_is_not_kept_twice() {
        let dir = tempfile::tempdir().unwrap();
        let ids = ["a1".to_owned(), "b2".to_owned()];
        let store = PositionStore::open(dir.path(), "logs").unwrap();
        store.keep(&Position::default(), &ids).unwrap();
        store.settle(&[part("a", b"1")]);
        store.close().await;
        let store = PositionStore::open(dir.path(), "logs").unwrap();
        assert_eq!(store.kept(), Kept::InChannels(ids.to_vec()));
        let position: Position = [("a".into(), "2".into())].into_iter().collect();
        store.keep(&position, &[]).unwrap();
        assert_eq!(PositionStore::open(dir.path(), "logs").unwrap().kept(), Kept::Here(position));
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
        for text in
            ["", "{}", r#"{"format":3,"parts":[]}"#, r#"{"format":2,"parts":[]}"#, r#"{"format":1,"parts":[["!",""]]}"#]
        {
            std::fs::write(&path, text).unwrap();
            let error = PositionStore::open(dir.path(), "logs").unwrap_err();
            assert!(matches!(error, PositionError::Damaged { .. }), "{text}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
