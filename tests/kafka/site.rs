//! A job over topics of Kafka, and the same over topics of the embedded log.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use levada_connectors::log::{Log, Start};
use levada_connectors::topic::published;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::resume::{JOB, lines};
pub(super) use crate::resume::{kill, random};
use crate::same_bytes::{levada, succeed};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What the job writes.
pub const OUTPUTS: [&str; 3] = ["good", "seconds", "late"];

/// A record that a job published, without its offset: timestamp, key, epoch and position, value.
pub type Found = (i64, Option<String>, (u64, u64), String);

/// By topic and partition, in their order.
pub type Written = BTreeMap<(String, i32), Vec<Found>>;

pub struct Site {
    pub folder: TempDir,
    pub brokers: String,
    pub name: String,
}

impl Site {
    /// A site whose topics begin with `name`, with `count` readings in the embedded log.
    pub fn new(name: &str, brokers: &str, count: u64) -> Site {
        let folder = TempDir::new().unwrap();
        let site = Site { folder, brokers: brokers.into(), name: name.into() };
        for (kind, connector, delivery) in
            [("log", "log", ""), ("kafka", "kafka", ""), ("loose", "kafka", "delivery = \"at_least_once\"\n")]
        {
            let brokers = if kind == "log" { String::new() } else { format!("brokers = \"{brokers}\"\n") };
            let job = JOB
                .replace("\"resumed\"", &format!("\"{name}\""))
                .replace(".log]", &format!(".{connector}]"));
            let job = job.replace("topic = \"", &format!("{brokers}topic = \"{name}."));
            let job = job.replace("kafka]\nfrom", &format!("kafka]\n{delivery}from"));
            std::fs::write(site.job(kind), job).unwrap();
        }
        let topic = site.topic("readings");
        succeed(levada(&["topics", "create", &topic, "--partitions", "3"], &site.data("log")));
        site.produce(&lines(&mut 11, 0, count));
        site
    }

