//! A client's options on their way into librdkafka.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka_sys as sys;
use sys::rd_kafka_conf_res_t as Answer;

use super::{Role, c_string, log};

/// Limit: librdkafka writes an explanation of at most this length, and no value that is asked for is longer.
const TEXT_BYTES: usize = 512;

/// The options of one client.
pub struct ClientConfig {
    conf: NonNull<sys::rd_kafka_conf_t>,
}

impl ClientConfig {
    /// librdkafka's defaults.
    pub fn new() -> Self {
        // SAFETY: makes an object of its own; librdkafka aborts when memory is out.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        Self { conf: NonNull::new(conf).expect("librdkafka makes a configuration or aborts") }
    }

    /// Sets one option.
    ///
    /// # Errors
    /// librdkafka's explanation, for an option it does not know or a value it does not take. It repeats the value, so a
    /// secret's is not to be shown.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let (name, value) = (c_string(name), c_string(value));
        let mut explanation = [0; TEXT_BYTES];
        // SAFETY: the object is ours, the strings outlive the call, the buffer has the length given.
        let answer = unsafe {
            sys::rd_kafka_conf_set(
                self.conf.as_ptr(),
                name.as_ptr(),
                value.as_ptr(),
                explanation.as_mut_ptr(),
                explanation.len(),
            )
        };
        if answer == Answer::RD_KAFKA_CONF_OK { Ok(()) } else { Err(text_in(&explanation)) }
    }

    /// An option's value, as far as librdkafka shows it.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let mut value = [0; TEXT_BYTES];
        let mut length = value.len();
        // SAFETY: the object is ours, the name outlives the call, the buffer has the length given.
        let answer = unsafe {
            sys::rd_kafka_conf_get(self.conf.as_ptr(), c_string(name).as_ptr(), value.as_mut_ptr(), &mut length)
        };
        (answer == Answer::RD_KAFKA_CONF_OK).then(|| text_in(&value))
    }

    /// Makes the client. Its connections that end are counted in `closed`, which must outlive it.
    pub(super) fn start(self, role: Role, closed: &AtomicU64) -> Result<NonNull<sys::rd_kafka_t>, String> {
        let (kind, events) = match role {
            Role::Producer => (sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, sys::RD_KAFKA_EVENT_DR),
            Role::Consumer => (
                sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                sys::RD_KAFKA_EVENT_REBALANCE | sys::RD_KAFKA_EVENT_OFFSET_COMMIT,
            ),
        };
        let mut explanation = [0; TEXT_BYTES];
        // SAFETY: the object is ours; `rd_kafka_new` takes it over when it succeeds, and only then is it forgotten.
        let rk = unsafe {
            sys::rd_kafka_conf_set_log_cb(self.conf.as_ptr(), Some(log::line));
            sys::rd_kafka_conf_set_opaque(self.conf.as_ptr(), std::ptr::from_ref(closed).cast_mut().cast());
            sys::rd_kafka_conf_set_closesocket_cb(self.conf.as_ptr(), Some(close_connection));
            sys::rd_kafka_conf_set_events(self.conf.as_ptr(), events | sys::RD_KAFKA_EVENT_ERROR);
            sys::rd_kafka_new(kind, self.conf.as_ptr(), explanation.as_mut_ptr(), explanation.len())
        };
        let rk = NonNull::new(rk).ok_or_else(|| text_in(&explanation))?;
        std::mem::forget(self);
        Ok(rk)
    }
}

impl Drop for ClientConfig {
    fn drop(&mut self) {
        // SAFETY: still ours: no client has taken it over.
        unsafe { sys::rd_kafka_conf_destroy(self.conf.as_ptr()) }
    }
}

/// librdkafka calls it from its own threads when a connection ends, whoever ended it.
///
/// # Safety
/// For librdkafka only: the socket is its own, and `closed` what the client was made with.
unsafe extern "C" fn close_connection(socket: c_int, closed: *mut c_void) -> c_int {
    // SAFETY: promised by librdkafka, and by whoever made the client.
    unsafe {
        (*closed.cast::<AtomicU64>()).fetch_add(1, Ordering::AcqRel);
        rustix::io::close(socket);
    }
    0
}

/// Every option that librdkafka knows and shows, for "did you mean".
pub fn option_names() -> Vec<String> {
    let config = ClientConfig::new();
    let mut count = 0;
    // SAFETY: the dump is `count` strings, names and values in turn, that live until it is freed.
    unsafe {
        let dump = sys::rd_kafka_conf_dump(config.conf.as_ptr(), &mut count);
        let names = (0..count).step_by(2).map(|index| super::text(*dump.add(index))).collect();
        sys::rd_kafka_conf_dump_free(dump, count);
        names
    }
}

fn text_in(buffer: &[c_char; TEXT_BYTES]) -> String {
    // SAFETY: `c_char` and `u8` have the same layout.
    let bytes = unsafe { &*std::ptr::from_ref(buffer).cast::<[u8; TEXT_BYTES]>() };
    CStr::from_bytes_until_nul(bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
