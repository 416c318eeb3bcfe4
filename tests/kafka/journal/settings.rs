//! How a journal in a topic is set up, begun afresh, trimmed; and what is none.

use std::process::Output;

use levada_connectors::kafka::{KafkaJournal, KafkaJournalConfig, Trimming};
use levada_types::journal::{EpochCut, Journal, JournalHeader, PartitionBounds, Taken};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::ClientConfig;

use super::{Feed, Machine, all_good, journal, recorded, settings, site};
use crate::brokers::kafka::shared;
use crate::kafka::said;
use crate::kafka::site::{End, Site, create, delete, send, topics, transactional, until};
use crate::same_bytes::levada;

fn admin() -> AdminClient<rdkafka::client::DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", shared()).create().unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// A drained run with its state on that machine.
fn drained(site: &Site, job: &str, machine: &Machine, options: &[&str]) -> Output {
    let mut command = levada(&["run"], &machine.0.path().join("data"));
    command.arg(site.job(job)).arg("--state").arg(machine.state());
    command.arg("--until-drained").args(options).output().unwrap()
}

#[test]
fn a_job_goes_on_with_the_journal_with_which_it_began() {
    let site = site("chosen", 2_000, shared());
    Feed::of(&site).give(1_000);
    let refused = |job: &str, machine: &Machine, options: &[&str], why: &str| {
        let output = drained(&site, job, machine, options);
        assert!(!output.status.success() && said(&output).contains(why), "{why}: {}", said(&output));
    };
    let good = |job: &str, machine: &Machine, options: &[&str]| {
        let output = drained(&site, job, machine, options);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let output = site.run("kept", &["--until-drained"]).output().unwrap();
    assert!(
        said(&output).contains("`[job.journal]` keeps the journal in kafka topic chosen.journal"),
        "{}",
        said(&output)
    );
    let (old, new) = (Machine::new(), Machine::new());
    good("kept", &old, &[]);
    let (there, first) = (site.written(), recorded(&site, shared()));
    // On the same machine, and on one that knows nothing, nothing is published again.
    let again = good("kept", &old, &[]);
    assert!(again.contains("going on from the journal in kafka topic chosen.journal"), "{again}");
    good("kept", &new, &["--workers", "4"]);
    assert_eq!(site.written(), there);
    refused(
        "kafka",
        &old,
        &[],
        "the job has begun with the journal in kafka topic chosen.journal, and is to have",
    );
    let other = ["--set", "job.journal.topic=chosen.other"];
    refused("kept", &old, &other, "the journal in kafka topic chosen.other now");
    assert!(!topics(shared()).contains(&"chosen.other".to_string()));
    // What a job is does not depend on where its journal is.
    let moved = ["--set", "job.journal.replicas=1", "--set", "job.journal.properties={ \"linger.ms\" = 1 }"];
    good("kept", &old, &moved);
    let output = levada(&["check"], &site.data("kept"))
        .arg(site.job("kept"))
        .arg("--against")
        .arg(old.state())
        .output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("with --state: the journal in kafka topic chosen.journal"), "{told}");
    assert!(output.status.success() && told.contains("the same job, which goes on with all"), "{told}");

    // Afresh: the journal is another one, to which what the old machine remembers does not belong.
    let told = good("kept", &new, &["--fresh"]);
    assert!(told.contains("deleted the journal in kafka topic chosen.journal"), "{told}");
    assert_eq!(site.written(), there);
    assert_ne!(recorded(&site, shared()).header.begun, first.header.begun);
    refused("kept", &old, &[], "the job has begun anew there, with another journal than this one");
    assert_eq!(site.written(), there);

    // One that began with a folder goes on with it.
    delete(shared(), &site.topic("journal"));
    site.clear();
    let folder = Machine::new();
    good("kafka", &folder, &[]);
    refused("kept", &folder, &[], "the job has begun with the journal in");
    good("kafka", &folder, &[]);
    let told = good("kept", &folder, &["--fresh"]);
    assert!(
        told.contains("deleted the journal in ") && topics(shared()).contains(&site.topic("journal")),
        "{told}"
    );
    assert_eq!(site.written(), there);
}

#[test]
fn a_second_run_on_a_folder_is_refused_and_a_savepoint_is_made_of_the_first() {
    let site = site("second", 3_000, shared());
    let mut feed = Feed::of(&site);
    feed.give(500);
    let machine = Machine::new();
    let savepoint = |name: &str| {
        let mut command = levada(&["savepoint"], &site.data("kept"));
        let output = command.arg(machine.state()).arg(name).output().unwrap();
        (output.status.success(), said(&output))
    };
    assert!(savepoint("early").1.contains("no job has run with --state"));
    let mut run = machine.run(&site, &["--workers", "1"]);
    all_good(&site, &mut run);
    let output = drained(&site, "kept", &machine, &[]);
    assert!(said(&output).contains("a job runs with --state"), "{}", said(&output));
    let (made, told) = savepoint("now");
    assert!(made, "{told}");
    // It has lost nothing by that.
    feed.give(500);
    all_good(&site, &mut run);
    run.stop();
    assert!(savepoint("late").1.contains("no job runs with --state"));
    // What it begins with then is on this machine alone.
    let mut run = machine.run(&site, &["--fresh", "--savepoint", "now"]);
    run.hear(&["the journal in kafka topic second.journal begins behind a checkpoint that is in", "alone"]);
    run.hear(&["going on behind checkpoint-"]);
    run.stop();
    let mut run = machine.run(&site, &[]);
    run.hear(&["begins behind a checkpoint that is in"]);
    run.stop();
}

