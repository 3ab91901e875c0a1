//! Exchanging runners while the rest flows: those that go are asked to, and as each has gone, what follows in its place begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::AgentError;
use super::build::{Built, Legacy, Plan};
use super::change::{Made, remove_reader, starts};
use super::running::{Running, at, summarize};
use super::stop::Phase;
use super::tasks::Ended;
use crate::channel::{Channel, Writer};
use crate::config::pipeline::{ChannelName, Pipeline, SinkSpec, SourceSpec, StageName, Start};
use crate::kafka::StageKafka;
use crate::plugin::PluginKind;
use crate::reload::difference::Difference;
use crate::source::Handover;
use crate::stage::StageStop;

/// How long what is asked to go may still take once its time is over, or the whole pipeline stops.
const LAST_MOMENTS: Duration = Duration::from_secs(1);
/// How long the log of a file channel may take to give a reader back that was cut off in the middle of a read.
const READER_WAIT: Duration = Duration::from_secs(5);

impl Running {
    /// Starts what was made, lets go what goes, and starts what takes its place. It cannot be refused any more: a runner that
    /// cannot be made now stops the pipeline, as at any other time.
    pub(super) async fn exchange(&mut self, plan: Plan<'_>, difference: &Difference, made: Made) {
        let starts = starts(&made);
        self.left_at.clear();
        // A channel does not end while its sources are exchanged; one that goes does, and its sinks take all there is.
        let stays = |channel: &&Channel| !difference.channels.removed.contains(&**channel.name());
        let held: Vec<Writer> = self.workshop.channels().filter(stays).map(Channel::writer).collect();
        made.built.into_iter().for_each(|built| self.start(built));
        let mut going = BTreeSet::new();
        for name in difference.sinks.removed.iter().chain(&difference.sinks.restarted) {
            let spec = &self.pipeline.sinks[name];
            let channel = &self.workshop.channels[&spec.channel];
            let stays_there = plan.pipeline.sinks.get(name).is_some_and(|new| new.channel == spec.channel);
            if stays_there {
                channel.stop_reader(name.as_str(), 0);
            } else if !difference.channels.removed.contains(&spec.channel) {
                let until = starts.get(&spec.channel).copied().unwrap_or_else(|| channel.end());
                channel.stop_reader(name.as_str(), until);
            }
            going.insert(name.clone());
        }
        for name in &difference.sources.removed {
            self.tasks.advance_one(name.as_str(), Phase::Stopping);
            going.insert(name.clone());
        }
        for name in &difference.sources.restarted {
            self.tasks.advance_one(name.as_str(), Phase::Leaving);
            going.insert(name.clone());
        }
        let ready: BTreeSet<_> = self.tasks.names();
        let mut later = self.until_gone(plan, going).await;
        let added = difference.sinks.added.iter().chain(&difference.sources.added);
        for name in added.filter(|name| !ready.contains(name.as_str())) {
            later.entry(name.clone()).or_default();
        }
        for (name, legacy) in later {
            let sink = plan.pipeline.sinks.get(&name).filter(|sink| sink.start_at == Start::Tail);
            let channel = sink.map(|sink| &sink.channel);
            let skip_to = channel.and_then(|channel| self.left_at.get(channel)).copied().unwrap_or_default();
            self.begin(plan, &name, Legacy { skip_to, ..legacy }).await;
        }
        for name in &difference.channels.removed {
            self.remove_channel(name).await;
        }
        self.resize(plan, difference);
        self.start_the_ended(plan).await;
        self.forget_the_unused(plan.pipeline);
        drop(held);
    }

