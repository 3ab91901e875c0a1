//! Changing a pipeline while it runs: everything that can fail is made first, and nothing of what runs is touched before that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::build::{Built, Legacy, Plan, Plugins, capacity};
use super::logs::{self, ReaderRemoval};
use super::running::Running;
use crate::channel::{Channel, ChannelError};
use crate::config::pipeline::{ChannelKind, ChannelName, DeliveryPromise, StageName, Start};
use crate::config::{Diagnostic, FileReport};
use crate::plugin::{PluginKind, PluginOrigin};
use crate::reload::difference::{Difference, Side};
use crate::reload::{Applied, ReloadError, ReloadReport, Wanted, field_problems};
use crate::swap::try_out;

/// How long a new stage has to open before it is let run: one that still waits for its server by then is not broken, and goes on
/// trying as at a start.
const OPEN_EARLY: Duration = Duration::from_secs(5);

/// What was made for a change, and is undone if the change is refused after all.
#[derive(Default)]
pub(super) struct Made {
    channels: Vec<ChannelName>,
    /// New readers of channels that run, and where they start.
    pub(super) readers: Vec<(ChannelName, StageName, u64)>,
    /// New sinks first.
    pub(super) built: Vec<Built>,
}

impl Running {
    /// Applies a changed file as a difference.
    ///
    /// # Errors
    /// When it cannot be applied: what runs goes on as it is.
    pub(super) async fn change(&mut self, wanted: Wanted) -> Result<ReloadReport, ReloadError> {
        if self.is_stopping() {
            return Err(ReloadError::Stopping);
        }
        let plugins = Plugins::loaded(wanted.plugins.clone());
        let mut difference = self.difference(&wanted, &plugins);
        self.refuse(&difference, &wanted)?;
        let report = report(&difference);
        let mut next = wanted.pipeline.clone();
        next.max_event_bytes = self.pipeline.max_event_bytes;
        let plan = Plan { pipeline: &next, plugins: &plugins };
        let mut made = Made::default();
        let made_all = self.make(plan, &difference, &mut made).await;
        let ready = match made_all {
            Ok(()) => self.swap_all(plan, &mut difference).await,
            failed => failed,
        };
        if let Err(error) = ready {
            self.unmake(made).await;
            return Err(error);
        }
        self.exchange(plan, &difference, made).await;
        self.pipeline = next;
        self.workshop.control.runs(&self.pipeline);
        self.plugins = plugins;
        self.places = wanted.places;
        Ok(report)
    }

    fn difference(&self, wanted: &Wanted, plugins: &Plugins) -> Difference {
        let old = Side {
            pipeline: &self.pipeline,
            digest: &|kind, origin| self.plugins.digest(kind, origin),
            has: &|keys| self.places.has(keys),
        };
        let new = Side {
            pipeline: &wanted.pipeline,
            digest: &|kind, origin| plugins.digest(kind, origin),
            has: &|keys| wanted.places.has(keys),
        };
        Difference::between(&old, &new)
    }

