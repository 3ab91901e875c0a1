//! Room in a channel: what puts wait for when it is full.

use std::collections::VecDeque;
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::ChannelError;
use crate::event::Batch;

/// How much a channel holds before puts wait.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub events: u64,
    pub bytes: u64,
}

/// Events and bytes of a put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub events: u64,
    pub bytes: u64,
}

impl Amount {
    pub fn of(batch: &Batch) -> Self {
        Self { events: batch.count() as u64, bytes: batch.byte_size() as u64 }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.events -= other.events;
        self.bytes -= other.bytes;
    }
}

/// The room of one channel, in events and bytes at once.
///
/// Puts that find none wait in the order in which they came: a large one is not starved by small ones. A put larger than the
/// whole channel is let in once the channel is empty.
#[derive(Debug)]
pub struct Room {
    channel: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    capacity: Capacity,
    /// By puts, from their reservation until it is dropped.
    reserved: Amount,
    /// By a log that counts for itself.
    logged: Amount,
    waiting: VecDeque<Waiting>,
    /// Given to each put that waits, so that it finds itself in the queue.
    ticket: u64,
    /// Whoever wants to know that a put waits.
    pressed: Vec<Arc<Notify>>,
    failed: Option<ChannelError>,
    /// Events for which room was asked.
    asked: u64,
    /// Since when somebody has waited, and how long somebody has in all.
    full_since: Option<Instant>,
    full_for: Duration,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    amount: Amount,
    answer: oneshot::Sender<Result<(), ChannelError>>,
}

impl Room {
    pub fn new(channel: Arc<str>, capacity: Capacity) -> Arc<Self> {
        let state = State {
            capacity,
            reserved: Amount::default(),
            logged: Amount::default(),
            waiting: VecDeque::new(),
            ticket: 0,
            pressed: Vec::new(),
            failed: None,
            asked: 0,
            full_since: None,
            full_for: Duration::ZERO,
        };
        Arc::new(Self { channel, state: Mutex::new(state) })
    }

    /// What is held or reserved.
    pub fn held(&self) -> Amount {
        self.state.lock().held()
    }

    /// What the channel's log holds now, beside what is reserved; lets in who waits, if there is room.
    pub fn set_logged(&self, logged: Amount) {
        let mut state = self.state.lock();
        state.logged = logged;
        self.admit(&mut state);
    }

    /// Changes how much there is room for, and lets in who waits, if there is room now. What is held stays.
    pub fn set_capacity(&self, capacity: Capacity) {
        let mut state = self.state.lock();
        state.capacity = capacity;
        self.admit(&mut state);
    }

    /// Waits for room.
    ///
    /// Cancel: dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// When the channel has failed: the room would never come.
    pub async fn reserve(self: &Arc<Self>, amount: Amount) -> Result<Reserved, ChannelError> {
        let mut place = {
            let mut state = self.state.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.asked += amount.events;
            if state.waiting.is_empty() && self.fits(&state, amount) {
                state.reserved += amount;
                return Ok(Reserved { room: self.clone(), amount });
            }
            let (answer, granted) = oneshot::channel();
            state.ticket += 1;
            let ticket = state.ticket;
            state.waiting.push_back(Waiting { ticket, amount, answer });
            state.note_waiting();
            state.pressed.iter().for_each(|pressed| pressed.notify_one());
            Place { room: self, ticket, amount, granted: Some(granted) }
        };
        let granted = place.granted.as_mut().expect("it has just been made").await;
        place.granted = None;
        granted.expect("whoever takes a put off the queue answers it")?;
        Ok(Reserved { room: self.clone(), amount })
    }

