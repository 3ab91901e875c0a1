//! The brokers that a client knows: whether there is one, and how it gets its first ones back.

use std::time::Duration;

use rdkafka_sys as sys;

use super::{Client, milliseconds, text};

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
    pub fn start_over(&self) {
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
        for (name, value) in [("bootstrap.servers", broker.servers().as_str()), ("group.id", "brokers")] {
            config.set(name, value).expect("librdkafka has this option");
        }
        let client = Client::start(Role::Consumer, config, Arc::new(())).expect("the options go together");
        let wait = Duration::from_secs(1);
        let found = || (0..30).any(|_| client.knows_a_broker(wait));
        assert!(found());
        broker.go_down();
        assert!(!client.knows_a_broker(wait));
        client.start_over();
        broker.come_up();
        assert!(found());
    }
}
