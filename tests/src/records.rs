//! Topics made, and records produced and read, beside wasmflow: the test's own side of Kafka.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use crate::ledger::Ledger;
use crate::process::LOOK_EVERY;

/// A record as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The value as text; empty for a tombstone.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// One cluster, as the tests' own clients see it.
#[derive(Debug, Clone)]
pub struct Topics {
    address: String,
}

const LIMIT: Duration = Duration::from_secs(30);

impl Topics {
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// Makes a topic, and waits until its partitions have leaders.
    ///
    /// # Errors
    /// When the broker refuses it or does not answer.
    pub fn create(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_with(topic, partitions, &[])
    }

    /// As [`create`](Self::create), with settings of the topic's own.
    ///
    /// # Errors
    /// When the broker refuses it or does not answer.
    pub fn create_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let wanted = settings.iter().fold(wanted, |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        let answers = runtime.block_on(admin.create_topics([&wanted], &options))?;
        for answer in answers {
            answer.map_err(|(topic, code)| anyhow::anyhow!("cannot make topic `{topic}`: {code}"))?;
        }
        let ready = || self.partitions(topic).is_ok_and(|found| found.len() == partitions as usize);
        ensure!(crate::process::wait_until(LIMIT, ready), "topic `{topic}` has no leaders after {LIMIT:?}");
        Ok(())
    }