    /// Room that is there now.
    ///
    /// # Errors
    /// When there is not enough, or others wait for it, or the channel has failed.
    pub fn try_reserve(self: &Arc<Self>, amount: Amount) -> Result<Reserved, ChannelError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.asked += amount.events;
        if !state.waiting.is_empty() || !self.fits(&state, amount) {
            return Err(ChannelError::Full {
                channel: self.channel.clone(),
                held: state.held().events,
                capacity: state.capacity.events,
            });
        }
        state.reserved += amount;
        Ok(Reserved { room: self.clone(), amount })
    }

    fn release(&self, amount: Amount) {
        let mut state = self.state.lock();
        state.reserved -= amount;
        self.admit(&mut state);
    }

    /// Nobody is let in any more: those who wait and those who come are answered this.
    pub fn fail(&self, error: ChannelError) {
        let mut state = self.state.lock();
        for waiting in state.waiting.drain(..) {
            _ = waiting.answer.send(Err(error.clone()));
        }
        state.note_waiting();
        state.failed.get_or_insert(error);
    }

    /// Events for which room was asked, and how long some put or other has waited for it, in all.
    pub fn asked(&self) -> (u64, Duration) {
        let state = self.state.lock();
        (state.asked, state.full_for + state.full_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    pub fn capacity(&self) -> Capacity {
        self.state.lock().capacity
    }

    /// Why nobody is let in any more.
    pub fn failure(&self) -> Option<ChannelError> {
        self.state.lock().failed.clone()
    }

    /// Tells when puts have to wait for room.
    pub fn pressure(self: &Arc<Self>) -> Pressure {
        let pressed = Arc::new(Notify::new());
        self.state.lock().pressed.push(pressed.clone());
        Pressure { room: self.clone(), pressed }
    }

    fn fits(&self, state: &State, amount: Amount) -> bool {
        let held = state.held();
        // A log on disk may hold bytes of puts without events: nobody settles those, so they must not be waited for.
        held.events == 0
            || held.events + amount.events <= state.capacity.events && held.bytes + amount.bytes <= state.capacity.bytes
    }

    fn admit(&self, state: &mut State) {
        while let Some(first) = state.waiting.front()
            && self.fits(state, first.amount)
        {
            let first = state.waiting.pop_front().expect("there is one");
            // Who is gone without having been taken off gives up its place right now, and comes here again.
            if first.answer.send(Ok(())).is_ok() {
                state.reserved += first.amount;
            }
        }
        state.note_waiting();
    }
}

impl State {
    /// Counts the time in which the queue is not empty.
    fn note_waiting(&mut self) {
        match self.waiting.is_empty() {
            true => self.full_for += self.full_since.take().map_or(Duration::ZERO, |since| since.elapsed()),
            false => _ = self.full_since.get_or_insert_with(Instant::now),
        }
    }

    fn held(&self) -> Amount {
        let mut held = self.reserved;
        held += self.logged;
        held
    }
}

/// A put's place in the queue, given up when it is dropped.
struct Place<'r> {
    room: &'r Arc<Room>,
    ticket: u64,
    amount: Amount,
    /// Nothing once the answer has been taken.
    granted: Option<oneshot::Receiver<Result<(), ChannelError>>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(mut granted) = self.granted.take() else { return };
        let mut state = self.room.state.lock();
        state.waiting.retain(|waiting| waiting.ticket != self.ticket);
        if let Ok(Ok(())) = granted.try_recv() {
            state.reserved -= self.amount;
        }
        self.room.admit(&mut state);
    }
}

/// Room that a put has; given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    room: Arc<Room>,
    amount: Amount,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.release(self.amount);
    }
}

/// Tells a reader that holds events back when puts have to wait for room.
#[derive(Debug)]
pub struct Pressure {
    room: Arc<Room>,
    pressed: Arc<Notify>,
}

impl Pressure {
    /// Waits until a put has to wait for room.
    pub async fn rises(&self) {
        while self.room.state.lock().waiting.is_empty() {
            self.pressed.notified().await;
        }
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.room.state.lock().pressed.retain(|pressed| !Arc::ptr_eq(pressed, &self.pressed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(events: u64) -> Arc<Room> {
        Room::new("events".into(), Capacity { events, bytes: 1000 })
    }

    fn events(events: u64) -> Amount {
        Amount { events, bytes: events }
    }

    #[tokio::test]
    async fn who_gives_up_its_place_lets_the_next_in() {
        let room = room(4);
        let held = room.reserve(events(3)).await.unwrap();
        let mut large = polled(room.reserve(events(4)));
        let mut small = polled(room.reserve(events(1)));
        assert!(large.poll().is_none() && small.poll().is_none(), "the small one waits behind the large one");
        drop(large);
        assert!(small.poll().is_some());
        drop(held);
    }

    #[tokio::test]
    async fn what_was_granted_and_never_taken_is_given_back() {
        let room = room(2);
        let held = room.reserve(events(2)).await.unwrap();
        let mut waiting = polled(room.reserve(events(2)));
        assert!(waiting.poll().is_none());
        drop(held);
        assert_eq!(room.held(), events(2));
        drop(waiting);
        assert_eq!(room.held(), events(0));
    }

    struct Polled<F>(std::pin::Pin<Box<F>>);

    fn polled<F: Future>(future: F) -> Polled<F> {
        Polled(Box::pin(future))
    }

    impl<F: Future> Polled<F> {
        fn poll(&mut self) -> Option<F::Output> {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            match self.0.as_mut().poll(&mut context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            }
        }
    }
}
