//! Files and folders in memory, with what a power cut may still take of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::random::Random;

const SECTOR: usize = 512;

/// A file: as programs see it, as the disk has it, and what is between.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub seen: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Arc<Vec<u8>>),
    Length(usize),
}

/// How much of what is pending a power cut leaves.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Nothing,
    All,
    First(u64),
    Some,
}

impl Luck {
    fn draw(random: &mut Random, pending: usize) -> Self {
        match random.below(8) {
            0 | 1 => Self::Nothing,
            2 => Self::All,
            3 | 4 => Self::First(random.below(pending as u64 + 1)),
            _ => Self::Some,
        }
    }

    fn keeps(self, at: usize, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::First(count) => (at as u64) < count,
            Self::Some => random.one_in(2),
        }
    }
}

impl Contents {
    pub fn of(bytes: Vec<u8>) -> Self {
        Self::durably(Arc::new(bytes))
    }

    pub fn durably(bytes: Arc<Vec<u8>>) -> Self {
        Self { seen: bytes.clone(), durable: bytes, pending: Vec::new() }
    }

    pub fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        let change = Change::Write(offset, Arc::new(bytes));
        change.apply(Arc::make_mut(&mut self.seen));
        self.pending.push(change);
    }

    pub fn set_len(&mut self, length: usize) {
        Arc::make_mut(&mut self.seen).resize(length, 0);
        self.pending.push(Change::Length(length));
    }

    pub fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.pending.clear();
    }

    /// Some of it is on disk, the rest never will be, and nobody can see which.
    pub fn fail_sync(&mut self, random: &mut Random) {
        self.durable = self.after_power_cut(random);
        self.pending.clear();
    }

    pub fn drop_cache(&mut self) {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            change.apply(Arc::make_mut(&mut bytes));
        }
        self.seen = bytes;
    }

    pub fn after_power_cut(&self, random: &mut Random) -> Arc<Vec<u8>> {
        let mut bytes = self.durable.clone();
        if self.pending.is_empty() {
            return bytes;
        }
        let luck = Luck::draw(random, self.pending.len());
        for (at, change) in self.pending.iter().enumerate() {
            match (change, luck) {
                (Change::Write(offset, data), Luck::Some) => {
                    tear(Arc::make_mut(&mut bytes), *offset, data, random);
                }
                _ if luck.keeps(at, random) => change.apply(Arc::make_mut(&mut bytes)),
                _ => {}
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => put(bytes, *offset, data),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// Writes some of the sectors.
fn tear(bytes: &mut Vec<u8>, offset: usize, data: &[u8], random: &mut Random) {
    let mut at = 0;
    while at < data.len() {
        let next = ((offset + at) / SECTOR + 1) * SECTOR - offset;
        let end = next.min(data.len());
        if random.one_in(2) {
            put(bytes, offset + at, &data[at..end]);
        }
        at = end;
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    File(usize),
    Folder,
}

/// A folder's names, likewise.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub seen: Arc<BTreeMap<String, Node>>,
    durable: Arc<BTreeMap<String, Node>>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, Node),
    Remove(String),
    /// In one step, as journals do it.
    Rename(String, String, Node),
}

impl Names {
    pub fn set(&mut self, name: &str, node: Node) {
        self.change(NameChange::Set(name.into(), node));
    }

    pub fn remove(&mut self, name: &str) {
        self.change(NameChange::Remove(name.into()));
    }

    pub fn rename(&mut self, from: &str, to: &str, node: Node) {
        self.change(NameChange::Rename(from.into(), to.into(), node));
    }

    fn change(&mut self, change: NameChange) {
        change.apply(Arc::make_mut(&mut self.seen));
        self.pending.push(change);
    }

    pub fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.pending.clear();
    }

    pub fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut names = self.durable.clone();
        if !self.pending.is_empty() {
            let luck = Luck::draw(random, self.pending.len());
            for (at, change) in self.pending.iter().enumerate() {
                if luck.keeps(at, random) {
                    change.apply(Arc::make_mut(&mut names));
                }
            }
        }
        Self { seen: names.clone(), durable: names, pending: Vec::new() }
    }
}

impl Names {
    /// The same names for files at other places.
    pub fn moved(self, mut to: impl FnMut(usize) -> usize) -> Self {
        let mut node = |node: &Node| match node {
            Node::File(file) => Node::File(to(*file)),
            Node::Folder => Node::Folder,
        };
        let names: BTreeMap<String, Node> = self.seen.iter().map(|(name, at)| (name.clone(), node(at))).collect();
        let names = Arc::new(names);
        Self { seen: names.clone(), durable: names, pending: Vec::new() }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}
