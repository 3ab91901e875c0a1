//! Which topic an event goes to: a fixed one, one named by a header, or one put together from headers.

use wasmflow_sdk::kafka::{Choice, HeaderOr};
use wasmflow_sdk::prelude::*;

/// How topics are chosen.
#[derive(Debug, PartialEq, Eq)]
pub enum Topic {
    /// The host can do it by itself, and no event enters the sandbox.
    Chosen(Choice),
    /// Put together here.
    Computed(Computed),
}

/// A topic for each event: the value of `header` where the event carries it, else the template's.
#[derive(Debug, PartialEq, Eq)]
pub struct Computed {
    header: Option<String>,
    template: Vec<Segment>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Header(String),
}

impl Topic {
    /// Reads `topic` and `topic_header` of the config.
    pub fn parse(topic: Option<&str>, header: Option<&str>) -> Result<Topic, Problem> {
        let Some(topic) = topic else {
            let header = header.ok_or_else(|| Problem::new("/topic", "`topic`, `topic_header` or both are needed"))?;
            return Ok(Topic::Chosen(Choice::Header(header.into())));
        };
        let template = segments(topic).map_err(|message| Problem::new("/topic", message))?;
        Ok(match (&template[..], header) {
            ([Segment::Text(topic)], None) => Topic::Chosen(Choice::Fixed(topic.clone())),
            ([Segment::Text(topic)], Some(header)) => {
                Topic::Chosen(Choice::HeaderOr(HeaderOr { name: header.into(), fallback: topic.clone() }))
            }
            ([Segment::Header(name)], None) => Topic::Chosen(Choice::Header(name.clone())),
            _ => Topic::Computed(Computed { header: header.map(Into::into), template }),
        })
    }
}

fn segments(topic: &str) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    let mut rest = topic;
    while let Some((text, behind)) = rest.split_once("%{") {
        let (name, behind) = behind.split_once('}').ok_or("`%{` without `}`")?;
        if name.is_empty() {
            return Err("`%{}` names no header".into());
        }
        if !text.is_empty() {
            segments.push(Segment::Text(text.into()));
        }
        segments.push(Segment::Header(name.into()));
        rest = behind;
    }
    if !rest.is_empty() {
        segments.push(Segment::Text(rest.into()));
    }
    if segments.is_empty() {
        return Err("an empty topic".into());
    }
    Ok(segments)
}

impl Computed {
    /// The topic of each event, in order; events that lack a header of the template are rejected first.
    pub fn topics(&self, batch: &mut Batch) -> Result<Packed, Failure> {
        let count = batch.count();
        let columns = Columns::of(self, batch);
        let mut topics = PackedBuilder::with_capacity(count, count * 16);
        let mut refused = Vec::new();
        let mut topic = Vec::new();
        for row in 0..count {
            topic.clear();
            match columns.write_topic(self, row, &mut topic) {
                Ok(()) => topics.push(&topic),
                Err(name) => {
                    let reason = format!("no header `{name}`, which the topic is made of");
                    refused.push(Rejection::new(row as u32, reason));
                }
            }
        }
        if !refused.is_empty() {
            batch.reject(&refused)?;
        }
        Ok(topics.finish())
    }
}

/// The headers that a template needs, asked for once a batch.
struct Columns {
    header: Option<Column>,
    segments: Vec<Option<Column>>,
}

impl Columns {
    fn of(computed: &Computed, batch: &Batch) -> Columns {
        let column = |segment: &Segment| match segment {
            Segment::Text(_) => None,
            Segment::Header(name) => batch.header(name),
        };
        Columns {
            header: computed.header.as_ref().and_then(|name| batch.header(name)),
            segments: computed.template.iter().map(column).collect(),
        }
    }

    /// Appends the topic of one event, or answers the name of the header that is missing.
    fn write_topic<'t>(&self, computed: &'t Computed, row: usize, out: &mut Vec<u8>) -> Result<(), &'t str> {
        if let Some(topic) = self.header.as_ref().and_then(|column| column.get(row)) {
            out.extend_from_slice(topic);
            return Ok(());
        }
        for (segment, column) in computed.template.iter().zip(&self.segments) {
            match segment {
                Segment::Text(text) => out.extend_from_slice(text.as_bytes()),
                Segment::Header(name) => {
                    let value = column.as_ref().and_then(|column| column.get(row)).ok_or(&name[..])?;
                    out.extend_from_slice(value);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(topic: Option<&str>, header: Option<&str>) -> Choice {
        match Topic::parse(topic, header).unwrap() {
            Topic::Chosen(choice) => choice,
            computed => panic!("{computed:?}"),
        }
    }

    fn computed(topic: &str, header: Option<&str>, events: &[Event]) -> (Vec<String>, Batch) {
        let Topic::Computed(computed) = Topic::parse(Some(topic), header).unwrap() else { panic!("{topic} is chosen") };
        let mut batch = Batch::from_events(events);
        let topics = computed.topics(&mut batch).unwrap();
        (topics.iter().map(|topic| String::from_utf8(topic.to_vec()).unwrap()).collect(), batch)
    }

    #[test]
    fn the_host_chooses_where_it_can() {
        let or = HeaderOr { name: "h".into(), fallback: "orders".into() };
        assert_eq!(chosen(Some("orders"), None), Choice::Fixed("orders".into()));
        assert_eq!(chosen(Some("orders"), Some("h")), Choice::HeaderOr(or));
        assert_eq!(chosen(None, Some("h")), Choice::Header("h".into()));
        assert_eq!(chosen(Some("%{h}"), None), Choice::Header("h".into()));
    }

    #[test]
    fn a_template_is_filled_for_each_event() {
        let event = |site: &str, level: &str| Event::new("").with_header("site", site).with_header("level", level);
        let (topics, _) = computed("%{site}.logs.%{level}", None, &[event("a", "info"), event("b", "warn")]);
        assert_eq!(topics, ["a.logs.info", "b.logs.warn"]);
    }

    #[test]
    fn an_event_without_the_header_is_rejected_with_the_reason() {
        let events = [Event::new("1"), Event::new("2").with_header("site", "a")];
        let (topics, batch) = computed("logs-%{site}", None, &events);
        assert_eq!(topics, ["logs-a"]);
        assert_eq!(batch.count(), 1);
        assert_eq!(batch.rejected()[0].1, "no header `site`, which the topic is made of");
    }

    #[test]
    fn the_topic_header_wins_over_the_template() {
        let events = [Event::new("1").with_header("to", "own"), Event::new("2").with_header("site", "a")];
        assert_eq!(computed("logs-%{site}", Some("to"), &events).0, ["own", "logs-a"]);
    }

    #[test]
    fn a_topic_that_makes_no_sense_is_a_problem() {
        for topic in ["", "a-%{", "%{}"] {
            assert_eq!(Topic::parse(Some(topic), None).unwrap_err().path, "/topic", "{topic}");
        }
        assert!(Topic::parse(None, None).is_err());
    }
}
