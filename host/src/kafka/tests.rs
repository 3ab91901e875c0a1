//! The host's Kafka against an embedded broker: what goes in comes out, and what goes wrong costs nothing.

mod partitions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Code;
use super::*;
use crate::event::{Batch, Event};
use crate::plugin::Failure;
use crate::position::{Part, Position};

/// The Kafka protocol's number of a produce request.
const PRODUCE: i16 = 0;

/// Long enough for anything the embedded broker does on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pipeline with one embedded connection, `main`.
struct Fixture {
    clients: Arc<KafkaClients>,
}

impl Fixture {
    fn new() -> Self {
        Self::with_options(&[])
    }

    fn with_options(options: &[(&str, &str)]) -> Self {
        // The embedded group waits for as long as a session before each rebalance but the first.
        let quick = [("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "200")];
        let options = quick.iter().chain(options);
        let options = options.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let connection = KafkaConnection { embedded: true, options, ..KafkaConnection::default() };
        let connections = BTreeMap::from([(ConnectionName::from("main"), connection)]);
        Self { clients: KafkaClients::new("test", "here", &connections).expect("the broker starts") }
    }

    fn stage(&self, name: &str) -> Arc<StageKafka> {
        self.clients.stage(name, &[ConnectionName::from("main")])
    }

    fn broker(&self) -> &client::EmbeddedBroker {
        self.clients.connections["main"].broker()
    }

    async fn send(&self, topic: &str, events: &[Event]) {
        let stage = self.stage("filler");
        let refused = send(&stage, &Batch::from_events(events), &options(topic)).await.expect("all is sent");
        assert!(refused.is_empty(), "{refused:?}");
    }

    async fn consumer(&self, name: &str, subscription: Subscription) -> Arc<StageKafka> {
        let stage = self.stage(name);
        stage.subscribe(subscription).await.expect("it is subscribed");
        stage
    }
}

fn options(topic: &str) -> SendOptions {
    SendOptions {
        topic: Choice::Fixed(topic.into()),
        key_header: Some("key".into()),
        partition_header: Some("partition".into()),
        timestamp_header: None,
        null_header: Some("kafka.null".into()),
        forward_headers: None,
    }
}

fn subscription(topic: &str) -> Subscription {
    Subscription {
        connection: "main".into(),
        group: "readers".into(),
        topics: vec![topic.into()],
        partitions: None,
        start: Start::Earliest,
    }
}

fn event(body: &str, headers: &[(&str, &str)]) -> Event {
    let headers = headers.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    Event { headers, body: body.into() }
}

/// Numbered bodies, all for one partition.
fn numbered(numbers: std::ops::Range<usize>, partition: &str) -> Vec<Event> {
    numbers.map(|number| event(&number.to_string(), &[("partition", partition)])).collect()
}

async fn send(stage: &StageKafka, batch: &Batch, options: &SendOptions) -> Result<Vec<Refused>, ProducerLost> {
    let refused = stage.stage_send("main", batch, options).expect("the stage has its connection");
    assert!(refused.is_empty(), "{refused:?}");
    stage.send_staged(0).done().await
}

/// Reads until there are `count` events; answers them and the parts as they stand then.
async fn read(stage: &StageKafka, count: usize) -> (Vec<Event>, Vec<Part>) {
    let mut events = Vec::new();
    let mut position = Position::default();
    let deadline = Instant::now() + PATIENCE;
    while events.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came", events.len());
        if let Fetch::Records { batch, position: parts } =
            stage.poll(1000, 1 << 20, Duration::from_millis(500)).await.expect("records are read")
        {
            events.extend(batch.events());
            position.apply(&parts);
        }
    }
    (events, position.parts())
}

fn bodies(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8_lossy(&event.body).into_owned()).collect()
}

fn header<'e>(event: &'e Event, name: &str) -> Option<&'e [u8]> {
    event.headers.iter().find(|(known, _)| &**known == name).map(|(_, value)| value.as_slice())
}

