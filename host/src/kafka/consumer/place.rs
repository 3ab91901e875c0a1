//! The place that a group keeps for a static member: what was given before comes back, whatever the member asks for now.
//!
//! A member that is back within its session gets what the group gave it before, and the group does not rebalance: the broker compares the
//! name of the assignor, and neither the topics that the member subscribes to by now (KAFKA-12759, open) nor the partitions that these
//! have got since (KAFKA-13435). Java's clients see by what they are given that it is not what they want; librdkafka takes it. So an
//! agent that is started again with another topic would read the old one, and of the new one nothing, until something else makes the
//! group rebalance, which may be never.
//!
//! So the group is asked what it has, while the consumer joins it. Where it has something for this member that does not fit, the member
//! reads nothing of it, leaves (only a member that goes on can do that: one that is closed keeps its place), and joins anew.

use std::time::Duration;

use super::super::client::{Client, ClientError, Member, MembersQuestion, TopicOffset};
use super::ANSWER_WAIT;

/// Limit: how long the coordinator may be away until it is asked again, with the first assignment.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// How soon it is noticed that the group has been left.
const LOOK: Duration = Duration::from_millis(20);

/// A static member: what it is called in its group, and what it subscribes to.
pub struct StaticMember {
    pub group: String,
    pub name: String,
    pub topics: Vec<String>,
}

/// A static member's place; of other members there is none to be kept.
///
/// ```text
/// asking ── first assignment ──▶ taken
///                │                 ▲
///                ▼                 │ first assignment
///             leaving ── left ──▶ joining anew
/// ```
#[derive(Default)]
pub struct Place {
    question: Option<MembersQuestion>,
    is_leaving: bool,
}

impl Place {
    /// Asks what the group has for the member.
    pub fn begin(client: &Client, member: Option<&StaticMember>) -> Self {
        let question = member.map(|member| client.ask_for_members(&member.group, ASK_LIMIT));
        Self { question, ..Self::default() }
    }

    /// Whether these partitions are to be taken over. If they are not, the group is to be left: see [`leave`](Self::leave).
    pub fn fits(&mut self, client: &Client, member: Option<&StaticMember>, given: &[TopicOffset]) -> bool {
        let Some(member) = member.filter(|_| !self.is_leaving) else { return !self.is_leaving };
        // Later there is something strange only if the request to leave was lost.
        let Some(question) = self.question.take() else { return !member.is_strange(given) };
        // Asked again if the coordinator was away: what it says now it would have said then, unless the group has just rebalanced.
        let answer = question.answer(ANSWER_WAIT);
        let answer = answer.or_else(|_| client.ask_for_members(&member.group, ANSWER_WAIT).answer(ANSWER_WAIT));
        let is_old = answer.and_then(|members| match members {
            Some(members) => {
                member.is_kept_something_else(&members, |topic| client.partition_count(topic, ANSWER_WAIT))
            }
            // The assignment that is being made is one for what everybody asks for now.
            None => Ok(false),
        });
        if let Err(error) = &is_old {
            tracing::debug!(group = member.group, %error, "not known what the group has for its members");
        }
        !is_old.unwrap_or(false) && !member.is_strange(given)
    }

    /// Leaves the group, if that has not been begun; what it gives meanwhile is not taken over.
    pub fn leave(&mut self, client: &Client) {
        if !std::mem::replace(&mut self.is_leaving, true) {
            client.leave();
        }
    }

    /// True once, when the group has been left and is to be joined anew.
    pub fn has_left(&mut self, client: &Client) -> bool {
        let has_left = self.is_leaving && client.has_left();
        self.is_leaving &= !has_left;
        has_left
    }

    /// How long nothing need be looked for here.
    pub fn wait(&self) -> Duration {
        if self.is_leaving { LOOK } else { Duration::MAX }
    }
}

impl StaticMember {
    /// Whether it has been given anything of a topic that it does not subscribe to. What a pattern matches librdkafka alone knows.
    fn is_strange(&self, given: &[TopicOffset]) -> bool {
        !self.has_pattern() && given.iter().any(|one| !self.topics.contains(&one.topic))
    }

    fn has_pattern(&self) -> bool {
        self.topics.iter().any(|topic| topic.starts_with('^'))
    }

    /// Whether the group has a place for this member, in an assignment that it would not make for what the member subscribes to now:
    /// with other topics, or without partitions that nobody has. With a pattern it may be one.
    fn is_kept_something_else(
        &self,
        members: &[Member],
        partition_count: impl Fn(&str) -> Result<Option<i32>, ClientError>,
    ) -> Result<bool, ClientError> {
        let Some(kept) = members.iter().find(|member| member.instance == self.name) else { return Ok(false) };
        if self.has_pattern() || self.is_strange(&kept.partitions) {
            return Ok(true);
        }
        for topic in &self.topics {
            let is_anybodys = |number| {
                let mut given = members.iter().flat_map(|member| &member.partitions);
                given.any(|one| one.topic == *topic && one.partition == number)
            };
            let count = partition_count(topic)?.unwrap_or(0);
            if !(0..count).all(is_anybodys) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::client::Code;
    use super::*;

    fn member(topics: &[&str]) -> StaticMember {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        StaticMember { group: "readers".into(), name: "here.in".into(), topics }
    }

    fn has(instance: &str, partitions: &[(&str, i32)]) -> Member {
        let partitions = partitions.iter().map(|(topic, number)| TopicOffset::new(*topic, *number, 0)).collect();
        Member { instance: instance.into(), partitions }
    }

    fn is_kept_something_else(member: &StaticMember, members: &[Member]) -> bool {
        // Every topic has two partitions, but for one that there is not.
        member.is_kept_something_else(members, |topic| Ok((topic != "gone").then_some(2))).unwrap()
    }

    #[test]
    fn what_fits_is_kept() {
        let other = has("there.in", &[("a", 1), ("b", 0), ("b", 1)]);
        assert!(!is_kept_something_else(&member(&["a"]), &[has("here.in", &[("a", 0), ("a", 1)])]));
        assert!(!is_kept_something_else(&member(&["a", "gone"]), &[has("here.in", &[("a", 0)]), other.clone()]));
        assert!(!is_kept_something_else(&member(&["b"]), &[has("here.in", &[]), other]), "others have all of it");
    }

    #[test]
    fn what_was_given_for_other_topics_or_fewer_partitions_is_not_kept() {
        let all = has("here.in", &[("a", 0), ("a", 1)]);
        for topics in [&["b"][..], &["a", "b"], &["^(a)$"]] {
            assert!(is_kept_something_else(&member(topics), std::slice::from_ref(&all)), "{topics:?}");
        }
        assert!(
            is_kept_something_else(&member(&["a"]), &[has("here.in", &[("a", 0)])]),
            "a partition that is nobody's"
        );
    }

    #[test]
    fn a_member_without_a_place_gets_what_it_asks_for() {
        assert!(!is_kept_something_else(&member(&["b"]), &[has("there.in", &[("a", 0)])]));
        assert!(!is_kept_something_else(&member(&["^(b)$"]), &[]));
    }

    #[test]
    fn what_cannot_be_learnt_is_an_error() {
        let away = |_: &str| Err(ClientError { code: Code::TIMED_OUT, text: "away".into(), fatal: false });
        assert!(member(&["a"]).is_kept_something_else(&[has("here.in", &[("a", 0)])], away).is_err());
    }
}
