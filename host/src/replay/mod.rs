//! What a plugin died of, kept so that its author can see it die again, on another machine too.
//!
//! A bundle is one JSON file in `replay/` of the pipeline's state folder: the events of the call (or a source's position), the plugin with its
//! configuration and limits, and how it ended. It is the owner's alone to read, since it holds events; secrets of the configuration are
//! not in it. [`Bundles`] keeps them, [`replay`] runs one.

mod bundle;
mod run;
mod store;

pub use bundle::{Bundle, BundleError, Given, PluginBytes};
pub use run::{Replayed, replay};
pub use store::Bundles;

use crate::event::Batch;
use crate::plugin::TrapKind;
use crate::position::Position;
use crate::stage::Stage;

/// Keeps a call's events and what became of them.
pub fn keep_batch(stage: &Stage, batch: &Batch, kind: TrapKind, text: &str) {
    if let Some(bundles) = &stage.context.bundles {
        bundles.keep(|| Bundle::of(stage, Given::Events(batch.events()), kind, text), batch.byte_size());
    }
}

/// Keeps where a source was asked for more when it died.
pub fn keep_position(stage: &Stage, position: &Position, kind: TrapKind, text: &str) {
    if let Some(bundles) = &stage.context.bundles {
        bundles.keep(|| Bundle::of(stage, Given::Position(position.clone()), kind, text), 0);
    }
}
