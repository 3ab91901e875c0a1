//! What a changed pipeline file asks of the pipeline that runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::pipeline::{
    ChannelKind, ChannelName, DeliveryPromise, FileSpec, KafkaConnection, Pipeline, StageName,
};
use crate::plugin::{PluginKind, PluginOrigin};

/// A key of the pipeline file, from its root: `["channels", "events", "type"]`.
pub type Field = Vec<String>;

/// A pipeline and what its plugins were when it was loaded.
pub struct Side<'s> {
    pub pipeline: &'s Pipeline,
    /// A plugin's digest: the file may be the same by name and not by content.
    pub digest: &'s dyn Fn(PluginKind, &PluginOrigin) -> String,
    /// Whether the file itself has this key: what it leaves out may be derived from others.
    pub has: &'s dyn Fn(&[&str]) -> bool,
}

/// What has to be done to get from one pipeline to the other. What is in none of these lists is not touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What cannot change while the pipeline runs.
    pub fixed: Vec<Field>,
    /// What changes more than the generations of stages.
    pub wiring: Vec<Field>,
    /// Stages that become another generation: plugin, configuration, grants, limits or retries.
    pub swapped: BTreeMap<StageName, PluginKind>,
    /// Sources and sinks that start anew in another place, and as another generation.
    pub renewed: BTreeMap<StageName, PluginKind>,
    pub sources: Changes,
    pub sinks: Changes,
    pub channels: ChannelChanges,
    pub drain_timeout: bool,
}

/// Sources or sinks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: BTreeSet<StageName>,
    pub removed: BTreeSet<StageName>,
    /// Their runner is another: batch sizes, interceptors, channels.
    pub restarted: BTreeSet<StageName>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChannelChanges {
    pub added: BTreeSet<ChannelName>,
    pub removed: BTreeSet<ChannelName>,
    pub resized: BTreeSet<ChannelName>,
}

impl Difference {
    pub fn between(old: &Side<'_>, new: &Side<'_>) -> Self {
        let mut difference = Self::default();
        difference.compare_pipelines(old, new);
        difference.compare_connections(&old.pipeline.kafka, &new.pipeline.kafka);
        difference.compare_channels(old.pipeline, new.pipeline);
        difference.compare_interceptors(old, new);
        difference.compare_sources(old, new);
        difference.compare_sinks(old, new);
        difference
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn compare_pipelines(&mut self, old: &Side<'_>, new: &Side<'_>) {
        let written = |key: &str| (old.has)(&["pipeline", key]) || (new.has)(&["pipeline", key]);
        let (a, b) = (old.pipeline, new.pipeline);
        let exactly_once = a.delivery == DeliveryPromise::ExactlyOnce;
        let fixed = [
            ("name", a.name != b.name),
            ("instance", a.instance != b.instance),
            ("state_dir", a.state_dir != b.state_dir),
            ("delivery", a.delivery != b.delivery),
            ("transaction", exactly_once && a.transaction != b.transaction),
            // Where the file says nothing it follows from the channels; what runs keeps the one it was started with.
            ("max_event_bytes", written("max_event_bytes") && a.max_event_bytes != b.max_event_bytes),
        ];
        let fixed = fixed.into_iter().filter(|(_, changed)| *changed);
        self.fixed.extend(fixed.map(|(key, _)| field(&["pipeline", key])));
        if a.dead_letters != b.dead_letters {
            self.wiring.push(field(&["pipeline", "dead_letters"]));
        }
        self.drain_timeout = a.drain_timeout != b.drain_timeout;
    }

    fn compare_connections<N: AsRef<str> + Ord>(
        &mut self,
        old: &BTreeMap<N, KafkaConnection>,
        new: &BTreeMap<N, KafkaConnection>,
    ) {
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (Some(a), Some(b)) = (old.get(name), new.get(name)) else {
                self.fixed.push(field(&["kafka", name.as_ref()]));
                continue;
            };
            let (a_all, b_all): (BTreeMap<_, _>, BTreeMap<_, _>) = (a.exposed().collect(), b.exposed().collect());
            let options: BTreeSet<_> = a_all.keys().chain(b_all.keys()).collect();
            let changed = options.into_iter().filter(|option| a_all.get(*option) != b_all.get(*option));
            self.fixed.extend(changed.map(|option| field(&["kafka", name.as_ref(), option])));
            if a.embedded != b.embedded {
                self.fixed.push(field(&["kafka", name.as_ref(), "embedded"]));
            }
        }
    }