    /// Gives a topic more partitions, so that it has `count`.
    ///
    /// # Errors
    /// When the broker refuses it or does not answer.
    pub fn add_partitions(&self, topic: &str, count: usize) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        for answer in runtime.block_on(admin.create_partitions([&NewPartitions::new(topic, count)], &options))? {
            answer.map_err(|(topic, code)| anyhow::anyhow!("cannot give topic `{topic}` more partitions: {code}"))?;
        }
        let ready = || self.partitions(topic).is_ok_and(|found| found.len() == count);
        ensure!(crate::process::wait_until(LIMIT, ready), "the new partitions of `{topic}` have no leaders");
        Ok(())
    }

    /// Takes away the records of a partition below `offset`, as retention does.
    ///
    /// # Errors
    /// When the broker refuses it or does not answer.
    pub fn delete_below(&self, topic: &str, partition: i32, offset: i64) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let mut records = TopicPartitionList::new();
        records.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        let answer = runtime.block_on(admin.delete_records(&records, &options))?;
        answer.elements().iter().try_for_each(|partition| partition.error()).context("records were not deleted")
    }

    /// Deletes a topic, and waits until it is gone.
    ///
    /// # Errors
    /// When the broker refuses it or does not answer.
    pub fn delete(&self, topic: &str) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        for answer in runtime.block_on(admin.delete_topics(&[topic], &options))? {
            answer.map_err(|(topic, code)| anyhow::anyhow!("cannot delete topic `{topic}`: {code}"))?;
        }
        let gone = || self.partitions(topic).is_ok_and(|found| found.is_empty());
        ensure!(crate::process::wait_until(LIMIT, gone), "topic `{topic}` is still there after {LIMIT:?}");
        Ok(())
    }

    fn partitions(&self, topic: &str) -> anyhow::Result<Vec<i32>> {
        let client: BaseConsumer = self.config().create()?;
        let metadata = client.fetch_metadata(Some(topic), LIMIT)?;
        let found = metadata.topics().first().context("the broker answers for the topic asked")?;
        Ok(found.partitions().iter().filter(|p| p.leader() >= 0).map(|p| p.id()).collect())
    }

    /// Produces `values` to one partition, in order, and waits until all are acknowledged.
    ///
    /// # Errors
    /// When the broker does not take them all in time.
    pub fn produce<V: AsRef<[u8]>>(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = V>,
    ) -> anyhow::Result<()> {
        let producer: BaseProducer = self.config().set("enable.idempotence", "true").set("linger.ms", "5").create()?;
        for value in values {
            let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value.as_ref());
            while let Err((error, refused)) = producer.send(record) {
                ensure!(is_queue_full(&error), "cannot produce to `{topic}`: {error}");
                producer.poll(Duration::from_millis(20));
                record = refused;
            }
        }
        producer.flush(Duration::from_secs(120)).with_context(|| format!("`{topic}` did not take all records"))
    }

    /// Produces records as they are, with key, headers and nulls, and waits until all are acknowledged. `settings` are the client's.
    ///
    /// # Errors
    /// When the broker does not take them all in time.
    pub fn produce_whole(&self, topic: &str, records: &[Record], settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut config = self.config();
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer: BaseProducer = config.set("enable.idempotence", "true").create()?;
        for whole in records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &whole.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(whole.partition).headers(headers);
            record.key = whole.key.as_deref();
            record.payload = whole.value.as_deref();
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.flush(Duration::from_secs(120)).with_context(|| format!("`{topic}` did not take all records"))
    }

    /// How many records the topic holds or has held, over all partitions.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn count(&self, topic: &str) -> anyhow::Result<u64> {
        let client: BaseConsumer = self.config().create()?;
        let ends =
            self.partitions(topic)?.into_iter().map(|partition| client.fetch_watermarks(topic, partition, LIMIT));
        ends.map(|watermarks| Ok(u64::try_from(watermarks?.1)?)).sum()
    }

    /// What tells this of one topic again and again.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn level(&self, topic: &str) -> anyhow::Result<Level> {
        let mut ends = TopicPartitionList::new();
        for partition in self.partitions(topic)? {
            ends.add_partition_offset(topic, partition, Offset::End)?;
        }
        Ok(Level { client: self.config().create()?, ends })
    }

    /// Waits until the topic holds at least `count` records.
    ///
    /// # Errors
    /// When it does not after `limit`.
    pub fn wait_for_count(&self, topic: &str, count: u64, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.count(topic)?;
            if found >= count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "topic `{topic}` holds {found} records after {limit:?}, not {count}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads everything that the topic holds now, partition by partition in order of offsets.
    ///
    /// # Errors
    /// When the broker does not hand it out in time.
    pub fn read_all(&self, topic: &str) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        for partition in self.partitions(topic)? {
            self.read_partition(topic, partition, |record| records.push(record))?;
        }
        Ok(records)
    }

    /// The lines of the ledger that the topic holds now, as they stand in it.
    ///
    /// # Errors
    /// When the broker does not hand them out in time.
    pub fn ledger(&self, topic: &str) -> anyhow::Result<Ledger> {
        Ok(Ledger::of(self.read_all(topic)?.iter().map(Record::text)))
    }

    /// Hands every record that the partition holds now to `take`, in order.
    ///
    /// # Errors
    /// When the broker does not hand them out in time.
    pub fn read_partition(&self, topic: &str, partition: i32, take: impl FnMut(Record)) -> anyhow::Result<()> {
        self.read_isolated("read_committed", topic, partition, take)
    }

    fn read_isolated(
        &self,
        isolation: &str,
        topic: &str,
        partition: i32,
        mut take: impl FnMut(Record),
    ) -> anyhow::Result<()> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "wasmflow-tests-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // The end is told by a fetch that brings nothing: it need not wait for more.
            .set("fetch.wait.max.ms", "10")
            .set("isolation.level", isolation)
            .create()?;
        // Records may go on to arrive, so that no fetch brings nothing.
        let (_, end) = consumer.fetch_watermarks(topic, partition, LIMIT)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        consumer.assign(&assignment)?;
        loop {
            match consumer.poll(LIMIT) {
                Some(Ok(message)) if message.offset() >= end => return Ok(()),
                Some(Ok(message)) => take(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) => return Err(error).with_context(|| format!("cannot read `{topic}`")),
                None => anyhow::bail!("`{topic}`, partition {partition}, brought nothing for {LIMIT:?}"),
            }
        }
    }
}

/// How far a topic is filled; records of a transaction that is still open do not count.
pub struct Level {
    client: BaseConsumer,
    /// Every partition, asked about where it ends.
    ends: TopicPartitionList,
}

impl Level {
    /// # Errors
    /// When the broker does not answer.
    pub fn records(&self) -> anyhow::Result<u64> {
        let mut answer = self.ask();
        // The leader of a topic that was just made may not know yet that it is.
        let is_early = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::NotLeaderForPartition);
        let deadline = Instant::now() + LIMIT;
        while answer.as_ref().is_err_and(is_early) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
            answer = self.ask();
        }
        answer?.into_iter().map(|end| u64::try_from(end).with_context(|| format!("{end} is no end"))).sum()
    }

    fn ask(&self) -> Result<Vec<i64>, KafkaError> {
        let found = self.client.offsets_for_times(self.ends.clone(), LIMIT)?;
        let end = |partition: TopicPartitionListElem<'_>| {
            partition.error()?;
            Ok(partition.offset().to_raw().unwrap_or(-1))
        };
        found.elements().into_iter().map(end).collect()
    }
}

/// Where brokers note down what they know of consumer groups.
const GROUPS: &str = "__consumer_offsets";

