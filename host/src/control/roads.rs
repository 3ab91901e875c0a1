//! Which stages get what another makes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::pipeline::{ChannelName, Pipeline, StageName};

/// The ways of a pipeline's events, by names.
#[derive(Debug)]
pub(super) struct Roads(Vec<Road>);

/// What one runner drives, in the order of the events.
#[derive(Debug)]
struct Road {
    stages: Vec<Arc<str>>,
    /// Nothing for a source.
    reads: Option<ChannelName>,
    /// Nothing for a sink.
    feeds: Vec<ChannelName>,
}

impl Roads {
    pub fn of(pipeline: &Pipeline) -> Self {
        let shared = |names: &[StageName]| names.iter().map(StageName::shared).collect::<Vec<_>>();
        let sources = pipeline.sources.iter().map(|(name, spec)| Road {
            stages: std::iter::once(name.shared()).chain(shared(&spec.interceptors)).collect(),
            reads: None,
            feeds: spec.selector.channels(),
        });
        let sinks = pipeline.sinks.iter().map(|(name, spec)| Road {
            stages: shared(&spec.interceptors).into_iter().chain([name.shared()]).collect(),
            reads: Some(spec.channel.clone()),
            feeds: Vec::new(),
        });
        Self(sources.chain(sinks).collect())
    }

    /// The names of the stages behind this one, on every road that it is on. Dead letters do not count: they are behind whoever
    /// rejects them.
    pub fn behind(&self, stage: &str) -> BTreeSet<Arc<str>> {
        let mut behind = BTreeSet::new();
        for road in &self.0 {
            let Some(at) = road.stages.iter().position(|name| **name == *stage) else { continue };
            behind.extend(road.stages[at + 1..].iter().cloned());
            let readers =
                self.0.iter().filter(|other| other.reads.as_ref().is_some_and(|read| road.feeds.contains(read)));
            behind.extend(readers.flat_map(|reader| reader.stages.iter().cloned()));
        }
        behind.remove(stage);
        behind
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::pipeline_of;

    #[test]
    fn behind_a_stage_are_those_on_its_road_and_the_readers_of_its_channels() {
        let text = r#"
[pipeline]
name = "p"
state_dir = "state"
dead_letters = "refused"
[channels.a]
type = "memory"
[channels.b]
type = "memory"
[channels.refused]
type = "memory"
[sources.s]
plugin = "seq"
channels = ["a"]
interceptors = ["i", "j"]
[sources.t]
plugin = "seq"
channels = ["b"]
[interceptors.i]
plugin = "static"
config = { headers = { a = "b" } }
[interceptors.j]
plugin = "static"
config = { headers = { a = "b" } }
[sinks.x]
plugin = "null"
channel = "a"
interceptors = ["j"]
[sinks.y]
plugin = "null"
channel = "b"
[sinks.z]
plugin = "null"
channel = "refused"
"#;
        let pipeline = pipeline_of(text, Path::new("/base")).expect("the test's file is valid");
        let roads = Roads::of(&pipeline);
        let behind = |stage: &str| roads.behind(stage).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(behind("s"), ["i", "j", "x"]);
        assert_eq!(behind("i"), ["j", "x"]);
        assert_eq!(behind("j"), ["x"]);
        assert_eq!(behind("t"), ["y"]);
        assert_eq!(behind("x"), Vec::<String>::new());
    }
}
