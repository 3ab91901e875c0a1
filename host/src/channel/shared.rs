//! One cursor for several takers: the workers of a sink.
//!
//! Each take goes to one of them, and what each has settled is noted; the cursor follows in order, over what all of them have settled.
//! A worker that is to be given something again is given it from here: the reader itself is never rolled back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Channel, ChannelError, Pressure, Reader, TakeLimits, Taken};

/// How long a worker that only waits for the end has the reader, and how often: the others take meanwhile.
const LOOK: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A worker's share of a reader.
#[derive(Debug)]
pub struct SharedReader {
    share: Arc<Share>,
    worker: u32,
    /// Up to where this one has taken.
    taken: u64,
}

#[derive(Debug)]
struct Share {
    channel: Channel,
    /// Held by whoever waits for the next events.
    reader: tokio::sync::Mutex<Reader>,
    /// What was taken, oldest first, up to what the cursor has passed.
    out: Mutex<VecDeque<Out>>,
    /// Something was settled while another waited with the reader.
    settled: Notify,
}

#[derive(Debug)]
struct Out {
    worker: u32,
    taken: Taken,
    state: OutState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutState {
    Given,
    /// To be given to its worker again.
    Again,
    Settled,
}

impl SharedReader {
    /// A share for each of so many workers.
    pub fn of(reader: Reader, workers: u32) -> Vec<Self> {
        let (channel, taken) = (reader.channel(), reader.taken_up_to());
        let (reader, out) = (tokio::sync::Mutex::new(reader), Mutex::default());
        let share = Arc::new(Share { channel, reader, out, settled: Notify::new() });
        (0..workers).map(|worker| Self { share: share.clone(), worker, taken }).collect()
    }

    pub fn channel(&self) -> &Channel {
        &self.share.channel
    }

    /// Cancel: dropping the future takes nothing.
    pub async fn take(&mut self, limits: &TakeLimits) -> Result<Option<Taken>, ChannelError> {
        if let Some(again) = self.share.again(self.worker) {
            return Ok(Some(again));
        }
        let taken = self.share.take(self.worker, limits).await;
        self.share.follow();
        if let Ok(Some(taken)) = &taken {
            self.taken = taken.next;
        }
        taken
    }

    pub fn pressure(&self) -> Pressure {
        match &self.share.channel {
            Channel::Memory(channel) => channel.room().pressure(),
            Channel::File(channel) => channel.room().pressure(),
        }
    }

