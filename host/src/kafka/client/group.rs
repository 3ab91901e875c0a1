//! What a group has given to its members, and how a member gives its place in it up.

use std::ffi::c_char;
use std::time::Duration;

use rdkafka_sys as sys;
use sys::rd_kafka_consumer_group_state_t as State;

use super::admin::{Op, Question};
use super::error::{ClientError, Code};
use super::offsets::{OffsetList, TopicOffset};
use super::{Client, c_string, text};

/// A member of a group, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// A static member's `group.instance.id`; else empty.
    pub instance: String,
    pub partitions: Vec<TopicOffset>,
}

/// A question for the members of a group, on its way.
pub struct MembersQuestion(Question);

impl Client {
    /// Asks for the members of a group. The coordinator may be away for as long as `limit`.
    pub fn ask_for_members(&self, group: &str, limit: Duration) -> MembersQuestion {
        let group = c_string(group);
        let mut groups: [*const c_char; 1] = [group.as_ptr()];
        MembersQuestion(self.ask(Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, limit, |options, queue| {
            // SAFETY: client, name, options and queue live for the call, which copies what it needs.
            unsafe { sys::rd_kafka_DescribeConsumerGroups(self.rk(), groups.as_mut_ptr(), 1, options, queue) }
        }))
    }

    /// Leaves the group while the client goes on: unlike one that is closed, a static member then gives its place up. Partitions are taken
    /// back by [`Event::Revoke`](super::Event::Revoke) first.
    pub fn leave(&self) {
        // SAFETY: the client lives. It fails for a client without a group only.
        unsafe { sys::rd_kafka_unsubscribe(self.rk()) };
    }

    /// Whether the group has been left, or its member is known to it no more: the next [`subscribe`](Self::subscribe) joins as a new one.
    pub fn has_left(&self) -> bool {
        // SAFETY: the client lives; the text is ours and given back.
        unsafe {
            let id = sys::rd_kafka_memberid(self.rk());
            let has_left = id.is_null() || *id == 0;
            if !id.is_null() {
                sys::rd_kafka_mem_free(self.rk(), id.cast());
            }
            has_left
        }
    }
}

impl MembersQuestion {
    /// Nothing while the group is making an assignment. Blocks.
    ///
    /// # Errors
    /// When the coordinator refuses, or has not answered in time.
    pub fn answer(self, wait: Duration) -> Result<Option<Vec<Member>>, ClientError> {
        let answer = self.0.answer(wait)?;
        // SAFETY: everything read lives as long as the answer.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.as_ptr());
            let mut count = 0;
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
            if count == 0 {
                return Ok(Some(Vec::new()));
            }
            let group = *groups;
            let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() {
                return Err(ClientError::from_code(Code::from(sys::rd_kafka_error_code(error))));
            }
            match sys::rd_kafka_ConsumerGroupDescription_state(group) {
                State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE => {}
                // Nobody is in it.
                State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD | State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY => {
                    return Ok(Some(Vec::new()));
                }
                _ => return Ok(None),
            }
            let members = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
            Ok(Some((0..members).map(|index| member(group, index)).collect()))
        }
    }
}

/// # Safety
/// The group lives for the call, and has so many members.
unsafe fn member(group: *const sys::rd_kafka_ConsumerGroupDescription_t, index: usize) -> Member {
    // SAFETY: promised by the caller; everything is copied.
    unsafe {
        let member = sys::rd_kafka_ConsumerGroupDescription_member(group, index);
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions = match assignment.is_null() {
            true => Vec::new(),
            false => OffsetList::read(sys::rd_kafka_MemberAssignment_partitions(assignment)),
        };
        Member { instance: text(sys::rd_kafka_MemberDescription_group_instance_id(member)), partitions }
    }
}
