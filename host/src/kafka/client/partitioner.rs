//! Which partition takes a record that names none.
//!
//! librdkafka answers that for each record anew: without a key it looks at the clock twice and takes the partition's lock for it, which
//! was a fifth of the processor of a copy (tests/bench/README.md). Here it asks [`choose`] instead, once for records that are handed over
//! together, and the others follow the first: [`chosen_by`] hears the answer. The answers are librdkafka's own, but that
//! those without a key go by the time, not by what the topic has seen before.

use std::cell::Cell;
use std::ffi::c_void;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use rdkafka_sys as sys;

use super::config::ClientConfig;

/// The option that says how long records without a key keep to one partition, so that batches fill.
const LINGER: &str = "sticky.partitioning.linger.ms";

/// Limit: so many partitions are looked at for one whose leader is known; where all of these have none, as when a topic has just
/// become known, records wait for the leader of the first.
const TRIES: usize = 16;

type Function = unsafe extern "C" fn(
    topic: *const sys::rd_kafka_topic_t,
    key: *const c_void,
    key_bytes: usize,
    partitions: i32,
    partitioning: *mut c_void,
    tag: *mut c_void,
) -> i32;

struct Partitioner {
    name: &'static str,
    function: Function,
    /// Records without a key keep to a partition for a while; else they have their own, as any key has.
    sticks: bool,
}

/// As librdkafka's option `partitioner` names them; the first is its default.
const PARTITIONERS: [Partitioner; 7] = [
    Partitioner { name: CONSISTENT_RANDOM, function: sys::rd_kafka_msg_partitioner_consistent_random, sticks: true },
    Partitioner { name: "consistent", function: sys::rd_kafka_msg_partitioner_consistent, sticks: false },
    Partitioner { name: "murmur2_random", function: sys::rd_kafka_msg_partitioner_murmur2_random, sticks: true },
    Partitioner { name: "murmur2", function: sys::rd_kafka_msg_partitioner_murmur2, sticks: false },
    Partitioner { name: "fnv1a_random", function: sys::rd_kafka_msg_partitioner_fnv1a_random, sticks: true },
    Partitioner { name: "fnv1a", function: sys::rd_kafka_msg_partitioner_fnv1a, sticks: false },
    Partitioner { name: "random", function: sys::rd_kafka_msg_partitioner_random, sticks: true },
];

/// It takes an empty key for none.
const CONSISTENT_RANDOM: &str = "consistent_random";

/// How a client's topics find partitions: its options `partitioner` and [`LINGER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partitioning {
    /// Its place in [`PARTITIONERS`].
    partitioner: u8,
    /// 0: each record without a key goes where chance has it.
    linger_ms: u32,
}

impl Partitioning {
    /// Reads a producer's options, and leaves librdkafka no time of its own to keep to a partition, in which it would not ask.
    ///
    /// # Errors
    /// librdkafka's explanation, if it does not take the option.
    pub(super) fn take(config: &mut ClientConfig) -> Result<Self, String> {
        let name = config.get("partitioner").unwrap_or_default();
        let partitioner = PARTITIONERS.iter().position(|known| known.name == name).unwrap_or_default();
        let linger_ms = config.get(LINGER).and_then(|linger| linger.parse().ok()).unwrap_or_default();
        config.set(LINGER, "0")?;
        Ok(Self { partitioner: partitioner as u8, linger_ms })
    }

    /// For `rd_kafka_topic_conf_set_opaque`: all of it fits into the pointer, so that there is nothing to outlive the topic.
    pub(super) fn to_opaque(self) -> *mut c_void {
        ((self.linger_ms as usize) << 8 | usize::from(self.partitioner)) as *mut c_void
    }

    fn from_opaque(opaque: *mut c_void) -> Self {
        Self { partitioner: opaque as usize as u8, linger_ms: (opaque as usize >> 8) as u32 }
    }
}

thread_local! {
    /// Where the last record without a key was sent to from this thread.
    static CHOSEN: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Does something that hands over a record without a key, and says which partition was chosen to keep to, if one was.
pub(super) fn chosen_by<R>(hand_over: impl FnOnce() -> R) -> (R, Option<i32>) {
    CHOSEN.set(None);
    let result = hand_over();
    (result, CHOSEN.take())
}

/// librdkafka asks it for each record that names no partition: in the thread that hands the record over, or in one of its own where the
/// topic was not known then.
///
/// # Safety
/// For librdkafka only, with `partitioning` as the topic was made with.
pub(super) unsafe extern "C" fn choose(
    topic: *const sys::rd_kafka_topic_t,
    key: *const c_void,
    key_bytes: usize,
    partitions: i32,
    partitioning: *mut c_void,
    tag: *mut c_void,
) -> i32 {
    let Partitioning { partitioner, linger_ms } = Partitioning::from_opaque(partitioning);
    let partitioner = &PARTITIONERS[usize::from(partitioner)];
    let is_keyless = key.is_null() || (key_bytes == 0 && partitioner.name == CONSISTENT_RANDOM);
    if !(is_keyless && partitioner.sticks && linger_ms > 0) {
        // SAFETY: handed on as they came.
        return unsafe { (partitioner.function)(topic, key, key_bytes, partitions, partitioning, tag) };
    }
    let first = of_the_time(topic, partitions, linger_ms);
    // SAFETY: the topic lives, and this is a partitioner, as the function asks.
    let has_leader = |&partition: &i32| unsafe { sys::rd_kafka_topic_partition_available(topic, partition) != 0 };
    let chosen = (first..partitions).chain(0..first).take(TRIES).find(has_leader).unwrap_or(first);
    CHOSEN.set(Some(chosen));
    chosen
}

/// A partition that stays the same for `linger_ms`, another one for each topic and each process.
fn of_the_time(topic: *const sys::rd_kafka_topic_t, partitions: i32, linger_ms: u32) -> i32 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // A clock that is set back only has a partition taken again.
    let now_ms = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    let chance = SEED.hash_one((topic as usize, now_ms / u128::from(linger_ms)));
    (chance % partitions.max(1) as u64) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafkas_partitioners_are_known_by_name_and_asked_at_once() {
        for (place, partitioner) in PARTITIONERS.iter().enumerate() {
            let mut config = ClientConfig::new();
            config.set("partitioner", partitioner.name).expect(partitioner.name);
            let partitioning = Partitioning::take(&mut config).expect("it takes the option");
            assert_eq!(partitioning, Partitioning { partitioner: place as u8, linger_ms: 10 });
            assert_eq!(config.get(LINGER).as_deref(), Some("0"));
        }
        let unsaid = Partitioning::take(&mut ClientConfig::new()).expect("it takes the option");
        assert_eq!(PARTITIONERS[usize::from(unsaid.partitioner)].name, CONSISTENT_RANDOM);
    }

    #[test]
    fn all_of_it_fits_into_a_pointer() {
        // The longest that librdkafka takes.
        let longest = Partitioning { partitioner: 6, linger_ms: 900_000 };
        assert_eq!(Partitioning::from_opaque(longest.to_opaque()), longest);
    }

    #[test]
    fn a_partition_of_the_time_is_one_of_them_and_not_always_the_same() {
        let topics: Vec<u64> = (0..64).collect();
        let of = |topic: &u64| of_the_time(std::ptr::from_ref(topic).cast(), 3, 900_000);
        let chosen: std::collections::BTreeSet<_> = topics.iter().map(of).collect();
        assert_eq!(chosen, [0, 1, 2].into());
    }
}
