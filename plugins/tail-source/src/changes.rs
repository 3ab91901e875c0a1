//! Which parts of the position have changed since the poll before.

use std::collections::{BTreeSet, HashMap};

use wasmflow_sdk::disk::Identity;

use crate::file::TailedFile;

/// Limit: what one poll tells of files that it brings nothing of; the host takes 8 MiB of parts in all.
const FOUND_BYTES: usize = 2 << 20;
/// The key of the part that says how far `start_at = "end"` has come.
pub const STARTED: &[u8] = b"started";
/// Not all ends are stored yet: a file without a part is still one that was there at the start.
pub const UNDER_WAY: &[u8] = b"0";
const DONE: &[u8] = b"1";

/// One changed part: its key, and its value unless it is gone.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// The files whose parts have changed.
#[derive(Default)]
pub struct Changes {
    /// They brought lines: their parts go with those lines.
    brought: BTreeSet<Identity>,
    /// Found at an end, under a new name, under a new identity, or forgotten: can be told bit by bit.
    found: BTreeSet<Identity>,
    starting: bool,
}

impl Changes {
    pub fn brought(&mut self, identity: Identity) {
        self.brought.insert(identity);
    }

    pub fn found(&mut self, identity: Identity) {
        self.found.insert(identity);
    }

    /// Tells when the ends of all files found so far are stored.
    pub fn starting_at_end(&mut self) {
        self.starting = true;
    }

    /// The parts as they stand now; a file that is followed no more is gone from the position too.
    pub fn take(&mut self, files: &HashMap<Identity, TailedFile>) -> Vec<Change> {
        let part = |identity: Identity| -> Change {
            (identity.to_string().into_bytes(), files.get(&identity).map(|file| file.bookmark.encode()))
        };
        let mut changes = Vec::new();
        for identity in std::mem::take(&mut self.brought) {
            self.found.remove(&identity);
            changes.push(part(identity));
        }
        let mut bytes = 0;
        while bytes < FOUND_BYTES
            && let Some(identity) = self.found.pop_first()
        {
            let (key, value) = part(identity);
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            changes.push((key, value));
        }
        if self.starting {
            self.starting = !self.found.is_empty();
            let state = if self.starting { UNDER_WAY } else { DONE };
            changes.push((STARTED.to_vec(), Some(state.to_vec())));
        }
        changes
    }
}