    /// What cannot be done while the pipeline runs, all of it at once.
    fn refuse(&self, difference: &Difference, wanted: &Wanted) -> Result<(), ReloadError> {
        let places = &wanted.places;
        let hint = "put back what was there, or restart the agent";
        let mut problems = field_problems(places, &difference.fixed, "cannot change while the pipeline runs", hint);
        if self.pipeline.delivery == DeliveryPromise::ExactlyOnce {
            let message = "cannot change while a pipeline with `delivery = \"exactly-once\"` runs";
            problems.extend(field_problems(places, &difference.wiring, message, hint));
        }
        problems.extend(self.lost_readers(difference, wanted));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(ReloadError::refused(&FileReport::new(places.file().clone(), problems))),
        }
    }

    /// The readers on disk that would be given up, unless that is allowed.
    fn lost_readers(&self, difference: &Difference, wanted: &Wanted) -> Vec<Diagnostic> {
        if self.removal == ReaderRemoval::Remove {
            return Vec::new();
        }
        let leaves = |name: &&StageName| {
            let (old, new) = (&self.pipeline.sinks[*name], wanted.pipeline.sinks.get(*name));
            let stays = wanted.pipeline.channels.get(&old.channel).is_some_and(|channel| channel.is_durable());
            stays && new.is_none_or(|new| new.channel != old.channel)
        };
        let sinks = difference.sinks.removed.iter().chain(&difference.sinks.restarted);
        let problem = |name: &StageName| {
            let channel = &self.pipeline.sinks[name].channel;
            let message = format!("sink `{name}` would leave file channel `{channel}`, with what it has not delivered");
            let hint = "keep the sink, or start the agent with `wasmflow run --remove-readers`";
            Diagnostic::file_error("reader-lost", message).hint(hint)
        };
        sinks.filter(leaves).map(problem).collect()
    }

    /// Makes what is new: channels, readers, and stages whose names are free.
    async fn make(&mut self, plan: Plan<'_>, difference: &Difference, made: &mut Made) -> Result<(), ReloadError> {
        for name in &difference.channels.added {
            self.add_channel(plan, name).await?;
            made.channels.push(name.clone());
        }
        let sinks = difference.sinks.added.iter().chain(&difference.sinks.restarted);
        for name in sinks {
            let spec = &plan.pipeline.sinks[name];
            let is_new = self.pipeline.sinks.get(name).is_none_or(|old| old.channel != spec.channel);
            let channel = self.workshop.channels[&spec.channel].clone();
            // A new file channel knows its readers since it was opened. One in memory must know them before the first put, and a sink
            // may have to wait for what another holds.
            if is_new && !(channel.is_durable() && difference.channels.added.contains(&spec.channel)) {
                let start = add_reader(channel, name.clone(), spec.start_at).await;
                let start = start.map_err(|error| failed("reader", name, &error))?;
                made.readers.push((spec.channel.clone(), name.clone(), start));
            }
        }
        self.build_free(plan, difference, made)?;
        for built in &mut made.built {
            if let Ok(Err(stop)) = timeout(OPEN_EARLY, built.open_early()).await {
                return Err(ReloadError::failed(format!("open {} `{}`", stop.kind, stop.stage), &stop.cause));
            }
        }
        for (name, kind) in &difference.renewed {
            self.try_out(plan, name, *kind).await?;
        }
        for name in self.new_interceptors(plan, difference) {
            if let Ok(Err(stop)) = timeout(OPEN_EARLY, self.workshop.try_interceptor(plan, &name)).await {
                return Err(ReloadError::failed(format!("open {} `{}`", stop.kind, stop.stage), &stop.cause));
            }
        }
        Ok(())
    }

    /// Has a runner that is to start anew in another place, as another generation, try whether that opens: once it has gone there is
    /// no way back. What reads Kafka is not tried: a second member of the group would cost a rebalance, and what it is asked for was
    /// checked with its configuration.
    async fn try_out(&mut self, plan: Plan<'_>, name: &StageName, kind: PluginKind) -> Result<(), ReloadError> {
        let Some(running) = self.workshop.control.stage(name.as_str()).filter(|_| self.tasks.has(name.as_str())) else {
            return Ok(());
        };
        let candidate = self.workshop.candidate(plan, kind, name, &running.serving());
        // A folder that it may write to may be another stage's until that has moved as well: opening puts files there in order.
        let writes = candidate.context.grants.dirs.iter().any(|dir| dir.write);
        if writes || (kind == PluginKind::Source && candidate.context.kafka.is_some()) {
            return Ok(());
        }
        let (kafka, own) = (candidate.context.kafka.clone(), running.serving().context.kafka.clone());
        let signal = self.stopper.signal();
        let tried = tokio::select! {
            tried = try_out(&running, candidate) => tried,
            () = signal.stopping() => return Err(ReloadError::Stopping),
        };
        if let Some(made) = kafka.filter(|kafka| own.is_none_or(|own| !Arc::ptr_eq(kafka, &own))) {
            self.let_close(made);
        }
        tried.map_err(|error| ReloadError::failed(format!("open {kind} `{name}`"), error.reason))
    }

    /// Builds the runners whose names are free, and that share nothing with one that goes.
    fn build_free(&self, plan: Plan<'_>, difference: &Difference, made: &mut Made) -> Result<(), ReloadError> {
        let is_free = |name: &StageName, origin| !self.has_runner(name) && !self.is_given_up(origin, difference);
        for name in &difference.sinks.added {
            let spec = &plan.pipeline.sinks[name];
            if is_free(name, &spec.plugin) {
                let built = self.workshop.sink(plan, name, spec, Legacy::default());
                made.built.push(built.map_err(|error| failed("sink", name, &error))?);
            }
        }
        for name in &difference.sources.added {
            let spec = &plan.pipeline.sources[name];
            if is_free(name, &spec.plugin) {
                let built = self.workshop.source(plan, name, spec, Legacy::default());
                made.built.push(built.map_err(|error| failed("source", name, &error))?);
            }
        }
        Ok(())
    }

    /// Whether a stage with this plugin goes, or moves: what takes its place may need what it holds, a port or a folder, and is
    /// opened only when that is free.
    fn is_given_up(&self, origin: &PluginOrigin, difference: &Difference) -> bool {
        let sources = difference.sources.removed.iter().map(|name| &self.pipeline.sources[name].plugin);
        let sinks = difference.sinks.removed.iter().chain(&difference.sinks.restarted);
        let sinks = sinks.map(|name| &self.pipeline.sinks[name].plugin);
        sources.chain(sinks).any(|gone| gone == origin)
    }

    /// Interceptors that runners get which start anew: as those are drained before, they are tried first.
    fn new_interceptors(&self, plan: Plan<'_>, difference: &Difference) -> BTreeSet<StageName> {
        let mut new = BTreeSet::new();
        for name in &difference.sources.restarted {
            let (old, now) = (&self.pipeline.sources[name].interceptors, &plan.pipeline.sources[name].interceptors);
            new.extend(now.iter().filter(|interceptor| !old.contains(interceptor)).cloned());
        }
        for name in &difference.sinks.restarted {
            let (old, now) = (&self.pipeline.sinks[name].interceptors, &plan.pipeline.sinks[name].interceptors);
            new.extend(now.iter().filter(|interceptor| !old.contains(interceptor)).cloned());
        }
        new
    }

    async fn add_channel(&mut self, plan: Plan<'_>, name: &ChannelName) -> Result<(), ReloadError> {
        let spec = &plan.pipeline.channels[name];
        if let ChannelKind::File(file) = spec.kind {
            let failed = |error: logs::LogsError| failed("open channel", name, &error);
            match self.workshop.logs.clone() {
                Some(logs) => {
                    let added = logs::add(&logs, plan.pipeline, name, file, self.removal).await.map_err(failed)?;
                    // As it is now: it may have been there, and gone, and come again.
                    self.workshop.recovered.channels.retain(|known| known.name != added.name);
                    self.workshop.recovered.channels.push(added);
                }
                None => {
                    let state = self.workshop.state.path();
                    let (logs, recovered) = logs::open(plan.pipeline, state, self.removal).await.map_err(failed)?;
                    (self.workshop.logs, self.workshop.recovered) = (logs, recovered);
                }
            }
        }
        self.workshop.add_channel(plan.pipeline, name, spec);
        Ok(())
    }

    /// Undoes what was made, as if it had never been asked for.
    async fn unmake(&mut self, made: Made) {
        for built in made.built {
            built.discard().await;
        }
        self.forget_the_unused(&self.pipeline);
        for (channel, reader, _) in made.readers {
            let channel = self.workshop.channels[&channel].clone();
            if let Err(error) = remove_reader(channel, reader.shared()).await {
                warn!(reader = %reader, %error, "the reader of a sink that was not added is left");
            }
        }
        for name in made.channels {
            self.remove_channel(&name).await;
        }
    }

    /// Closes a channel that nobody uses any more.
    pub(super) async fn remove_channel(&mut self, name: &ChannelName) {
        let Some(channel) = self.workshop.channels.remove(name) else { return };
        let is_durable = channel.is_durable();
        drop(channel);
        self.workshop.control.remove_channel(name.as_str());
        if let Some(logs) = self.workshop.logs.clone().filter(|_| is_durable) {
            logs::retire(&logs, name).await;
        }
    }

    /// Changes how much channels hold.
    pub(super) fn resize(&self, plan: Plan<'_>, difference: &Difference) {
        for name in &difference.channels.resized {
            self.workshop.channels[name].set_capacity(capacity(&plan.pipeline.channels[name]));
        }
    }

    fn has_runner(&self, name: &StageName) -> bool {
        self.pipeline.sources.contains_key(name) || self.pipeline.sinks.contains_key(name)
    }
}

