//! Which files the patterns match now, found without asking the disk more than needed.
//!
//! A folder is listed again only when its modification time has changed, since creating, deleting and renaming change it. One
//! unchanged time proves little while the clock of the file system may not have ticked since the listing, so a listing is
//! trusted from its second time on. Links, and everything once in a while, are looked at whatever the times say: a link's
//! target can be exchanged elsewhere, and network file systems may keep old times.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use wasmflow_sdk::disk::{Disk, Entry, Identity, Kind, child};

use crate::pattern::{Component, Pattern, fits};

/// How long folder times are believed.
const FULL_SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// The kernel stamps changes with the time of its last tick: two of them less than a tick (10 ms at most) apart look like one.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);
/// A full scan takes at most one part in this many of the time.
const FULL_SCAN_SHARE: u32 = 100;
/// Limit: folders below `**`.
const MAX_DEPTH: usize = 64;

/// A file that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: String,
    pub identity: Identity,
}

/// What one scan saw.
#[derive(Debug, Default)]
pub struct Scan {
    /// Each file once, under the first of its names.
    pub found: Vec<Found>,
    /// Whether each pattern matched something, in the patterns' order.
    pub matched: Vec<bool>,
    /// Paths that could not be looked at, and why.
    pub troubles: Vec<(String, io::Error)>,
    /// Folders that could not be listed: files of theirs may be there although they are not among `found`.
    pub blind: Vec<String>,
}

impl Scan {
    /// Whether a file of this path would have been found if it were there.
    pub fn covers(&self, path: &str) -> bool {
        !self.blind.iter().any(|folder| {
            path.strip_prefix(folder.as_str()).is_some_and(|rest| folder.is_empty() || rest.starts_with('/'))
        })
    }
}

/// The patterns, and what is known of their folders.
pub struct Scanner {
    patterns: Vec<Pattern>,
    folders: HashMap<String, Folder>,
    next_full: Option<Instant>,
}

struct Folder {
    modified: u128,
    /// When it was first listed with this time.
    since: Instant,
    /// The time was still the same when the folder was listed once more, longer than [`CLOCK_GRAIN`] after that.
    settled: bool,
    entries: Vec<(Entry, Option<Identity>)>,
}

impl Scanner {
    pub fn new(patterns: Vec<Pattern>) -> Self {
        Scanner { patterns, folders: HashMap::new(), next_full: None }
    }

    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    pub fn scan(&mut self, disk: &Disk) -> Scan {
        let started = Instant::now();
        if self.next_full.is_none_or(|next| started >= next) {
            self.folders.values_mut().for_each(|folder| folder.settled = false);
        }
        let mut walk = Walk {
            disk,
            folders: &mut self.folders,
            visited: HashSet::new(),
            seen: HashSet::new(),
            matches: false,
            scan: Scan::default(),
        };
        for pattern in &self.patterns {
            walk.matches = false;
            walk.folder(pattern.base(), pattern.components(), 0);
            walk.scan.matched.push(walk.matches);
        }
        let Walk { visited, scan, .. } = walk;
        self.folders.retain(|path, _| visited.contains(path));
        if self.next_full.is_none_or(|next| started >= next) {
            let now = Instant::now();
            self.next_full = Some(now + FULL_SCAN_INTERVAL.max((now - started) * FULL_SCAN_SHARE));
        }
        scan
    }
}

/// One scan on its way.
struct Walk<'s> {
    disk: &'s Disk,
    folders: &'s mut HashMap<String, Folder>,
    visited: HashSet<String>,
    seen: HashSet<Identity>,
    matches: bool,
    scan: Scan,
}

