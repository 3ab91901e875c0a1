//! The little of librdkafka that both commands share.

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use anyhow::{Result, anyhow, bail};
use rdkafka_sys as sys;

/// wasmflow's own defaults (host/src/kafka/options.rs): a comparison with other settings would measure the settings.
const PRODUCER: &[(&str, &str)] = &[
    ("socket.nagle.disable", "true"),
    ("linger.ms", "5"),
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.messages", "10000000"),
    ("queue.buffering.max.kbytes", "2097151"),
    ("enable.idempotence", "true"),
    ("message.timeout.ms", "0"),
];

pub const CONSUMER: &[(&str, &str)] = &[
    ("socket.nagle.disable", "true"),
    ("fetch.queue.backoff.ms", "1"),
    ("fetch.error.backoff.ms", "100"),
    ("queued.max.messages.kbytes", "16384"),
    ("queued.min.messages", "30000"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("group.id", "raw-kafka"),
];

/// Options of the command line, which win over all others. Each client takes what is for its kind.
pub static SET: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// A client; it lives as long as the process.
pub fn start(kind: sys::rd_kafka_type_t, brokers: &str, options: &[(&str, &str)]) -> Result<*mut sys::rd_kafka_t> {
    let mut explanation = [0; 512];
    // SAFETY: strings and buffer live for the calls; `rd_kafka_new` takes the configuration over.
    unsafe {
        let conf = sys::rd_kafka_conf_new();
        let set = SET.get().into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in [("bootstrap.servers", brokers)].into_iter().chain(options.iter().copied()).chain(set) {
            let (name, value) = (CString::new(name)?, CString::new(value)?);
            let buffer = explanation.as_mut_ptr();
            let answer = sys::rd_kafka_conf_set(conf, name.as_ptr(), value.as_ptr(), buffer, explanation.len());
            if answer != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                bail!("{}", CStr::from_ptr(explanation.as_ptr()).to_string_lossy());
            }
        }
        let events = match kind {
            sys::rd_kafka_type_t::RD_KAFKA_PRODUCER => sys::RD_KAFKA_EVENT_DR,
            sys::rd_kafka_type_t::RD_KAFKA_CONSUMER => sys::RD_KAFKA_EVENT_OFFSET_COMMIT,
        };
        sys::rd_kafka_conf_set_events(conf, events);
        let rk = sys::rd_kafka_new(kind, conf, explanation.as_mut_ptr(), explanation.len());
        if rk.is_null() {
            bail!("{}", CStr::from_ptr(explanation.as_ptr()).to_string_lossy());
        }
        Ok(rk)
    }
}

/// A header's name and value.
pub type Header = (CString, String);

/// A producer and the topic it writes to.
#[derive(Clone, Copy)]
pub struct Producer {
    pub rk: *mut sys::rd_kafka_t,
    topic: *mut sys::rd_kafka_topic_t,
}

// SAFETY: librdkafka's handles may be used from any thread; these live as long as the process.
unsafe impl Send for Producer {}

impl Producer {
    pub fn start(brokers: &str, topic: &str) -> Result<Self> {
        Self::start_with(brokers, topic, &[])
    }

    /// With further options, which win.
    pub fn start_with(brokers: &str, topic: &str, options: &[(&str, &str)]) -> Result<Self> {
        let options: Vec<_> = PRODUCER.iter().chain(options).copied().collect();
        let rk = start(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, brokers, &options)?;
        // SAFETY: client and name live for the call.
        let topic = unsafe { sys::rd_kafka_topic_new(rk, CString::new(topic)?.as_ptr(), std::ptr::null_mut()) };
        if topic.is_null() {
            bail!("not a topic's name");
        }
        Ok(Self { rk, topic })
    }

    /// Sends records to the partitions they name. Values are copied.
    pub fn send(&self, records: &mut [sys::rd_kafka_message_t]) -> Result<()> {
        self.send_with(sys::RD_KAFKA_MSG_F_COPY, records)
    }

    /// As [`send`](Self::send), for values that stay where they are until they are reported.
    pub fn send_shared(&self, records: &mut [sys::rd_kafka_message_t]) -> Result<()> {
        self.send_with(0, records)
    }

