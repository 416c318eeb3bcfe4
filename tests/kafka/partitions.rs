//! What is known of a record beside its value, and topics that get more partitions.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::site::{End, PATIENCE, create, read, until};
use crate::brokers::kafka::shared;
use crate::same_bytes::levada;

/// A folder with a job.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(job: &str) -> Place {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("job.toml"), job).unwrap();
        Place { folder }
    }

    fn run(&self, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.folder.path().join("data"));
        command.arg(self.folder.path().join("job.toml")).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn drained(&self, options: &[&str]) {
        let output = self.run(&[options, &["--until-drained"]].concat()).output().unwrap();
        assert!(output.status.success(), "{}", super::said(&output));
    }
}

fn producer() -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", shared()).create().unwrap()
}

/// The records of a topic as objects, whatever their partition, sorted.
fn rows(topic: &str) -> Vec<Value> {
    let all = read(shared(), topic).into_iter().flatten();
    let mut rows: Vec<Value> = all.map(|(.., value)| serde_json::from_str(&value).unwrap()).collect();
    rows.sort_by_key(ToString::to_string);
    rows
}

#[test]
fn key_time_partition_offset_and_headers_are_columns() {
    create(shared(), "beside.in", 2);
    let producer = producer();
    let value = json!({ "n": 7 }).to_string();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("first") })
        .insert(Header { key: "trace", value: Some("newest") });
    for (partition, key, headers) in [(1, Some("a|b"), Some(headers)), (1, None, None), (0, Some("c"), None)]
    {
        let mut record = BaseRecord::<str, str>::to("beside.in").partition(partition).payload(&value);
        record = record.timestamp(1_000 + i64::from(partition));
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let brokers = shared();
    let place = Place::new(&format!(
        r#"
        [job]
        name = "beside"

        [source.in.kafka]
        brokers = "{brokers}"
        topic = "beside.in"
        schema = {{ n = "int" }}
        metadata = {{ k = "key", sent = "timestamp", shard = "partition", place = "offset", trace = "headers.trace" }}
        event_time = {{ column = "sent" }}

        [sink.out.kafka]
        brokers = "{brokers}"
        from = "in"
        topic = "beside.out"
        "#
    ));
    place.drained(&[]);
    let row = |k: Value, shard: i64, place: i64, trace: Value| {
        let sent = format!("1970-01-01T00:00:01{}Z", if shard == 0 { "" } else { ".001" });
        json!({ "n": 7, "k": k, "sent": sent, "shard": shard, "place": place, "trace": trace })
    };
    let mut expected = vec![
        row(json!("a|b"), 1, 0, json!("newest")),
        row(Value::Null, 1, 1, Value::Null),
        row(json!("c"), 0, 0, Value::Null),
    ];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(rows("beside.out"), expected);
    // The record's own time is the row's.
    let times: Vec<i64> = read(shared(), "beside.out").into_iter().flatten().map(|found| found.0).collect();
    assert_eq!(times.iter().sum::<i64>(), 1_000 + 1_001 + 1_001);
}

/// A topic whose partitions become more.
struct Growing {
    topic: &'static str,
    producer: BaseProducer,
    sent: i64,
}

impl Growing {
    fn new(topic: &'static str) -> Growing {
        create(shared(), topic, 2);
        Growing { topic, producer: producer(), sent: 0 }
    }

