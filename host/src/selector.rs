//! Selectors: which channels get an event.

use std::collections::BTreeMap;

use crate::channel::Channel;
use crate::event::{Batch, Column};

/// The channels of a source, by the rule of its selector.
#[derive(Debug)]
pub enum Selector {
    /// Every channel gets every event.
    Replicating(Vec<Channel>),
    /// The value of a header chooses the channels; an event without the header, or with a value that has no route, goes the
    /// default way, which may lead nowhere: then it is dropped and counted as filtered.
    Multiplexing { header: String, routes: BTreeMap<Vec<u8>, Vec<Channel>>, default: Vec<Channel> },
}

/// What goes where: one batch for each channel that gets anything.
#[derive(Debug, Default)]
pub struct Routed {
    pub batches: Vec<(Channel, Batch)>,
    /// Events that no channel gets.
    pub dropped: usize,
}

impl Selector {
    /// Sorts a batch onto its channels. A batch that goes whole to several channels is shared, not copied.
    pub fn route(&self, batch: &Batch) -> Routed {
        if batch.is_empty() {
            return Routed::default();
        }
        match self {
            Self::Replicating(channels) => all_to(channels, batch),
            Self::Multiplexing { header, routes, default } => {
                let way = |value: Option<&[u8]>| value.and_then(|value| routes.get(value)).unwrap_or(default);
                match batch.header(header).as_deref() {
                    None => all_to(way(None), batch),
                    Some(Column::Constant(value)) => all_to(way(Some(value)), batch),
                    Some(column) => each_its_way(batch, |row| way(column.get(row).as_deref())),
                }
            }
        }
    }

    /// Every channel that an event may be sent to, each once.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<_> = match self {
            Self::Replicating(channels) => channels.clone(),
            Self::Multiplexing { routes, default, .. } => routes.values().flatten().chain(default).cloned().collect(),
        };
        channels.sort_by_key(|channel| channel.number());
        channels.dedup_by_key(|channel| channel.number());
        channels
    }
}

fn all_to(channels: &[Channel], batch: &Batch) -> Routed {
    Routed {
        batches: channels.iter().map(|channel| (channel.clone(), batch.clone())).collect(),
        dropped: if channels.is_empty() { batch.count() } else { 0 },
    }
}

fn each_its_way<'s>(batch: &Batch, way: impl Fn(usize) -> &'s Vec<Channel>) -> Routed {
    let mut rows: BTreeMap<usize, (&Channel, Vec<u32>)> = BTreeMap::new();
    let mut dropped = 0;
    for row in 0..batch.count() {
        let channels = way(row);
        dropped += usize::from(channels.is_empty());
        for channel in channels {
            rows.entry(channel.number()).or_insert_with(|| (channel, Vec::new())).1.push(row as u32);
        }
    }
    let select = |rows: &[u32]| batch.select(rows).expect("the rows were counted off this batch");
    Routed { batches: rows.into_values().map(|(channel, rows)| (channel.clone(), select(&rows))).collect(), dropped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Capacity, MemoryChannel};
    use crate::event::Event;

    fn channel(number: usize) -> Channel {
        Channel::Memory(MemoryChannel::new(format!("c{number}"), number, Capacity { events: 10, bytes: 1000 }))
    }

    fn levels(values: &[Option<&str>]) -> Batch {
        let events: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(row, value)| Event {
                headers: value.iter().map(|value| ("level".into(), value.as_bytes().to_vec())).collect(),
                body: row.to_string().into_bytes(),
            })
            .collect();
        Batch::from_events(&events)
    }

    fn multiplexing(default: Vec<Channel>) -> Selector {
        let routes = [("error", vec![channel(1), channel(0)]), ("info", vec![channel(0)])];
        let routes = routes.into_iter().map(|(value, to)| (value.into(), to)).collect();
        Selector::Multiplexing { header: "level".into(), routes, default }
    }

    fn summary(routed: &Routed) -> Vec<(usize, Vec<String>)> {
        let bodies = |batch: &Batch| batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into()).collect();
        routed.batches.iter().map(|(channel, batch)| (channel.number(), bodies(batch))).collect()
    }

    #[test]
    fn each_event_goes_where_its_header_says_in_order() {
        let batch = levels(&[Some("error"), Some("info"), None, Some("debug"), Some("error")]);
        let routed = multiplexing(vec![channel(2)]).route(&batch);
        let expected: Vec<(usize, Vec<String>)> = vec![
            (0, vec!["0".into(), "1".into(), "4".into()]),
            (1, vec!["0".into(), "4".into()]),
            (2, vec!["2".into(), "3".into()]),
        ];
        assert_eq!((summary(&routed), routed.dropped), (expected, 0));
    }

    #[test]
    fn what_has_no_way_is_dropped_and_counted() {
        let routed = multiplexing(vec![]).route(&levels(&[Some("debug"), None, Some("info")]));
        assert_eq!((summary(&routed), routed.dropped), (vec![(0, vec!["2".into()])], 2));
    }

    #[test]
    fn a_header_that_is_the_same_for_all_sends_the_batch_whole() {
        let mut batch = levels(&[None, None]);
        batch.set_header("level", Column::Constant("error".into())).unwrap();
        let routed = multiplexing(vec![]).route(&batch);
        assert_eq!(routed.batches.iter().map(|(_, batch)| batch.count()).collect::<Vec<_>>(), [2, 2]);
    }
}
