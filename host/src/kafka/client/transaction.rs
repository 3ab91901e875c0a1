//! Transactions: what librdkafka's transactional producer offers, and the group that offsets are committed for.
//!
//! Every call here but `begin` blocks for as long as its wait, and librdkafka has been seen to block for longer (librdkafka#3013,
//! #3041, #3297, #4420): call them on a thread of their own, with a deadline of one's own.

use std::ptr::NonNull;
use std::time::Duration;

use rdkafka_sys as sys;

use super::error::{ClientError, Code};
use super::offsets::{OffsetList, TopicOffset};
use super::{Client, c_string, milliseconds, text};

/// What a failed transaction call leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing: the same call may be made again.
    Retriable,
    /// A transaction that can only be aborted.
    Abortable,
    /// A client that is of no more use.
    Fatal,
}

/// Why a transaction call has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct TransactionError {
    pub error: ClientError,
    pub class: Class,
}

impl Client {
    /// Takes the transactional id: whoever had it before is fenced, and what it had left open is completed or aborted.
    ///
    /// # Errors
    /// `Retriable` while the coordinator does not answer: calling again goes on where this call stopped.
    pub fn init_transactions(&self, wait: Duration) -> Result<(), TransactionError> {
        // SAFETY: the client lives; the error object is ours.
        unsafe { outcome(sys::rd_kafka_init_transactions(self.rk(), milliseconds(wait))) }
    }

    /// Begins a transaction. Asks nobody, so it does not block. In a transaction that has failed already it answers why.
    ///
    /// # Errors
    /// When there is an open transaction.
    pub fn begin_transaction(&self) -> Result<(), TransactionError> {
        // SAFETY: as above.
        unsafe { outcome(sys::rd_kafka_begin_transaction(self.rk())) }
    }

    /// Makes a group's offsets part of the open transaction.
    ///
    /// # Errors
    /// `Abortable` when the group has moved on without us.
    pub fn send_offsets(
        &self,
        offsets: &[TopicOffset],
        group: &GroupMetadata,
        wait: Duration,
    ) -> Result<(), TransactionError> {
        let list = OffsetList::new(offsets);
        // SAFETY: client, list and group live for the call; the error object is ours.
        unsafe {
            outcome(sys::rd_kafka_send_offsets_to_transaction(
                self.rk(),
                list.as_ptr(),
                group.0.as_ptr(),
                milliseconds(wait),
            ))
        }
    }

    /// Waits until every record of the transaction is with the brokers, then commits it.
    ///
    /// # Errors
    /// After a `Retriable` one the outcome is not known.
    pub fn commit_transaction(&self, wait: Duration) -> Result<(), TransactionError> {
        // SAFETY: as for `init_transactions`.
        unsafe { outcome(sys::rd_kafka_commit_transaction(self.rk(), milliseconds(wait))) }
    }

    /// Throws the open transaction away. What is queued is reported as purged.
    ///
    /// # Errors
    /// When the coordinator does not answer; the transaction then ends by its timeout, or with the next `init_transactions`.
    pub fn abort_transaction(&self, wait: Duration) -> Result<(), TransactionError> {
        // SAFETY: as for `init_transactions`.
        unsafe { outcome(sys::rd_kafka_abort_transaction(self.rk(), milliseconds(wait))) }
    }

    /// The error that has made this client useless, if there is one.
    pub fn fatal_error(&self) -> Option<ClientError> {
        let mut explanation = [0; 512];
        // SAFETY: the client lives, the buffer has the length given and ends in a zero afterwards.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.rk(), explanation.as_mut_ptr(), explanation.len());
            let code = Code::from(code);
            (code != Code::OK).then(|| ClientError { code, text: text(explanation.as_ptr()), fatal: true })
        }
    }

    /// Who this consumer is in its group: the group's coordinator refuses offsets of a member that is no longer one.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        // SAFETY: the client lives; what is answered is ours.
        NonNull::new(unsafe { sys::rd_kafka_consumer_group_metadata(self.rk()) }).map(GroupMetadata)
    }
}

/// A member of a consumer group, or a group without members.
pub struct GroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: plain data of librdkafka's, read by one thread at a time and destroyed once.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// A group whose partitions nobody assigns: only the transactional id keeps others away from its offsets.
    pub fn without_members(group: &str) -> Self {
        // SAFETY: the name lives for the call; librdkafka makes the object or aborts.
        let metadata = unsafe { sys::rd_kafka_consumer_group_metadata_new(c_string(group).as_ptr()) };
        Self(NonNull::new(metadata).expect("librdkafka makes it or aborts"))
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody else's.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `error` is null or an error object that nobody else destroys.
unsafe fn outcome(error: *mut sys::rd_kafka_error_t) -> Result<(), TransactionError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: promised by the caller; the object is destroyed once, by `from_object`.
    unsafe {
        let class = match (sys::rd_kafka_error_is_retriable(error), sys::rd_kafka_error_txn_requires_abort(error)) {
            (_, 1..) => Class::Abortable,
            (1.., _) => Class::Retriable,
            _ => Class::Fatal,
        };
        match ClientError::from_object(error) {
            Ok(()) => Ok(()),
            Err(error) => Err(TransactionError { error, class }),
        }
    }
}
