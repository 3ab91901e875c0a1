//! A disk and a clock that are simulated, for tests that want the worst: a power cut that takes any part of what was not
//! synced, full disks, failing ones, flipped bits. Everything follows from a seed.
//!
//! What the disk promises is no more than what real ones do:
//!
//! - Until a file is synced a power cut may take any of its writes, by sectors of 512 bytes and in any order; until its folder
//!   is synced, any of its names. A sector is written whole or not at all, and never harms its neighbours.
//! - After a sync that failed, what was to be synced may be on the disk or not, memory goes on to show it, and the next sync
//!   says yes. Only [`drop_cache`](crate::storage::File::drop_cache) shows the truth.

mod contents;
mod disk;
mod faults;
mod random;

pub use disk::SimDisk;
pub use faults::{Fault, Operation};
pub use random::Random;
