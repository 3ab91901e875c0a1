//! The progress topic of a pipeline after somebody has emptied it or written into it: never taken for a fresh start.

use std::time::Duration;

use wasmflow_tests::agent::{Ended, PipelineFile};
use wasmflow_tests::broker::KafkaBroker;
use wasmflow_tests::ledger;
use wasmflow_tests::pipelines;
use wasmflow_tests::records::{Record, Topics};

const LIMIT: Duration = Duration::from_secs(120);

/// A hundred lines that are in the topic `name`, by transactions; a hundred more wait in the log.
fn half_way(broker: &KafkaBroker, name: &str) -> anyhow::Result<(Topics, PipelineFile)> {
    let topics = Topics::at(broker.address());
    topics.create(name, 1)?;
    let sink = pipelines::topic_sink(&pipelines::connection(&broker.address()), name);
    let pipeline = PipelineFile::new(name, &pipelines::tail_to("follow = false", &sink));
    pipeline.promise("delivery = \"exactly-once\"\n");
    std::fs::create_dir(pipeline.folder().join("logs"))?;
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..100));
    pipeline.run().expect_done(LIMIT);
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..200));
    Ok((topics, pipeline))
}

fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is not in:\n{}", ended.stderr);
    }
}

#[test]
fn progress_that_was_taken_out_of_its_topic_is_refused_with_the_steps() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let (topics, pipeline) = half_way(broker, "emptied")?;
    // As compaction leaves it when somebody has sent a tombstone for each key.
    let gone = topics.read_all("_wasmflow.emptied")?.into_iter().map(|record| Record { value: None, ..record });
    topics.produce_whole("_wasmflow.emptied", &gone.collect::<Vec<_>>(), &[])?;
    assert_refused(&pipeline.run().wait(LIMIT), &["_wasmflow.emptied", "progress.json"]);
    topics.ledger("emptied")?.assert_each_once_in_order("log", 100);
    Ok(())
}

#[test]
fn records_of_others_in_the_progress_topic_are_passed_over_and_one_in_our_name_is_refused() -> anyhow::Result<()> {
    let Some(broker) = KafkaBroker::shared() else { return Ok(()) };
    let (topics, pipeline) = half_way(broker, "scribbled")?;
    let progress = "_wasmflow.scribbled";
    let ours = topics.read_all(progress)?.into_iter().rev().find(|record| record.value.is_some());
    let ours = ours.expect("the first run has written its progress");
    let of = |key: Option<&[u8]>, value: &[u8]| Record {
        key: key.map(<[u8]>::to_vec),
        value: Some(value.to_vec()),
        ..ours.clone()
    };
    let foreign = [of(Some(b"\xff\0 no json"), b"\xfe"), of(Some(b"[\"scribbled\",\"another\",\"source\"]"), b"{}")];
    topics.produce_whole(progress, &foreign, &[])?;
    pipeline.run().expect_done(LIMIT);
    topics.ledger("scribbled")?.assert_each_once_in_order("log", 200);

    topics.produce_whole(progress, &[of(ours.key.as_deref(), b"42")], &[])?;
    pipeline.folder().write("logs/app.log", ledger::lines("log", 0..300));
    assert_refused(&pipeline.run().wait(LIMIT), &[progress, "cannot be understood"]);
    topics.ledger("scribbled")?.assert_each_once_in_order("log", 200);
    Ok(())
}
