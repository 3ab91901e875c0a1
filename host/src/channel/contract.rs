//! The promises every channel keeps, as one suite. The memory channel runs it; durable channels join it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::event::{Batch, Packed};

const ALL: TakeLimits = TakeLimits { events: 1000, bytes: 1 << 20, wait: Duration::ZERO };

fn channel(events: u32) -> Arc<MemoryChannel> {
    MemoryChannel::new("events", 0, Capacity { events, bytes: 1 << 20 })
}

fn batch(bodies: &[&str]) -> Batch {
    Batch::new(bodies.iter().collect::<Packed>())
}

fn bodies(taken: &Taken) -> Vec<String> {
    taken.batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
}

async fn put(channel: &Arc<MemoryChannel>, bodies: &[&str]) -> Receipt {
    let puts = begin_puts(vec![(channel.clone(), batch(bodies))]).await.unwrap();
    commit_puts(puts, &Arc::new(Notify::new()))
}

/// Polls a future once and says whether it is still waiting.
async fn waits<F: Future>(future: F) -> bool {
    tokio::time::timeout(Duration::from_millis(20), future).await.is_err()
}

#[tokio::test]
async fn a_put_is_seen_when_it_is_committed_and_not_before() {
    let channel = channel(10);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    let put = channel.begin_put(batch(&["a", "b"])).await.unwrap();
    assert!(waits(reader.take(&ALL)).await);
    put.commit(None);
    assert_eq!(bodies(&reader.take(&ALL).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn a_dropped_put_leaves_no_trace() {
    let channel = channel(2);
    let (writer, mut reader) = (channel.writer(), channel.reader());
    drop(channel.begin_put(batch(&["a", "b"])).await.unwrap());
    put(&channel, &["c", "d"]).await;
    drop(writer);
    assert_eq!(bodies(&reader.take(&ALL).await.unwrap()), ["c", "d"]);
    reader.settle(2);
    assert!(reader.take(&ALL).await.is_none());
}

#[tokio::test]
async fn rolled_back_events_are_taken_again_in_order() {
    let channel = channel(10);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    put(&channel, &["a", "b"]).await;
    put(&channel, &["c"]).await;
    let two = TakeLimits { events: 2, ..ALL };
    assert_eq!(bodies(&reader.take(&two).await.unwrap()), ["a", "b"]);
    assert_eq!(bodies(&reader.take(&two).await.unwrap()), ["c"]);
    reader.settle(1);
    reader.rollback();
    let taken = reader.take(&ALL).await.unwrap();
    assert_eq!((bodies(&taken), taken.first, taken.next), (vec!["b".into(), "c".into()], 1, 3));
}

#[tokio::test]
async fn a_full_channel_lets_puts_wait_and_serves_them_in_order() {
    let channel = channel(2);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    put(&channel, &["a", "b"]).await;
    assert!(matches!(channel.try_begin_put(batch(&["c"])), Err(ChannelError::Full { held: 2, capacity: 2, .. })));
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { put(&channel, &["c", "d"]).await }
    });
    reader.pressure().rises().await;
    assert_eq!(bodies(&reader.take(&ALL).await.unwrap()), ["a", "b"]);
    assert!(waits(reader.take(&ALL)).await, "taking frees nothing: only settling does");
    reader.settle(2);
    assert_eq!(bodies(&reader.take(&ALL).await.unwrap()), ["c", "d"]);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_put_larger_than_the_channel_goes_in_alone() {
    let channel = channel(2);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    put(&channel, &["a", "b", "c"]).await;
    assert!(channel.try_begin_put(batch(&["d"])).is_err());
    assert_eq!(reader.take(&ALL).await.unwrap().next, 3);
    reader.settle(3);
    assert!(channel.try_begin_put(batch(&["d"])).is_ok());
}

#[tokio::test]
async fn every_reader_gets_every_event_and_the_slowest_holds_the_room() {
    let channel = channel(2);
    let (_writer, mut fast, mut slow) = (channel.writer(), channel.reader(), channel.reader());
    let receipt = put(&channel, &["a", "b"]).await;
    assert_eq!(bodies(&fast.take(&ALL).await.unwrap()), ["a", "b"]);
    fast.settle(2);
    assert!(channel.try_begin_put(batch(&["c"])).is_err());
    assert!(!receipt.is_settled());
    assert_eq!(bodies(&slow.take(&ALL).await.unwrap()), ["a", "b"]);
    slow.settle(2);
    assert!(receipt.is_settled());
    assert!(channel.try_begin_put(batch(&["c"])).is_ok());
}

#[tokio::test]
async fn a_put_into_two_channels_is_settled_when_both_are() {
    let (left, right) = (channel(10), MemoryChannel::new("right", 1, Capacity { events: 10, bytes: 100 }));
    let (mut left_reader, mut right_reader) = (left.reader(), right.reader());
    let owner = Arc::new(Notify::new());
    let puts = begin_puts(vec![(right.clone(), batch(&["a"])), (left.clone(), batch(&["a"]))]).await.unwrap();
    let receipt = commit_puts(puts, &owner);
    left_reader.take(&ALL).await.unwrap();
    left_reader.settle(1);
    assert!(!receipt.is_settled());
    right_reader.take(&ALL).await.unwrap();
    right_reader.settle(1);
    owner.notified().await;
    assert!(receipt.is_settled());
}

#[tokio::test]
async fn an_emptied_put_is_settled_at_once() {
    assert!(commit_puts(Vec::new(), &Arc::new(Notify::new())).is_settled());
}

#[tokio::test]
async fn takes_are_bounded_by_events_and_bytes_and_never_stuck_on_a_large_event() {
    let channel = channel(10);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    put(&channel, &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "b", "c", "d"]).await;
    let small = TakeLimits { events: 2, bytes: 8, wait: Duration::ZERO };
    let mut sizes = Vec::new();
    while !reader.is_at_end() {
        sizes.push(reader.take(&small).await.unwrap().batch.count());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 4);
    assert!(sizes.iter().all(|&size| (1..=2).contains(&size)), "{sizes:?}");
}

#[tokio::test]
async fn a_reader_waits_for_a_fuller_batch_no_longer_than_it_was_told() {
    let channel = channel(10);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    let patient = |wait| TakeLimits { events: 3, wait, ..ALL };
    put(&channel, &["a"]).await;
    let start = tokio::time::Instant::now();
    let moment = Duration::from_millis(30);
    assert_eq!(bodies(&reader.take(&patient(moment)).await.unwrap()), ["a"]);
    assert!(start.elapsed() >= moment);
    put(&channel, &["b", "c", "d"]).await;
    let full = tokio::time::timeout(Duration::from_secs(5), reader.take(&patient(Duration::from_secs(60)))).await;
    assert_eq!(bodies(&full.expect("a full batch does not wait").unwrap()), ["b", "c", "d"]);
}

#[tokio::test]
async fn the_log_ends_when_the_last_writer_is_gone_and_everything_is_taken() {
    let channel = channel(10);
    let (first, second, mut reader) = (channel.writer(), channel.writer(), channel.reader());
    put(&channel, &["a"]).await;
    drop(first);
    assert_eq!(bodies(&reader.take(&ALL).await.unwrap()), ["a"]);
    assert!(waits(reader.take(&ALL)).await);
    drop(second);
    assert!(reader.take(&ALL).await.is_none());
}

#[tokio::test]
async fn a_failed_channel_refuses_puts_that_wait_and_those_that_come() {
    let channel = channel(1);
    let (_writer, _reader) = (channel.writer(), channel.reader());
    put(&channel, &["a"]).await;
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { channel.begin_put(batch(&["b"])).await.map(drop) }
    });
    tokio::task::yield_now().await;
    channel.fail("sink `x` stopped");
    let failed = ChannelError::Failed { channel: "events".into(), reason: "sink `x` stopped".into() };
    assert_eq!(waiting.await.unwrap(), Err(failed.clone()));
    assert_eq!(channel.try_begin_put(batch(&["c"])).map(drop), Err(failed));
}

