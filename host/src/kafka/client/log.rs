//! librdkafka's log lines on their way to ours, at a bounded rate.

use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka_sys as sys;
use tracing::{debug, info, warn};

/// One line of each kind and client in this time; what came between is counted. A broker that is down says so several
/// times a second, and every client of it does.
const QUIET: Duration = Duration::from_secs(10);

/// Limit: kinds remembered; above it all of them may speak again.
const KINDS: usize = 1024;

static LIMITER: LazyLock<Mutex<HashMap<String, Spoken>>> = LazyLock::new(Mutex::default);

struct Spoken {
    at: Instant,
    unsaid: u64,
}

/// librdkafka calls it from its own threads.
///
/// # Safety
/// For librdkafka only: `rk` may be null, the strings live for the call.
pub(super) unsafe extern "C" fn line(
    rk: *const sys::rd_kafka_t,
    level: c_int,
    kind: *const c_char,
    text: *const c_char,
) {
    // SAFETY: promised by librdkafka.
    let (client, kind, text) = unsafe {
        let client = if rk.is_null() { String::new() } else { super::text(sys::rd_kafka_name(rk)) };
        (client, super::text(kind), super::text(text))
    };
    // A connection serves producers and consumers alike, so each of them is given options that only the other knows.
    if kind == "CONFWARN" || level > 6 {
        debug!(client, kind, "{text}");
        return;
    }
    let Some(unsaid) = may_speak(&format!("{client}|{kind}"), Instant::now()) else { return };
    match level {
        // Nothing that librdkafka calls an error needs an operator by itself: what does reaches the stage as a failure.
        0..=4 => warn!(client, kind, unsaid, "{text}"),
        _ => info!(client, kind, unsaid, "{text}"),
    }
}

/// How many lines of this kind went unsaid before this one, or nothing when it is not said either.
fn may_speak(kind: &str, now: Instant) -> Option<u64> {
    let mut limiter = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
    if limiter.len() >= KINDS {
        limiter.clear();
    }
    match limiter.get_mut(kind) {
        Some(spoken) if now.duration_since(spoken.at) < QUIET => {
            spoken.unsaid += 1;
            None
        }
        Some(spoken) => {
            spoken.at = now;
            Some(std::mem::take(&mut spoken.unsaid))
        }
        None => {
            limiter.insert(kind.to_owned(), Spoken { at: now, unsaid: 0 });
            Some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_repeats_is_counted_instead() {
        let start = Instant::now();
        assert_eq!(may_speak("a|FAIL", start), Some(0));
        assert_eq!(may_speak("a|FAIL", start + QUIET / 2), None);
        assert_eq!(may_speak("b|FAIL", start + QUIET / 2), Some(0));
        assert_eq!(may_speak("a|FAIL", start + QUIET), Some(1));
    }
}
