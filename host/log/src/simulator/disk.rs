//! The simulated disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::contents::{Contents, Names, Node};
use super::faults::{Fault, Operation, Outcome, meet};
use super::random::Random;
use crate::storage::{Entry, File, Lock, LockError, Storage};

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// Called before each operation that changes something. Not while it runs itself.
    watch: Mutex<Option<Watch>>,
}

type Watch = Box<dyn FnMut(&SimDisk) + Send>;

struct Inner {
    files: Vec<Contents>,
    folders: BTreeMap<OsString, Names>,
    random: Random,
    faults: Vec<Fault>,
    capacity: u64,
    now_ms: u64,
    operations: u64,
    /// From this operation on everything fails: the machine is off.
    stop_at: u64,
    locked: bool,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self::of(Inner {
            files: Vec::new(),
            folders: BTreeMap::from([("/".into(), Names::default())]),
            random: Random::new(seed),
            faults: Vec::new(),
            capacity: u64::MAX,
            now_ms: 1_000_000,
            operations: 0,
            stop_at: u64::MAX,
            locked: false,
        })
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new(Shared { inner: Mutex::new(inner), watch: Mutex::default() }))
    }

    /// What is left after a power cut at this moment: one of the many possibilities, by the seed.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let inner = self.0.inner.lock();
        let mut random = Random::new(seed);
        let mut files = Vec::new();
        let mut folders = BTreeMap::new();
        for (path, names) in &inner.folders {
            let left = names.after_power_cut(&mut random);
            let left = left.moved(|file| {
                files.push(Contents::durably(inner.files[file].after_power_cut(&mut random)));
                files.len() - 1
            });
            folders.insert(path.clone(), left);
        }
        Self::of(inner.with(files, folders, random))
    }

    /// What a process finds that starts after one was killed: everything that was written, synced or not.
    pub fn after_kill(&self) -> Self {
        let inner = self.0.inner.lock();
        Self::of(inner.with(inner.files.clone(), inner.folders.clone(), inner.random.clone()))
    }

    /// How many operations that change something there were.
    pub fn operations(&self) -> u64 {
        self.0.inner.lock().operations
    }

    /// Lets everything fail from the operation with this number on.
    pub fn stop_at(&self, operation: u64) {
        self.0.inner.lock().stop_at = operation;
    }

    /// Has `watch` called before every operation that changes something.
    pub fn watch(&self, watch: impl FnMut(&Self) + Send + 'static) {
        *self.0.watch.lock() = Some(Box::new(watch));
    }

    pub fn unwatch(&self) {
        *self.0.watch.lock() = None;
    }

    pub fn fail(&self, fault: Fault) {
        self.0.inner.lock().faults.push(fault);
    }

    pub fn heal(&self) {
        self.0.inner.lock().faults.clear();
    }

    /// How much the disk holds.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.inner.lock().capacity = bytes;
    }

    pub fn used(&self) -> u64 {
        self.0.inner.lock().used()
    }

    pub fn set_clock(&self, now_ms: u64) {
        self.0.inner.lock().now_ms = now_ms;
    }

    /// Every file there is.
    pub fn files(&self) -> Vec<PathBuf> {
        let inner = self.0.inner.lock();
        let of = |(folder, names): (&OsString, &Names)| -> Vec<PathBuf> {
            let files = names.seen.iter().filter(|(_, node)| matches!(node, Node::File(_)));
            files.map(|(name, _)| Path::new(folder).join(name)).collect()
        };
        inner.folders.iter().flat_map(of).collect()
    }

    /// A file's bytes.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let inner = self.0.inner.lock();
        inner.files[inner.file(path).unwrap()].seen.to_vec()
    }

    /// Puts bytes behind the log's back, durably; makes the file if there is none.
    pub fn set_bytes(&self, path: &Path, bytes: Vec<u8>) {
        let mut inner = self.0.inner.lock();
        inner.files.push(Contents::of(bytes));
        let node = Node::File(inner.files.len() - 1);
        let names = inner.folders.entry(path.parent().unwrap().into()).or_default();
        names.set(&name(path), node);
        names.sync();
    }

    /// Removes a file behind the log's back, durably.
    pub fn take_away(&self, path: &Path) {
        let mut inner = self.0.inner.lock();
        let names = inner.folders.get_mut(path.parent().unwrap().as_os_str()).unwrap();
        names.remove(&name(path));
        names.sync();
    }

    /// An operation begins: counted, watched, and failed if that is on order.
    fn begin(&self, operation: Operation) -> io::Result<Outcome> {
        if operation.changes() {
            let watch = self.0.watch.lock().take();
            if let Some(mut watch) = watch {
                watch(self);
                self.0.watch.lock().get_or_insert(watch);
            }
        }
        let mut inner = self.0.inner.lock();
        inner.operations += u64::from(operation.changes());
        if inner.operations > inner.stop_at {
            return Err(io::Error::other("the machine is off"));
        }
        match meet(&mut inner.faults, operation) {
            Outcome::Fails(error) => Err(error),
            outcome => Ok(outcome),
        }
    }
}

