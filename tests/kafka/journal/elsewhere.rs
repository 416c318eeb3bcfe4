//! With the journal in a topic and the checkpoints in an object store nothing of a job is on its machine.

use super::*;
use crate::brokers::s3::S3;

/// The same, with its checkpoints in a prefix of the store.
fn site_in(s3: &S3, name: &str, count: u64) -> Site {
    let site = site(name, count, shared());
    let job = std::fs::read_to_string(site.job("kept")).unwrap();
    let job = job.replacen("[job]\n", "[job]\ncheckpoint = \"50ms\"\n", 1);
    std::fs::write(site.job("kept"), format!("{job}\n{}", s3.settings(name))).unwrap();
    site
}

fn run(s3: &S3, machine: &Machine, site: &Site, workers: &str) -> Run {
    let mut command = machine.command(site, &["--workers", workers]);
    s3.keys(&mut command);
    Run::of(command)
}

#[test]
fn on_a_machine_that_knows_nothing_a_job_goes_on_behind_its_checkpoint() {
    let s3 = S3::start();
    let site = site_in(&s3, "far", 40_000);
    let mut feed = Feed::of(&site);
    feed.give(1_000);
    let (good, end) = (site.topic("good"), End::at(shared()));
    let mut seed = 41;
    for round in 0..5 {
        let machine = Machine::new();
        let (before, kept) = (end.of(&good), s3.list("far/checkpoint-"));
        let mut job = run(&s3, &machine, &site, ["1", "4", "2"][round % 3]);
        if round > 0 {
            job.hear(&["going on behind checkpoint-"]);
        }
        for _ in 0..8 {
            feed.give(100 + random(&mut seed, 100) as usize);
        }
        let more = 1 + random(&mut seed, 2_000) as i64;
        until("it has come further, and kept that", || {
            let newer = s3.list("far/checkpoint-").last().is_some_and(|last| !kept.contains(last));
            newer && end.of(&good) >= before + more || job.is_over()
        });
        for _ in 0..random(&mut seed, 3) {
            feed.give(150);
        }
        job.kill();
    }
    let machine = Machine::new();
    let mut job = run(&s3, &machine, &site, "3");
    while feed.give(500) > 0 {}
    assert!(all_good(&site, &mut job) > 30_000);
    job.stop();
    let before = site.written();
    let mut job = run(&s3, &Machine::new(), &site, "2");
    job.hear(&["going on behind checkpoint-"]);
    job.stop();
    same(&before, &site.written(), "nothing is published again");
}
