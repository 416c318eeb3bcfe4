//! A clock ticks when it is live, and what it has told it tells again.

use std::time::Duration;

use levada_types::{Offset, PartitionId, Read, SourceFactory, StartAt};
use serde_json::Value;

use super::*;

fn clock(folder: &tempfile::TempDir, every: &str) -> Result<ClockSource, (&'static str, String)> {
    let config = ClockSourceConfig { every: every.into(), topic: None, retain: None };
    ClockSource::new(folder.path(), "job", "ticks", &config, "at")
}

fn values(read: Read) -> Vec<String> {
    let Read::Records(records) = read else { panic!("{read:?}") };
    let value = |&(start, end): &(u32, u32)| {
        let value: Value = serde_json::from_slice(&records.data[start as usize..end as usize]).unwrap();
        value["at"].as_str().unwrap().to_owned()
    };
    records.spans.iter().map(value).collect()
}

#[test]
fn a_clock_ticks_while_somebody_waits_and_tells_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock(&folder, "100ms").unwrap();
    assert_eq!((clock.describe().as_str(), clock.unbounded()), ("topic job.ticks", true));
    assert_eq!(clock.partitions().unwrap(), [Some(Offset(0))]);
    let mut reader = clock.open(PartitionId(0), StartAt::Configured).unwrap();
    // A job that only reads its history does not wait, and nothing is written.
    assert!(matches!(reader.read(10, Duration::ZERO).unwrap(), Read::CaughtUp));
    assert_eq!(clock.partitions().unwrap(), [Some(Offset(0))]);

    let mut told = values(reader.read(10, Duration::from_secs(5)).unwrap());
    let mut quiet = 0;
    while told.len() < 4 {
        match reader.read(10, Duration::from_millis(30)).unwrap() {
            Read::CaughtUp => quiet += 1,
            read => told.extend(values(read)),
        }
    }
    assert!(quiet > 0 && told.is_sorted(), "{quiet} {told:?}");
    assert_eq!(clock.partitions().unwrap(), [Some(Offset(4))]);

    let mut again = clock.open(PartitionId(0), StartAt::Offset(Offset(1))).unwrap();
    assert_eq!(values(again.read(10, Duration::ZERO).unwrap()), told[1..]);
    // Two jobs cannot both tick.
    assert!(again.read(10, Duration::from_secs(5)).is_err());
}

#[test]
fn a_clock_does_not_tick_too_often() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(clock(&folder, "10ms").unwrap_err().0, "every");
    assert_eq!(clock(&folder, "soon").unwrap_err().0, "every");
}