    fn compare_channels(&mut self, old: &Pipeline, new: &Pipeline) {
        let (a, b) = (names(&old.channels), names(&new.channels));
        self.channels.added = b.difference(&a).cloned().collect();
        self.channels.removed = a.difference(&b).cloned().collect();
        for name in self.channels.added.iter().chain(&self.channels.removed) {
            self.wiring.push(field(&["channels", name.as_str()]));
        }
        for name in a.intersection(&b) {
            let (a, b) = (&old.channels[name], &new.channels[name]);
            let fixed = match (a.kind, b.kind) {
                (ChannelKind::Memory, ChannelKind::Memory) => Vec::new(),
                (ChannelKind::File(a), ChannelKind::File(b)) => file_keys(&a, &b),
                _ => vec!["type"],
            };
            self.fixed.extend(fixed.into_iter().map(|key| field(&["channels", name.as_str(), key])));
            for (key, changed) in [
                ("capacity_events", a.capacity_events != b.capacity_events),
                ("capacity_bytes", a.capacity_bytes != b.capacity_bytes),
            ] {
                if changed {
                    self.channels.resized.insert(name.clone());
                    self.wiring.push(field(&["channels", name.as_str(), key]));
                }
            }
        }
    }

    /// Interceptors come and go with the lists of those that name them.
    fn compare_interceptors(&mut self, old: &Side<'_>, new: &Side<'_>) {
        let kind = PluginKind::Interceptor;
        let other = new.pipeline.interceptors.keys().filter(|name| is_other(old, new, kind, name));
        self.swapped.extend(other.map(|name| (name.clone(), kind)));
    }

    fn compare_sources(&mut self, old: &Side<'_>, new: &Side<'_>) {
        let (a, b) = (&old.pipeline.sources, &new.pipeline.sources);
        self.sources = self.compare_runners((old, a), (new, b), ("sources", PluginKind::Source), |a, b| {
            [
                ("channels", a.selector != b.selector),
                ("interceptors", crews(old, &a.interceptors) != crews(new, &b.interceptors)),
                ("batch_events", a.batch_events != b.batch_events),
                ("batch_bytes", a.batch_bytes != b.batch_bytes),
                ("ack", a.ack != b.ack),
                ("allow", a.grants.kafka != b.grants.kafka),
            ]
        });
    }

    fn compare_sinks(&mut self, old: &Side<'_>, new: &Side<'_>) {
        let (a, b) = (&old.pipeline.sinks, &new.pipeline.sinks);
        self.sinks = self.compare_runners((old, a), (new, b), ("sinks", PluginKind::Sink), |a, b| {
            [
                ("channel", a.channel != b.channel),
                ("interceptors", crews(old, &a.interceptors) != crews(new, &b.interceptors)),
                ("workers", a.workers != b.workers),
                ("batch_events", a.batch_events != b.batch_events),
                ("batch_bytes", a.batch_bytes != b.batch_bytes),
                ("batch_wait", a.batch_wait != b.batch_wait),
                ("allow", a.grants.kafka != b.grants.kafka),
            ]
        });
    }

