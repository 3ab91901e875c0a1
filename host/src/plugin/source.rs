//! One instance of a source.

use std::time::Duration;

use bytes::Bytes;

use super::bindings::exports::wasmflow::plugin::source::{Guest, Progress as WitProgress};
use super::bindings::wasmflow::plugin::positions;
use super::instance::{Answer, Instance, printed, within};
use super::{Broken, CallError, Polled, Progress, Worn, output};
use crate::capability::Export;
use crate::capability::clock::Clock;
use crate::capability::events::{self, OutputBound};
use crate::metrics::StageCounters;
use crate::position::{Part, Position};

/// Limit: how much longer than its wait a `poll` may take; `limits.call` where that is shorter.
const POLL_GRACE: Duration = Duration::from_secs(10);

/// Limit: the parts of a position that change in one poll. Ten thousand files at a hundred bytes are a megabyte.
const MAX_POSITION_BYTES: usize = 8 << 20;

/// A source at work. Dropping a call's future in the middle ends the instance; so does a trap.
pub struct SourceInstance {
    instance: Instance<Guest>,
    max_event_bytes: usize,
}

impl SourceInstance {
    pub(super) fn new(instance: Instance<Guest>, max_event_bytes: usize) -> Self {
        Self { instance, max_event_bytes }
    }

    /// Opens the source where it is to go on. Called once, first.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn open(&mut self, config: &str, position: &Position) -> Result<(), CallError> {
        let parts: Vec<positions::Part> = position.parts().into_iter().map(positions::Part::from).collect();
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, deadline, async {
            let answer = guest.call_open(&mut *store, config, &parts).await?;
            printed(store, Ok(answer)).await
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Asks for up to `max_events` events and about `max_bytes` bytes, waiting at most `wait` for the first.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn poll(&mut self, max_events: u32, max_bytes: u32, wait: Duration) -> Result<Progress, CallError> {
        let mut bound = OutputBound::for_input(max_events as usize, max_bytes as usize);
        bound.bytes = bound.bytes.max(self.max_event_bytes + (1 << 20));
        let mut live = self.instance.begin(Export::Poll, bound)?;
        let deadline = wait + self.instance.limits().call.min(POLL_GRACE);
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let (store, guest, cpu) = live.parts();
        store.data().clock.begin(wait);
        let (counters, max_event_bytes) = (self.instance.counters(), self.max_event_bytes);
        let answer = within(cpu, deadline, async {
            let answer = guest.call_poll(&mut *store, max_events, max_bytes, wait_ms).await?;
            let answer = match answer {
                Ok(progress) => Ok(checked(store.data_mut(), progress, max_events, max_event_bytes, counters)?),
                Err(failure) => Err(failure),
            };
            printed(store, Ok(answer)).await
        })
        .await;
        self.instance.end(live, answer)
    }

    /// Tells the source that the first `batches` batches it brought are settled.
    ///
    /// # Errors
    /// The plugin's failure, or its end.
    pub async fn acked(&mut self, batches: u64) -> Result<(), CallError> {
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer: Answer<()> = within(cpu, deadline, guest.call_acked(store, batches)).await;
        self.instance.end(live, answer)
    }

    /// Lets the source end in order. Called once, last.
    ///
    /// # Errors
    /// Its end, when that comes in a trap.
    pub async fn close(&mut self) -> Result<(), CallError> {
        let mut live = self.instance.begin(Export::Other, OutputBound::for_input(0, 0))?;
        let deadline = self.instance.limits().call;
        let (store, guest, cpu) = live.parts();
        let answer = within(cpu, deadline, guest.call_close(store)).await;
        self.instance.end(live, answer.map(Ok))
    }

    /// The clock it waits by: whoever hurries it has a poll that waits return at once, or as soon as the guest can.
    pub fn clock(&self) -> Clock {
        self.instance.clock().clone()
    }

    /// Why a fresh instance should take its place, if one should.
    pub fn worn(&self) -> Option<Worn> {
        self.instance.worn()
    }
}

fn checked(
    host: &mut impl events::Host,
    progress: WitProgress,
    max_events: u32,
    max_event_bytes: usize,
    counters: &StageCounters,
) -> wasmtime::Result<Progress> {
    let polled = match progress {
        WitProgress::Events(polled) => polled,
        WitProgress::Idle => return Ok(Progress::Idle),
        WitProgress::Finished => return Ok(Progress::Finished),
    };
    let brought = events::take(host, polled.batch)?;
    let count = brought.events.count();
    if count > max_events as usize {
        return Err(Broken::contract(format!("poll brought {count} events; {max_events} were asked for")).into());
    }
    let position: Vec<Part> = polled.position.into_iter().map(Part::from).collect();
    let bytes = position.iter().map(|part| part.key.len() + part.value.as_ref().map_or(0, Bytes::len)).sum::<usize>();
    if bytes > MAX_POSITION_BYTES {
        let most = MAX_POSITION_BYTES;
        return Err(
            Broken::contract(format!("poll moved {bytes} bytes of the position; at most {most} may change")).into()
        );
    }
    let mut rejected = brought.rejected;
    let refused = rejected.len();
    let batch = output::without_oversized(brought.events.as_taken(), max_event_bytes, &mut rejected);
    counters.oversize.add(rejected.len() - refused);
    Ok(Progress::Events(Polled { batch, rejected, position }))
}

impl From<Part> for positions::Part {
    fn from(part: Part) -> Self {
        Self { key: part.key.into(), value: part.value.map(Vec::from) }
    }
}

impl From<positions::Part> for Part {
    fn from(part: positions::Part) -> Self {
        Self { key: part.key.into(), value: part.value.map(Into::into) }
    }
}
