//! What a scan means for the files that are followed: new, renamed, replaced, gone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use wasmflow_sdk::disk::Identity;
use wasmflow_sdk::log::Level;

use crate::bookmark::Bookmark;
use crate::file::TailedFile;
use crate::scan::{Found, Scan};
use crate::tail::Tail;

/// How long a file without a name is held open in silence: whoever still writes to it has this long.
const CLOSE_AFTER: Duration = Duration::from_secs(60);
/// How long the place in a file without a name is kept, for one that comes back.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

impl Tail {
    /// Scans, and takes over what was found: the first name of a file that is known already, a file that is not, and what has
    /// no name any more.
    pub(crate) fn find_files(&mut self, now: Instant) {
        let scan = self.scanner.scan(&self.disk);
        self.tell_troubles(&scan);
        let names: HashSet<Identity> = scan.found.iter().map(|found| found.identity).collect();
        let mut moved = self.moved_identities(&names);
        let (known, new): (Vec<_>, Vec<_>) =
            scan.found.iter().partition(|found| self.files.contains_key(&found.identity));
        let mut unread = if new.is_empty() { HashMap::new() } else { self.unread_by_path() };
        known.into_iter().for_each(|found| self.found_again(found));
        for found in new {
            let before = moved.remove(found.path.as_str());
            self.found_new(found, before, now);
            if let Some(file) = self.files.get_mut(&found.identity) {
                file.behind = unread.remove(found.path.as_str()).unwrap_or_default();
            }
        }
        self.note_lost(&names, &scan, now);
        if std::mem::take(&mut self.first_scan) && self.options.start_at_end {
            self.changes.starting_at_end();
        }
    }

    /// The files with something to read, by the name they had until now.
    fn unread_by_path(&self) -> HashMap<String, Vec<Identity>> {
        let mut unread: HashMap<_, Vec<_>> = HashMap::new();
        for file in self.files.values().filter(|file| file.queued) {
            unread.entry(file.path().to_string()).or_default().push(file.identity);
        }
        unread
    }

    fn note_lost(&mut self, names: &HashSet<Identity>, scan: &Scan, now: Instant) {
        for file in self.files.values_mut() {
            let is_lost = !names.contains(&file.identity) && scan.covers(file.path());
            if is_lost && file.absent_since.is_none() && !file.is_open() {
                // With a file that was read to its end when it was last looked at, nothing has happened most likely.
                let level = if file.is_read_up() { Level::Debug } else { Level::Warn };
                let (path, offset) = (file.path(), file.bookmark.offset);
                self.journal.say(level, format!("`{path}` has gone: what came behind byte {offset} of it is not read"));
            }
            file.absent_since = is_lost.then(|| file.absent_since.unwrap_or(now));
        }
    }

    fn found_again(&mut self, found: &Found) {
        let Some(file) = self.files.get_mut(&found.identity) else { return };
        let renamed = found.path != **file.path();
        if renamed {
            file.rename(&found.path);
            if file.bookmark.offset > 0 {
                self.changes.found(found.identity);
            }
        }
        if std::mem::take(&mut file.restored) || renamed {
            self.read_first(found);
        }
    }

    /// A file of which nothing is known, unless it is `before` under another identity.
    fn found_new(&mut self, found: &Found, before: Option<Identity>, now: Instant) {
        let bookmark = before.and_then(|before| self.take_over(before, found));
        let mut file =
            TailedFile::new(found.identity, bookmark.unwrap_or_else(|| Bookmark::new(found.path.clone())), now);
        if self.first_scan && self.options.start_at_end {
            match file.skip_to_end(&self.disk) {
                Ok(()) => self.changes.found(found.identity),
                Err(error) => {
                    let line = format!("cannot find the end of `{}`: {error}; it is read from its start", found.path);
                    self.journal.say(Level::Warn, line);
                }
            }
            // The handle is of this look only: thousands of files may be found at once.
            file.close();
        }
        self.files.insert(found.identity, file);
        self.read_first(found);
    }

    /// Has a file read that was just found. Without following, what it holds now is all of it.
    fn read_first(&mut self, found: &Found) {
        if let Some(file) = self.files.get_mut(&found.identity).filter(|_| !self.options.follow) {
            file.end = self.disk.stat(&found.path).map_or(u64::MAX, |stat| stat.size);
            file.bring_rest = true;
        }
        self.enqueue(found.identity);
    }

    /// The bookmark of a file whose device or inode has another number since the source was last opened (a reboot, another
    /// machine, another host release), where its bytes are those that were read.
    fn take_over(&mut self, before: Identity, found: &Found) -> Option<Bookmark> {
        let file = self.files.get(&before).filter(|file| file.has_bytes_of(&self.disk, &found.path))?;
        let bookmark = file.bookmark.clone();
        self.files.remove(&before);
        self.changes.found(before);
        self.changes.found(found.identity);
        self.journal
            .say(Level::Info, format!("`{}` has a new identity and the same bytes: reading goes on", found.path));
        Some(bookmark)
    }

    /// Files of the position that no scan has found yet, by path.
    fn moved_identities(&self, names: &HashSet<Identity>) -> HashMap<String, Identity> {
        let lost = self.files.values().filter(|file| file.restored && !names.contains(&file.identity));
        lost.map(|file| (file.path().to_string(), file.identity)).collect()
    }

    /// Closes files that have had no name and no news for a while, and forgets them after a longer one.
    pub(crate) fn forget_lost(&mut self, now: Instant) {
        let mut gone = Vec::new();
        // A last line without its newline is brought first, where a handle can still bring it.
        let silent = |file: &&mut TailedFile| !(file.queued || file.is_open() && file.has_rest());
        for file in self.files.values_mut().filter(silent) {
            let lost_for = file.lost_for(now);
            if lost_for > CLOSE_AFTER {
                file.close();
            }
            if lost_for > FORGET_AFTER {
                gone.push(file.identity);
            }
        }
        for identity in gone {
            self.files.remove(&identity);
            self.changes.found(identity);
        }
    }

    fn tell_troubles(&mut self, scan: &Scan) {
        let then = if self.options.follow { "waiting for one" } else { "nothing to read" };
        let patterns = self.scanner.patterns().iter().zip(&scan.matched);
        let missing = patterns
            .filter(|(_, matched)| !**matched)
            .map(|(pattern, _)| (pattern.text().to_owned(), format!("no file matches `{}`: {then}", pattern.text())));
        let unseen = scan
            .troubles
            .iter()
            .map(|(path, error)| (path.clone(), format!("cannot look at `{path}`: {error}; the others go on")));
        self.journal.troubles(missing.chain(unseen));
    }
}
