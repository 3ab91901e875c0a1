//! Faults on order: which operation fails, how, and how often.

use std::io;

/// What a program asks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Open,
    Create,
    Read,
    Write,
    SetLen,
    Allocate,
    Sync,
    SyncFolder,
    Rename,
    Remove,
    List,
    CreateFolder,
}

impl Operation {
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Create,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Allocate,
        Self::Sync,
        Self::SyncFolder,
        Self::Rename,
        Self::Remove,
        Self::List,
        Self::CreateFolder,
    ];

    /// Whether it can change what a power cut leaves.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List)
    }
}

/// One fault: the operation of its kind after `skip` more of them, and then `times` in a row.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub operation: Operation,
    pub skip: u64,
    /// `u64::MAX`: for ever.
    pub times: u64,
    /// An errno; nothing: a write that writes only a part, or a read that gives only a part.
    pub errno: Option<i32>,
}

impl Fault {
    pub const ENOSPC: i32 = 28;
    pub const EIO: i32 = 5;
    pub const EINTR: i32 = 4;
}

/// What becomes of an operation.
#[derive(Debug)]
pub enum Outcome {
    Fine,
    Short,
    Fails(io::Error),
}

/// Lets the faults on order pass this operation.
pub fn meet(faults: &mut [Fault], operation: Operation) -> Outcome {
    for fault in faults.iter_mut().filter(|fault| fault.operation == operation && fault.times > 0) {
        if fault.skip > 0 {
            fault.skip -= 1;
            continue;
        }
        if fault.times != u64::MAX {
            fault.times -= 1;
        }
        return fault.errno.map_or(Outcome::Short, |errno| Outcome::Fails(io::Error::from_raw_os_error(errno)));
    }
    Outcome::Fine
}
