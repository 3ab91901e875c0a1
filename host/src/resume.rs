//! Where a source goes on at a start: at the position in its file channels, or at the settled one in the position store.
//!
//! A source that feeds file channels alone has its position in them, in the same commit as its events, and goes on behind the
//! newest put that is durable in all of them. As soon as a memory channel is among them the settled position counts, which the
//! store keeps. The store says which of the two it is, so that nothing old is taken for new when a pipeline file changes.

use std::collections::BTreeSet;

use wasmflow_log::Recovered;

use crate::channel::Channel;
use crate::position::Position;
use crate::position_store::{Kept, PositionError, PositionStore};

/// Where a source goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resume {
    pub position: Position,
    /// The file channels lack it, or some of it: it is put into them before anything else.
    pub is_to_be_carried: bool,
    /// The ids of the file channels that keep it from now on; none where the store does.
    pub kept_in: Vec<String>,
}

/// Decides for the source of this name, which feeds `channels`.
///
/// # Errors
/// When the file channels that kept its position are gone: starting from nothing would bring everything again.
pub fn resume(
    source: &str,
    channels: &[Channel],
    store: &PositionStore,
    recovered: &Recovered,
) -> Result<Resume, PositionError> {
    let logged = recovered.source(source);
    let (position, was_logged) = match store.kept() {
        Kept::Here(position) => (position, false),
        Kept::InChannels(ids) => {
            let is_there = recovered.channels.iter().any(|channel| ids.contains(&channel.id.to_string()));
            if !is_there {
                return Err(PositionError::Gone { name: source.into(), ids: ids.join("`, `") });
            }
            (logged.map(|logged| logged.position.iter().cloned().collect()).unwrap_or_default(), true)
        }
    };
    let kept_in = kept_in(channels);
    if kept_in.is_empty() {
        return Ok(Resume { position, ..Resume::default() });
    }
    let names: BTreeSet<_> = channels.iter().map(Channel::name).collect();
    let is_complete =
        was_logged && logged.is_none_or(|logged| logged.channels.iter().collect::<BTreeSet<_>>() == names);
    Ok(Resume { is_to_be_carried: !is_complete && (logged.is_some() || !position.is_empty()), position, kept_in })
}

/// The ids of these channels, if all of them are on disk: then they keep a source's position.
pub fn kept_in(channels: &[Channel]) -> Vec<String> {
    let id = |channel: &Channel| match channel {
        Channel::File(channel) => Some(channel.id().to_string()),
        Channel::Memory(_) => None,
    };
    channels.iter().map(id).collect::<Option<_>>().unwrap_or_default()
}
