//! Runs that are killed, and runs that are thought dead and are not.

use std::process::Command;

use super::site::{End, Site, kill, random, same, until};
use crate::brokers::kafka::shared;

#[test]
fn a_run_that_is_killed_again_and_again_publishes_what_an_undisturbed_one_does() {
    let site = Site::new("killed", shared(), 120_000);
    let expected = site.expected(&["--until-drained", "--workers", "2"]);
    site.copy_inputs();
    let total: usize =
        expected.iter().filter(|(place, _)| place.0 == "good").map(|(_, found)| found.len()).sum();
    let good = site.topic("good");
    let end = End::at(shared());
    let (mut seed, mut struck) = (7, 0);
    for round in 0..12 {
        let workers = ["1", "4", "2"][round % 3];
        let mut child =
            site.run_on("kafka", "state", &["--until-drained", "--workers", workers]).spawn().unwrap();
        let enough = 1 + total as u64 * round as u64 / 16 + random(&mut seed, total as u64 / 16);
        until("the job publishes or ends", || {
            end.of(&good) as u64 >= enough || child.try_wait().unwrap().is_some()
        });
        struck += u32::from(kill(child));
    }
    assert!(struck > 3, "only {struck} of 12 runs were killed before their end");
    for _ in 0..2 {
        let output = site.run_on("kafka", "state", &["--until-drained", "--workers", "2"]).output().unwrap();
        assert!(output.status.success(), "{}", super::said(&output));
        same(&expected, &site.written(), "killed");
    }
}

pub fn signal(name: &str, id: u32) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

#[test]
fn a_run_that_was_silent_for_longer_than_a_transaction_may_be_begins_anew() {
    let site = Site::new("silent", shared(), 400_000);
    let expected = site.expected(&["--until-drained", "--workers", "2"]);
    site.copy_inputs();
    let good = site.topic("good");
    let (committed, written) = (End::at(shared()), End::of_all(shared()));
    let short = "sink.good.kafka.properties={ \"transaction.timeout.ms\" = 1000 }";
    let run = site.run_on("kafka", "state", &["--until-drained", "--set", short]).spawn().unwrap();
    // Stopped in the midst of a transaction.
    until("a transaction is open", || {
        signal("-STOP", run.id());
        let open = written.of(&good) > committed.of(&good);
        if !open {
            signal("-CONT", run.id());
        }
        open
    });
    until("the broker takes it back", || written.of(&good) == committed.of(&good));
    signal("-CONT", run.id());
    let output = run.wait_with_output().unwrap();
    let told = super::said(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("the brokers took back what was open for longer than a transaction may be"),
        "{told}"
    );
    same(&expected, &site.written(), "begun anew");
}

#[test]
fn a_run_that_was_thought_dead_can_write_nothing_any_more() {
    let site = Site::new("zombie", shared(), 120_000);
    let expected = site.expected(&["--until-drained", "--workers", "2"]);
    site.copy_inputs();
    let good = site.topic("good");
    let end = End::at(shared());
    let mut old = site.run_on("kafka", "state", &["--until-drained"]).spawn().unwrap();
    until("the job publishes", || end.of(&good) > 0 || old.try_wait().unwrap().is_some());
    assert!(old.try_wait().unwrap().is_none(), "it is not over yet");
    signal("-STOP", old.id());
    // The journal as a successor on another machine would have it.
    let folder = site.folder.path();
    let copied =
        Command::new("cp").arg("-r").args([folder.join("state"), folder.join("taken-over")]).status();
    assert!(copied.unwrap().success());
    let output = site.run_on("kafka", "taken-over", &["--until-drained"]).output().unwrap();
    assert!(output.status.success(), "{}", super::said(&output));
    same(&expected, &site.written(), "taken over");
    signal("-CONT", old.id());
    let output = old.wait_with_output().unwrap();
    let told = super::said(&output);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("another run writes as zombie."), "{told}");
    same(&expected, &site.written(), "after the old one went on");
}