    /// Waits for all of these to go, and starts what follows each in its own place. Who does not go in time is cut off. Answers what
    /// is to start when all have gone, since it may need what another held.
    async fn until_gone(&mut self, plan: Plan<'_>, mut going: BTreeSet<StageName>) -> BTreeMap<StageName, Legacy> {
        let mut later = BTreeMap::new();
        let ended: Vec<_> = going.iter().filter(|name| !self.tasks.has(name.as_str())).cloned().collect();
        for name in ended {
            going.remove(&name);
            later.extend(self.follow(plan, &name, None, None).await);
        }
        let signal = self.stopper.signal();
        let mut deadline = Instant::now() + self.pipeline.drain_timeout;
        let (mut is_late, mut hurries) = (false, false);
        while !going.is_empty() {
            tokio::select! {
                Some(ended) = self.tasks.next_ended() => {
                    let stage = ended.stage.clone();
                    let name = StageName::new(stage.name.clone());
                    let handover = self.ended(ended);
                    if going.remove(&name) {
                        later.extend(self.follow(plan, &name, handover, stage.context.kafka.clone()).await);
                    }
                }
                () = signal.stopping(), if !hurries => {
                    hurries = true;
                    deadline = deadline.min(Instant::now() + LAST_MOMENTS);
                }
                () = at(Some(deadline)) => {
                    for name in &going {
                        match is_late {
                            false => self.tasks.advance_one(name.as_str(), Phase::Abandoned),
                            true => self.tasks.cut_off(name.as_str()),
                        }
                    }
                    if !is_late {
                        let stages: Vec<_> = going.iter().map(StageName::as_str).collect();
                        warn!(?stages, "not gone in time; what is not settled comes again");
                    }
                    (is_late, deadline) = (true, Instant::now() + LAST_MOMENTS);
                }
            }
        }
        later
    }

    /// A runner has gone: its reader goes with it if it is not to be read from there any more, and what has its place now starts.
    /// Answers what has its name and another place.
    async fn follow(
        &mut self,
        plan: Plan<'_>,
        name: &StageName,
        handover: Option<Handover>,
        kafka: Option<Arc<StageKafka>>,
    ) -> Option<(StageName, Legacy)> {
        let has_moved = self.moves(plan, name);
        let Place { leaves, is_kept, keeps_clients, is_rewired } = self.place(plan, name);
        if let Some(channel) = leaves {
            if let Some(settled) = channel.settled_by(name.as_str()) {
                // Of several that leave, the one that is furthest behind: nothing is passed over.
                let left = self.left_at.entry(ChannelName::new(channel.name().clone())).or_insert(settled);
                *left = settled.min(*left);
            }
            drop_reader(name, channel).await;
        }
        if !is_kept {
            self.forget(name.as_str());
        }
        let (kafka, gone) = if keeps_clients { (kafka, None) } else { (None, kafka) };
        if let Some(gone) = gone {
            self.let_close(gone);
        }
        let mut legacy = Legacy { handover, kafka, is_rewired, skip_to: 0 };
        if !plan.pipeline.sources.contains_key(name)
            && let Some(handover) = legacy.handover.take()
        {
            handover.store.close().await;
        }
        if has_moved {
            return Some((name.clone(), legacy));
        }
        self.begin(plan, name, legacy).await;
        None
    }

    /// Kafka clients that nobody uses any more. Owner: the pipeline, which awaits their end at its own.
    pub(super) fn let_close(&mut self, kafka: Arc<StageKafka>) {
        self.closing.spawn(async move { kafka.close((Instant::now() + super::KAFKA_CLOSE_TIMEOUT).into()).await });
    }

    /// Starts what has this name now, if anything has.
    async fn begin(&mut self, plan: Plan<'_>, name: &StageName, legacy: Legacy) {
        let built = match plan.pipeline.sources.get(name) {
            Some(spec) => self.workshop.source(plan, name, spec, legacy),
            None if plan.pipeline.sinks.contains_key(name) => self.sink(plan, name, legacy).await,
            None => return,
        };
        self.start_or_stop(name, built);
    }

    /// Whether a name is that of something else now: another kind, or a sink of another channel.
    fn moves(&self, plan: Plan<'_>, name: &StageName) -> bool {
        let (old, new) = (&self.pipeline, plan.pipeline);
        let channel = |sink: Option<&SinkSpec>| sink.map(|sink| sink.channel.clone());
        old.sources.contains_key(name) != new.sources.contains_key(name)
            || channel(old.sinks.get(name)) != channel(new.sinks.get(name))
    }

