//! Watching files: what changes is noticed by its content, soon where the kernel tells, and within seconds where it does not.
//!
//! The folders around the files are watched, not the files: editors and config maps put new files in the place of old ones. What
//! the kernel says only makes us look sooner; what counts is the hash of what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use sha2::{Digest as _, Sha256};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often it is looked without being told: a mounted folder may change without a word. A few `stat` calls each time.
const POLL: Duration = Duration::from_secs(2);
/// Quiet time before a change is taken for complete: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// Limit: quiet is not waited for any longer; something else may write to the folder all the time.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// A file changed this recently is read again even if it looks the same: its time stamps may be too coarse to tell.
const RECENT: Duration = Duration::from_secs(2);

/// The SHA-256 of a file's content in hexadecimal, as plugins have it; nothing where it cannot be read.
type Content = Option<String>;

/// A file and, where it is known, the digest of what was read.
type Named = (PathBuf, Option<String>);

/// Watches a pipeline file and the files it names.
pub struct Watcher {
    pipeline: PathBuf,
    named: BTreeSet<PathBuf>,
    /// What was last told of, or read.
    told: BTreeMap<PathBuf, Content>,
    looks: Looks,
    folders: Folders,
    /// Files that are gone, and have been spoken of.
    gone: BTreeSet<PathBuf>,
}

impl Watcher {
    /// Watches from now on. `named` are the files that the pipeline file names.
    pub fn new(pipeline: PathBuf, named: &[Named]) -> Self {
        let mut watcher = Self {
            pipeline,
            named: BTreeSet::new(),
            told: BTreeMap::new(),
            looks: Looks::default(),
            folders: Folders::new(),
            gone: BTreeSet::new(),
        };
        watcher.also(named);
        watcher
    }

    /// Watches these files as well.
    pub fn also(&mut self, named: &[Named]) {
        self.named.extend(named.iter().map(|(path, _)| path.clone()));
        for (path, content) in self.look() {
            self.told.entry(path).or_insert(content);
        }
        // What was read counts, and not what is there by now.
        let read = named.iter().filter(|(_, digest)| digest.is_some());
        self.told.extend(read.cloned());
    }

    /// Watches these files and the pipeline file, and no others.
    pub fn only(&mut self, named: &[Named]) {
        self.named.clear();
        self.also(named);
        self.told.retain(|path, _| self.named.contains(path) || *path == self.pipeline);
    }

    /// Waits until the content of a file is another than it was told of last. What is gone is spoken of and waited for.
    ///
    /// Cancel: nothing is missed.
    pub async fn changed(&mut self) {
        loop {
            self.folders.wait().await;
            let now = self.look();
            let missing: Vec<_> = now.iter().filter(|(_, content)| content.is_none()).map(|(path, _)| path).collect();
            let is_complete = missing.is_empty();
            for path in missing {
                if self.gone.insert(path.clone()) {
                    warn!(file = %path.display(), "a watched file is gone or cannot be read; what runs goes on as it is");
                }
            }
            if is_complete && now != self.told {
                self.told = now;
                self.gone.clear();
                return;
            }
            if is_complete && !self.gone.is_empty() {
                info!("the watched files are there again, as they were");
                self.gone.clear();
            }
        }
    }

    /// The content of every file, and the folders around them as they are now.
    fn look(&mut self) -> BTreeMap<PathBuf, Content> {
        let paths: Vec<PathBuf> = std::iter::once(&self.pipeline).chain(&self.named).cloned().collect();
        self.folders.set(&paths);
        let looks = &mut self.looks;
        paths.into_iter().map(|path| (looks.content(&path), path)).map(|(content, path)| (path, content)).collect()
    }
}

/// Hashes files, and only those that may have changed.
#[derive(Default)]
struct Looks(BTreeMap<PathBuf, (Stamp, String)>);

/// What a file looks like from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    fn is_recent(self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs() as i64 - self.changed.0 <= RECENT.as_secs() as i64
    }
}

impl Looks {
    fn content(&mut self, path: &Path) -> Content {
        let content = self.read(path);
        if content.is_none() {
            self.0.remove(path);
        }
        content
    }

    fn read(&mut self, path: &Path) -> Content {
        let mut file = File::open(path).ok()?;
        let stamp = Stamp::of(&file.metadata().ok().filter(Metadata::is_file)?);
        if let Some((known, hash)) = self.0.get(path)
            && *known == stamp
            && !stamp.is_recent()
        {
            return Some(hash.clone());
        }
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let hash = format!("{:x}", hasher.finalize());
        self.0.insert(path.to_owned(), (stamp, hash.clone()));
        Some(hash)
    }
}

