//! Brokers that are away, at the start and in the midst, and records that are gone.

use std::io::{BufRead as _, BufReader};
use std::sync::mpsc::channel;

use super::site::{End, PATIENCE, Site, same, until};
use crate::brokers::kafka::{Cluster, guarded, shared};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let mut cluster = Cluster::start(1);
    let site = Site::new("away", &cluster.brokers(), 120_000);
    let expected = site.expected(&["--until-drained", "--workers", "2"]);
    site.copy_inputs();
    cluster.kill(0);
    let mut child = site.run_on("kafka", "state", &["--until-drained", "--workers", "2"]).spawn().unwrap();
    // What it says goes on being read, or it would have to wait for us.
    let (lines, told) = channel();
    let said = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let mut all = Vec::new();
    let mut hear = |part: &str| loop {
        let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nobody said {part}: {all:?}"));
        let found = line.contains(part);
        all.push(line);
        if found {
            return;
        }
    };
    hear("the next try is in");
    cluster.revive(0);
    cluster.wait();
    let (good, ends) = (site.topic("good"), End::at(&cluster.brokers()));
    for _ in 0..2 {
        let before = ends.of(&good);
        until("the job publishes or ends", || ends.of(&good) > before || child.try_wait().unwrap().is_some());
        cluster.kill(0);
        if child.try_wait().unwrap().is_none() {
            hear("can be reached");
        }
        cluster.revive(0);
        cluster.wait();
    }
    until("the job ends", || child.try_wait().unwrap().is_some());
    let status = child.wait().unwrap();
    assert!(status.success(), "{:?}", told.iter().collect::<Vec<_>>());
    same(&expected, &site.written(), "away");
}

#[test]
fn of_three_brokers_one_after_the_other_may_go_and_come_back() {
    let mut cluster = Cluster::start(3);
    let site = Site::new("three", &cluster.brokers(), 400_000);
    let expected = site.expected(&["--until-drained", "--workers", "2"]);
    site.copy_inputs();
    let mut child = site.run_on("kafka", "state", &["--until-drained", "--workers", "2"]).spawn().unwrap();
    // What it says must not fill the pipe.
    let said = BufReader::new(child.stderr.take().unwrap());
    let told = std::thread::spawn(move || said.lines().map_while(Result::ok).collect::<Vec<_>>());
    let (good, ends) = (site.topic("good"), End::at(&cluster.brokers()));
    let mut struck = 0;
    for node in [1, 2, 0] {
        let before = ends.of(&good);
        until("the job publishes or ends", || ends.of(&good) > before || child.try_wait().unwrap().is_some());
        struck += u32::from(child.try_wait().unwrap().is_none());
        cluster.kill(node);
        cluster.revive(node);
        cluster.wait();
    }
    until("the job ends", || child.try_wait().unwrap().is_some());
    let told = told.join().unwrap();
    assert!(child.wait().unwrap().success(), "{told:?}");
    assert!(struck > 0, "the job had ended before the first broker went");
    same(&expected, &site.written(), "three brokers");
}

#[test]
fn refused_authentication_ends_the_job() {
    let site = Site::new("refused", shared(), 1_000);
    let expected = site.expected(&["--until-drained"]);
    site.copy_inputs();
    let job = std::fs::read_to_string(site.job("kafka")).unwrap();
    let with = |password: &str| {
        let settings = format!(
            "brokers = \"{}\"\nproperties = {{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \
             \"PLAIN\", \"sasl.username\" = \"levada\", \"sasl.password\" = \"{password}\" }}",
            guarded()
        );
        let text = job.replace(&format!("brokers = \"{}\"", shared()), &settings);
        std::fs::write(site.job("kafka"), text).unwrap();
        let output = site.run("kafka", &["--until-drained"]).output().unwrap();
        (output.status.success(), super::said(&output))
    };
    let (done, told) = with("wrong-and-secret");
    assert!(!done && told.contains("use kafka topic refused.readings: authentication was refused"), "{told}");
    assert!(!told.contains("wrong-and-secret"), "{told}");
    let (done, told) = with("right");
    assert!(done, "{told}");
    same(&expected, &site.written(), "authenticated");
}

#[test]
fn records_that_were_deleted_before_they_were_read_are_missed() {
    let site = Site::new("truncated", shared(), 5_000);
    site.copy_inputs();
    let run = |state: &str| {
        let output = site.run_on("kafka", state, &["--until-drained"]).output().unwrap();
        (output.status.success(), super::said(&output))
    };
    assert!(run("state").0);
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", shared()).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&site.topic("readings"), 1, Offset::Offset(100)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
    // Behind its last checkpoint it needs none of them; without one it reads them again.
    let (done, told) = run("state");
    assert!(done, "{told}");
    std::fs::remove_dir_all(site.folder.path().join("state").join("checkpoints")).unwrap();
    let (done, told) = run("state");
    assert!(!done && told.contains("of partition 1 was to be next, and those from 100 to "), "{told}");
    // A job that begins afresh begins with what is there.
    site.clear();
    let (done, told) = run("another");
    assert!(done, "{told}");
}