    fn send(&mut self, partition: i32, count: i64) {
        for _ in 0..count {
            let value = json!({ "n": self.sent, "at": 1_700_000_000_000i64 + self.sent }).to_string();
            let record = BaseRecord::<(), str>::to(self.topic).partition(partition).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
            self.sent += 1;
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn grow(&self, partitions: usize) {
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", shared()).create().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let more = [NewPartitions::new(self.topic, partitions)];
        let grown = runtime.block_on(admin.create_partitions(&more, &AdminOptions::new()));
        grown.unwrap()[0].as_ref().unwrap();
        until("the new partitions can be written", || {
            let metadata = self.producer.client().fetch_metadata(Some(self.topic), PATIENCE).unwrap();
            let all = metadata.topics()[0].partitions();
            all.len() == partitions && all.iter().all(|partition| partition.leader() >= 0)
        });
    }

    /// Copies it to `out`.
    fn job(&self, out: &str) -> Place {
        let (brokers, topic, name) = (shared(), self.topic, self.topic.replace('.', "-"));
        Place::new(&format!(
            r#"
            [job]
            name = "{name}"

            [source.in.kafka]
            brokers = "{brokers}"
            topic = "{topic}"
            schema = {{ n = "int", at = "timestamp" }}
            metadata = {{ shard = "partition" }}
            event_time = {{ column = "at" }}
            properties = {{ "topic.metadata.refresh.interval.ms" = 1000 }}

            [sink.out.kafka]
            brokers = "{brokers}"
            from = "in"
            topic = "{out}"
            "#
        ))
    }
}

/// A running job, and what it says.
struct Running {
    child: Child,
    told: Receiver<String>,
}

impl Running {
    fn begin(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let (lines, told) = channel();
        let said = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Running { child, told }
    }

    /// Waits until it says so.
    fn says(&self, what: &str) {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|line: &String| line.contains(what)) {
            heard.push(
                self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nobody said so: {heard:?}")),
            );
        }
    }

    fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{:?}", self.told.iter().collect::<Vec<_>>());
    }
}

#[test]
fn partitions_that_come_while_a_job_runs_are_taken_up() {
    let mut topic = Growing::new("more.in");
    let place = topic.job("more.out");
    let state = place.folder.path().join("state");
    let run = || Running::begin(place.run(&["--state", state.to_str().unwrap()]));
    let ends = End::at(shared());
    let published = |count: usize| {
        until("rows are published", || ends.of("more.out") > 0 && rows("more.out").len() >= count);
    };
    topic.send(0, 10);
    topic.send(1, 10);
    let job = run();
    published(20);
    topic.grow(4);
    job.says("kafka topic more.in has 4 partitions now: going on with all of them");
    topic.send(2, 10);
    topic.send(0, 10);
    published(40);
    // It can be stopped as before, and goes on with its checkpoint, with its journal alone, and when it was killed.
    job.stop();
    let job = run();
    topic.send(3, 10);
    published(50);
    assert!(super::site::kill(job.child));
    // More still, while nobody looks and while somebody does.
    topic.grow(5);
    let job = run();
    topic.send(4, 10);
    published(60);
    topic.grow(6);
    job.says("has 6 partitions now: going on with all of them");
    topic.send(5, 10);
    topic.send(2, 10);
    topic.send(1, 10);
    published(90);
    job.stop();
    std::fs::remove_dir_all(state.join("checkpoints")).unwrap();
    let job = run();
    topic.send(3, 10);
    published(100);
    job.stop();
    let rows = rows("more.out");
    let numbers: std::collections::BTreeSet<_> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    assert_eq!((numbers.len(), rows.len()), (100, 100), "each once");
    let mut by_shard = BTreeMap::new();
    for row in &rows {
        *by_shard.entry(row["shard"].as_i64().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(by_shard, BTreeMap::from([(0, 20), (1, 20), (2, 20), (3, 20), (4, 10), (5, 10)]));
}

#[test]
fn a_job_that_keeps_nothing_only_tells_of_partitions_that_came_later() {
    let mut topic = Growing::new("told.in");
    let place = topic.job("told.out");
    topic.send(0, 10);
    let job = Running::begin(place.run(&[]));
    let ends = End::at(shared());
    until("rows are published", || ends.of("told.out") > 0);
    topic.grow(3);
    job.says("kafka topic told.in has 3 partitions now, more than this run reads: end it and begin again");
    topic.send(2, 1);
    topic.send(1, 1);
    until("the others are read", || rows("told.out").len() == 11);
    job.stop();
    assert!(rows("told.out").iter().all(|row| row["shard"] != 2));
}
