//! The decoders of what guests and disks hand over, by their files and without the rest of the host: no engine is compiled to fuzz them,
//! and one of them that named the engine would break this build.

#![allow(dead_code)] // Of the host's files only the decoders are called.

extern crate self as wasmflow;

#[path = "../../../host/src/event/mod.rs"]
pub mod event;
#[path = "../../../host/src/position.rs"]
pub mod position;

#[path = "../../../host/src/plugin/contract.rs"]
mod contract;
#[path = "../../../host/src/plugin/error.rs"]
mod error;
#[path = "../../../host/src/capability/handed.rs"]
pub mod handed;
#[path = "../../../host/src/channel/file/columns.rs"]
pub mod on_disk;
#[path = "../../../host/src/plugin/origin.rs"]
mod origin;

use origin::{Digest, PluginKind, PluginOrigin};

#[path = "../../src/fuzz/columns.rs"]
pub mod columns;
#[path = "../../src/fuzz/frames.rs"]
pub mod frames;

/// Where the host has them.
pub mod plugin {
    pub use crate::contract::*;
    pub use crate::error::*;
    pub use crate::origin::*;
}

/// Where the host has it.
pub mod capability {
    pub use crate::handed;
}

/// Where the host has it.
pub mod channel {
    /// Where the host has it.
    pub mod file {
        pub use crate::on_disk as columns;
    }
}