/// The folders around the files, as the kernel watches them.
struct Folders {
    /// Nothing where the kernel cannot: then there is only the slow look.
    inotify: Option<AsyncFd<OwnedFd>>,
    /// With device and inode: a folder that is replaced has to be watched anew.
    watched: BTreeMap<PathBuf, (i32, u64, u64)>,
}

impl Folders {
    fn new() -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(std::io::Error::from);
        // SAFETY: what is registered owns the descriptor, so it stays open until it is taken out again.
        let inotify = inotify.and_then(|inotify| unsafe { AsyncFd::register(inotify) }.map_err(Into::into));
        if let Err(error) = &inotify {
            warn!(%error, poll_s = POLL.as_secs(), "the kernel does not tell of changed files; they are looked at now and then");
        }
        Self { inotify: inotify.ok(), watched: BTreeMap::new() }
    }

    /// Watches the folders of these paths, and those that links lead to.
    fn set(&mut self, paths: &[PathBuf]) {
        let Some(inotify) = &self.inotify else { return };
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        let real = paths.iter().filter_map(|path| path.canonicalize().ok()).filter_map(|path| parent(&path));
        let folders: BTreeSet<PathBuf> = paths.iter().filter_map(|path| parent(path)).chain(real).collect();
        self.watched.retain(|folder, (watch, device, inode)| {
            let is_same = folder.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (*device, *inode));
            let stays = folders.contains(folder) && is_same;
            if !stays {
                // The kernel has done so already where the folder is gone.
                _ = inotify::remove_watch(inotify, *watch);
            }
            stays
        });
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for folder in folders {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.watched.entry(folder)
                && let Ok(found) = entry.key().metadata()
                && let Ok(watch) = inotify::add_watch(inotify, entry.key(), flags)
            {
                entry.insert((watch, found.dev(), found.ino()));
            }
        }
    }

    /// Waits until something has happened and is over, or it is time to look anyway.
    async fn wait(&self) {
        let poll = tokio::time::sleep(POLL);
        tokio::select! {
            () = self.told() => {}
            () = poll => return,
        }
        let latest = Instant::now() + QUIET_MAX;
        while Instant::now() < latest && tokio::time::timeout(QUIET, self.told()).await.is_ok() {}
    }

    /// Waits until the kernel has something to tell, and takes all of it.
    async fn told(&self) {
        let Some(inotify) = &self.inotify else { return std::future::pending().await };
        let Ok(mut ready) = inotify.readable().await else { return std::future::pending().await };
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(inotify, &mut buffer).is_ok_and(|read| read > 0) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher(dir: &Path) -> Watcher {
        std::fs::write(dir.join("p.toml"), "one").unwrap();
        std::fs::write(dir.join("a.wasm"), "one").unwrap();
        Watcher::new(dir.join("p.toml"), &[(dir.join("a.wasm"), None)])
    }

    #[tokio::test]
    async fn another_content_is_told_of_once_and_the_same_content_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = watcher(dir.path());
        std::fs::write(dir.path().join("a.wasm"), "two").unwrap();
        watcher.changed().await;
        std::fs::write(dir.path().join("a.wasm"), "two").unwrap();
        assert!(watcher.look() == watcher.told);
        std::fs::write(dir.path().join("p.toml"), "two").unwrap();
        watcher.changed().await;
        assert!(watcher.look() == watcher.told);
    }

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_another_content() {
        let dir = tempfile::tempdir().unwrap();
        for (folder, text) in [("1", "one"), ("2", "two")] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("p.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("1", dir.path().join("data")).unwrap();
        std::os::unix::fs::symlink("data/p.toml", dir.path().join("p.toml")).unwrap();
        let mut watcher = Watcher::new(dir.path().join("p.toml"), &[]);
        std::os::unix::fs::symlink("2", dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("data")).unwrap();
        watcher.changed().await;
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_watched_anew_and_what_is_gone_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("f");
        std::fs::create_dir(&folder).unwrap();
        let mut watcher = watcher(&folder);
        std::fs::rename(&folder, dir.path().join("old")).unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(300), watcher.changed()).await;
        assert!(waiting.is_err(), "it is gone");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.wasm"), "one").unwrap();
        std::fs::write(folder.join("p.toml"), "two").unwrap();
        watcher.changed().await;
        std::fs::write(folder.join("p.toml"), "three").unwrap();
        watcher.changed().await;
    }

    #[tokio::test]
    async fn a_file_that_is_named_later_counts_as_it_is_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = watcher(dir.path());
        std::fs::write(dir.path().join("b.wasm"), "one").unwrap();
        watcher.also(&[(dir.path().join("b.wasm"), None)]);
        assert!(watcher.look() == watcher.told);
        std::fs::write(dir.path().join("b.wasm"), "two").unwrap();
        watcher.changed().await;
        watcher.only(&[]);
        assert_eq!(watcher.told.len(), 1);
    }
}
