//! The log on a real disk that is slow, far away, or makes its writer panic, with its threads.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use wasmflow_log::storage::{Entry, File, Lock, LockError};
use wasmflow_log::{
    ChannelOptions, Disk, Leg, LogSet, Poisoned, PositionChange, Put, PutError, ReadLimits, Recovered, Start, Storage,
};

/// Long enough for a disk on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ALL: ReadLimits = ReadLimits { events: u64::MAX, bytes: u64::MAX };

/// What is wrong with the disk.
#[derive(Default)]
struct Bends {
    /// Syncs do not come back.
    hangs: Mutex<bool>,
    goes_on: Condvar,
    panics: AtomicBool,
    is_network: AtomicBool,
    read_bytes: AtomicU64,
}

impl Bends {
    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.goes_on.notify_all();
    }

    fn sync(&self) {
        let hangs = self.hangs.lock().unwrap();
        drop(self.goes_on.wait_while(hangs, |hangs| *hangs).unwrap());
    }
}

struct BentDisk(Arc<Bends>);

struct BentFile {
    file: Arc<dyn File>,
    bends: Arc<Bends>,
}

impl BentDisk {
    fn bent(&self, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BentFile { file: file?, bends: self.0.clone() }))
    }
}

impl Storage for BentDisk {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.bent(Disk.open_read(path))
    }
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.bent(Disk.open_write(path))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.bent(Disk.create(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        Disk.create_folder(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        Disk.list(folder)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Disk.sync_folder(folder)
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        Disk.free_bytes(folder)
    }
    fn lock(&self, folder: &Path) -> Result<Box<dyn Lock>, LockError> {
        Disk.lock(folder)
    }
    fn is_network(&self, _folder: &Path) -> bool {
        self.0.is_network.load(Ordering::Relaxed)
    }
    fn now_ms(&self) -> u64 {
        Disk.now_ms()
    }
    fn unique_id(&self) -> [u8; 16] {
        Disk.unique_id()
    }
}

impl File for BentFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        self.bends.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        assert!(!self.bends.panics.load(Ordering::Relaxed), "this write panics, as the test wants it");
        self.file.write_at(slices, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.bends.sync();
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.bends.sync();
        self.file.sync_all()
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}

fn open(bends: &Arc<Bends>, root: &Path) -> (LogSet, Recovered) {
    let mut events = ChannelOptions::new("events");
    events.segment_bytes = 64 << 10;
    events.min_free_bytes = 0;
    events.readers.push(("sink".into(), Start::Oldest));
    LogSet::open(Arc::new(BentDisk(bends.clone())), root, "test", vec![events]).unwrap()
}

/// Puts one event and gives where its outcome is told.
fn put(logs: &LogSet, body: &[u8]) -> Result<Receiver<Result<(), Poisoned>>, PutError> {
    let (tell, told) = mpsc::channel();
    let leg = Leg { channel: "events".into(), events: 1, columns: vec![body.to_vec().into()] };
    let put = Put { source: "source".into(), position: PositionChange::default(), time_ms: 1, legs: vec![leg] };
    logs.put(put, Box::new(move |outcome| drop(tell.send(outcome))))?;
    Ok(told)
}

#[test]
fn a_disk_that_takes_its_time_holds_the_puts_and_fails_none_of_them() {
    let (folder, bends) = (tempfile::tempdir().unwrap(), Arc::<Bends>::default());
    let (logs, _) = open(&bends, folder.path());
    put(&logs, b"0").unwrap().recv_timeout(PATIENCE).unwrap().unwrap();
    bends.hang(true);
    let told: Vec<_> = (1..=20).map(|number| put(&logs, number.to_string().as_bytes()).unwrap()).collect();
    let log = logs.log("events").unwrap();
    let mut reader = log.reader("sink").unwrap();
    assert_eq!(reader.read(ALL).unwrap().len(), 1, "nobody sees what is not on disk");
    assert_eq!(log.held().events, 21, "and it counts, so that a full channel holds its sources");
    assert!(told.iter().all(|told| told.try_recv().is_err()) && log.status().poisoned.is_none());
    bends.hang(false);
    for told in told {
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(reader.read(ALL).unwrap().len(), 20);
    logs.close().unwrap();
}

#[test]
fn a_writer_that_panics_tells_everybody_and_takes_nothing_more() {
    let (folder, bends) = (tempfile::tempdir().unwrap(), Arc::<Bends>::default());
    let (logs, _) = open(&bends, folder.path());
    put(&logs, b"safe").unwrap().recv_timeout(PATIENCE).unwrap().unwrap();
    bends.panics.store(true, Ordering::Relaxed);
    let told = put(&logs, b"hit").unwrap();
    let poisoned = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(poisoned.to_string().contains("events"), "{poisoned}");
    bends.panics.store(false, Ordering::Relaxed);
    let later = put(&logs, b"later").map(|told| told.recv_timeout(PATIENCE).unwrap());
    assert!(!matches!(later, Ok(Ok(()))), "nothing is durable behind a panic");
    assert!(logs.close().is_err());
    let (logs, _) = open(&bends, folder.path());
    let frames = logs.log("events").unwrap().reader("sink").unwrap().read(ALL).unwrap();
    assert_eq!(frames.iter().map(|frame| &frame.columns[0][..]).collect::<Vec<_>>(), [b"safe"]);
}

#[test]
fn a_network_file_system_is_warned_about_and_used() {
    let (folder, bends) = (tempfile::tempdir().unwrap(), Arc::<Bends>::default());
    bends.is_network.store(true, Ordering::Relaxed);
    let (logs, recovered) = open(&bends, folder.path());
    let notes: Vec<_> = recovered.notes.iter().map(|note| (note.is_normal(), note.to_string())).collect();
    assert!(matches!(&notes[..], [(false, text)] if text.contains("on a network file system")), "{notes:?}");
    put(&logs, b"0").unwrap().recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn a_start_reads_heads_and_ends_however_large_the_backlog_is() {
    let read_at_start = |segments: usize| {
        let (folder, bends) = (tempfile::tempdir().unwrap(), Arc::<Bends>::default());
        let (logs, _) = open(&bends, folder.path());
        let mut told = Vec::new();
        while logs.log("events").unwrap().status().segments < segments {
            told.push(put(&logs, &[7; 8000]).unwrap());
            let durable = told.last().unwrap().recv_timeout(PATIENCE).unwrap();
            durable.unwrap();
        }
        logs.close().unwrap();
        bends.read_bytes.store(0, Ordering::Relaxed);
        let (logs, _) = open(&bends, folder.path());
        let read = bends.read_bytes.load(Ordering::Relaxed);
        assert_eq!(logs.log("events").unwrap().held().events, told.len() as u64);
        read
    };
    let (few, many) = (read_at_start(10), read_at_start(60));
    // Fifty more segments of 64 KiB, of which no more is read than what says where they begin.
    assert!(many - few <= 50 * 4096, "{few} bytes read for 10 segments, {many} for 60");
}
