//! The embedded broker: librdkafka's mock cluster, in this process.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rdkafka_sys as sys;

use super::{ClientConfig, Role};

/// A broker for trying things out and for tests. Topics are made when they are first named, with 4 partitions; each keeps
/// about 5 MB, or 100,000 records, of the newest records; nothing outlives the process.
pub struct EmbeddedBroker {
    /// Whose thread the cluster runs on.
    owner: NonNull<sys::rd_kafka_t>,
    cluster: NonNull<sys::rd_kafka_mock_cluster_t>,
    /// The owner's, and so dropped after it.
    _closed: Box<AtomicU64>,
}

// SAFETY: the mock cluster takes commands from any thread, through its own queue.
unsafe impl Send for EmbeddedBroker {}
// SAFETY: as above.
unsafe impl Sync for EmbeddedBroker {}

impl EmbeddedBroker {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Errors
    /// When the machine has no port or thread to give.
    pub fn start() -> Result<Self, String> {
        let closed = Box::<AtomicU64>::default();
        let owner = ClientConfig::new().start(Role::Producer, &closed)?;
        // SAFETY: the owner was just made and lives until the cluster is destroyed.
        unsafe {
            match NonNull::new(sys::rd_kafka_mock_cluster_new(owner.as_ptr(), 1)) {
                Some(cluster) => {
                    // A group of one process gains nothing from waiting 3 s for further members.
                    sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster.as_ptr(), 0);
                    Ok(Self { owner, cluster, _closed: closed })
                }
                None => {
                    sys::rd_kafka_destroy(owner.as_ptr());
                    Err("no port or thread to be had".into())
                }
            }
        }
    }

    /// As `bootstrap.servers` takes it.
    pub fn servers(&self) -> String {
        // SAFETY: the cluster's own string.
        unsafe { super::text(sys::rd_kafka_mock_cluster_bootstraps(self.cluster.as_ptr())) }
    }

    /// Makes a topic, unless there is one of this name.
    pub fn make_topic(&self, topic: &str, partitions: i32) {
        let topic = super::c_string(topic);
        // SAFETY: cluster and name live for the call. The one error there can be is that the topic exists.
        unsafe { sys::rd_kafka_mock_topic_create(self.cluster.as_ptr(), topic.as_ptr(), partitions, 1) };
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe {
            sys::rd_kafka_mock_cluster_destroy(self.cluster.as_ptr());
            sys::rd_kafka_destroy(self.owner.as_ptr());
        }
    }
}

/// Faults, for tests.
#[cfg(test)]
impl EmbeddedBroker {
    /// Closes every connection and takes none.
    pub fn go_down(&self) {
        // SAFETY: the cluster lives; its one broker is number 1.
        unsafe { sys::rd_kafka_mock_broker_set_down(self.cluster.as_ptr(), 1) };
    }

    pub fn come_up(&self) {
        // SAFETY: as above.
        unsafe { sys::rd_kafka_mock_broker_set_up(self.cluster.as_ptr(), 1) };
    }

    /// The next requests with this API key are answered with these errors.
    pub fn fail_next(&self, api_key: i16, errors: &[super::Code]) {
        // SAFETY: the codes come from librdkafka's own enum. Cluster and errors live for the call.
        unsafe {
            let errors: Vec<_> = errors.iter().map(|code| as_librdkafkas(*code)).collect();
            let cluster = self.cluster.as_ptr();
            sys::rd_kafka_mock_push_request_errors_array(cluster, api_key, errors.len(), errors.as_ptr());
        }
    }

    /// Metadata answers name no leader of this partition from now on.
    pub fn take_leader(&self, topic: &str, partition: i32) {
        let topic = super::c_string(topic);
        // SAFETY: as above; -1 is no broker.
        unsafe { sys::rd_kafka_mock_partition_set_leader(self.cluster.as_ptr(), topic.as_ptr(), partition, -1) };
    }

    /// Metadata answers say this of the topic from now on.
    pub fn fail_topic(&self, topic: &str, code: super::Code) {
        let topic = super::c_string(topic);
        // SAFETY: as above.
        unsafe { sys::rd_kafka_mock_topic_set_error(self.cluster.as_ptr(), topic.as_ptr(), as_librdkafkas(code)) };
    }
}

/// # Safety
/// The code is one that librdkafka has a name for.
#[cfg(test)]
unsafe fn as_librdkafkas(code: super::Code) -> sys::rd_kafka_resp_err_t {
    // SAFETY: promised by the caller.
    unsafe { std::mem::transmute::<i32, sys::rd_kafka_resp_err_t>(code.0) }
}
