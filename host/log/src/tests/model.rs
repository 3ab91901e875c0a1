//! What must be true, kept beside the log: every put, whether it was acknowledged, and what each reader has settled.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::simulator::Random;
use crate::{Leg, Part, PositionChange, Put};

/// Source and channels of its puts, as a rule.
pub const SOURCES: [(&str, &[&str]); 3] = [("one", &["a", "b"]), ("two", &["a"]), ("three", &["b", "a"])];
pub const READERS: [(&str, &str); 3] = [("a", "r"), ("a", "s"), ("b", "r")];

#[derive(Default, Clone)]
pub struct Model {
    pub puts: Vec<PutModel>,
    pub readers: BTreeMap<(&'static str, &'static str), ReaderModel>,
    /// The first sequence of each put in each channel, once anybody has seen it.
    pub sequences: BTreeMap<(&'static str, usize), u64>,
}

#[derive(Clone)]
pub struct PutModel {
    pub source: &'static str,
    pub number: u64,
    pub legs: Vec<(&'static str, u32)>,
    pub acked: bool,
    pub void: bool,
    /// Told that it can never be said.
    pub failed: bool,
}

#[derive(Default, Clone)]
pub struct ReaderModel {
    /// No cursor may be beyond.
    pub settled: u64,
    /// Puts that were settled whole.
    pub settled_puts: HashSet<usize>,
}

impl Model {
    /// A put that somebody might make next, and its number here.
    pub fn next_put(&mut self, random: &mut Random, time_ms: u64, open: &[&str]) -> (Put, usize) {
        let (source, channels) = SOURCES[random.below(3) as usize];
        let mut channels: Vec<&'static str> = channels.iter().copied().filter(|name| open.contains(name)).collect();
        if channels.is_empty() {
            channels.push("a");
        }
        let at = self.puts.len();
        // Now and then a source leaves one of its channels out, as after a change of the pipeline file.
        let few = channels.len() > 1 && random.one_in(6);
        let channels: Vec<_> = channels.into_iter().take(if few { 1 } else { 2 }).collect();
        let legs: Vec<_> = channels.iter().map(|channel| (*channel, random.below(4) as u32)).collect();
        let part = Part { key: "at".into(), value: Some(at.to_string().into()) };
        let put = Put {
            source: source.into(),
            position: PositionChange::Parts(vec![part]),
            time_ms,
            legs: legs
                .iter()
                .map(|(channel, events)| Leg { channel: (*channel).into(), events: *events, columns: columns(at) })
                .collect(),
        };
        self.puts.push(PutModel { source, number: 0, legs, acked: false, void: false, failed: false });
        (put, at)
    }

    /// A reader settles everything below a sequence.
    pub fn settle(&mut self, key: (&'static str, &'static str), sequence: u64) {
        let below = self.sequences.iter().filter(|((channel, at), first)| {
            let events = self.puts[*at].legs.iter().find(|(leg, _)| leg == channel).map_or(0, |leg| leg.1);
            *channel == key.0 && **first + u64::from(events) <= sequence
        });
        let below: Vec<usize> = below.map(|((_, at), _)| *at).collect();
        let reader = self.readers.get_mut(&key).unwrap();
        reader.settled_puts.extend(below);
        reader.settled = reader.settled.max(sequence);
    }

    /// The puts a channel has to have, in order, given how far each source goes.
    pub fn expected(&self, channel: &str, last_puts: &BTreeMap<Arc<str>, u64>) -> Vec<(usize, u32)> {
        let of = |(at, put): (usize, &PutModel)| {
            let whole = !put.void && put.number <= last_puts.get(put.source).copied().unwrap_or(0);
            let leg = put.legs.iter().find(|(name, _)| *name == channel)?;
            whole.then_some((at, leg.1))
        };
        self.puts.iter().enumerate().filter(|(_, put)| put.number > 0).filter_map(of).collect()
    }
}

/// What the events of a put look like: its number, and bytes that follow from it.
pub fn columns(at: usize) -> Vec<Bytes> {
    let length = [0, 7, 40, 300, 700][at % 5];
    vec![at.to_string().into(), vec![at as u8; length].into()]
}
