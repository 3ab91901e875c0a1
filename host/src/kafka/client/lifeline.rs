//! Starts a client from its bootstrap servers again when it has lost every broker it knew.
//!
//! A cluster whose brokers are all fenced for a moment, as after a pause of a one-node cluster, answers with topics and without a
//! broker. librdkafka takes that for the truth: it lets go of all brokers, the bootstrap servers among them, and then has nobody left to
//! ask, for ever and without a word (librdkafka#5301, open in 2.12 and 2.13). So whoever polls a client that brings nothing asks now and
//! then whether it still knows a broker.

use std::time::{Duration, Instant};

use rdkafka_sys as sys;

use super::{Client, milliseconds, text};

/// Limit: a client that brings nothing is asked this often; each question is one small request to a broker.
const PAUSE: Duration = Duration::from_secs(5);

/// Limit: between two new starts while no broker answers. Each leaves the list of servers in librdkafka's memory once more.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// How long a broker may take to answer. The polling thread waits for it, but only where there is nothing else to do.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Asks one client. Belongs to the thread that polls it.
pub struct Lifeline {
    next: Instant,
    pause: Duration,
}

impl Lifeline {
    pub fn new() -> Self {
        Self { next: Instant::now() + PAUSE, pause: PAUSE }
    }

    /// Call it at every turn, and say whether the client has brought anything since the turn before. Blocks for up to a second when it
    /// asks.
    pub fn hold(&mut self, client: &Client, has_brought: bool) {
        let now = Instant::now();
        if has_brought {
            *self = Self { next: now + PAUSE, pause: PAUSE };
        } else if now >= self.next {
            self.pause = if client.knows_a_broker(ANSWER_WAIT) {
                PAUSE
            } else {
                client.start_over();
                (self.pause * 2).min(MAX_PAUSE)
            };
            self.next = Instant::now() + self.pause;
        }
    }
}

impl Client {
    /// Whether a broker answers within the wait, and names at least one broker. Blocks.
    pub fn knows_a_broker(&self, wait: Duration) -> bool {
        let mut metadata = std::ptr::null();
        // SAFETY: the client lives for the call; what it answers is ours to read and to destroy.
        unsafe {
            let answer = sys::rd_kafka_metadata(self.rk(), 0, std::ptr::null_mut(), &mut metadata, milliseconds(wait));
            if answer != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || metadata.is_null() {
                return false;
            }
            let brokers = (*metadata).broker_cnt;
            sys::rd_kafka_metadata_destroy(metadata);
            brokers > 0
        }
    }

    /// Gives the client its bootstrap servers again; those that it still has stay as they are.
    fn start_over(&self) {
        // SAFETY: the options belong to the client; the servers' list is copied by librdkafka.
        unsafe {
            let mut bytes = 0;
            let options = sys::rd_kafka_conf(self.rk());
            sys::rd_kafka_conf_get(options, c"bootstrap.servers".as_ptr(), std::ptr::null_mut(), &mut bytes);
            let mut servers = vec![0; bytes];
            sys::rd_kafka_conf_get(options, c"bootstrap.servers".as_ptr(), servers.as_mut_ptr(), &mut bytes);
            if bytes > 1 {
                tracing::info!(
                    servers = text(servers.as_ptr()),
                    "no broker answers; starting from the bootstrap servers again"
                );
                sys::rd_kafka_brokers_add(self.rk(), servers.as_ptr());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ClientConfig, EmbeddedBroker, Role};
    use super::*;

    #[test]
    fn a_client_that_starts_over_finds_its_brokers_when_they_are_back() {
        let broker = EmbeddedBroker::start().expect("there is a port");
        let mut config = ClientConfig::new();
        for (name, value) in [("bootstrap.servers", broker.servers().as_str()), ("group.id", "lifeline")] {
            config.set(name, value).expect("librdkafka has this option");
        }
        let client = Client::start(Role::Consumer, config, Arc::new(())).expect("the options go together");
        let found = || (0..30).any(|_| client.knows_a_broker(ANSWER_WAIT));
        assert!(found());
        broker.go_down();
        assert!(!client.knows_a_broker(ANSWER_WAIT));
        client.start_over();
        broker.come_up();
        assert!(found());
    }
}