#[test]
fn what_is_no_journal_ends_the_job() {
    let site = site("foreign", 500, shared());
    Feed::of(&site).give(500);
    let refused = |why: &str| {
        let output = drained(&site, "kept", &Machine::new(), &[]);
        assert!(!output.status.success() && said(&output).contains(why), "{why}: {}", said(&output));
    };
    // More copies than there are brokers; there may be more of them in a moment.
    let output = drained(&site, "kept", &Machine::new(), &["--set", "job.journal.replicas=2"]);
    let told = said(&output);
    assert!(
        !output.status.success() && told.contains("Invalid replication factor); the next try is in"),
        "{told}"
    );
    assert!(told.contains("failed to create kafka topic foreign.journal: "), "{told}");
    let topic = site.topic("journal");
    create(shared(), &topic, 3);
    refused("a journal has one partition, and this topic has 3");
    delete(shared(), &topic);
    let finite = NewTopic::new(&topic, 1, TopicReplication::Fixed(-1)).set("retention.ms", "604800000");
    wait(admin().create_topics([&finite], &AdminOptions::new())).unwrap();
    until("the topic is there", || topics(shared()).contains(&topic));
    refused("the topic has retention.ms = 604800000, so its brokers would forget entries");
    let settings = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "-1");
    wait(admin().alter_configs([&settings], &AdminOptions::new())).unwrap();

    let output = drained(&site, "kept", &Machine::new(), &[]);
    assert!(output.status.success(), "{}", said(&output));
    let producer = transactional(shared(), "foreign.stranger");
    let stranger = |value: &[u8]| {
        use rdkafka::producer::Producer as _;
        producer.begin_transaction().unwrap();
        send(&producer, &topic, 0, value);
        producer.commit_transaction(crate::kafka::site::PATIENCE).unwrap();
    };
    stranger(b"{\"epoch\":7,\"taken\":[[0,[{\"records\":3}]]]}");
    stranger(b"{\"epoch\":7,\"taken\":[[0,[{\"records\":3}]]]}");
    refused("of the journal in kafka topic foreign.journal: its epoch is not after the one before");
    stranger(b"hello");
    refused("failed to understand entry ");
}

/// A journal of three partitions of a source.
fn header() -> JournalHeader {
    let bounds = PartitionBounds {
        source: "in".into(),
        start: None,
        end: Some(levada_types::Offset(0)),
        later: false,
    };
    JournalHeader { job: 1, begun: 1, until_drained: false, partitions: vec![bounds; 3] }
}

fn cuts(epochs: std::ops::Range<u64>) -> Vec<EpochCut> {
    epochs.map(|epoch| EpochCut { epoch, taken: vec![(0, vec![Taken::Records(9)])] }).collect()
}

#[test]
fn a_journal_has_one_writer_and_forgets_what_checkpoints_hold_only_where_it_may() {
    let site = Site::new("trimmed", shared(), 1);
    let config: KafkaJournalConfig = settings(&site, shared());
    let first = |topic: &str| {
        use rdkafka::consumer::Consumer as _;
        let consumer: rdkafka::consumer::BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", shared()).create().unwrap();
        consumer.fetch_watermarks(topic, 0, crate::kafka::site::PATIENCE).unwrap().0
    };
    for (trimming, trims) in [(Trimming::Never, false), (Trimming::BehindCheckpoints, true)] {
        let kept = KafkaJournal::new(&config, "trimmed", trimming).unwrap();
        assert_eq!(kept.recorded().unwrap(), None);
        assert!(!kept.delete().unwrap());
        let mut writer = kept.writer().unwrap();
        writer.begin(&header(), None).unwrap();
        for group in 0..20 {
            writer.append(&cuts(group * 500..(group + 1) * 500)).unwrap();
        }
        writer.trim(&header(), 4_000).unwrap();
        assert_eq!(kept.recorded().unwrap().unwrap().epochs, cuts(0..10_000), "too little to be worth it");
        writer.trim(&header(), 9_000).unwrap();
        let there = kept.recorded().unwrap().unwrap();
        assert_eq!(there.header, header());
        if trims {
            assert_eq!(there.trimmed, Some(9_000));
            // Up to where the brokers had told that a group was committed.
            let from = there.epochs[0].epoch;
            assert!((4_500..=9_000).contains(&from), "{from}");
            assert_eq!(there.epochs, cuts(from..10_000));
            assert!(first(&config.topic("trimmed")) as u64 > from);
        } else {
            assert_eq!((there.trimmed, there.epochs), (None, cuts(0..10_000)));
        }
        // Whoever takes it over reads all of it, and the former writer adds nothing to it.
        let mut taken = kept.writer().unwrap();
        let there = kept.recorded().unwrap();
        let error = writer.append(&cuts(10_000..10_001)).unwrap_err();
        assert!(error.message.contains("another run writes as trimmed.journal now"), "{error}");
        assert_eq!(kept.recorded().unwrap(), there);
        taken.append(&cuts(10_000..10_002)).unwrap();
        assert_eq!(kept.recorded().unwrap().unwrap().epochs.last(), cuts(10_001..10_002).last());
        assert!(kept.delete().unwrap());
        let error = taken.append(&cuts(10_002..10_003)).unwrap_err();
        assert!(error.message.contains("trimmed.journal"), "{error}");
    }
    assert!(
        journal(&site, shared()).recorded().unwrap().is_none()
            && End::at(shared()).of("trimmed.journal") == 0
    );
}