    /// `keys` says of each key of a runner's own whether it has changed; the first and the last are its place: its channels and
    /// its connections.
    fn compare_runners<S, const KEYS: usize>(
        &mut self,
        (old, a): (&Side<'_>, &BTreeMap<StageName, S>),
        (new, b): (&Side<'_>, &BTreeMap<StageName, S>),
        (table, kind): (&str, PluginKind),
        keys: impl Fn(&S, &S) -> [(&'static str, bool); KEYS],
    ) -> Changes {
        let letters = old.pipeline.dead_letters != new.pipeline.dead_letters;
        let mut changes = Changes::of(a, b);
        for (name, b) in b {
            let Some(a) = a.get(name) else { continue };
            let keys = keys(a, b);
            if self.rewires(table, name, &keys) || letters {
                changes.restarted.insert(name.clone());
            }
            // With other Kafka clients, or other channels, the runner starts anew with all that is new: a swap before that would
            // put what the new generation brings where the old one's events went.
            let (is_other_channel, is_other_grant) = (keys[0].1, keys[KEYS - 1].1);
            if is_other(old, new, kind, name) {
                let is_elsewhere = is_other_channel || is_other_grant;
                let list = if is_elsewhere { &mut self.renewed } else { &mut self.swapped };
                list.insert(name.clone(), kind);
            }
        }
        let all = changes.added.iter().chain(&changes.removed);
        self.wiring.extend(all.map(|name| field(&[table, name.as_str()])));
        changes
    }

    fn rewires(&mut self, table: &str, name: &StageName, keys: &[(&str, bool)]) -> bool {
        let changed = keys.iter().filter(|(_, changed)| *changed);
        let before = self.wiring.len();
        self.wiring.extend(changed.map(|(key, _)| field(&[table, name.as_str(), key])));
        self.wiring.len() > before
    }
}

impl Changes {
    fn of<S>(old: &BTreeMap<StageName, S>, new: &BTreeMap<StageName, S>) -> Self {
        let (a, b) = (names(old), names(new));
        Self {
            added: b.difference(&a).cloned().collect(),
            removed: a.difference(&b).cloned().collect(),
            restarted: BTreeSet::new(),
        }
    }
}

/// Whether a stage that both have is another generation.
fn is_other(old: &Side<'_>, new: &Side<'_>, kind: PluginKind, name: &StageName) -> bool {
    let stages = old.pipeline.stage(kind, name).zip(new.pipeline.stage(kind, name));
    stages.is_some_and(|(a, b)| a != b || (old.digest)(kind, a.plugin) != (new.digest)(kind, b.plugin))
}

/// The interceptors of a runner, each with how many instances it has.
fn crews<'p>(side: &Side<'p>, names: &'p [StageName]) -> Vec<(&'p StageName, u32)> {
    let interceptors = &side.pipeline.interceptors;
    names.iter().map(|name| (name, interceptors.get(name).map_or(1, |spec| spec.workers))).collect()
}

fn file_keys(a: &FileSpec, b: &FileSpec) -> Vec<&'static str> {
    let keys = [
        ("sync", a.sync != b.sync),
        ("compression", a.compression != b.compression),
        ("retain", a.retain != b.retain),
        ("segment_bytes", a.segment_bytes != b.segment_bytes),
        ("min_free", a.min_free_bytes != b.min_free_bytes),
        ("on_corruption", a.on_corruption != b.on_corruption),
    ];
    keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

fn names<N: Clone + Ord, S>(map: &BTreeMap<N, S>) -> BTreeSet<N> {
    map.keys().cloned().collect()
}

fn field(keys: &[&str]) -> Field {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::pipeline_of;

    const PIPELINE: &str = r#"
[pipeline]
name = "p"
state_dir = "state"
[kafka.main]
"bootstrap.servers" = "h:9092"
[channels.a]
[channels.b]
type = "file"
[sources.s]
plugin = "seq"
channels = ["a", "b"]
interceptors = ["i"]
[interceptors.i]
plugin = "./i.wasm"
[sinks.t]
plugin = "null"
channel = "a"
[sinks.u]
plugin = "null"
channel = "b"
"#;

    fn between(old: &str, new: &str) -> Difference {
        fn side<'s>(
            pipeline: &'s Pipeline,
            digest: &'s dyn Fn(PluginKind, &PluginOrigin) -> String,
            has: &'s dyn Fn(&[&str]) -> bool,
        ) -> Side<'s> {
            Side { pipeline, digest, has }
        }
        let [a, b] = [old, new].map(|text| pipeline_of(text, Path::new("/base")).expect("the test's file is valid"));
        let digest = |_: PluginKind, origin: &PluginOrigin| origin.to_string();
        let has = |_: &[&str]| false;
        Difference::between(&side(&a, &digest, &has), &side(&b, &digest, &has))
    }

    fn changed(from: &str, to: &str) -> Difference {
        assert!(PIPELINE.contains(from), "{from}");
        between(PIPELINE, &PIPELINE.replacen(from, to, 1))
    }

    fn shown(fields: &[Field]) -> Vec<String> {
        fields.iter().map(|field| field.join(".")).collect()
    }

    #[test]
    fn the_same_file_asks_for_nothing_nor_do_comments_and_order() {
        assert!(between(PIPELINE, PIPELINE).is_empty());
        assert!(changed("[channels.a]", "# a comment\n[channels.a]\ntype = \"memory\"").is_empty());
    }

    #[test]
    fn what_cannot_change_is_named_field_by_field() {
        let difference = changed("state_dir = \"state\"", "state_dir = \"other\"\ninstance = \"x\"");
        assert_eq!(shown(&difference.fixed), ["pipeline.instance", "pipeline.state_dir"]);
        assert_eq!(shown(&changed("h:9092", "k:9092").fixed), ["kafka.main.bootstrap.servers"]);
        assert_eq!(shown(&changed("type = \"file\"", "type = \"memory\"").fixed), ["channels.b.type"]);
        let difference = changed("type = \"file\"", "type = \"file\"\nsync = \"os\"\nmin_free = \"1MiB\"");
        assert_eq!(shown(&difference.fixed), ["channels.b.sync", "channels.b.min_free"]);
    }

    #[test]
    fn another_configuration_or_plugin_is_a_swap_of_that_stage_alone() {
        let difference = changed("plugin = \"./i.wasm\"", "plugin = \"./i.wasm\"\nconfig = { x = 1 }");
        let swapped = BTreeMap::from([("i".into(), PluginKind::Interceptor)]);
        assert_eq!(difference, Difference { swapped: swapped.clone(), ..Difference::default() });
        assert_eq!(changed("./i.wasm", "./j.wasm").swapped, swapped);
    }

    #[test]
    fn a_runner_restarts_for_what_is_its_own() {
        let difference = changed("channels = [\"a\", \"b\"]", "channels = [\"a\", \"b\"]\nbatch_events = 7");
        assert_eq!(difference.sources.restarted, BTreeSet::from(["s".into()]));
        assert_eq!((shown(&difference.wiring), difference.swapped), (vec!["sources.s.batch_events".into()], [].into()));
        let difference = changed("state_dir = \"state\"", "state_dir = \"state\"\ndead_letters = \"a\"");
        assert_eq!(difference.sinks.restarted.len() + difference.sources.restarted.len(), 3);
    }

    #[test]
    fn other_workers_are_another_chain_for_those_that_name_the_interceptor() {
        let difference = changed("plugin = \"./i.wasm\"", "plugin = \"./i.wasm\"\nworkers = 2");
        assert_eq!((difference.sources.restarted, difference.swapped), (["s".into()].into(), [].into()));
    }

    #[test]
    fn stages_and_channels_come_and_go_and_a_channel_may_grow() {
        let new = format!("{PIPELINE}[sinks.v]\nplugin = \"null\"\nchannel = \"a\"\n");
        assert_eq!(between(PIPELINE, &new).sinks.added, BTreeSet::from(["v".into()]));
        assert_eq!(between(&new, PIPELINE).sinks.removed, BTreeSet::from(["v".into()]));
        let difference = changed("[channels.a]", "[channels.a]\ncapacity_events = 5000");
        assert_eq!(difference.channels.resized, BTreeSet::from(["a".into()]));
        assert!(difference.sources == Changes::default() && difference.sinks == Changes::default());
    }

    #[test]
    fn a_sink_that_moves_with_another_configuration_is_not_swapped_where_it_was() {
        let sink = |to: &str| format!("{PIPELINE}[sinks.v]\nplugin = \"null\"\nchannel = {to}\n");
        let difference = between(&sink("\"a\""), &sink("\"b\"\nconfig = { x = 1 }"));
        assert_eq!((difference.sinks.restarted.len(), difference.swapped.len()), (1, 0));
        assert_eq!(difference.renewed, BTreeMap::from([("v".into(), PluginKind::Sink)]));
    }

    #[test]
    fn a_name_that_changes_its_kind_goes_and_comes() {
        let new = PIPELINE.replace("[sinks.t]", "[sinks.x]").replace("[sources.s]", "[sources.t]");
        let difference = between(PIPELINE, &new);
        assert_eq!((difference.sources.added, difference.sinks.removed), (["t".into()].into(), ["t".into()].into()));
    }
}
