//! `wasmflow:plugin/kafka`: the host's Kafka clients, as a plugin sees them.

use wasmtime::component::Resource;

use super::State;
use super::events::Batch;
use crate::plugin::bindings::wasmflow::plugin::errors::Failure;
use crate::plugin::bindings::wasmflow::plugin::kafka::{
    Fetch, Host, HostConsumer, HostProducer, SendOptions, Subscription,
};

/// A `producer` handle.
pub struct Producer;
/// A `consumer` handle.
pub struct Consumer;

fn not_granted() -> Failure {
    Failure::Fatal("no kafka connection is granted".into())
}

impl Host for State {}

impl HostProducer for State {
    fn open(&mut self, _connection: String) -> wasmtime::Result<Result<Resource<Producer>, Failure>> {
        Ok(Err(not_granted()))
    }

    fn send(
        &mut self,
        _producer: Resource<Producer>,
        _batch: Resource<Batch>,
        _options: SendOptions,
    ) -> wasmtime::Result<Result<(), Failure>> {
        Ok(Err(not_granted()))
    }

    fn drop(&mut self, producer: Resource<Producer>) -> wasmtime::Result<()> {
        self.table.delete(producer)?;
        Ok(())
    }
}

impl HostConsumer for State {
    fn subscribe(&mut self, _subscription: Subscription) -> wasmtime::Result<Result<Resource<Consumer>, Failure>> {
        Ok(Err(not_granted()))
    }

    async fn poll(
        &mut self,
        _consumer: Resource<Consumer>,
        _max_events: u32,
        _max_bytes: u32,
        _wait_ms: u32,
    ) -> wasmtime::Result<Result<Fetch, Failure>> {
        Ok(Err(not_granted()))
    }

    fn drop(&mut self, consumer: Resource<Consumer>) -> wasmtime::Result<()> {
        self.table.delete(consumer)?;
        Ok(())
    }
}
