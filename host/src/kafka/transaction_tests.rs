//! Transactions against the mock cluster: what waits, what is committed, and which error means what. What readers see of it is
//! proven on a real broker (`tests/tests/end_to_end/exactly_once.rs`): the mock cluster shows them everything at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::client::Code;
use super::*;
use crate::event::{Batch, Event};

/// The Kafka protocol's numbers of requests.
const INIT_PRODUCER_ID: i16 = 22;
const END_TRANSACTION: i16 = 26;

const ADD_PARTITIONS: i16 = 24;

/// `NOT_COORDINATOR`, the answer of a broker that no longer is the transaction's.
const COORDINATOR_MOVED: Code = Code(16);

/// `COORDINATOR_LOAD_IN_PROGRESS`, which librdkafka deals with by itself.
const COORDINATOR_LOADING: Code = Code(14);

struct Nobody;

impl Revocation for Nobody {
    fn hurry(&self) {}
    fn void(&self) {}
}

struct Fixture {
    clients: Arc<KafkaClients>,
    outbox: Arc<Outbox>,
    connection: TransactionalConnection,
}

impl Fixture {
    fn new() -> Self {
        let connection = KafkaConnection { embedded: true, ..KafkaConnection::default() };
        let main = ConnectionName::from("main");
        let connections = BTreeMap::from([(main.clone(), connection)]);
        let clients = KafkaClients::new("test", "here", &connections).expect("the broker starts");
        let outbox = Arc::<Outbox>::default();
        let connection = clients.transactional(&main, None, &outbox);
        Self { clients, outbox, connection }
    }

    fn sink(&self) -> Arc<StageKafka> {
        let stage = self.clients.stage("sink", &[ConnectionName::from("main")]);
        stage.take_part(InTransactions { outbox: self.outbox.clone(), revocation: Arc::new(Nobody) });
        stage
    }

    fn fail_next(&self, request: i16, code: Code) {
        self.clients.connections["main"].broker().fail_next(request, &[code]);
    }

    async fn producer(&self) -> TransactionalProducer {
        self.connection.start(Packing::Together).await.expect("the broker gives an id")
    }

    /// A sink, and a producer whose first transaction is open.
    async fn open_transaction(&self) -> (Arc<StageKafka>, TransactionalProducer) {
        let (sink, producer) = (self.sink(), self.producer().await);
        producer.begin().expect("it has an id");
        self.outbox.open(1, &producer);
        (sink, producer)
    }
}

fn send(stage: &StageKafka, cut: u64) -> InFlight {
    let options = SendOptions {
        topic: Choice::Fixed("out".into()),
        key_header: None,
        partition_header: None,
        timestamp_header: None,
        null_header: None,
        forward_headers: None,
    };
    let batch = Batch::from_events(&[Event { headers: Vec::new(), body: b"a".to_vec() }]);
    stage.stage_send("main", &batch, &options).expect("the stage has its connection");
    stage.send_staged(cut)
}

#[tokio::test]
async fn what_belongs_to_the_next_transaction_waits_until_that_is_open() {
    let fixture = Fixture::new();
    let (sink, producer) = fixture.open_transaction().await;
    let (now, mut next) = (send(&sink, 1), Box::pin(send(&sink, 2).done()));
    assert_eq!(now.done().await.expect("it is delivered").len(), 0);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err());
    fixture.outbox.close();
    producer.commit(producer.prepare(Vec::new())).await.expect("the broker commits");
    producer.begin().expect("the one before is committed");
    fixture.outbox.open(2, &producer);
    assert_eq!(next.await.expect("it is delivered").len(), 0);
}

#[tokio::test]
async fn what_waits_is_answered_when_its_transaction_will_not_come() {
    let fixture = Fixture::new();
    let waiting = send(&fixture.sink(), 2);
    fixture.outbox.void();
    assert!(waiting.done().await.is_err());
}

#[tokio::test]
async fn what_is_sent_for_a_transaction_that_was_given_up_is_in_no_later_one() {
    let fixture = Fixture::new();
    let (sink, producer) = fixture.open_transaction().await;
    fixture.outbox.void();
    // By a sink whose call had begun before.
    let before = send(&sink, 1);
    fixture.outbox.open(2, &producer);
    let behind = send(&sink, 1);
    for late in [before, behind] {
        assert!(late.done().await.is_err());
    }
    assert!(send(&sink, 2).done().await.is_ok());
}

#[tokio::test]
async fn a_coordinator_that_is_busy_is_asked_again() {
    let fixture = Fixture::new();
    fixture.fail_next(INIT_PRODUCER_ID, COORDINATOR_LOADING);
    fixture.producer().await;
}

#[tokio::test]
async fn an_id_that_is_not_allowed_stops_with_what_to_grant() {
    let fixture = Fixture::new();
    fixture.fail_next(INIT_PRODUCER_ID, Code::TRANSACTIONAL_ID_AUTHORIZATION);
    let trouble = fixture.connection.start(Packing::Together).await.err();
    let Some(TransactionTrouble::Stop(text)) = trouble else { panic!("{trouble:?}") };
    assert!(text.contains("`main`") && text.contains("grant the user Write and Describe"), "{text}");
}

#[tokio::test]
async fn a_commit_by_a_producer_that_another_has_fenced_says_so() {
    let fixture = Fixture::new();
    let (sink, producer) = fixture.open_transaction().await;
    send(&sink, 1).done().await.expect("it is delivered");
    fixture.fail_next(END_TRANSACTION, Code::PRODUCER_FENCED);
    let answer = producer.commit(producer.prepare(Vec::new())).await;
    assert!(matches!(answer, Err(TransactionTrouble::Fenced(_))), "{answer:?}");
}

#[tokio::test]
async fn a_coordinator_that_moves_in_a_transaction_is_found_again_by_this_producer_or_the_next() {
    let fixture = Fixture::new();
    fixture.fail_next(INIT_PRODUCER_ID, COORDINATOR_MOVED);
    for moved in [ADD_PARTITIONS, END_TRANSACTION] {
        let (sink, producer) = fixture.open_transaction().await;
        fixture.fail_next(moved, COORDINATOR_MOVED);
        assert_eq!(send(&sink, 1).done().await.expect("it is delivered").len(), 0);
        let answer = producer.commit(producer.prepare(Vec::new())).await;
        // Found again; but the connection to the old one has ended, perhaps during the commit.
        assert!(matches!(answer, Ok(()) | Err(TransactionTrouble::Again(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_during_a_commit_leaves_its_outcome_open() {
    let fixture = Fixture::new();
    let (sink, producer) = fixture.open_transaction().await;
    send(&sink, 1).done().await.expect("it is delivered");
    let prepared = producer.prepare(Vec::new());
    let broker = fixture.clients.connections["main"].broker().clone();
    broker.go_down();
    broker.come_up();
    let answer = producer.commit(prepared).await;
    assert!(matches!(answer, Err(TransactionTrouble::Again(_))), "{answer:?}");
}