    /// What has changed about the place of this name.
    fn place(&self, plan: Plan<'_>, name: &StageName) -> Place {
        let (old_source, old_sink) = (self.pipeline.sources.get(name), self.pipeline.sinks.get(name));
        let (new_source, new_sink) = (plan.pipeline.sources.get(name), plan.pipeline.sinks.get(name));
        let leaves = old_sink.filter(|old| new_sink.is_none_or(|new| new.channel != old.channel));
        let leaves = leaves.filter(|old| plan.pipeline.channels.contains_key(&old.channel));
        let is_kept = (old_source.is_some(), old_sink.is_some()) == (new_source.is_some(), new_sink.is_some());
        let before = old_source.map(|old| &old.grants).or(old_sink.map(|old| &old.grants));
        let now = new_source.map(|new| &new.grants).or(new_sink.map(|new| &new.grants));
        Place {
            leaves: leaves.map(|old| self.workshop.channels[&old.channel].clone()),
            is_kept,
            keeps_clients: is_kept && before.map(|grants| &grants.kafka) == now.map(|grants| &grants.kafka),
            is_rewired: old_source.zip(new_source).is_some_and(|(old, new)| old.selector != new.selector),
        }
    }

    /// The reader that another runner had may still be on its way back.
    async fn sink(&mut self, plan: Plan<'_>, name: &StageName, legacy: Legacy) -> Result<Built, AgentError> {
        let deadline = Instant::now() + READER_WAIT;
        let Legacy { kafka, skip_to, .. } = legacy;
        loop {
            let legacy = Legacy { kafka: kafka.clone(), skip_to, ..Legacy::default() };
            match self.workshop.sink(plan, name, &plan.pipeline.sinks[name], legacy) {
                Err(AgentError::Channel(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                built => return built,
            }
        }
    }

    fn start_or_stop(&mut self, name: &StageName, built: Result<Built, AgentError>) {
        match built {
            Ok(built) => self.start(built),
            Err(error) => {
                let kind = if self.pipeline.sources.contains_key(name) { PluginKind::Source } else { PluginKind::Sink };
                let cause = super::chain(&error);
                self.has_stopped(StageStop { kind, stage: name.shared(), cause, remedy: None });
            }
        }
    }

    /// Sinks whose channel had ended start again where it has sources again.
    async fn start_the_ended(&mut self, plan: Plan<'_>) {
        for (name, spec) in &plan.pipeline.sinks {
            let feeds = |(source, spec_of): (&StageName, &SourceSpec)| {
                self.tasks.has(source.as_str()) && spec_of.selector.channels().contains(&spec.channel)
            };
            if !self.tasks.has(name.as_str()) && plan.pipeline.sources.iter().any(feeds) {
                let built = self.sink(plan, name, Legacy::default()).await;
                self.start_or_stop(name, built);
            }
        }
    }

    /// Takes the stages out of the register that the pipeline does not have any more.
    pub(super) fn forget_the_unused(&self, pipeline: &Pipeline) {
        let lists = pipeline.sources.values().map(|spec| &spec.interceptors);
        let lists = lists.chain(pipeline.sinks.values().map(|spec| &spec.interceptors));
        let used: BTreeSet<&str> = lists.flatten().map(StageName::as_str).collect();
        for stage in self.workshop.control.stages() {
            let name = &**stage.name();
            let is_there = match stage.kind() {
                PluginKind::Source => pipeline.sources.contains_key(name),
                PluginKind::Sink => pipeline.sinks.contains_key(name),
                PluginKind::Interceptor => used.contains(name),
            };
            if !is_there {
                self.forget(name);
            }
        }
    }

    fn forget(&self, name: &str) {
        if let Some(stage) = self.workshop.control.stage(name) {
            summarize(&stage);
            self.workshop.control.remove(name);
        }
    }

    /// One task has ended. If it failed, the pipeline has failed: the rest is drained.
    pub(super) fn ended(&mut self, ended: Ended) -> Option<Handover> {
        match ended.result {
            Ok(handover) => handover,
            Err(stop) => {
                self.has_stopped(stop);
                None
            }
        }
    }
}

/// What changes about the place of a name.
struct Place {
    /// The channel that a sink of this name does not read any more, if it is still there.
    leaves: Option<Channel>,
    /// Whether it is there before and after, and of the same kind.
    is_kept: bool,
    keeps_clients: bool,
    /// Whether a source feeds other channels than before.
    is_rewired: bool,
}

async fn drop_reader(name: &StageName, channel: Channel) {
    let channel_name = channel.name().clone();
    match remove_reader(channel, name.shared()).await {
        Ok(0) => info!(sink = %name, channel = %channel_name, "reader removed"),
        Ok(events) => {
            warn!(sink = %name, channel = %channel_name, events, "reader removed, with what it had not delivered");
        }
        Err(error) => warn!(sink = %name, channel = %channel_name, %error, "reader not removed"),
    }
}