    pub fn job(&self, kind: &str) -> PathBuf {
        self.folder.path().join(format!("{kind}.toml"))
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// Where the embedded topics of the job of this kind are; of Kafka jobs the dead letters.
    pub fn data(&self, kind: &str) -> PathBuf {
        self.folder.path().join(format!("data-{kind}"))
    }

    /// To the embedded log.
    fn produce(&self, lines: &str) {
        let mut command =
            levada(&["topics", "produce", &self.topic("readings"), "--file", "-"], &self.data("log"));
        command.args(["--key", "machine", "--keep-bad"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Copies what the embedded log holds to Kafka, partition for partition, in transactions between which others
    /// are aborted.
    pub fn copy_inputs(&self) {
        let topic = self.topic("readings");
        create(&self.brokers, &topic, 3);
        let producer = transactional(&self.brokers, &format!("{}.producer", self.name));
        let log = Log::open(self.data("log")).unwrap().topic(&topic).unwrap();
        for partition in 0..3 {
            let mut reader = log.reader(partition as u32, Start::Beginning).unwrap();
            for round in 0.. {
                let fetched = reader.read(1_777, 1 << 24).unwrap();
                if fetched.is_empty() {
                    break;
                }
                if round % 3 == 0 {
                    producer.begin_transaction().unwrap();
                    send(&producer, &topic, partition, b"{\"machine\":\"aborted\",\"n\":1,\"at\":1}");
                    producer.flush(PATIENCE).unwrap();
                    producer.abort_transaction(PATIENCE).unwrap();
                }
                producer.begin_transaction().unwrap();
                for record in &fetched {
                    send(&producer, &topic, partition, record.value);
                }
                producer.commit_transaction(PATIENCE).unwrap();
            }
        }
    }

    /// A run of the job of this kind.
    pub fn run(&self, kind: &str, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.data(kind));
        command.arg(self.job(kind)).args(options).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The same with a journal.
    pub fn run_on(&self, kind: &str, state: &str, options: &[&str]) -> Command {
        let mut command = self.run(kind, options);
        command.arg("--state").arg(self.folder.path().join(state));
        command
    }

    /// What the job wrote to Kafka, as readers of committed records see it.
    pub fn written(&self) -> Written {
        let mut written = Written::new();
        for output in OUTPUTS {
            let topic = self.topic(output);
            for (partition, found) in (0..).zip(read(&self.brokers, &topic)) {
                written.insert((output.into(), partition), found);
            }
        }
        written
    }

    /// What the job writes to the embedded log.
    pub fn expected(&self, options: &[&str]) -> Written {
        let output = self.run("log", options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let log = Log::open(self.data("log")).unwrap();
        let mut written = Written::new();
        for output in OUTPUTS {
            let topic = log.topic(&self.topic(output)).unwrap();
            for partition in 0..topic.partitions() {
                let mut found = Vec::new();
                let mut reader = topic.reader(partition, Start::Beginning).unwrap();
                loop {
                    let fetched = reader.read(10_000, 1 << 24).unwrap();
                    if fetched.is_empty() {
                        break;
                    }
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    found.extend(fetched.iter().map(|record| {
                        (
                            record.timestamp_ms,
                            record.key.map(text),
                            published(&record).unwrap(),
                            text(record.value),
                        )
                    }));
                }
                written.insert((output.into(), partition as i32), found);
            }
        }
        written
    }

    /// Deletes what the Kafka job wrote, its dead letters too.
    pub fn clear(&self) {
        for output in OUTPUTS {
            delete(&self.brokers, &self.topic(output));
        }
        for kind in ["kafka", "loose", "kept"] {
            let _ = std::fs::remove_dir_all(self.data(kind));
        }
    }
}

/// Fails at the first difference.
pub fn same(expected: &Written, found: &Written, what: &str) {
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{what}");
    for (place, records) in expected {
        let there = &found[place];
        for (n, (one, other)) in records.iter().zip(there).enumerate() {
            assert_eq!(one, other, "{what}: {place:?} record {n}");
        }
        assert_eq!(records.len(), there.len(), "{what}: {place:?}");
    }
}

/// Waits for something.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the partitions of a topic end for readers of committed records, added up; 0 before there is one.
pub struct End(BaseConsumer);

impl End {
    pub fn at(brokers: &str) -> End {
        End(consumer(brokers))
    }

    /// For readers of all records: what is not committed yet counts too.
    pub fn of_all(brokers: &str) -> End {
        End(reading(brokers, "read_uncommitted"))
    }

    pub fn of(&self, topic: &str) -> i64 {
        end(&self.0, topic)
    }
}

fn end(consumer: &BaseConsumer, topic: &str) -> i64 {
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)) else { return 0 };
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len()) as i32;
    let end = |partition| {
        consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).map_or(0, |end| end.1)
    };
    (0..partitions).map(end).sum()
}

fn consumer(brokers: &str) -> BaseConsumer {
    reading(brokers, "read_committed")
}

fn reading(brokers: &str, isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .unwrap()
}

/// The values of all committed records.
pub fn values(brokers: &str, topic: &str) -> Vec<String> {
    let mut all = Vec::new();
    each(brokers, topic, |message| all.push(text(message.payload().unwrap())));
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// All committed records by partition. An epoch that is not there whole fails.
pub fn read(brokers: &str, topic: &str) -> Vec<Vec<Found>> {
    let mut all = Vec::new();
    let partitions = each(brokers, topic, |message| {
        let headers = message.headers().unwrap();
        let number = |name: &str| {
            let header = headers.iter().find(|header| header.key == name).unwrap();
            u64::from_le_bytes(header.value.unwrap().try_into().unwrap())
        };
        let partition = message.partition() as usize;
        all.resize(all.len().max(partition + 1), Vec::new());
        all[partition].push((
            message.timestamp().to_millis().unwrap(),
            message.key().map(text),
            (number("epoch"), number("position")),
            text(message.payload().unwrap()),
        ));
    });
    all.resize(partitions, Vec::new());
    all
}

/// Gives all committed records of a topic; how many partitions it has.
fn each(brokers: &str, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) -> usize {
    let consumer = consumer(brokers);
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        assigned.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assigned).unwrap();
    let mut ended = 0;
    while ended < partitions {
        match consumer.poll(PATIENCE).expect("a broker answers") {
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
            Ok(message) => each(&message),
        }
    }
    partitions as usize
}

/// The names of all topics.
pub fn topics(brokers: &str) -> Vec<String> {
    let metadata = consumer(brokers).fetch_metadata(None, PATIENCE).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_string()).collect()
}

pub fn create(brokers: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
    let made =
        tokio::runtime::Runtime::new().unwrap().block_on(admin.create_topics([&topic], &AdminOptions::new()));
    made.unwrap()[0].as_ref().unwrap();
}

pub fn delete(brokers: &str, topic: &str) {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
    match &done[0] {
        Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
        Err(error) => panic!("{error:?}"),
    }
    let consumer = consumer(brokers);
    until("a topic is gone", || {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        metadata.topics()[0].error().is_some()
    });
}

pub fn transactional(brokers: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", id)
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

pub fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &[u8]) {
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
}