/// One step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    DropPut(u8),
    Take(u8),
    SettleTaken,
    Rollback,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..6u8).prop_map(Step::Put),
        (1..6u8).prop_map(Step::DropPut),
        (1..6u8).prop_map(Step::Take),
        Just(Step::SettleTaken),
        Just(Step::Rollback),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn any_sequence_of_steps_agrees_with_a_queue(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(agree_with_a_queue(&steps));
    }
}

async fn agree_with_a_queue(steps: &[Step]) {
    let channel = channel(12);
    let (_writer, mut reader) = (channel.writer(), channel.reader());
    let (mut unsettled, mut taken, mut number) = (VecDeque::<String>::new(), 0, 0);
    let mut settled_up_to = 0;
    for step in steps {
        match *step {
            Step::Put(count) => {
                let names: Vec<_> = (number..number + usize::from(count)).map(|name| name.to_string()).collect();
                let events = Batch::new(names.iter().collect());
                match channel.try_begin_put(events) {
                    Ok(put) => {
                        assert!(unsettled.len() + names.len() <= 12);
                        put.commit(None);
                        number += names.len();
                        unsettled.extend(names);
                    }
                    Err(_) => assert!(channel.held_events() + usize::from(count) > 12),
                }
            }
            Step::DropPut(count) => drop(channel.try_begin_put(batch(&vec!["dropped"; count.into()]))),
            Step::Take(_) if reader.is_at_end() => assert_eq!(taken, unsettled.len()),
            Step::Take(events) => {
                let got = reader.take(&TakeLimits { events: events.into(), ..ALL }).await.unwrap();
                let expected: Vec<_> = unsettled.range(taken..taken + got.batch.count()).cloned().collect();
                assert_eq!(bodies(&got), expected);
                taken += got.batch.count();
            }
            Step::SettleTaken => {
                settled_up_to += taken as u64;
                reader.settle(settled_up_to);
                unsettled.drain(..std::mem::take(&mut taken));
            }
            Step::Rollback => {
                reader.rollback();
                taken = 0;
            }
        }
    }
}
