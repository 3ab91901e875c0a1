//! The servers themselves: tests that kill them lean on what they promise here.

use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::database::MariaDb;
use wasmflow_tests::records::Topics;

#[test]
fn a_killed_broker_comes_back_at_its_address_with_its_records() -> anyhow::Result<()> {
    let Some(mut broker) = KafkaBroker::own() else { return Ok(()) };
    let topics = Topics::at(broker.address());
    topics.create("kept", 2)?;
    topics.produce("kept", 1, ["a", "b"])?;
    broker.kill();
    broker.restart()?;
    let read: Vec<_> = topics.read_all("kept")?.iter().map(|record| (record.partition, record.text())).collect();
    assert_eq!(read, [(1, "a".to_owned()), (1, "b".to_owned())]);
    Ok(())
}

#[test]
fn a_killed_database_comes_back_at_its_address_with_its_rows() -> anyhow::Result<()> {
    let Some(mut database) = MariaDb::own() else { return Ok(()) };
    database.sql("CREATE DATABASE kept; CREATE TABLE kept.t (id INT PRIMARY KEY); INSERT INTO kept.t VALUES (7)")?;
    database.kill();
    assert!(database.sql("SELECT 1").is_err());
    database.restart()?;
    assert_eq!(database.sql("SELECT id FROM kept.t")?, "7\n");
    Ok(())
}
