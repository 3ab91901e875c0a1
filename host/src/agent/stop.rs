//! Stopping: one signal that every runner of a pipeline listens to.

use tokio::sync::watch;

/// How far a stop has come. Only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Only one source leaves, and another runner takes its place: what it has brought is put, and whatever is not settled yet is
    /// handed over.
    Leaving,
    /// Sources stop polling; what is on its way is delivered.
    Stopping,
    /// What is not settled by now will not be: sources stop waiting for it.
    Abandoned,
}

/// The agent's end of the signal.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Phase>);

/// A runner's end of the signal.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<Phase>);

impl Default for Stopper {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl Stopper {
    pub fn signal(&self) -> StopSignal {
        StopSignal(self.0.subscribe())
    }

    /// Moves the stop on; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let moves = *now < phase;
            *now = (*now).max(phase);
            moves
        });
    }
}

impl StopSignal {
    /// Whether nothing more is to be polled.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() >= Phase::Leaving
    }

    pub async fn stopping(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Whether another runner takes this one's place.
    pub fn is_leaving(&self) -> bool {
        *self.0.borrow() == Phase::Leaving
    }

    pub async fn abandoned(&self) {
        self.reached(Phase::Abandoned).await;
    }

    async fn reached(&self, phase: Phase) {
        // An agent that is gone cannot be waited for any more: that is a stop too.
        _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}