impl Walk<'_> {
    fn folder(&mut self, path: &str, components: &[Component], depth: usize) {
        let (first, rest) = components.split_first().expect("a pattern ends with a file name");
        match first {
            Component::Name(name) if rest.is_empty() => _ = self.file(&child(path, name), None),
            Component::Name(name) => self.folder(&child(path, name), rest, depth),
            Component::Wild(tokens) => self.each_entry(path, |walk, below, (entry, identity)| match entry.kind {
                _ if !fits(tokens, &entry.name) => {}
                Kind::File if rest.is_empty() => *identity = walk.file(below, *identity),
                Kind::Link if rest.is_empty() => _ = walk.file(below, None),
                Kind::Folder | Kind::Link if !rest.is_empty() => walk.folder(below, rest, depth),
                _ => {}
            }),
            Component::Folders => {
                self.folder(path, rest, depth);
                // Links are not followed here, so that no circle is walked.
                self.each_entry(path, |walk, below, (entry, _)| {
                    if entry.kind == Kind::Folder && !entry.name.starts_with('.') && depth < MAX_DEPTH {
                        walk.folder(below, components, depth + 1);
                    }
                });
            }
        }
    }

    /// A path that matches; `known` where its folder has not changed since it was looked at.
    fn file(&mut self, path: &str, known: Option<Identity>) -> Option<Identity> {
        let identity = match known.map_or_else(|| self.identify(path), |known| Ok(Some(known))) {
            Ok(identity) => identity?,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.scan.troubles.push((path.to_owned(), error));
                }
                return None;
            }
        };
        self.matches = true;
        if self.seen.insert(identity) {
            self.scan.found.push(Found { path: path.to_owned(), identity });
        }
        Some(identity)
    }

    /// Nothing where it is not a regular file: reading a pipe or a device could wait for ever.
    fn identify(&self, path: &str) -> io::Result<Option<Identity>> {
        match self.disk.stat(path)?.kind {
            Kind::File => self.disk.identity(path).map(Some),
            _ => Ok(None),
        }
    }

    /// What is in the folder, with each entry's own path; an identity set on an entry is kept as long as the folder is unchanged.
    fn each_entry(&mut self, path: &str, mut visit: impl FnMut(&mut Self, &str, &mut (Entry, Option<Identity>))) {
        if let Err(error) = self.refresh(path) {
            self.scan.blind.push(path.to_owned());
            if error.kind() != io::ErrorKind::NotFound {
                self.scan.troubles.push((path.to_owned(), error));
            }
            return;
        }
        // Out of the map meanwhile: what is visited are the folders below, never this one.
        let Some(mut folder) = self.folders.remove(path) else { return };
        for entry in &mut folder.entries {
            visit(self, &child(path, &entry.0.name), entry);
        }
        self.folders.insert(path.to_owned(), folder);
    }

    fn refresh(&mut self, path: &str) -> io::Result<()> {
        // Before the listing: a change in between makes the next look list again.
        let modified = self.disk.stat(path)?.modified;
        let known = self.folders.get(path);
        let first_visit = self.visited.insert(path.to_owned());
        if known.is_some_and(|known| known.modified == modified && (known.settled || !first_visit)) {
            return Ok(());
        }
        let now = Instant::now();
        let since = known.filter(|known| known.modified == modified).map_or(now, |known| known.since);
        let settled = now - since >= CLOCK_GRAIN;
        let mut entries = self.disk.list(path)?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let entries = entries.into_iter().map(|entry| (entry, None)).collect();
        self.folders.insert(path.to_owned(), Folder { modified, since, settled, entries });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct World {
        folder: tempfile::TempDir,
        scanner: Scanner,
    }

    impl World {
        fn new(patterns: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let parse = |pattern: &&str| Pattern::parse(&format!("{}/{pattern}", folder.path().display())).unwrap();
            let scanner = Scanner::new(patterns.iter().map(parse).collect());
            World { folder, scanner }
        }

        fn write(&self, path: &str) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }

        fn found(&mut self) -> Vec<String> {
            let root = format!("{}/", self.folder.path().display());
            let scan = self.scanner.scan(&Disk::new());
            scan.found.into_iter().map(|found| found.path.strip_prefix(&root).unwrap().to_owned()).collect()
        }
    }

    #[test]
    fn folders_are_walked_and_each_file_is_found_once() {
        let mut world = World::new(&["**/*.log", "a/*/c.txt", "a/x.log"]);
        for path in ["x.log", "a/x.log", "a/b/c.txt", "a/b/d/y.log", ".hidden/z.log", "x.txt"] {
            world.write(path);
        }
        fs::hard_link(world.folder.path().join("x.log"), world.folder.path().join("a/same.log")).unwrap();
        assert_eq!(world.found(), ["x.log", "a/x.log", "a/b/d/y.log", "a/b/c.txt"]);
    }

    #[test]
    fn every_change_of_a_folder_is_seen_however_often_it_is_scanned() {
        let mut world = World::new(&["*.log"]);
        for number in 0..20 {
            for _ in 0..number % 4 {
                world.found();
            }
            // The clock of the file system ticks every few milliseconds; scans are at least that far apart.
            std::thread::sleep(Duration::from_millis(10));
            world.write(&format!("{number:02}.log"));
            assert_eq!(world.found().len(), number + 1);
        }
        fs::rename(world.folder.path().join("03.log"), world.folder.path().join("03.log.1")).unwrap();
        assert_eq!(world.found().len(), 19);
    }

    #[test]
    fn nothing_is_said_of_files_in_folders_that_cannot_be_listed() {
        let mut world = World::new(&["none/*.log"]);
        let scan = world.scanner.scan(&Disk::new());
        let path = |path: &str| format!("{}/{path}", world.folder.path().display());
        assert!(scan.found.is_empty() && scan.matched == [false]);
        assert!(!scan.covers(&path("none/a.log")) && scan.covers(&path("none.log")));
    }

    #[test]
    fn folders_pipes_and_broken_links_are_no_files() {
        let mut world = World::new(&["*"]);
        world.write("folder/x");
        std::os::unix::fs::symlink("nowhere", world.folder.path().join("link")).unwrap();
        assert_eq!(world.found(), Vec::<String>::new());
        std::os::unix::fs::symlink("folder/x", world.folder.path().join("good")).unwrap();
        assert_eq!(world.found(), ["good"]);
    }
}
