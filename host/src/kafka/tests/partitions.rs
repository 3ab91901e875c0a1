//! Where records go.

use std::collections::BTreeSet;

use super::*;

/// Longer than records without a key keep to a partition.
const NEXT_TIME: Duration = Duration::from_millis(15);

/// Nothing says where it goes.
fn anywhere(topic: &str) -> SendOptions {
    SendOptions { key_header: None, partition_header: None, ..options(topic) }
}

/// A fixture whose topic `t` has 4 partitions and is known to its stage.
async fn with_topic(options: &[(&str, &str)]) -> (Fixture, Arc<StageKafka>) {
    let fixture = Fixture::with_options(options);
    let stage = fixture.stage("writer");
    send(&stage, &Batch::from_events(&[event("first", &[])]), &anywhere("t")).await.expect("it is sent");
    (fixture, stage)
}

/// The batch's name in each of `count` events.
fn named(batch: usize, count: usize, headers: &[(&str, &str)]) -> Batch {
    Batch::from_events(&vec![event(&batch.to_string(), headers); count])
}

/// What has arrived in the topic `t`: so many.
async fn arrived(fixture: &Fixture, count: usize) -> Vec<Event> {
    let reader = fixture.consumer("reader", subscription("t")).await;
    read(&reader, count).await.0
}

/// The partitions in which events with this body arrived.
fn partitions_of(events: &[Event], body: &str) -> BTreeSet<Vec<u8>> {
    let those = events.iter().filter(|event| event.body == body.as_bytes());
    those.map(|event| header(event, "kafka.partition").expect("every record has one").to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_go_together_and_the_next_ones_elsewhere() {
    // With a header, records are handed over one by one.
    for headers in [&[][..], &[("level", "info")]] {
        let (fixture, stage) = with_topic(&[]).await;
        for batch in 0..30 {
            send(&stage, &named(batch, 10, headers), &anywhere("t")).await.expect("it is sent");
            tokio::time::sleep(NEXT_TIME).await;
        }
        let events = arrived(&fixture, 301).await;
        let mut all = BTreeSet::new();
        for batch in 0..30 {
            let partitions = partitions_of(&events, &batch.to_string());
            assert_eq!(partitions.len(), 1, "batch {batch}: {partitions:?}");
            all.extend(partitions);
        }
        // That chance has left one out, has a likelihood of 1 to 1400.
        assert!(all.len() >= 3, "{all:?}");
        fixture.clients.close(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_are_scattered_where_they_are_not_to_linger() {
    let (fixture, stage) = with_topic(&[("sticky.partitioning.linger.ms", "0")]).await;
    send(&stage, &named(1, 100, &[]), &anywhere("t")).await.expect("it is sent");
    let events = arrived(&fixture, 101).await;
    assert_eq!(partitions_of(&events, "1").len(), 4);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioner_without_chance_has_a_place_for_records_without_a_key() {
    let (fixture, stage) = with_topic(&[("partitioner", "murmur2")]).await;
    for _ in 0..10 {
        send(&stage, &named(1, 10, &[]), &anywhere("t")).await.expect("it is sent");
        tokio::time::sleep(NEXT_TIME).await;
    }
    let events = arrived(&fixture, 101).await;
    assert_eq!(partitions_of(&events, "1").len(), 1);
    fixture.clients.close(PATIENCE).await;
}

/// The numbers are those of librdkafka's own tests of murmur2, as Java's clients have them, of 4 partitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_finds_the_partition_that_javas_clients_find() {
    let (fixture, stage) = with_topic(&[]).await;
    let keys = [("kafka", "0"), ("4", "1"), ("234", "2")];
    let events = keys.map(|(key, _)| event(key, &[("key", key)]));
    send(&stage, &Batch::from_events(&events), &options("t")).await.expect("it is sent");
    let events = arrived(&fixture, 4).await;
    for (key, partition) in keys {
        assert_eq!(partitions_of(&events, key), BTreeSet::from([partition.into()]), "{key}");
    }
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_pass_by_partitions_that_have_no_leader() {
    let fixture = Fixture::new();
    fixture.broker().make_topic("t", 4);
    (0..3).for_each(|partition| fixture.broker().take_leader("t", partition));
    let stage = fixture.stage("writer");
    // A client that has just heard of a topic knows no leader yet, and lets records wait anywhere.
    send(&stage, &named(0, 1, &[("partition", "3")]), &options("t")).await.expect("it is sent");
    for batch in 1..10 {
        let sent = tokio::time::timeout(PATIENCE, send(&stage, &named(batch, 10, &[]), &anywhere("t"))).await;
        sent.expect("no record waits for a leader").expect("it is sent");
        tokio::time::sleep(NEXT_TIME).await;
    }
    fixture.clients.close(PATIENCE).await;
}

/// Each has its partition as the event says, and those of one partition arrive in their order.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_several_partitions_may_come_in_turns() {
    let (fixture, stage) = with_topic(&[]).await;
    let events: Vec<_> =
        (0..100).map(|number| event(&number.to_string(), &[("partition", PLACES[number % 3])])).collect();
    send(&stage, &Batch::from_events(&events), &options("t")).await.expect("it is sent");
    let events = arrived(&fixture, 101).await;
    for (turn, place) in PLACES.iter().enumerate() {
        let here =
            |event: &&Event| header(event, "kafka.partition") == Some(place.as_bytes()) && event.body != b"first";
        let bodies = bodies(&events.iter().filter(here).cloned().collect::<Vec<_>>());
        assert_eq!(bodies, (turn..100).step_by(3).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    fixture.clients.close(PATIENCE).await;
}

const PLACES: [&str; 3] = ["2", "0", "3"];
