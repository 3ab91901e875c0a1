//! An open loop: every event has the moment at which it was meant to be sent, whatever happened to those before it, and its latency
//! counts from then. A stall of the sender or of the pipeline is so met by all events that were due meanwhile (no coordinated
//! omission).

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::spread::percentile;

/// How often the sender looks what is due: no event is late by more than that because of it.
const TICK: Duration = Duration::from_micros(250);
/// What comes first is not counted: connections, caches and batch sizes settle.
const WARM_UP: Duration = Duration::from_millis(800);
/// Events that a reader notes under one lock.
const NOTED_AT_ONCE: usize = 4096;
/// Events there is room for from the start: a reader that moves its notes to a larger place is late for milliseconds.
const ROOM: u64 = 1 << 24;
/// Of a body: twenty digits and filler.
pub const BODY_BYTES: usize = 100;

/// Events a second, for so long.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: Instant,
    rate: f64,
    span: Duration,
}

impl Schedule {
    pub fn new(start: Instant, rate: f64, span: Duration) -> Self {
        Self { start, rate, span: WARM_UP + span }
    }

    /// For a sender that keeps to no rate.
    pub fn without_end(start: Instant) -> Self {
        Self { start, rate: f64::MAX, span: Duration::MAX }
    }

    pub fn events(&self) -> u64 {
        (self.rate * self.span.as_secs_f64()) as u64
    }

    /// When this event is meant to be sent, in seconds from the start.
    fn due(&self, number: u64) -> f64 {
        number as f64 / self.rate
    }

    /// Sends every event when it is due; `send` gets the numbers of those that are due together.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn keep(&self, mut send: impl FnMut(std::ops::Range<u64>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (mut sent, all) = (0, self.events());
        while sent < all {
            let due = all.min((self.start.elapsed().as_secs_f64() * self.rate) as u64 + 1);
            if due > sent {
                send(sent..due)?;
                sent = due;
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// How late the event of this number is that came then, in milliseconds; nothing where it does not count.
    fn lateness(&self, number: u64, came: Instant) -> Option<f64> {
        let due = self.due(number);
        let counts = due >= WARM_UP.as_secs_f64();
        counts.then(|| 1e3 * (came.duration_since(self.start).as_secs_f64() - due).max(0.0))
    }
}

/// The body of an event: its number in twenty digits, then filler. Cheap, since sender and pipeline share the machine.
pub fn push_body(out: &mut Vec<u8>, mut number: u64) {
    let start = out.len();
    out.resize(start + BODY_BYTES, b'x');
    for place in (start..start + 20).rev() {
        out[place] = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The number in a body, whatever stands around it.
pub fn number_in(body: &[u8]) -> Option<u64> {
    let digits = body.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.into_iter().try_fold(None, |number: Option<u64>, digit| {
        Some(Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?))
    })?
}

/// What has arrived, and how late.
#[derive(Debug)]
pub struct Arrivals {
    schedule: Schedule,
    count: AtomicU64,
    millis: Mutex<Vec<f64>>,
}

/// The reader's end: it notes many events at once.
#[derive(Debug)]
pub struct Recorder<A: Deref<Target = Arrivals>> {
    arrivals: A,
    millis: Vec<f64>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Arrivals {
    pub fn of(schedule: Schedule) -> Self {
        let millis = Vec::with_capacity(schedule.events().min(ROOM) as usize);
        Self { schedule, count: AtomicU64::new(0), millis: Mutex::new(millis) }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Of all events that count, once all have arrived; nothing where none counts.
    ///
    /// # Panics
    /// When another thread has panicked.
    pub fn latencies(&self) -> Option<Latencies> {
        let mut millis = self.millis.lock().expect("no holder panics").clone();
        millis.sort_by(f64::total_cmp);
        let at = |percent| percentile(&millis, percent);
        (!millis.is_empty()).then(|| Latencies { p50: at(50.0), p99: at(99.0), p999: at(99.9) })
    }
}

impl<A: Deref<Target = Arrivals>> Recorder<A> {
    pub fn of(arrivals: A) -> Self {
        Self { arrivals, millis: Vec::with_capacity(NOTED_AT_ONCE) }
    }

    /// Notes one event by its body, and when the reader had it; what has no number is none.
    ///
    /// # Panics
    /// When another thread has panicked.
    pub fn arrived(&mut self, body: &[u8], came: Instant) {
        let Some(number) = number_in(body) else { return };
        let schedule = &self.arrivals.schedule;
        self.millis.extend(schedule.lateness(number, came));
        let is_last = self.arrivals.count.load(Ordering::Relaxed) + 1 == schedule.events();
        if is_last || self.millis.len() == NOTED_AT_ONCE {
            self.arrivals.millis.lock().expect("no holder panics").append(&mut self.millis);
        }
        // Behind the note: whoever counts all of them finds all of them.
        self.arrivals.count.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_whatever_stands_around_it() {
        let mut body = b"prefix:".to_vec();
        push_body(&mut body, 4711);
        assert_eq!(number_in(&body), Some(4711));
        assert_eq!((number_in(b"<0>"), number_in(b"none"), number_in(b"")), (Some(0), None, None));
        assert_eq!(number_in(b"99999999999999999999999"), None);
    }

    #[test]
    fn a_stall_is_met_by_every_event_that_was_due_meanwhile() {
        // Begun a second ago: all that was due since is a second late at most, and the first of them that much.
        let start = Instant::now() - WARM_UP - Duration::from_secs(1);
        let schedule = Schedule::new(start, 1000.0, Duration::from_secs(1));
        let arrivals = Arrivals::of(schedule);
        let mut recorder = Recorder::of(&arrivals);
        let mut sent = Vec::new();
        schedule
            .keep(|numbers| {
                sent.push((numbers.start, numbers.end));
                for number in numbers {
                    let mut body = Vec::new();
                    push_body(&mut body, number);
                    recorder.arrived(&body, Instant::now());
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(sent, [(0, 1800)], "all at once, as all are due");
        assert_eq!(arrivals.count(), 1800);
        let latencies = arrivals.latencies().unwrap();
        assert!(latencies.p50 >= 500.0 && latencies.p999 >= 999.0, "{latencies:?}");
    }
}
