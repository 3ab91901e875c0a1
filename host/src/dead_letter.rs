//! Dead letters: events refused for good, on their way into the channel that collects them.

use std::sync::Arc;

use crate::channel::{Channel, Writer};
use crate::config::mask;
use crate::event::{Batch, Column, PackedBuilder};
use crate::plugin::Rejected;
use crate::stage::{Stage, StageStop};

/// The headers that a dead letter carries beside its own.
pub const REASON: &str = "dead-letter.reason";
pub const STAGE: &str = "dead-letter.stage";
pub const PLUGIN: &str = "dead-letter.plugin";
pub const GENERATION: &str = "dead-letter.generation";
pub const POSITION: &str = "dead-letter.position";

/// Who puts the dead letters of a stage, as file channels know it. No stage has a name with a slash.
pub fn source(stage: &str) -> String {
    format!("{stage}/dead-letters")
}

/// A rejected event and the stage that rejected it.
pub type RejectedBy = (Arc<Stage>, Rejected);

/// Where the dead letters of a runner go.
#[derive(Debug)]
pub enum DeadLetters {
    /// Into this channel.
    Channel(Writer),
    /// The pipeline names none: a rejection stops the stage.
    None,
    /// They would have to be in a transaction that a source of file channels is no part of: a rejection stops the stage.
    NotInTransaction,
    /// The runner reads the dead letters itself: one that it rejects would come back to it for ever.
    OwnRoad,
}

impl DeadLetters {
    /// Whether a rejected event has somewhere to go.
    pub fn are_kept(&self) -> bool {
        matches!(self, Self::Channel(_))
    }

    /// The rejected events as one batch for the dead-letter channel; nothing when there are none. `position` says where
    /// an event was when it was refused.
    ///
    /// # Errors
    /// When there is nowhere to put them: a rejection is never dropped silently.
    pub fn collect(
        &self,
        rejected: &[RejectedBy],
        position: impl Fn(&Batch) -> String,
    ) -> Result<Option<(Channel, Batch)>, StageStop> {
        let Some((stage, first)) = rejected.first() else { return Ok(None) };
        rejected.iter().for_each(|(stage, _)| stage.counters.rejected.add(1));
        stage.counters.note_error(&format_args!("an event was rejected: {}", first.reason));
        let writer = match self {
            Self::Channel(writer) => writer,
            Self::None => {
                let cause = format!("an event was rejected: {}", first.reason);
                let remedy = "name a channel for such events, as in `[pipeline] dead_letters = \"refused\"`";
                return Err(stage.stop_with_remedy(cause, remedy));
            }
            Self::NotInTransaction => {
                let cause = format!("an event was rejected: {}", first.reason);
                let remedy = "dead letters are part of the transactions of the sink here, and this is on the way into a file channel: let the \
                              sink name the interceptor, or use delivery = \"at-least-once\"";
                return Err(stage.stop_with_remedy(cause, remedy));
            }
            Self::OwnRoad => {
                let cause = format!("a dead letter was rejected by the sink that takes them: {}", first.reason);
                return Err(stage.stop_with_remedy(cause, "let a sink that accepts every event read the dead letters"));
            }
        };
        rejected.iter().for_each(|(stage, _)| stage.counters.dead_lettered.add(1));
        Ok(Some((writer.channel().clone(), letters(rejected, position))))
    }
}

fn letters(rejected: &[RejectedBy], position: impl Fn(&Batch) -> String) -> Batch {
    let events: Vec<_> = rejected.iter().map(|(_, rejected)| rejected.event.clone()).collect();
    let mut batch = Batch::concat(&events);
    let mut set = |name: &str, value: &dyn Fn(&RejectedBy) -> String| {
        let mut values = PackedBuilder::default();
        rejected.iter().for_each(|one| values.push(value(one).as_bytes()));
        batch.set_header(name, Column::Dense(values.finish())).expect("there is one value for each letter");
    };
    // A reason is the plugin's own text, and the plugin knows the stage's secrets.
    set(REASON, &|(_, rejected)| mask(&rejected.reason).into_owned());
    set(STAGE, &|(stage, _)| stage.name.to_string());
    set(PLUGIN, &|(stage, _)| stage.plugin.digest().to_string());
    set(GENERATION, &|(stage, _)| stage.generation.to_string());
    set(POSITION, &|(_, rejected)| position(&rejected.event));
    batch.as_taken()
}
