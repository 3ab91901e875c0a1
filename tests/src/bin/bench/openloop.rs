//! An open loop: every event has the moment at which it was meant to be sent, whatever happened to those before it, and its latency
//! counts from then. A stall of the sender or of the pipeline is so met by all events that were due meanwhile (no coordinated
//! omission).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::spread::percentile;

/// How often the sender looks what is due: no event is late by more than that because of it.
const TICK: Duration = Duration::from_micros(250);
/// What comes first is not counted: connections, caches and batch sizes settle.
const WARM_UP: Duration = Duration::from_millis(800);
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

    pub fn events(&self) -> u64 {
        (self.rate * self.span.as_secs_f64()) as u64
    }

    /// When this event is meant to be sent.
    fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
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

    /// How late the event of this number is now.
    pub fn lateness(&self, number: u64) -> Duration {
        self.start.elapsed().saturating_sub(self.due(number))
    }

    fn counts(&self, number: u64) -> bool {
        self.due(number) >= WARM_UP
    }
}

/// The body of an event: its number, then filler.
pub fn push_body(out: &mut Vec<u8>, number: u64) {
    let start = out.len();
    out.extend_from_slice(format!("{number:020} ").as_bytes());
    out.resize(start + BODY_BYTES, b'x');
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
    late: Mutex<Late>,
}

#[derive(Debug, Default)]
struct Late {
    millis: Vec<f64>,
    arrived: u64,
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
        Self { schedule, late: Mutex::default() }
    }

    /// # Panics
    /// When another thread has panicked.
    pub fn arrived(&self, body: &[u8]) {
        let Some(number) = number_in(body) else { return };
        let late = self.schedule.lateness(number);
        let mut arrivals = self.late.lock().expect("no holder panics");
        arrivals.arrived += 1;
        if self.schedule.counts(number) {
            arrivals.millis.push(late.as_secs_f64() * 1e3);
        }
    }

    /// # Panics
    /// When another thread has panicked.
    pub fn count(&self) -> u64 {
        self.late.lock().expect("no holder panics").arrived
    }

    /// Of all events that count; nothing before the first.
    ///
    /// # Panics
    /// When another thread has panicked.
    pub fn latencies(&self) -> Option<Latencies> {
        let mut millis = self.late.lock().expect("no holder panics").millis.clone();
        millis.sort_by(f64::total_cmp);
        let at = |percent| percentile(&millis, percent);
        (!millis.is_empty()).then(|| Latencies { p50: at(50.0), p99: at(99.0), p999: at(99.9) })
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
        let mut sent = Vec::new();
        schedule
            .keep(|numbers| {
                sent.push((numbers.start, numbers.end));
                for number in numbers {
                    let mut body = Vec::new();
                    push_body(&mut body, number);
                    arrivals.arrived(&body);
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