impl Topics {
    /// The generation of a consumer group, as the broker has noted it down: each rebalance makes another.
    ///
    /// # Errors
    /// When the broker does not hand its notes out, or has none of this group.
    pub fn generation(&self, group: &str) -> anyhow::Result<i32> {
        let mut newest = None;
        for partition in self.partitions(GROUPS)? {
            // Offsets in a transaction that is still open must not hide what was noted behind them.
            self.read_isolated("read_uncommitted", GROUPS, partition, |record| {
                let of_group = record.key.as_deref().is_some_and(|key| group_of(key) == Some(group.as_bytes()));
                newest = record.value.as_deref().filter(|_| of_group).and_then(generation_of).or(newest);
            })?;
        }
        newest.with_context(|| format!("the broker knows no group `{group}`"))
    }
}

/// `GroupMetadataKey`: its type, which is 2, and the group's name behind its length.
fn group_of(key: &[u8]) -> Option<&[u8]> {
    let name = key.strip_prefix(&[0, 2])?;
    let (length, name) = name.split_first_chunk()?;
    (usize::from(u16::from_be_bytes(*length)) == name.len()).then_some(name)
}

/// `GroupMetadataValue` up to version 3: the version, the protocol's type behind its length, the generation.
fn generation_of(value: &[u8]) -> Option<i32> {
    let (version, rest) = value.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (generation, _) = rest.get(usize::from(u16::from_be_bytes(*length))..)?.split_first_chunk()?;
    (i16::from_be_bytes(*version) <= 3).then(|| i32::from_be_bytes(*generation))
}

/// A producer kept open for records that come bit by bit.
pub struct Feeder {
    producer: BaseProducer,
    topic: String,
}

impl Feeder {
    /// # Errors
    /// When the client cannot be made.
    pub fn to(topics: &Topics, topic: &str) -> anyhow::Result<Self> {
        let producer = topics.config().set("enable.idempotence", "true").create()?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// One that lets no record wait longer than a millisecond for others: without any wait it would send them one by one, and be
    /// slower than what it feeds.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn prompt(topics: &Topics, topic: &str) -> anyhow::Result<Self> {
        let producer = topics.config().set("enable.idempotence", "true").set("linger.ms", "1").create()?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Hands values to the client, in order.
    ///
    /// # Errors
    /// When the client does not take them.
    pub fn feed<V: AsRef<[u8]>>(&self, partition: i32, values: impl IntoIterator<Item = V>) -> anyhow::Result<()> {
        for value in values {
            let mut record = BaseRecord::<(), [u8]>::to(&self.topic).partition(partition).payload(value.as_ref());
            while let Err((error, refused)) = self.producer.send(record) {
                ensure!(is_queue_full(&error), "cannot produce to `{}`: {error}", self.topic);
                self.producer.poll(Duration::from_millis(20));
                record = refused;
            }
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits until the brokers have everything.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn finish(&self) -> anyhow::Result<()> {
        self.producer
            .flush(Duration::from_secs(120))
            .with_context(|| format!("`{}` did not take all records", self.topic))
    }
}

/// Reads one partition of a topic as it grows.
pub struct Follower {
    consumer: BaseConsumer,
}

impl Follower {
    /// Partition 0, from its beginning.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn of(topics: &Topics, topic: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = topics
            .config()
            .set("group.id", "wasmflow-tests-follower")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "1")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&assignment)?;
        Ok(Self { consumer })
    }

    /// The next value, or nothing within `wait`.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn next(&self, wait: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        let message = self.consumer.poll(wait).transpose()?;
        Ok(message.map(|message| message.payload().unwrap_or_default().to_vec()))
    }
}

/// A producer kept open for single records that must not wait: no linger.
pub struct Sender {
    producer: BaseProducer,
    topic: String,
}

impl Sender {
    /// # Errors
    /// When the client cannot be made.
    pub fn to(topics: &Topics, topic: &str) -> anyhow::Result<Self> {
        let producer = topics.config().set("linger.ms", "0").create()?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Hands the record to the client and does not wait for the broker's answer.
    ///
    /// # Errors
    /// When the client's queue is full.
    pub fn send(&self, value: &str) -> anyhow::Result<()> {
        self.producer.poll(Duration::ZERO);
        let record = BaseRecord::<(), str>::to(&self.topic).partition(0).payload(value);
        self.producer.send(record).map_err(|(error, _)| error.into())
    }
}

fn is_queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

fn record(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_owned())).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_owned),
        value: message.payload().map(<[u8]>::to_owned),
        headers: headers.unwrap_or_default(),
    }
}