    /// Sends one record with headers to whichever partition; its value stays where it is until it is reported.
    pub fn send_with_headers(&self, value: &[u8], headers: &[Header]) -> Result<()> {
        use sys::rd_kafka_vtype_t as Kind;
        let unit = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
        let mem =
            sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: value.as_ptr().cast_mut().cast(), size: value.len() };
        // SAFETY: the list copies names and values, and the record takes the list over; topic and value live.
        unsafe {
            let list = sys::rd_kafka_headers_new(headers.len());
            for (name, value) in headers {
                check(sys::rd_kafka_header_add(list, name.as_ptr(), -1, value.as_ptr().cast(), value.len() as isize))?;
            }
            let units = [
                unit(Kind::RD_KAFKA_VTYPE_RKT, sys::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.topic }),
                unit(Kind::RD_KAFKA_VTYPE_VALUE, sys::rd_kafka_vu_s__bindgen_ty_1 { mem }),
                unit(Kind::RD_KAFKA_VTYPE_HEADERS, sys::rd_kafka_vu_s__bindgen_ty_1 { headers: list }),
            ];
            let error = sys::rd_kafka_produceva(self.rk, units.as_ptr(), units.len());
            if !error.is_null() {
                bail!("{}", CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy());
            }
        }
        Ok(())
    }

    fn send_with(&self, flags: i32, records: &mut [sys::rd_kafka_message_t]) -> Result<()> {
        let flags = flags | sys::RD_KAFKA_MSG_F_PARTITION;
        // SAFETY: the topic lives; values and keys of the records live as long as the flags say.
        let taken =
            unsafe { sys::rd_kafka_produce_batch(self.topic, -1, flags, records.as_mut_ptr(), records.len() as i32) };
        match taken as usize == records.len() {
            true => Ok(()),
            false => bail!("{} records were not taken", records.len() - taken as usize),
        }
    }

    /// Waits for delivery reports and hands each record's tag to `acknowledged`.
    pub fn reports(&self, wait_ms: i32, mut acknowledged: impl FnMut(usize)) -> Result<()> {
        // SAFETY: the queue and the event are ours; messages live as long as the event.
        unsafe {
            let queue = sys::rd_kafka_queue_get_main(self.rk);
            let event = sys::rd_kafka_queue_poll(queue, wait_ms);
            sys::rd_kafka_queue_destroy(queue);
            if event.is_null() {
                return Ok(());
            }
            loop {
                let message = sys::rd_kafka_event_message_next(event);
                if message.is_null() {
                    break;
                }
                check((*message).err)?;
                acknowledged((*message)._private as usize);
            }
            sys::rd_kafka_event_destroy(event);
        }
        Ok(())
    }
}

/// A record for [`Producer::send`].
pub fn record(partition: i32, value: &[u8], tag: usize) -> sys::rd_kafka_message_t {
    sys::rd_kafka_message_t {
        err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: std::ptr::null_mut(),
        partition,
        payload: value.as_ptr().cast_mut().cast(),
        len: value.len(),
        key: std::ptr::null_mut(),
        key_len: 0,
        offset: 0,
        _private: tag as *mut _,
    }
}

/// How many partitions a topic has.
pub fn partitions(rk: *mut sys::rd_kafka_t, topic: &str) -> Result<i32> {
    let name = CString::new(topic)?;
    // SAFETY: client and name live for the calls; the metadata is ours and destroyed once.
    unsafe {
        let handle = sys::rd_kafka_topic_new(rk, name.as_ptr(), std::ptr::null_mut());
        let mut metadata = std::ptr::null();
        check(sys::rd_kafka_metadata(rk, 0, handle, &mut metadata, 10_000))?;
        let count = (*(*metadata).topics).partition_cnt;
        sys::rd_kafka_metadata_destroy(metadata);
        sys::rd_kafka_topic_destroy(handle);
        if count == 0 {
            bail!("topic `{topic}` does not exist");
        }
        Ok(count)
    }
}

pub fn check(code: sys::rd_kafka_resp_err_t) -> Result<()> {
    match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        // SAFETY: a static string.
        code => Err(anyhow!("{}", unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) }.to_string_lossy())),
    }
}
