//! The promises every channel keeps, as one suite: each rule is run for each kind of channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::event::{Batch, Packed};

/// How the suite comes by channels.
trait Make {
    /// Channels of one pipeline, each with these readers. Made again after the old ones are gone, they go on where those were
    /// if they outlive the process.
    fn make(&self, channels: &[(&str, Capacity)], readers: &[&str]) -> Vec<Channel>;
}

struct Memory;

impl Make for Memory {
    fn make(&self, channels: &[(&str, Capacity)], _readers: &[&str]) -> Vec<Channel> {
        let channels = channels.iter().enumerate();
        channels.map(|(number, (name, room))| Channel::Memory(MemoryChannel::new(*name, number, *room))).collect()
    }
}

struct File(tempfile::TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }
}

impl Make for File {
    fn make(&self, channels: &[(&str, Capacity)], readers: &[&str]) -> Vec<Channel> {
        let options = channels.iter().map(|(name, _)| wasmflow_log::ChannelOptions {
            segment_bytes: 64 << 10,
            min_free_bytes: 0,
            readers: readers.iter().map(|reader| ((*reader).into(), wasmflow_log::Start::Tail)).collect(),
            ..wasmflow_log::ChannelOptions::new(*name)
        });
        let disk = Arc::new(wasmflow_log::Disk);
        let logs = wasmflow_log::LogSet::open(disk, self.0.path(), "test", options.collect());
        let logs = Arc::new(logs.expect("the folder is ours").0);
        let channels = channels.iter().enumerate();
        channels.map(|(number, (name, room))| Channel::File(FileChannel::new(&logs, name, number, *room))).collect()
    }
}

/// Runs every rule for every kind.
macro_rules! contract {
    ($($rule:ident,)*) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $rule() {
                    super::$rule(&super::Memory).await;
                }
            )*
        }

        mod file {
            $(
                #[tokio::test]
                async fn $rule() {
                    super::$rule(&super::File::new()).await;
                }
            )*
        }
    };
}

contract! {
    a_put_is_seen_when_it_is_committed_and_not_before,
    a_dropped_put_leaves_no_trace,
    rolled_back_events_are_taken_again_in_order,
    a_full_channel_lets_puts_wait_and_serves_them_in_order,
    a_put_larger_than_the_channel_goes_in_alone,
    every_reader_gets_every_event_and_the_slowest_holds_the_room,
    a_put_into_two_channels_is_settled_when_both_are,
    takes_are_bounded_by_events_and_bytes_and_never_stuck_on_a_large_event,
    a_reader_waits_for_a_fuller_batch_no_longer_than_it_was_told,
    the_log_ends_when_the_last_writer_is_gone_and_everything_is_taken,
    a_failed_channel_refuses_puts_that_wait_and_those_that_come,
    a_stopped_reader_leaves_where_it_was_told_and_another_goes_on_there,
    a_reader_that_waits_is_stopped_and_goes_on_where_it_had_settled,
    a_removed_reader_holds_nothing_and_says_what_it_gives_up,
    a_larger_capacity_lets_in_who_waits,
    thousands_of_small_puts_of_which_some_are_given_up_all_arrive_once_and_in_order,
}

const ALL: TakeLimits = TakeLimits { events: 1000, bytes: 1 << 20, wait: Duration::ZERO };

fn channel(make: &impl Make, events: u64) -> Channel {
    channel_for(make, events, &["r"])
}

fn channel_for(make: &impl Make, events: u64, readers: &[&str]) -> Channel {
    make.make(&[("events", Capacity { events, bytes: 1 << 20 })], readers).remove(0)
}

fn batch(bodies: &[&str]) -> Batch {
    Batch::new(bodies.iter().collect::<Packed>())
}

fn bodies(taken: &Taken) -> Vec<String> {
    taken.batch.bodies().iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
}

async fn put(channel: &Channel, bodies: &[&str]) -> Receipt {
    let puts = begin_puts(vec![(channel.clone(), batch(bodies))]).await.unwrap();
    commit(puts).await
}

/// Commits, and waits for the disk where there is one.
async fn commit(puts: Vec<PutTransaction>) -> Receipt {
    let owner = Arc::new(Notify::new());
    let receipt = commit_puts(puts, PutNote::of("source"), &owner).unwrap();
    while !receipt.is_durable() {
        owner.notified().await;
    }
    receipt
}

async fn take(reader: &mut Reader) -> Taken {
    reader.take(&ALL).await.unwrap().expect("the log has not ended")
}

