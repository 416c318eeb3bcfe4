//! Jobs whose journal is a topic: the machine goes with its disk, the job goes on on another one.

mod elsewhere;
mod settings;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Instant;

use levada_connectors::kafka::{JournalConnector, KafkaJournal, KafkaJournalConfig, Properties, Trimming};
use levada_connectors::log::{Log, Reader, Start};
use levada_types::Journal as _;
use levada_types::journal::{EpochCut, Recorded};
use rdkafka::producer::{BaseProducer, Producer as _};
use tempfile::TempDir;

use super::resume::signal;
use super::site::{End, PATIENCE, Site, Written, create, random, same, send, transactional, until};
use crate::brokers::kafka::{Cluster, shared};
use crate::same_bytes::levada;

/// The settings of a site's journal.
fn settings(site: &Site, brokers: &str) -> KafkaJournalConfig {
    KafkaJournalConfig {
        connector: JournalConnector::Kafka,
        brokers: brokers.into(),
        topic: Some(site.topic("journal")),
        replicas: None,
        transactional_id: None,
        properties: Properties::default(),
    }
}

fn journal(site: &Site, brokers: &str) -> KafkaJournal {
    KafkaJournal::new(&settings(site, brokers), &site.name, Trimming::Never).unwrap()
}

fn recorded(site: &Site, brokers: &str) -> Recorded {
    journal(site, brokers).recorded().unwrap().unwrap()
}

/// A site whose readings are in the embedded log, to be given to Kafka bit by bit, and whose job keeps its journal
/// in a topic at `brokers`.
fn site(name: &str, count: u64, brokers: &str) -> Site {
    let site = Site::new(name, shared(), count);
    let job = std::fs::read_to_string(site.job("kafka")).unwrap();
    let kept = format!("\n[job.journal]\nconnector = \"kafka\"\nbrokers = \"{brokers}\"\n");
    std::fs::write(site.job("kept"), job + &kept).unwrap();
    create(shared(), &site.topic("readings"), 3);
    site
}

/// Gives readings to Kafka.
struct Feed {
    producer: BaseProducer,
    topic: String,
    readers: Vec<Reader>,
    end: End,
    /// Where the topic ends, all partitions together: each transaction marks those that it is in.
    given: i64,
}

impl Feed {
    fn of(site: &Site) -> Feed {
        let topic = site.topic("readings");
        let log = Log::open(site.data("log")).unwrap().topic(&topic).unwrap();
        let readers = (0..3).map(|partition| log.reader(partition, Start::Beginning).unwrap()).collect();
        let producer = transactional(shared(), &format!("{}.feed", site.name));
        Feed { producer, topic, readers, end: End::at(shared()), given: 0 }
    }

    /// The next `count` of each partition, which all can read then; how many there were.
    fn give(&mut self, count: usize) -> usize {
        let mut given = 0;
        self.producer.begin_transaction().unwrap();
        for (partition, reader) in (0..).zip(&mut self.readers) {
            let fetched = reader.read(count, 1 << 24).unwrap();
            given += fetched.len();
            self.given += fetched.len() as i64 + i64::from(!fetched.is_empty());
            fetched.iter().for_each(|record| send(&self.producer, &self.topic, partition, record.value));
        }
        self.producer.commit_transaction(PATIENCE).unwrap();
        until("what was given can be read", || self.end.of(&self.topic) >= self.given);
        given
    }
}

/// A machine, whose disk goes with it.
struct Machine(TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(TempDir::new().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn command(&self, site: &Site, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.0.path().join("data"));
        command.arg(site.job("kept")).arg("--state").arg(self.state()).args(options);
        command
    }

    fn run(&self, site: &Site, options: &[&str]) -> Run {
        Run::of(self.command(site, options))
    }

    /// The same in two processes, of which the first writes the journal.
    fn two(&self, site: &Site) -> [Run; 2] {
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let hosts = self.0.path().join("hosts");
        let lines = free.each_ref().map(|one| format!("{}\n", one.local_addr().unwrap()));
        std::fs::write(&hosts, lines.concat()).unwrap();
        drop(free);
        let hosts = hosts.to_str().unwrap();
        ["0", "1"].map(|process| self.run(site, &["--workers", "1", "--process", process, "--hosts", hosts]))
    }
}