    pub async fn ended(&self) {
        loop {
            let has_ended = {
                let reader = self.share.reader.lock().await;
                tokio::time::timeout(LOOK, reader.ended()).await.is_ok()
            };
            self.share.follow();
            if has_ended {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub fn taken_up_to(&self) -> u64 {
        self.taken
    }

    /// False while another waits with the reader, who would know.
    pub fn is_at_end(&self) -> bool {
        self.share.reader.try_lock().is_ok_and(|reader| reader.is_at_end())
    }

    /// Commits what this worker has taken before `next`.
    pub fn settle(&self, next: u64) {
        self.each_of_ours(|out| {
            if out.taken.next <= next {
                out.state = OutState::Settled;
            }
        });
        self.share.follow();
    }

    /// What this worker has taken and not settled comes to it again, in order.
    pub fn rollback(&self) {
        self.each_of_ours(|out| {
            if out.state == OutState::Given {
                out.state = OutState::Again;
            }
        });
    }

    fn each_of_ours(&self, change: impl Fn(&mut Out)) {
        self.share.out.lock().iter_mut().filter(|out| out.worker == self.worker).for_each(change);
    }
}

impl Share {
    fn again(&self, worker: u32) -> Option<Taken> {
        let mut out = self.out.lock();
        let again = out.iter_mut().find(|out| out.worker == worker && out.state == OutState::Again)?;
        again.state = OutState::Given;
        Some(again.taken.clone())
    }

    async fn take(&self, worker: u32, limits: &TakeLimits) -> Result<Option<Taken>, ChannelError> {
        let mut reader = self.reader.lock().await;
        loop {
            // A take that is given up for a settlement has taken nothing.
            let taken = tokio::select! {
                biased;
                () = self.settled.notified() => {
                    self.settle_what_is(&mut reader);
                    continue;
                }
                taken = reader.take(limits) => taken?,
            };
            if let Some(taken) = &taken {
                self.out.lock().push_back(Out { worker, taken: taken.clone(), state: OutState::Given });
            }
            return Ok(taken);
        }
    }

    /// Has the cursor follow what is settled. Whoever waits with the reader is told to.
    ///
    /// Invariant: what is settled before this is called is settled in the reader soon. Either the reader is free, or its holder hears the
    /// notice, or calls this itself once it has let go.
    fn follow(&self) {
        while self.is_behind() {
            match self.reader.try_lock() {
                Ok(mut reader) => self.settle_what_is(&mut reader),
                Err(_) => return self.settled.notify_one(),
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.out.lock().front().is_some_and(|out| out.state == OutState::Settled)
    }

    fn settle_what_is(&self, reader: &mut Reader) {
        let mut next = None;
        {
            let mut out = self.out.lock();
            while let Some(settled) = out.pop_front_if(|out| out.state == OutState::Settled) {
                next = Some(settled.taken.next);
            }
        }
        next.into_iter().for_each(|next| reader.settle(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Capacity, MemoryChannel};
    use crate::event::Batch;

    const LIMITS: TakeLimits = TakeLimits { events: 2, bytes: 1000, wait: Duration::ZERO };

    /// A channel with so many events, and its reader in so many shares.
    async fn shared(events: usize, workers: u32) -> (Channel, Vec<SharedReader>) {
        let channel = Channel::Memory(MemoryChannel::new("events", 0, Capacity { events: 100, bytes: 10_000 }));
        let reader = channel.reader("sink").expect("it is the first");
        let bodies: Vec<_> = (0..events).map(|number| number.to_string()).collect();
        // A channel lets go of a put as a whole: each take is one.
        for bodies in bodies.chunks(2) {
            let put = channel.begin_put(Batch::new(bodies.iter().map(|body| body.as_bytes()).collect()));
            let put = vec![put.await.expect("there is room")];
            crate::channel::commit_puts(put, crate::channel::PutNote::of("source"), &Arc::default())
                .expect("memory takes it");
        }
        (channel, SharedReader::of(reader, workers))
    }

    async fn taken(reader: &mut SharedReader) -> (u64, u64) {
        let taken = reader.take(&LIMITS).await.expect("memory can be read").expect("there is more");
        (taken.first, taken.next)
    }

    #[tokio::test]
    async fn the_cursor_follows_in_order_what_the_workers_settle_in_any() {
        let (channel, mut workers) = shared(6, 2).await;
        assert_eq!(taken(&mut workers[0]).await, (0, 2));
        assert_eq!(taken(&mut workers[1]).await, (2, 4));
        assert_eq!(taken(&mut workers[1]).await, (4, 6));
        workers[1].settle(4);
        assert_eq!(channel.held().events, 6);
        workers[0].settle(2);
        assert_eq!(channel.held().events, 2);
        workers[1].settle(6);
        assert_eq!(channel.held().events, 0);
    }

    #[tokio::test]
    async fn what_a_worker_rolls_back_comes_to_it_again_and_to_no_other() {
        let (channel, mut workers) = shared(8, 2).await;
        assert_eq!(taken(&mut workers[0]).await, (0, 2));
        assert_eq!(taken(&mut workers[1]).await, (2, 4));
        assert_eq!(taken(&mut workers[0]).await, (4, 6));
        workers[0].rollback();
        assert_eq!(taken(&mut workers[1]).await, (6, 8));
        assert_eq!(taken(&mut workers[0]).await, (0, 2));
        workers[0].settle(2);
        assert_eq!(taken(&mut workers[0]).await, (4, 6));
        workers[0].settle(6);
        workers[1].settle(8);
        assert_eq!(channel.held().events, 0);
    }

    #[tokio::test]
    async fn what_is_settled_while_another_waits_with_the_reader_moves_the_cursor_at_once() {
        let (channel, mut workers) = shared(2, 2).await;
        let writer = channel.writer();
        let mut waiting = workers.pop().expect("there are two");
        assert_eq!(taken(&mut workers[0]).await, (0, 2));
        let waits = tokio::spawn(async move { waiting.take(&LIMITS).await.map(|taken| taken.is_none()) });
        tokio::task::yield_now().await;
        workers[0].settle(2);
        tokio::time::timeout(Duration::from_secs(60), async {
            while channel.held().events > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the cursor has moved");
        drop(writer);
        assert!(waits.await.expect("it does not panic").expect("memory can be read"), "the log has ended");
    }
}
