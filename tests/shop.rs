//! The second job that ships: the team whose host is out is paged, and no other, with any number of workers.

use std::collections::BTreeSet;
use std::process::Command;

use levada::generate::shop::{Outage, outages};
use levada_connectors::codec::timestamp;
use serde_json::Value;
use tempfile::TempDir;

const SEED: u64 = 5;
const EVENTS: u64 = 80_000;

fn pages(workers: &str) -> String {
    let folder = TempDir::new().unwrap();
    let levada = |line: &str| -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        let output = command.args(line.split_whitespace()).arg("--data").arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    levada(&format!("generate shop --seed {SEED} --events {EVENTS}"));
    levada(&format!("run config/jobs/shop.toml --until-drained --fail-on-dead-letters --workers {workers}"));
    levada("topics export shop.pages")
}

#[test]
fn an_outage_pages_its_team_and_nobody_is_paged_without() {
    let one = pages("1");
    assert_eq!(one, pages("2"), "the same bytes");
    let hosts = std::fs::read_to_string("config/jobs/shop/hosts.csv").unwrap();
    let team_of = |outage: &Outage| {
        let row = hosts.lines().find(|line| line.split(',').next() == Some(outage.host)).unwrap();
        row.split(',').nth(1).unwrap().to_owned()
    };
    let outages = outages(SEED, EVENTS);
    let teams: BTreeSet<String> = outages.iter().map(team_of).collect();
    assert!(teams.len() >= 2, "{outages:?}");

    let pages: Vec<Value> = one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let paged: BTreeSet<&str> = pages.iter().map(|page| page["team"].as_str().unwrap()).collect();
    assert_eq!(paged, teams.iter().map(String::as_str).collect());
    for page in &pages {
        let at = timestamp::parse(page["at"].as_str().unwrap().as_bytes()).unwrap();
        let why = outages.iter().find(|outage| {
            team_of(outage) == page["team"] && (outage.from_ms..outage.to_ms + 60_000).contains(&at)
        });
        assert_eq!(why.map(|outage| outage.host), page["parameters"]["host"].as_str(), "{page}");
    }
    for outage in &outages {
        let first = pages.iter().any(|page| {
            let at = timestamp::parse(page["at"].as_str().unwrap().as_bytes()).unwrap();
            page["team"] == team_of(outage) && (outage.from_ms..outage.to_ms + 60_000).contains(&at)
        });
        assert!(first, "nobody was paged for {outage:?}");
    }
}
