//! One running pipeline: everything it owns, and the watch over its tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Instrument, error, info, warn};

use super::build::{Built, Plan, Plugins, Workshop};
use super::logs::{LogWatch, ReaderRemoval, WATCH_INTERVAL};
use super::state_dir::StateDir;
use super::stop::{Phase, Stopper};
use super::tasks::Tasks;
use super::{AgentError, KAFKA_CLOSE_TIMEOUT, RunReport};
use crate::channel::Channel;
use crate::config::pipeline::{ChannelName, Pipeline, PipelineName};
use crate::control::{Control, StageControl};
use crate::kafka::KafkaClients;
use crate::plugin::PluginKind;
use crate::reload::{Change, Places};
use crate::stage::StageStop;
use crate::transaction::Coordinator;

/// One pipeline with everything it owns.
pub struct Running {
    pub(super) pipeline: Pipeline,
    /// Of `pipeline`, as its file was checked.
    pub(super) plugins: Plugins,
    /// The text of the pipeline's file.
    pub(super) places: Places,
    pub(super) removal: ReaderRemoval,
    pub(super) control: Control,
    pub(super) workshop: Workshop,
    /// Not spawned yet.
    built: Vec<Built>,
    coordinators: Vec<Coordinator>,
    pub(super) tasks: Tasks,
    pub(super) stopper: Arc<Stopper>,
    /// What changed files ask for.
    changes: mpsc::Receiver<Change>,
    /// How far sinks had come that have left a channel, in the change under way.
    pub(super) left_at: BTreeMap<ChannelName, u64>,
    /// Kafka clients of stages that have gone, on their way out.
    pub(super) closing: JoinSet<()>,
    stopped: Vec<StageStop>,
}

