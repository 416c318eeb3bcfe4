//! Brokers that are away, at the start and in the midst, and records that are gone.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;

use super::site::{PATIENCE, Site, end, same, until};
use crate::brokers::Cluster;

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
    let good = site.topic("good");
    for _ in 0..2 {
        let before = end(&cluster.brokers(), &good);
        until("the job publishes or ends", || {
            end(&cluster.brokers(), &good) > before || child.try_wait().unwrap().is_some()
        });
        cluster.kill(0);
        if child.try_wait().unwrap().is_none() {
            hear("can be reached");
        }
        cluster.revive(0);
        cluster.wait();
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{:?}", told.iter().collect::<Vec<_>>());
    same(&expected, &site.written(), "away");
}

#[test]
fn refused_authentication_ends_the_job() {
    let cluster = Cluster::with(
        1,
        &[
            ("listeners", "PLAINTEXT://127.0.0.1:PORT,SASL_PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:CONTROL"),
            ("sasl.enabled.mechanisms", "PLAIN"),
        ],
    );
    let site = Site::new("refused", &cluster.brokers(), 10);
    let child = site
        .run("kafka", &site.data(), &["--until-drained"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!child.status.success());
}
