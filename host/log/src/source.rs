//! A source as the running logs know it: its numbers, its position, and its puts that are under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::channel::Channel;
use crate::error::Poisoned;
use crate::put::{ChannelId, Done, PositionChange};
use crate::track::{apply, whole};

/// Invariant: puts complete in the order of their numbers, whatever their channels are. So "complete up to n" says all there
/// is to say, and a position never has a hole.
pub struct Source {
    pub name: Arc<str>,
    /// Puts up to this number are durable in all their channels.
    complete: AtomicU64,
    pub order: Mutex<Order>,
    /// Held while [`Done`]s are called, so that they are called in order. Never taken by a put.
    completing: Mutex<()>,
}

#[derive(Default)]
pub struct Order {
    /// The greatest number ever used.
    pub last_used: u64,
    /// As of that put.
    pub position: BTreeMap<Bytes, Bytes>,
    /// The channels that have every change of the position; others get all of it with their next put.
    pub current: Vec<ChannelId>,
    pub under_way: VecDeque<Arc<UnderWay>>,
    pub failed: Option<Poisoned>,
}

/// A put that was accepted.
pub struct UnderWay {
    pub number: u64,
    pub source: Arc<Source>,
    channels: Vec<Weak<Channel>>,
    /// Channels in which it is not durable yet.
    missing: AtomicUsize,
    complete: AtomicBool,
    done: Mutex<Option<Done>>,
}

impl Source {
    pub fn new(name: Arc<str>, complete: u64, order: Order) -> Arc<Self> {
        Arc::new(Self { name, complete: complete.into(), order: Mutex::new(order), completing: Mutex::default() })
    }

    pub fn complete(&self) -> u64 {
        self.complete.load(Ordering::Acquire)
    }

    /// Completes the puts at the front that are durable everywhere, lets their channels' readers have them, and tells.
    pub fn advance(&self) {
        let _completing = self.completing.lock();
        let mut complete = Vec::new();
        {
            let mut order = self.order.lock();
            while let Some(put) = order.under_way.pop_front_if(|put| put.missing.load(Ordering::Acquire) == 0) {
                assert!(put.number > self.complete(), "put {} of `{}` completes twice", put.number, self.name);
                self.complete.store(put.number, Ordering::Release);
                put.complete.store(true, Ordering::Release);
                complete.push(put);
            }
        }
        let mut advanced: Vec<Arc<Channel>> = Vec::new();
        for channel in complete.iter().flat_map(|put| &put.channels).filter_map(Weak::upgrade) {
            if !advanced.iter().any(|other| Arc::ptr_eq(other, &channel)) {
                channel.advance_readable();
                advanced.push(channel);
            }
        }
        complete.iter().for_each(|put| put.tell(Ok(())));
    }

    /// Fails every put that is under way, and all that follow. Their channels cannot go on either: what readers there are
    /// waiting for will never be complete.
    pub fn fail(&self, poisoned: &Poisoned) {
        let _completing = self.completing.lock();
        let failed: Vec<_> = {
            let mut order = self.order.lock();
            order.failed.get_or_insert_with(|| poisoned.clone());
            order.under_way.drain(..).collect()
        };
        for channel in failed.iter().flat_map(|put| &put.channels).filter_map(Weak::upgrade) {
            channel.note_poison(poisoned);
        }
        failed.iter().for_each(|put| put.tell(Err(poisoned.clone())));
    }
}

impl Order {
    /// What each channel must be told of a change of the position: a channel that missed earlier ones gets all of it.
    pub fn changes(&self, channels: &[ChannelId], change: &PositionChange) -> Vec<PositionChange> {
        let behind = |id: &ChannelId| !self.current.contains(id);
        let all = channels.iter().any(behind).then(|| {
            let mut position = self.position.clone();
            apply(&mut position, change);
            whole(&position)
        });
        let told = |id: &ChannelId| all.clone().filter(|_| behind(id)).unwrap_or_else(|| change.clone());
        channels.iter().map(told).collect()
    }

    /// Takes up the put with the newest number, which every channel is about to be given.
    pub fn add(&mut self, source: &Arc<Source>, channels: &[Arc<Channel>], done: Done) -> Arc<UnderWay> {
        let put = Arc::new(UnderWay {
            number: self.last_used,
            source: source.clone(),
            channels: channels.iter().map(Arc::downgrade).collect(),
            missing: channels.len().into(),
            complete: false.into(),
            done: Mutex::new(Some(done)),
        });
        self.under_way.push_back(put.clone());
        put
    }
}

impl UnderWay {
    /// Notes that one more channel has it. The source's [`advance`](Source::advance) has to follow.
    pub fn durable_here(&self) {
        let before = self.missing.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "put {} of `{}` became durable in a channel twice", self.number, self.source.name);
    }

    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    fn tell(&self, outcome: Result<(), Poisoned>) {
        let done = self.done.lock().take();
        if let Some(done) = done {
            done(outcome);
        }
    }
}