impl Running {
    /// Makes everything that the pipeline needs. Nothing flows yet.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub async fn prepare(
        pipeline: Pipeline,
        places: Places,
        control: &Control,
        removal: ReaderRemoval,
        changes: mpsc::Receiver<Change>,
    ) -> Result<Self, AgentError> {
        let state = StateDir::open(&pipeline.state_dir, pipeline.instance.as_deref()).map_err(AgentError::StateDir)?;
        let kafka =
            KafkaClients::new(pipeline.name.as_str(), state.instance(), &pipeline.kafka).map_err(AgentError::Kafka)?;
        let plugins = Plugins::load(&pipeline, control.engine()).await?;
        let mut workshop = Workshop::new(&pipeline, state, kafka, removal, control.register(&pipeline)).await?;
        let (built, coordinators) = workshop.build(Plan { pipeline: &pipeline, plugins: &plugins })?;
        Ok(Self {
            pipeline,
            plugins,
            places,
            removal,
            control: control.clone(),
            workshop,
            built,
            coordinators,
            tasks: Tasks::default(),
            stopper: Arc::default(),
            changes,
            left_at: BTreeMap::new(),
            closing: JoinSet::new(),
            stopped: Vec::new(),
        })
    }

    pub fn name(&self) -> &PipelineName {
        &self.pipeline.name
    }

    /// Stops the pipeline.
    pub fn stopper(&self) -> Arc<Stopper> {
        self.stopper.clone()
    }

    /// Runs the pipeline's runners to their end.
    pub async fn supervise(mut self) -> RunReport {
        let mut transactions = JoinSet::new();
        for coordinator in std::mem::take(&mut self.coordinators) {
            transactions.spawn(coordinator.run().in_current_span());
        }
        for built in std::mem::take(&mut self.built) {
            self.start(built);
        }
        if let Some(control) = self.control.pipeline(self.pipeline.name.as_str()) {
            control.running(self.stopper.signal());
        }
        let (sources, sinks) = (self.tasks.count(PluginKind::Source), self.tasks.count(PluginKind::Sink));
        info!(sources, sinks, "pipeline started");
        let drained = self.watch().await;
        let committed = end_transactions(transactions).await;
        let report = RunReport { drained: drained && committed && self.stopped.is_empty(), stopped: self.stopped };
        while self.closing.join_next().await.is_some() {}
        let stages = self.workshop.control.stages();
        self.workshop.close().await;
        self.control.remove(self.pipeline.name.as_str());
        self.control.note_end(&self.pipeline.name.shared(), report.failure());
        stages.iter().for_each(|stage| summarize(stage));
        match report.is_success() {
            true => info!("pipeline ended; everything is settled"),
            false => error!(failed = report.stopped.len(), drained = report.drained, "pipeline failed"),
        }
        report
    }

    pub(super) fn start(&mut self, built: Built) {
        self.tasks.spawn(built);
    }

    /// Watches the tasks until all have ended. False: some were cut off.
    async fn watch(&mut self) -> bool {
        let signal = self.stopper.signal();
        let mut deadline = None;
        let mut logs = LogWatch::default();
        let mut look = interval(WATCH_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.tasks.is_empty() {
            if self.tasks.count(PluginKind::Sink) == 0 {
                // Nobody is left who could settle anything.
                self.stopper.advance(Phase::Abandoned);
                self.tasks.advance(Phase::Abandoned);
            }
            let has_logs = self.workshop.logs().is_some();
            tokio::select! {
                Some(ended) = self.tasks.next_ended() => drop(self.ended(ended)),
                Some(Change { wanted, answer }) = self.changes.recv() => {
                    // Whoever asked may have gone; it is done all the same.
                    _ = answer.send(self.change(wanted).await);
                }
                () = signal.stopping(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.pipeline.drain_timeout);
                    // What is paused is to drain too.
                    self.control.pipeline(self.pipeline.name.as_str()).iter().for_each(|pipeline| pipeline.resume());
                    self.tasks.advance(Phase::Stopping);
                }
                () = at(deadline) => {
                    let timeout_s = self.pipeline.drain_timeout.as_secs_f64();
                    let stages = self.tasks.names();
                    error!(timeout_s, ?stages, "not drained in time: these had not ended; what is not settled comes again, or stays in its file channel");
                    self.tasks.shutdown().await;
                    return false;
                }
                // A thousand pipelines without file channels are not woken for nothing.
                _ = look.tick(), if has_logs => {
                    if let Some(set) = self.workshop.logs() {
                        logs.look(set, self.workshop.channels().map(Channel::name));
                    }
                }
            }
        }
        true
    }

    /// A stage has stopped for good: the pipeline has failed, and the rest is drained.
    pub(super) fn has_stopped(&mut self, stop: StageStop) {
        error!(stage = %stop.stage, kind = %stop.kind, cause = stop.cause, remedy = stop.remedy, "stage stopped; the pipeline stops with it");
        self.stopped.push(stop);
        self.stopper.advance(Phase::Stopping);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopper.signal().is_stopping()
    }
}

/// False: not everything was committed, since a coordinator has panicked.
async fn end_transactions(mut transactions: JoinSet<()>) -> bool {
    let mut committed = true;
    let ended = async {
        while let Some(ended) = transactions.join_next().await {
            if let Err(panic) = ended {
                error!(cause = %panic, "internal error: the transactions have stopped; please report it");
                committed = false;
            }
        }
    };
    if tokio::time::timeout(KAFKA_CLOSE_TIMEOUT, ended).await.is_err() {
        warn!("the last transaction did not end in time; the broker ends it");
        transactions.shutdown().await;
    }
    committed
}

pub(super) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a stage has done, once it is over.
pub(super) fn summarize(stage: &StageControl) {
    let counters = stage.counters();
    info!(
        stage = %stage.name(),
        kind = %stage.kind(),
        in_events = counters.received.get(),
        out_events = counters.accepted.get(),
        filtered = counters.filtered.get(),
        rejected = counters.rejected.get(),
        dead_letters = counters.dead_lettered.get(),
        errors = counters.errors.get(),
        restarts = counters.restarts.get(),
        "totals"
    );
    let lost = counters.rejected.get() - counters.dead_lettered.get();
    if lost > 0 {
        warn!(stage = %stage.name(), events = lost, "rejected and not set aside: they come again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_coordinator_that_panics_fails_the_pipeline() {
        let mut transactions = JoinSet::new();
        transactions.spawn(async {});
        assert!(end_transactions(std::mem::take(&mut transactions)).await);
        transactions.spawn(async { panic!("as the test wants it") });
        transactions.spawn(async {});
        assert!(!end_transactions(transactions).await);
    }
}