impl Inner {
    /// The same machine, started again.
    fn with(&self, files: Vec<Contents>, folders: BTreeMap<OsString, Names>, random: Random) -> Self {
        Self {
            files,
            folders,
            random,
            faults: Vec::new(),
            capacity: self.capacity,
            now_ms: self.now_ms,
            operations: 0,
            stop_at: u64::MAX,
            locked: false,
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names(path.parent().unwrap_or(path))?.seen.get(&name(path)) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names(&self, folder: &Path) -> io::Result<&Names> {
        self.folders.get(folder.as_os_str()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names_mut(&mut self, folder: &Path) -> io::Result<&mut Names> {
        self.folders.get_mut(folder.as_os_str()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        let named = self.folders.values().flat_map(|names| names.seen.values());
        let bytes = named.map(|node| match node {
            Node::File(file) => self.files[*file].seen.len() as u64,
            Node::Folder => 0,
        });
        bytes.sum()
    }

    fn room_for(&self, file: usize, length: usize) -> io::Result<()> {
        if self.capacity == u64::MAX {
            return Ok(());
        }
        let more = (length as u64).saturating_sub(self.files[file].seen.len() as u64);
        if self.used() + more > self.capacity {
            return Err(io::Error::from_raw_os_error(Fault::ENOSPC));
        }
        Ok(())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl Storage for SimDisk {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.begin(Operation::Open)?;
        let file = self.0.inner.lock().file(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.begin(Operation::Create)?;
        let mut inner = self.0.inner.lock();
        inner.files.push(Contents::default());
        let file = inner.files.len() - 1;
        inner.names_mut(folder(path))?.set(&name(path), Node::File(file));
        drop(inner);
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(Operation::Rename)?;
        let mut inner = self.0.inner.lock();
        let node = Node::File(inner.file(from)?);
        if folder(from) == folder(to) {
            inner.names_mut(folder(from))?.rename(&name(from), &name(to), node);
        } else {
            inner.names_mut(folder(to))?.set(&name(to), node);
            inner.names_mut(folder(from))?.remove(&name(from));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.begin(Operation::Remove)?;
        let mut inner = self.0.inner.lock();
        inner.file(path)?;
        inner.names_mut(folder(path))?.remove(&name(path));
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if self.0.inner.lock().folders.contains_key(path.as_os_str()) && self.is_named(path) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.create_folder(above)?;
        }
        self.begin(Operation::CreateFolder)?;
        let mut inner = self.0.inner.lock();
        inner.folders.insert(path.into(), Names::default());
        if path.parent().is_some() {
            inner.names_mut(folder(path))?.set(&name(path), Node::Folder);
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.begin(Operation::List)?;
        let inner = self.0.inner.lock();
        let entry = |(name, node): (&String, &Node)| Entry { name: name.clone(), is_folder: *node == Node::Folder };
        Ok(inner.names(path)?.seen.iter().map(entry).collect())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.begin(Operation::SyncFolder)?;
        self.0.inner.lock().names_mut(path)?.sync();
        Ok(())
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        let inner = self.0.inner.lock();
        Ok(if inner.capacity == u64::MAX { u64::MAX } else { inner.capacity.saturating_sub(inner.used()) })
    }

    fn lock(&self, folder: &Path) -> Result<Box<dyn Lock>, LockError> {
        let mut inner = self.0.inner.lock();
        inner.names(folder).map_err(LockError::Io)?;
        if std::mem::replace(&mut inner.locked, true) {
            return Err(LockError::Held("another test".into()));
        }
        Ok(Box::new(SimLock(self.clone())))
    }

    fn is_network(&self, _folder: &Path) -> bool {
        false
    }

    fn now_ms(&self) -> u64 {
        self.0.inner.lock().now_ms
    }

    fn unique_id(&self) -> [u8; 16] {
        let mut inner = self.0.inner.lock();
        let (high, low) = (inner.random.number(), inner.random.number());
        ((u128::from(high) << 64) | u128::from(low)).to_le_bytes()
    }
}

impl SimDisk {
    fn is_named(&self, path: &Path) -> bool {
        let inner = self.0.inner.lock();
        path.parent().is_none_or(|above| {
            inner.names(above).is_ok_and(|names| names.seen.get(&name(path)) == Some(&Node::Folder))
        })
    }
}

struct SimLock(SimDisk);

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.0.inner.lock().locked = false;
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let outcome = self.disk.begin(Operation::Read)?;
        let inner = self.disk.0.inner.lock();
        let bytes = inner.files[self.file].seen.get(offset as usize..).unwrap_or_default();
        let mut length = bytes.len().min(buffer.len());
        if matches!(outcome, Outcome::Short) {
            length = length.div_ceil(2);
        }
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let outcome = self.disk.begin(Operation::Write)?;
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        if matches!(outcome, Outcome::Short) {
            bytes.truncate(bytes.len().div_ceil(2));
        }
        let mut inner = self.disk.0.inner.lock();
        let (offset, length) = (offset as usize, bytes.len());
        inner.room_for(self.file, offset + length)?;
        inner.files[self.file].write(offset, bytes);
        Ok(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.inner.lock().files[self.file].seen.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.begin(Operation::SetLen)?;
        let mut inner = self.disk.0.inner.lock();
        inner.room_for(self.file, bytes as usize)?;
        inner.files[self.file].set_len(bytes as usize);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.begin(Operation::Allocate)?;
        let mut inner = self.disk.0.inner.lock();
        inner.room_for(self.file, bytes as usize)?;
        if inner.files[self.file].seen.len() < bytes as usize {
            inner.files[self.file].set_len(bytes as usize);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let outcome = self.disk.begin(Operation::Sync);
        let mut inner = self.disk.0.inner.lock();
        let inner = &mut *inner;
        match outcome {
            Ok(_) => inner.files[self.file].sync(),
            Err(error) => {
                inner.files[self.file].fail_sync(&mut inner.random);
                return Err(error);
            }
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.0.inner.lock().files[self.file].drop_cache();
        Ok(())
    }
}