/// A put that waits for room, and gives it up once it has it.
async fn waiting_put(channel: &Channel) -> JoinHandle<Result<(), ChannelError>> {
    let channel = channel.clone();
    let waiting = tokio::spawn(async move { channel.begin_put(batch(&["b"])).await.map(drop) });
    tokio::task::yield_now().await;
    waiting
}

/// Polls a future once and says whether it is still waiting.
async fn waits<F: Future>(future: F) -> bool {
    tokio::time::timeout(Duration::from_millis(20), future).await.is_err()
}

async fn a_put_is_seen_when_it_is_committed_and_not_before(make: &impl Make) {
    let channel = channel(make, 10);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    let put = channel.begin_put(batch(&["a", "b"])).await.unwrap();
    assert!(waits(reader.take(&ALL)).await);
    commit(vec![put]).await;
    assert_eq!(bodies(&take(&mut reader).await), ["a", "b"]);
}

async fn a_dropped_put_leaves_no_trace(make: &impl Make) {
    let channel = channel(make, 2);
    let (writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    drop(channel.begin_put(batch(&["a", "b"])).await.unwrap());
    put(&channel, &["c", "d"]).await;
    drop(writer);
    assert_eq!(bodies(&take(&mut reader).await), ["c", "d"]);
    reader.settle(2);
    assert!(reader.take(&ALL).await.unwrap().is_none());
}

async fn rolled_back_events_are_taken_again_in_order(make: &impl Make) {
    let channel = channel(make, 10);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a", "b"]).await;
    put(&channel, &["c"]).await;
    let two = TakeLimits { events: 2, ..ALL };
    assert_eq!(bodies(&reader.take(&two).await.unwrap().unwrap()), ["a", "b"]);
    assert_eq!(bodies(&reader.take(&two).await.unwrap().unwrap()), ["c"]);
    reader.settle(1);
    reader.rollback();
    let taken = take(&mut reader).await;
    assert_eq!((bodies(&taken), taken.first, taken.next), (vec!["b".into(), "c".into()], 1, 3));
}

async fn a_full_channel_lets_puts_wait_and_serves_them_in_order(make: &impl Make) {
    let channel = channel(make, 2);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a", "b"]).await;
    assert!(matches!(channel.try_begin_put(batch(&["c"])), Err(ChannelError::Full { held: 2, capacity: 2, .. })));
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { put(&channel, &["c", "d"]).await }
    });
    reader.pressure().rises().await;
    assert_eq!(bodies(&take(&mut reader).await), ["a", "b"]);
    assert!(waits(reader.take(&ALL)).await, "taking frees nothing: only settling does");
    reader.settle(2);
    assert_eq!(bodies(&take(&mut reader).await), ["c", "d"]);
    waiting.await.unwrap();
}

async fn a_put_larger_than_the_channel_goes_in_alone(make: &impl Make) {
    let channel = channel(make, 2);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a", "b", "c"]).await;
    assert!(channel.try_begin_put(batch(&["d"])).is_err());
    assert_eq!(take(&mut reader).await.next, 3);
    reader.settle(3);
    assert!(channel.try_begin_put(batch(&["d"])).is_ok());
}

async fn every_reader_gets_every_event_and_the_slowest_holds_the_room(make: &impl Make) {
    let channel = channel_for(make, 2, &["fast", "slow"]);
    let (_writer, mut fast, mut slow) =
        (channel.writer(), channel.reader("fast").unwrap(), channel.reader("slow").unwrap());
    let receipt = put(&channel, &["a", "b"]).await;
    assert_eq!(bodies(&take(&mut fast).await), ["a", "b"]);
    fast.settle(2);
    assert!(channel.try_begin_put(batch(&["c"])).is_err());
    assert_eq!(receipt.is_settled(), channel.is_durable(), "a put is safe on disk, or when all have settled it");
    assert_eq!(bodies(&take(&mut slow).await), ["a", "b"]);
    slow.settle(2);
    assert!(receipt.is_settled());
    assert!(channel.try_begin_put(batch(&["c"])).is_ok());
}

async fn a_put_into_two_channels_is_settled_when_both_are(make: &impl Make) {
    let room = Capacity { events: 10, bytes: 1000 };
    let [left, right] = <[_; 2]>::try_from(make.make(&[("left", room), ("right", room)], &["r"])).unwrap();
    let (mut left_reader, mut right_reader) = (left.reader("r").unwrap(), right.reader("r").unwrap());
    let owner = Arc::new(Notify::new());
    let puts = begin_puts(vec![(right.clone(), batch(&["a"])), (left.clone(), batch(&["a"]))]).await.unwrap();
    let receipt = commit_puts(puts, PutNote::of("source"), &owner).unwrap();
    take(&mut left_reader).await;
    left_reader.settle(1);
    assert!(left.is_durable() || !receipt.is_settled());
    take(&mut right_reader).await;
    right_reader.settle(1);
    while !receipt.is_settled() {
        owner.notified().await;
    }
}

