//! Where a runner takes up what a swap has ready for it: looked at between two batches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::SwapError;
use super::shadow::Tap;
use super::watch::Trial;
use crate::plugin::InterceptorInstance;
use crate::stage::Stage;

/// A runner's bell: one for a source or a sink, with all the interceptors on its road.
///
/// Cost: while it is silent, one atomic read for each batch.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicBool,
    /// What the runner waits on anyway.
    wake: Arc<Notify>,
}

impl Bell {
    pub fn new(wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { rung: AtomicBool::new(false), wake })
    }

    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Called before the points are looked at, so that whatever rings after that is seen the next time.
    pub fn hush(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// An order could not be taken up yet: it is looked for again after the next batch.
    pub fn leave_rung(&self) {
        self.rung.store(true, Ordering::Release);
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// One use of a stage, as swaps reach it. The same through all generations.
#[derive(Debug, Default)]
pub struct SwitchPoint(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bell: Option<Arc<Bell>>,
    /// Limit: one. A stage has one swap at a time, and a way back replaces what was not taken up.
    order: Option<Order>,
    is_paused: bool,
    is_closed: bool,
}

/// What a runner is to do before its next batch.
pub enum Order {
    Switch(Box<Switch>),
    /// Give copies of batches to a shadow.
    Shadow(Tap),
    /// Of a source or a sink.
    Try(TryOut),
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(switch) => write!(f, "switch to generation {} of {:?}", switch.stage.generation, switch.stage),
            Self::Shadow(_) => f.write_str("shadow"),
            Self::Try(tried) => write!(f, "try {:?}", tried.stage),
        }
    }
}

/// To go from one generation to another.
pub struct Switch {
    /// The stage as the new generation has it.
    pub stage: Arc<Stage>,
    /// An interceptor's, opened beside the serving one. Nothing on the way back: it is opened when it is needed.
    pub ready: Option<InterceptorInstance>,
    /// Nothing: nobody compares.
    pub trial: Option<Arc<Trial>>,
    /// Invariant: nothing is awaited between taking the new generation up and answering, so whoever gets no answer knows that
    /// the old one serves.
    pub answer: oneshot::Sender<Result<Switched, SwapError>>,
}

/// To make way for another generation, open that, close it again, and go on with the one that serves.
pub struct TryOut {
    pub stage: Arc<Stage>,
    pub answer: oneshot::Sender<Result<(), SwapError>>,
}

/// A use has switched.
pub struct Switched {
    /// From the boundary between two batches to the new generation being ready.
    pub pause: Duration,
    /// How much of that the plugins' own drain, close and open took.
    pub plugin_time: Duration,
    /// To be closed off the road of the events.
    pub old: Option<InterceptorInstance>,
}

impl SwitchPoint {
    /// A runner begins to look here, until what this answers is dropped.
    pub fn attach(self: &Arc<Self>, bell: &Arc<Bell>) -> Attached {
        let mut inner = self.0.lock();
        inner.bell = Some(bell.clone());
        if inner.order.is_some() || inner.is_paused {
            bell.ring();
        }
        Attached { point: self.clone(), wake: bell.wake.clone() }
    }

    /// Leaves an order in the place of whatever was there and not taken up. False: the runner is gone.
    pub fn order(&self, order: Order) -> bool {
        let mut inner = self.0.lock();
        if inner.is_closed {
            return false;
        }
        inner.order = Some(order);
        inner.bell.iter().for_each(|bell| bell.ring());
        true
    }

    /// Takes an order back. Nothing: the runner has taken it up, or is gone.
    pub fn withdraw(&self) -> Option<Order> {
        self.0.lock().order.take()
    }

    /// Has the runner stop before its next batch, or go on.
    pub fn set_paused(&self, paused: bool) {
        let mut inner = self.0.lock();
        inner.is_paused = paused;
        inner.bell.iter().for_each(|bell| bell.ring());
    }

    pub fn is_paused(&self) -> bool {
        self.0.lock().is_paused
    }

    /// The runner has come to its end.
    pub fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }
}

/// A runner that looks at a point. Dropped with the runner: an order that is there then is never taken up.
#[derive(Debug)]
pub struct Attached {
    point: Arc<SwitchPoint>,
    wake: Arc<Notify>,
}

impl Attached {
    pub fn take(&self) -> Option<Order> {
        self.point.0.lock().order.take()
    }

    pub fn has_order(&self) -> bool {
        self.point.0.lock().order.is_some()
    }

    pub fn is_paused(&self) -> bool {
        self.point.is_paused()
    }

    /// Resolves when there is something to do: for a runner that waits for its plugin to open.
    ///
    /// Cancel: the order stays.
    pub async fn ordered(&self) {
        while !self.has_order() {
            self.wake.notified().await;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut inner = self.point.0.lock();
        inner.is_closed = true;
        inner.bell = None;
        inner.order = None;
    }
}