#[tokio::test]
async fn a_stage_that_needs_fixed_partitions_subscribes_to_no_others() {
    let fixture = Fixture::new();
    let stage = fixture.stage("reader");
    stage.only_fixed_partitions("not by a group");
    let refused = stage.subscribe(subscription("fixed")).await;
    assert_eq!(refused, Err(Failure::Fatal("not by a group".into())));
    let fixed = Subscription { partitions: Some(vec![("fixed".into(), 0)]), ..subscription("fixed") };
    assert_eq!(stage.subscribe(fixed).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_comes_back_as_it_went() {
    let fixture = Fixture::new();
    let sent = [
        event("plain", &[("partition", "0")]),
        event("keyed", &[("partition", "0"), ("key", "k"), ("level", "info"), ("empty", "")]),
        event("", &[("partition", "0"), ("kafka.null", "true"), ("key", "gone")]),
        event("", &[("partition", "0")]),
    ];
    fixture.send("round", &sent).await;
    let stage = fixture.consumer("reader", subscription("round")).await;
    let (events, position) = read(&stage, 4).await;
    assert_eq!(bodies(&events), ["plain", "keyed", "", ""]);
    assert_eq!(header(&events[1], "key"), Some(&b"k"[..]));
    assert_eq!(header(&events[1], "level"), Some(&b"info"[..]));
    assert_eq!(header(&events[1], "empty"), Some(&b""[..]));
    assert_eq!(header(&events[0], "key"), None);
    assert_eq!(header(&events[2], "kafka.null"), Some(&b"true"[..]));
    assert_eq!(header(&events[3], "kafka.null"), None);
    assert_eq!(header(&events[3], "kafka.offset"), Some(&b"3"[..]));
    assert_eq!(header(&events[0], "kafka.topic"), Some(&b"round"[..]));
    assert_eq!(position, [Part { key: "round/0".into(), value: Some("4".into()) }]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn untouched_headers_go_on_and_on_but_where_they_came_from_does_not() {
    let fixture = Fixture::new();
    fixture.send("first", &[event("a", &[("level", "info"), ("partition", "2"), ("key", "k")])]).await;
    let reader = fixture.consumer("reader", subscription("first")).await;
    let Fetch::Records { batch, .. } = reader.poll(10, 1 << 20, PATIENCE).await.expect("it is read") else {
        panic!("the record comes")
    };
    let writer = fixture.stage("writer");
    send(&writer, &batch, &SendOptions { partition_header: None, ..options("second") }).await.expect("it is sent");
    let reader = fixture.consumer("reader2", subscription("second")).await;
    let (events, _) = read(&reader, 1).await;
    assert_eq!(header(&events[0], "level"), Some(&b"info"[..]));
    assert_eq!(header(&events[0], "key"), Some(&b"k"[..]));
    assert_eq!(header(&events[0], "kafka.topic"), Some(&b"second"[..]));
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_in_each_partition_over_many_deliveries() {
    let fixture = Fixture::new();
    let stage = fixture.stage("writer");
    let mut in_flight = Vec::new();
    for round in 0..50 {
        for partition in ["0", "1", "2", "3"] {
            stage.room().await;
            let batch = Batch::from_events(&numbered(round * 100..(round + 1) * 100, partition));
            stage.stage_send("main", &batch, &options("order")).expect("it is staged");
        }
        in_flight.push(stage.send_staged(0));
    }
    for delivery in in_flight {
        assert!(delivery.done().await.expect("all is sent").is_empty());
    }
    let reader = fixture.consumer("reader", subscription("order")).await;
    let (events, _) = read(&reader, 20_000).await;
    let mut next = BTreeMap::new();
    for event in &events {
        let partition = header(event, "kafka.partition").expect("every record has one").to_vec();
        let expected = next.entry(partition).or_insert(0);
        assert_eq!(event.body, expected.to_string().into_bytes());
        *expected += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [5000; 4]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_before_it_is_sent() {
    let fixture = Fixture::new();
    fixture.broker().make_topic("staged", 1);
    let stage = fixture.stage("writer");
    let batch = Batch::from_events(&numbered(0..3, "0"));
    stage.stage_send("main", &batch, &options("staged")).expect("it is staged");
    assert!(stage.has_staged());
    stage.discard_staged();
    assert!(!stage.has_staged());
    send(&stage, &Batch::from_events(&numbered(7..8, "0")), &options("staged")).await.expect("it is sent");
    let reader = fixture.consumer("reader", subscription("staged")).await;
    assert_eq!(bodies(&read(&reader, 1).await.0), ["7"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_is_refused_and_its_neighbours_arrive() {
    let fixture = Fixture::with_options(&[("message.max.bytes", "2000")]);
    let stage = fixture.stage("writer");
    let large = "x".repeat(3000);
    let batch = Batch::from_events(&[event("a", &[]), event(&large, &[]), event("b", &[])]);
    let refused = stage.stage_send("main", &batch, &options("sizes")).expect("it is staged");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 1);
    assert!(stage.send_staged(0).done().await.expect("the others are sent").is_empty());
    let reader = fixture.consumer("reader", subscription("sizes")).await;
    let mut arrived = bodies(&read(&reader, 2).await.0);
    arrived.sort();
    assert_eq!(arrived, ["a", "b"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_exist_refuses_the_record_alone() {
    let fixture = Fixture::new();
    fixture.broker().make_topic("two", 2);
    let stage = fixture.stage("writer");
    let mut events = numbered(0..2, "1");
    events.push(event("nowhere", &[("partition", "9")]));
    let refused = send(&stage, &Batch::from_events(&events), &options("two")).await.expect("the producer lives");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].event.bodies().get(0), b"nowhere");
    let reader = fixture.consumer("reader", subscription("two")).await;
    assert_eq!(bodies(&read(&reader, 2).await.0), ["0", "1"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_refused_as_a_batch_go_again_one_by_one() {
    let fixture = Fixture::new();
    let stage = fixture.stage("writer");
    let batch = Batch::from_events(&numbered(0..3, "0"));
    fixture.broker().fail_next(PRODUCE, &[Code::TOO_LARGE]);
    let lost = send(&stage, &batch, &options("suspects")).await.expect_err("nobody knows which record it was");
    assert!(matches!(lost.failure, Failure::Retry { .. }), "{lost}");
    fixture.broker().fail_next(PRODUCE, &[Code::TOO_LARGE]);
    let refused = send(&stage, &batch, &options("suspects")).await.expect("now it is known");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].event.bodies().get(0), b"0");
    let reader = fixture.consumer("reader", subscription("suspects")).await;
    assert_eq!(bodies(&read(&reader, 2).await.0), ["1", "2"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_for_a_while_loses_nothing() {
    let fixture = Fixture::new();
    fixture.send("outage", &numbered(0..1, "0")).await;
    let stage = fixture.stage("writer");
    let reader = fixture.consumer("reader", subscription("outage")).await;
    let (_, position) = read(&reader, 1).await;
    reader.settled(&position);
    assert!(matches!(reader.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    fixture.broker().go_down();
    let batch = Batch::from_events(&numbered(1..1001, "0"));
    stage.stage_send("main", &batch, &options("outage")).expect("a broker that is down is no failure");
    let mut delivery = Box::pin(stage.send_staged(0).done());
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut delivery).await.is_err(), "nobody has acknowledged");
    assert!(matches!(reader.poll(10, 1000, Duration::from_millis(10)).await, Ok(Fetch::Idle)));
    fixture.broker().come_up();
    assert!(delivery.await.expect("it is sent when the broker is back").is_empty());
    let (events, _) = read(&reader, 1000).await;
    assert_eq!(bodies(&events), bodies(&numbered(1..1001, "0")));
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_once_and_later_records_still_come() {
    let fixture = Fixture::new();
    fixture.send("ends", &numbered(0..5, "1")).await;
    let reader = fixture.consumer("reader", subscription("ends")).await;
    read(&reader, 5).await;
    assert!(matches!(reader.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    assert!(matches!(reader.poll(10, 1000, Duration::from_millis(50)).await, Ok(Fetch::Idle)));
    fixture.send("ends", &numbered(5..6, "1")).await;
    assert_eq!(bodies(&read(&reader, 1).await.0), ["5"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_starts_at_the_greater_of_stored_part_and_group_offset() {
    let fixture = Fixture::new();
    fixture.send("starts", &numbered(0..10, "0")).await;
    let first = fixture.consumer("first", subscription("starts")).await;
    let (_, position) = read(&first, 10).await;
    first.settled(&[Part { value: Some("4".into()), ..position[0].clone() }]);
    first.close(Instant::now() + PATIENCE).await;

    let behind = fixture.stage("behind");
    behind.set_position(&[("starts/0".into(), "2".into())].into_iter().collect());
    behind.subscribe(subscription("starts")).await.expect("it is subscribed");
    assert_eq!(bodies(&read(&behind, 6).await.0), ["4", "5", "6", "7", "8", "9"]);
    behind.close(Instant::now() + PATIENCE).await;

    let ahead = fixture.stage("ahead");
    ahead.set_position(&[("starts/0".into(), "7".into())].into_iter().collect());
    ahead.subscribe(subscription("starts")).await.expect("it is subscribed");
    assert_eq!(bodies(&read(&ahead, 3).await.0), ["7", "8", "9"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_starts_behind_what_is_there() {
    let fixture = Fixture::new();
    fixture.send("latest", &numbered(0..3, "0")).await;
    let latest = Subscription { start: Start::Latest, ..subscription("latest") };
    let reader = fixture.consumer("reader", latest).await;
    assert!(matches!(reader.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    fixture.send("latest", &numbered(3..4, "0")).await;
    assert_eq!(bodies(&read(&reader, 1).await.0), ["3"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_settled_is_committed() {
    let fixture = Fixture::new();
    fixture.send("commits", &numbered(0..6, "3")).await;
    let reader = fixture.consumer("reader", subscription("commits")).await;
    let (_, position) = read(&reader, 6).await;
    reader.close(Instant::now() + PATIENCE).await;

    let again = fixture.consumer("again", subscription("commits")).await;
    assert_eq!(read(&again, 6).await.0.len(), 6);
    again.settled(&position);
    again.close(Instant::now() + PATIENCE).await;

    let done = fixture.consumer("done", subscription("commits")).await;
    assert!(matches!(done.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribing_again_goes_on_from_the_position_set() {
    let fixture = Fixture::new();
    fixture.send("again", &numbered(0..100, "0")).await;
    let reader = fixture.consumer("reader", subscription("again")).await;
    read(&reader, 100).await;
    reader.set_position(&[("again/0".into(), "97".into())].into_iter().collect());
    reader.subscribe(subscription("again")).await.expect("it is subscribed");
    assert_eq!(bodies(&read(&reader, 3).await.0), ["97", "98", "99"]);
    // Nothing was put before the trap: all of it comes again.
    reader.set_position(&Position::default());
    reader.subscribe(subscription("again")).await.expect("it is subscribed");
    assert_eq!(read(&reader, 100).await.0.len(), 100);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_partitions_are_read_and_others_are_not() {
    let fixture = Fixture::new();
    fixture.send("fixed", &numbered(0..3, "0")).await;
    fixture.send("fixed", &numbered(3..6, "1")).await;
    let fixed = Subscription { partitions: Some(vec![("fixed".into(), 1)]), ..subscription("fixed") };
    let reader = fixture.consumer("reader", fixed.clone()).await;
    let (events, position) = read(&reader, 3).await;
    assert_eq!(bodies(&events), ["3", "4", "5"]);
    assert!(matches!(reader.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    reader.settled(&position);
    reader.close(Instant::now() + PATIENCE).await;
    let again = fixture.consumer("again", fixed).await;
    assert!(matches!(again.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_finds_its_topics() {
    let fixture = Fixture::new();
    fixture.send("logs.a", &numbered(0..1, "0")).await;
    fixture.send("logs.b", &numbered(1..2, "0")).await;
    fixture.send("other", &numbered(2..3, "0")).await;
    let reader = fixture.consumer("reader", subscription("^logs[.].*")).await;
    let mut found = bodies(&read(&reader, 2).await.0);
    found.sort();
    assert_eq!(found, ["0", "1"]);
    assert!(matches!(reader.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_takes_partitions_over_and_no_record_is_lost() {
    let fixture = Fixture::new();
    for partition in ["0", "1", "2", "3"] {
        fixture.send("moves", &numbered(0..10, partition)).await;
    }
    let first = fixture.consumer("first", subscription("moves")).await;
    let (events, position) = read(&first, 40).await;
    assert_eq!(events.len(), 40);
    assert!(matches!(first.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    let second = fixture.consumer("second", subscription("moves")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // The first gives nothing back before what it handed out is settled.
    first.settled(&position);
    let deadline = Instant::now() + PATIENCE;
    // It is the second's turn when its partitions have been read to their end. The mock broker may not wait for the first
    // one's commit, so records may repeat here; `end_to_end/groups.rs` holds a real broker to more.
    loop {
        match second.poll(100, 1 << 20, Duration::from_millis(200)).await.expect("it reads") {
            Fetch::Records { position, .. } => second.settled(&position),
            Fetch::AtEnd => break,
            Fetch::Idle => assert!(Instant::now() < deadline, "the second member got no partitions"),
        }
    }
    for partition in ["0", "1", "2", "3"] {
        fixture.send("moves", &numbered(10..11, partition)).await;
    }
    let (mut of_first, mut of_second) = (0, 0);
    while of_first + of_second < 4 {
        assert!(Instant::now() < deadline + PATIENCE, "{of_first} and {of_second} records came");
        for (stage, count) in [(&first, &mut of_first), (&second, &mut of_second)] {
            let fetch = stage.poll(100, 1 << 20, Duration::from_millis(50)).await.expect("it reads");
            if let Fetch::Records { batch, .. } = fetch {
                *count += batch.count();
            }
        }
    }
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pipeline_keeps_its_place_in_the_group() {
    let fixture = Fixture::with_options(&[("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")]);
    fixture.send("full", &numbered(0..10, "0")).await;
    let reader = fixture.consumer("reader", subscription("full")).await;
    read(&reader, 10).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    fixture.send("full", &numbered(10..11, "0")).await;
    assert_eq!(bodies(&read(&reader, 1).await.0), ["10"]);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_wait_at_once() {
    let fixture = Fixture::new();
    fixture.broker().make_topic("quiet", 1);
    let reader = fixture.consumer("reader", subscription("quiet")).await;
    assert!(matches!(reader.poll(10, 1000, PATIENCE).await, Ok(Fetch::AtEnd)));
    let start = Instant::now();
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.poll(10, 1000, PATIENCE).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    reader.interrupt();
    assert!(matches!(waiting.await.expect("it ends"), Ok(Fetch::Idle)));
    assert!(start.elapsed() < PATIENCE / 2);
    fixture.clients.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_while_the_coordinator_is_away_ends_in_time() {
    let fixture = Fixture::new();
    fixture.send("gone", &numbered(0..10, "0")).await;
    let reader = fixture.consumer("reader", subscription("gone")).await;
    let (_, position) = read(&reader, 10).await;
    fixture.broker().go_down();
    reader.settled(&position);
    let stage = fixture.stage("writer");
    stage.stage_send("main", &Batch::from_events(&numbered(0..1, "0")), &options("gone")).expect("it is staged");
    let delivery = stage.send_staged(0);
    drop((reader, stage));
    let start = Instant::now();
    fixture.clients.close(Duration::from_secs(3)).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(delivery.done().await.is_err(), "nobody has acknowledged it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_granted_is_refused_with_the_line_to_add() {
    let fixture = Fixture::new();
    let stage = fixture.clients.stage("writer", &[]);
    let Err(Failure::Fatal(text)) = stage.open_producer("main") else { panic!("it is not granted") };
    assert!(text.contains("allow = { kafka = [\"main\"] }"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_said_in_words_and_the_next_try_goes_well() {
    let fixture = Fixture::with_options(&[("topic.metadata.propagation.max.ms", "500")]);
    let stage = fixture.stage("writer");
    fixture.broker().make_topic("missing", 1);
    fixture.broker().fail_topic("missing", Code::UNKNOWN_TOPIC_OR_PARTITION);
    let batch = Batch::from_events(&numbered(0..2, "0"));
    let lost = send(&stage, &batch, &options("missing")).await.expect_err("there is no such topic");
    let Failure::Retry { reason, .. } = &lost.failure else { panic!("{lost}") };
    assert!(reason.starts_with("topic `missing` does not exist"), "{reason}");
    fixture.broker().fail_topic("missing", Code::OK);
    assert!(send(&stage, &batch, &options("missing")).await.expect("it exists now").is_empty());
    let reader = fixture.consumer("reader", subscription("missing")).await;
    assert_eq!(bodies(&read(&reader, 2).await.0), ["0", "1"]);
    fixture.clients.close(PATIENCE).await;
}