#[tokio::test]
async fn an_emptied_put_is_settled_at_once() {
    assert!(commit(Vec::new()).await.is_settled());
}

async fn takes_are_bounded_by_events_and_bytes_and_never_stuck_on_a_large_event(make: &impl Make) {
    let channel = channel(make, 10);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "b", "c", "d"]).await;
    let small = TakeLimits { events: 2, bytes: 8, wait: Duration::ZERO };
    let mut sizes = Vec::new();
    while !reader.is_at_end() {
        sizes.push(reader.take(&small).await.unwrap().unwrap().batch.count());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 4);
    assert!(sizes.iter().all(|&size| (1..=2).contains(&size)), "{sizes:?}");
}

async fn a_reader_waits_for_a_fuller_batch_no_longer_than_it_was_told(make: &impl Make) {
    let channel = channel(make, 10);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    let patient = |wait| TakeLimits { events: 3, wait, ..ALL };
    put(&channel, &["a"]).await;
    let start = tokio::time::Instant::now();
    let moment = Duration::from_millis(30);
    assert_eq!(bodies(&reader.take(&patient(moment)).await.unwrap().unwrap()), ["a"]);
    assert!(start.elapsed() >= moment);
    put(&channel, &["b", "c", "d"]).await;
    let full = tokio::time::timeout(Duration::from_secs(5), reader.take(&patient(Duration::from_secs(60)))).await;
    assert_eq!(bodies(&full.expect("a full batch does not wait").unwrap().unwrap()), ["b", "c", "d"]);
}

