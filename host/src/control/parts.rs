//! What a running pipeline has beside its stages, to be looked at.

use std::sync::Arc;

use parking_lot::RwLock;

use super::PipelineControl;
use super::health::Problem;
use crate::agent::stop::StopSignal;
use crate::channel::Channel;
use crate::kafka::KafkaClients;

/// A pipeline that runs no more.
#[derive(Debug, Clone)]
pub struct Ended {
    pub pipeline: Arc<str>,
    /// Why it did not come to its end in order.
    pub failure: Option<String>,
}

impl Ended {
    pub fn problem(self) -> Option<Problem> {
        let reason = format!("it has failed: {}", self.failure?);
        Some(Problem { pipeline: self.pipeline, place: None, reason })
    }
}

/// Nothing of it before the pipeline is built.
#[derive(Default)]
pub(super) struct Parts(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    channels: Vec<Channel>,
    kafka: Option<Arc<KafkaClients>>,
    stop: Option<StopSignal>,
}

impl PipelineControl {
    /// The pipeline is being built, with these clients.
    pub fn built(&self, kafka: Arc<KafkaClients>) {
        self.parts.0.write().kafka = Some(kafka);
    }

    /// Its runners have been started; this tells when they are to stop.
    pub fn running(&self, stop: StopSignal) {
        self.parts.0.write().stop = Some(stop);
    }

    /// Lets go of the channels before their logs are closed. The stages stay until the pipeline is taken out.
    pub fn ended(&self) {
        let mut parts = self.parts.0.write();
        parts.channels.clear();
        parts.kafka = None;
    }

    /// A channel has been opened.
    pub fn enter_channel(&self, channel: Channel) {
        self.parts.0.write().channels.push(channel);
    }

    /// Takes out a channel that is in the pipeline no more.
    pub fn remove_channel(&self, name: &str) {
        self.parts.0.write().channels.retain(|channel| **channel.name() != *name);
    }

    /// In the order of their numbers. To be held for moments only: a log is not closed as long as anybody has it.
    pub fn channels(&self) -> Vec<Channel> {
        self.parts.0.read().channels.clone()
    }

    pub fn kafka(&self) -> Option<Arc<KafkaClients>> {
        self.parts.0.read().kafka.clone()
    }

    /// Whether the pipeline has been built and not been told to stop.
    pub fn is_running(&self) -> bool {
        self.parts.0.read().stop.as_ref().is_some_and(|stop| !stop.is_stopping())
    }

    /// Whether it has been told to stop, or has failed: what is on its way is still delivered.
    pub fn is_stopping(&self) -> bool {
        self.parts.0.read().stop.as_ref().is_some_and(StopSignal::is_stopping)
    }
}