/// A run, and what it says.
struct Run {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Run {
    fn of(mut command: Command) -> Run {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, told) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Run { child, lines: told, said: Vec::new() }
    }

    /// Waits until it says something.
    fn hear(&mut self, parts: &[&str]) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("nobody said {parts:?}: {:#?}", self.said));
            self.said.push(line);
            if self.said.last().is_some_and(|line| parts.iter().all(|part| line.contains(part))) {
                return;
            }
        }
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends; whether it did as it should, and all that it said.
    fn end(mut self) -> (bool, String) {
        let patience = Instant::now() + PATIENCE;
        while !self.is_over() {
            let left = patience.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.said),
            }
        }
        let good = self.child.wait().unwrap().success();
        self.said.extend(self.lines.iter());
        (good, self.said.join("\n"))
    }

    fn stop(self) {
        signal("-TERM", self.child.id());
        let (good, said) = self.end();
        assert!(good, "{said}");
    }

    /// As a power cut would.
    fn kill(mut self) {
        assert!(!self.is_over(), "{:?}", self.end());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until all good readings that have been given are published, each once.
fn all_good(site: &Site, run: &mut Run) -> usize {
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["n"].as_u64();
    let expected: BTreeSet<u64> =
        raw(site).iter().filter_map(|line| number(line)).filter(|n| n % 10 != 3).collect();
    let good = |written: &Written| -> Vec<u64> {
        let of_good = written.iter().filter(|(place, _)| place.0 == "good");
        of_good.flat_map(|(_, found)| found.iter().filter_map(|(.., value)| number(value))).collect()
    };
    let mut found = Vec::new();
    until("all good readings are published", || {
        found = good(&site.written());
        found.len() >= expected.len() || run.is_over()
    });
    run.said.extend(run.lines.try_iter());
    assert_eq!(found.len(), expected.len(), "{:#?}", run.said);
    assert_eq!(found.into_iter().collect::<BTreeSet<u64>>(), expected);
    expected.len()
}

/// The readings that have been given.
fn raw(site: &Site) -> Vec<String> {
    super::site::values(shared(), &site.topic("readings"))
}

/// What a job that nobody disturbs publishes by the journal alone, on a machine that knows nothing.
fn replayed(site: &Site, workers: &str, expected: &Written) -> Written {
    site.clear();
    let machine = Machine::new();
    let mut run = machine.run(site, &["--workers", workers]);
    let count = |written: &Written| written.values().map(Vec::len).sum::<usize>();
    let mut written = site.written();
    until("all of it is published again", || {
        written = site.written();
        count(&written) >= count(expected) || run.is_over()
    });
    run.stop();
    site.written()
}

#[test]
fn a_machine_that_is_lost_with_its_disk_loses_nothing() {
    let site = site("lost", 40_000, shared());
    let mut feed = Feed::of(&site);
    feed.give(1_000);
    let (good, end) = (site.topic("good"), End::at(shared()));
    let mut seed = 17;
    for round in 0..6 {
        let machine = Machine::new();
        let before = end.of(&good);
        let mut others = Vec::new();
        let mut run = if round == 3 {
            let [first, second] = machine.two(&site);
            others.push(second);
            first
        } else {
            machine.run(&site, &["--workers", ["1", "4", "2"][round % 3]])
        };
        // Some comes while it does again what others did, and then bit by bit, so that there are many epochs.
        feed.give(50 + random(&mut seed, 100) as usize);
        let more = 1 + random(&mut seed, 2_000) as i64;
        until("it has come further", || {
            feed.give(5);
            end.of(&good) >= before + more || run.is_over()
        });
        run.kill();
        drop(others);
    }
    let machine = Machine::new();
    let mut run = machine.run(&site, &["--workers", "3"]);
    while feed.give(500) > 0 {}
    assert!(all_good(&site, &mut run) > 30_000);
    run.stop();
    let epochs = recorded(&site, shared()).epochs.len();
    assert!(epochs > 30, "only {epochs} live epochs");
    let written = site.written();
    for workers in ["2", "1"] {
        same(&written, &replayed(&site, workers, &written), &format!("again with {workers} workers"));
    }
}

#[test]
fn a_run_that_was_thought_dead_can_write_neither_journal_nor_sink() {
    let site = site("dead", 60_000, shared());
    let mut feed = Feed::of(&site);
    feed.give(1_000);
    let (good, end) = (site.topic("good"), End::at(shared()));
    let machines: Vec<Machine> = (0..5).map(|_| Machine::new()).collect();
    let mut old = machines[0].run(&site, &["--workers", "2"]);
    let mut seed = 29;
    for (round, machine) in machines.iter().enumerate().skip(1) {
        let before = end.of(&good);
        for _ in 0..6 {
            feed.give(50 + random(&mut seed, 150) as usize);
        }
        until("it publishes", || end.of(&good) > before || old.is_over());
        assert!(!old.is_over(), "{:?}", old.end());
        // What it has written down is published, or it is in the midst of that.
        let rests = round % 2 == 1;
        if rests {
            all_good(&site, &mut old);
        }
        signal("-STOP", old.child.id());
        let mut new = machine.run(&site, &["--workers", "1"]);
        feed.give(300);
        match rests {
            true => drop(all_good(&site, &mut new)),
            // It wakes up while the other one takes over.
            false => new.hear(&["going on from the journal in kafka topic dead.journal"]),
        }
        signal("-CONT", old.child.id());
        until("the old run sees that it was replaced", || {
            feed.give(2);
            old.is_over()
        });
        let (done, said) = std::mem::replace(&mut old, new).end();
        let by = if rests { "another run writes as dead.journal now" } else { "another run writes as dead." };
        assert!(!done && said.contains(by), "{said}");
    }
    while feed.give(500) > 0 {}
    all_good(&site, &mut old);
    old.stop();
    let written = site.written();
    same(&written, &replayed(&site, "2", &written), "again");
}

#[test]
fn the_brokers_of_a_journal_may_be_away() {
    let mut cluster = Cluster::start(1);
    let site = site("gone", 12_000, &cluster.brokers());
    let mut feed = Feed::of(&site);
    feed.give(500);
    let machine = Machine::new();
    let mut run = machine.run(&site, &["--workers", "2"]);
    all_good(&site, &mut run);
    let (good, end) = (site.topic("good"), End::at(shared()));
    let before = end.of(&good);
    cluster.kill(0);
    feed.give(300);
    run.hear(&["failed to write kafka topic gone.journal", "trying again"]);
    assert_eq!(end.of(&good), before, "what is not written down is not published");
    cluster.revive(0);
    cluster.wait();
    all_good(&site, &mut run);
    // Killed in the midst of whatever it is doing.
    for _ in 0..2 {
        for _ in 0..20 {
            feed.give(20);
        }
        cluster.kill(0);
        feed.give(20);
        cluster.revive(0);
        cluster.wait();
    }
    all_good(&site, &mut run);
    let recorded = recorded(&site, &cluster.brokers());
    assert!(recorded.epochs.is_sorted_by(|a, b| a.epoch < b.epoch) && recorded.trimmed.is_none());
    let written = site.written();
    run.stop();
    same(&written, &replayed(&site, "4", &written), "again");
    // A job that has ended for another reason does not wait for them.
    let mut writer = journal(&site, &cluster.brokers()).writer().unwrap();
    writer.append(&[]).unwrap();
    cluster.kill(0);
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    writer.end_with(Arc::new(move || seen.load(SeqCst)));
    let (done, told) = channel();
    let last = EpochCut { epoch: u64::MAX, taken: Vec::new() };
    std::thread::spawn(move || done.send(writer.append(&[last])));
    assert_eq!(told.try_recv().err(), Some(TryRecvError::Empty), "it waits");
    ended.store(true, SeqCst);
    let error = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(error.message.contains("kafka topic gone.journal: the job has ended"), "{error}");
}