async fn the_log_ends_when_the_last_writer_is_gone_and_everything_is_taken(make: &impl Make) {
    let channel = channel(make, 10);
    let (first, second, mut reader) = (channel.writer(), channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a"]).await;
    drop(first);
    assert_eq!(bodies(&take(&mut reader).await), ["a"]);
    assert!(waits(reader.take(&ALL)).await);
    drop(second);
    assert!(reader.take(&ALL).await.unwrap().is_none());
}

async fn a_failed_channel_refuses_puts_that_wait_and_those_that_come(make: &impl Make) {
    let channel = channel(make, 1);
    let (_writer, _reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a"]).await;
    let waiting = waiting_put(&channel).await;
    channel.fail("sink `x` stopped");
    let failed = ChannelError::Failed { channel: "events".into(), reason: "sink `x` stopped".into() };
    assert_eq!(waiting.await.unwrap(), Err(failed.clone()));
    assert_eq!(channel.try_begin_put(batch(&["c"])).map(drop), Err(failed));
}

async fn a_stopped_reader_leaves_where_it_was_told_and_another_goes_on_there(make: &impl Make) {
    let channel = channel(make, 10);
    let (_writer, mut old) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a", "b", "c"]).await;
    channel.add_reader("new", Start::Tail).unwrap();
    channel.stop_reader("r", channel.end());
    put(&channel, &["d"]).await;
    let two = TakeLimits { events: 2, ..ALL };
    assert_eq!(bodies(&old.take(&two).await.unwrap().unwrap()), ["a", "b"]);
    old.settle(2);
    old.rollback();
    assert_eq!(bodies(&take(&mut old).await), ["c"]);
    assert!(old.take(&ALL).await.unwrap().is_none());
    old.ended().await;
    assert_eq!(bodies(&take(&mut channel.reader("new").unwrap()).await), ["d"]);
    let mut later = channel.reader("new").unwrap();
    put(&channel, &["e"]).await;
    later.skip_to(4);
    assert_eq!((bodies(&take(&mut later).await), channel.settled_by("new")), (vec!["e".into()], Some(4)));
}

async fn a_reader_that_waits_is_stopped_and_goes_on_where_it_had_settled(make: &impl Make) {
    let channel = channel(make, 10);
    let (_writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a", "b"]).await;
    take(&mut reader).await;
    reader.settle(1);
    let waiting = tokio::spawn(async move { reader.take(&ALL).await.unwrap().is_none() });
    tokio::task::yield_now().await;
    channel.stop_reader("r", 0);
    assert!(waiting.await.unwrap());
    assert_eq!(bodies(&take(&mut channel.reader("r").unwrap()).await), ["b"]);
}

async fn a_removed_reader_holds_nothing_and_says_what_it_gives_up(make: &impl Make) {
    let channel = channel_for(make, 10, &["stays", "goes"]);
    let (mut stays, mut goes) = (channel.reader("stays").unwrap(), channel.reader("goes").unwrap());
    let _writer = channel.writer();
    let receipt = put(&channel, &["a", "b", "c"]).await;
    take(&mut stays).await;
    stays.settle(3);
    take(&mut goes).await;
    goes.settle(1);
    assert_eq!(channel.held().events, if channel.is_durable() { 2 } else { 3 });
    drop(goes);
    assert_eq!(channel.remove_reader("goes").unwrap(), 2);
    assert_eq!(channel.held().events, 0);
    assert!(receipt.is_settled());
}

async fn a_larger_capacity_lets_in_who_waits(make: &impl Make) {
    let channel = channel(make, 1);
    let (_writer, _reader) = (channel.writer(), channel.reader("r").unwrap());
    put(&channel, &["a"]).await;
    let waiting = waiting_put(&channel).await;
    channel.set_capacity(Capacity { events: 2, bytes: 1 << 20 });
    waiting.await.unwrap().unwrap();
}

async fn thousands_of_small_puts_of_which_some_are_given_up_all_arrive_once_and_in_order(make: &impl Make) {
    const PUTS: usize = 500;
    let channel = channel(make, 3);
    let mut reader = channel.reader("r").unwrap();
    let source = |name: &'static str, channel: Channel| async move {
        for number in 0..PUTS {
            let event = || batch(&[&format!("{name}{number}")]);
            // Given up wherever it waits: for its turn, or for room.
            for patience in 0..number % 4 {
                let put = std::pin::pin!(channel.begin_put(event()));
                tokio::select! { biased; put = put => drop(put.unwrap()), () = turns(patience) => {} }
            }
            commit(vec![channel.begin_put(event()).await.unwrap()]).await;
        }
    };
    let sources = ["a", "b", "c", "d"].map(|name| {
        let (channel, writer) = (channel.clone(), channel.writer());
        async move {
            source(name, channel).await;
            drop(writer);
        }
    });
    let [a, b, c, d] = sources;
    let take_all = async {
        let mut arrived = Vec::new();
        while let Some(taken) = reader.take(&ALL).await.unwrap() {
            reader.settle(taken.next);
            arrived.extend(bodies(&taken));
        }
        arrived
    };
    let all = async { tokio::join!(a, b, c, d, take_all).4 };
    let arrived = tokio::time::timeout(Duration::from_secs(120), all).await.expect("no wake-up is lost");
    for name in ["a", "b", "c", "d"] {
        let of: Vec<_> = arrived.iter().filter_map(|body| body.strip_prefix(name)).collect();
        assert_eq!(of, (0..PUTS).map(|number| number.to_string()).collect::<Vec<_>>(), "{name}");
    }
}

/// Lets the others go on so many times.
async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// One step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    DropPut(u8),
    Take(u8),
    SettleTaken,
    Rollback,
    /// Close everything in order and go on from what is on disk.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..6u8).prop_map(Step::Put),
        (1..6u8).prop_map(Step::DropPut),
        (1..6u8).prop_map(Step::Take),
        Just(Step::SettleTaken),
        Just(Step::Rollback),
        Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn any_sequence_of_steps_agrees_with_a_queue(steps in steps()) {
        runtime().block_on(agree_with_a_queue(&Memory, &steps));
    }
}

proptest! {
    // Each case opens logs and syncs them.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_steps_agrees_with_a_queue_on_disk(steps in steps()) {
        runtime().block_on(agree_with_a_queue(&File::new(), &steps));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

async fn agree_with_a_queue(make: &impl Make, steps: &[Step]) {
    let mut channel = channel(make, 12);
    let (mut writer, mut reader) = (channel.writer(), channel.reader("r").unwrap());
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
                        commit(vec![put]).await;
                        number += names.len();
                        unsettled.extend(names);
                    }
                    Err(_) => assert!(channel.held().events + u64::from(count) > 12),
                }
            }
            Step::DropPut(count) => drop(channel.try_begin_put(batch(&vec!["dropped"; count.into()]))),
            Step::Take(_) if reader.is_at_end() => assert_eq!(taken, unsettled.len()),
            Step::Take(events) => {
                let got = reader.take(&TakeLimits { events: events.into(), ..ALL }).await.unwrap().unwrap();
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
            Step::Reopen if channel.is_durable() => {
                drop((writer, reader, channel));
                channel = self::channel(make, 12);
                (writer, reader) = (channel.writer(), channel.reader("r").unwrap());
                taken = 0;
            }
            Step::Reopen => {}
        }
    }
    drop(writer);
}