/// What is done to which part, in the order of the file's tables.
fn report(difference: &Difference) -> ReloadReport {
    let mut applied = Vec::new();
    let mut note = |action, part, names: &mut dyn Iterator<Item = &str>| {
        applied.extend(names.map(|name| Applied { action, part, name: name.to_owned() }));
    };
    if difference.drain_timeout {
        note("set", "pipeline", &mut ["drain_timeout"].into_iter());
    }
    let Difference { channels, sources, sinks, swapped, .. } = difference;
    for (action, names) in [("added", &channels.added), ("removed", &channels.removed), ("resized", &channels.resized)]
    {
        note(action, "channel", &mut names.iter().map(ChannelName::as_str));
    }
    for (name, kind) in swapped {
        note("swapped", kind.interface(), &mut [name.as_str()].into_iter());
    }
    for (part, changes) in [("source", sources), ("sink", sinks)] {
        for (action, names) in
            [("added", &changes.added), ("removed", &changes.removed), ("restarted", &changes.restarted)]
        {
            note(action, part, &mut names.iter().map(StageName::as_str));
        }
    }
    ReloadReport { applied }
}

fn failed(step: &str, name: impl std::fmt::Display, error: &dyn std::error::Error) -> ReloadError {
    ReloadError::failed(format!("{step} `{name}`"), super::chain(error))
}

/// Off the runtime's threads: it may write to disk.
async fn add_reader(channel: Channel, name: StageName, start: Start) -> Result<u64, ChannelError> {
    let added = tokio::task::spawn_blocking(move || channel.add_reader(name.as_str(), start)).await;
    added.expect("adding a reader does not panic")
}

/// As [`add_reader`]. How many events it gives up.
pub(super) async fn remove_reader(channel: Channel, name: Arc<str>) -> Result<u64, ChannelError> {
    let removed = tokio::task::spawn_blocking(move || channel.remove_reader(&name)).await;
    removed.expect("removing a reader does not panic")
}

/// Where the readers that are there before stop: where new ones of the same channel start, so that each event has one of them.
pub(super) fn starts(made: &Made) -> BTreeMap<ChannelName, u64> {
    let mut starts = BTreeMap::new();
    for (channel, _, start) in &made.readers {
        let least = starts.entry(channel.clone()).or_insert(*start);
        *least = (*least).min(*start);
    }
    starts
}
