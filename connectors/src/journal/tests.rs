//! What was begun and appended is there again, in another process's eyes too; what cannot be understood is said.

use levada_types::journal::{PartitionBounds, Taken};
use levada_types::{Blame, Offset};

use super::*;

fn header() -> JournalHeader {
    let bounds =
        |source: &str, start, end| PartitionBounds { source: source.into(), start, end, later: false };
    JournalHeader {
        job: 7,
        begun: 3,
        until_drained: false,
        partitions: vec![bounds("a", Some(Offset(3)), Some(Offset(9))), bounds("f", None, None)],
    }
}

fn cut(epoch: u64) -> EpochCut {
    EpochCut { epoch, taken: vec![(0, vec![Taken::Records(4096), Taken::Idle, Taken::Records(1)])] }
}

#[test]
fn a_journal_is_read_as_it_was_written_and_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let journal = LogJournal::new(folder.path().join("state"));
    assert_eq!(journal.recorded().unwrap(), None);
    assert!(!journal.delete().unwrap());
    let mut writer = journal.writer().unwrap();
    assert_eq!(journal.recorded().unwrap(), None, "it has a writer, and has not begun");
    writer.begin(&header(), None).unwrap();
    writer.append(&[cut(100), cut(101)]).unwrap();
    let other = journal.writer().err().unwrap().to_string();
    assert!(other.contains("holds it"), "{other}");
    assert!(journal.delete().is_err());
    drop(writer);
    let mut writer = journal.writer().unwrap();
    writer.append(&[cut(250)]).unwrap();
    let expected = Recorded { header: header(), trimmed: None, epochs: vec![cut(100), cut(101), cut(250)] };
    assert_eq!(journal.recorded().unwrap(), Some(expected));
    drop(writer);
    assert!(journal.delete().unwrap());
    assert_eq!(journal.recorded().unwrap(), None);
}

#[test]
fn a_journal_of_sources_that_have_more_partitions_counts_all_its_epochs_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let journal = LogJournal::new(folder.path());
    let taken = |partition| EpochCut { epoch: partition as u64, taken: vec![(partition, vec![Taken::Idle])] };
    let mut writer = journal.writer().unwrap();
    writer.begin(&header(), Some(0)).unwrap();
    writer.append(&[EpochCut { epoch: 5, ..taken(1) }]).unwrap();
    let mut grown = header();
    grown.partitions.insert(1, PartitionBounds { later: true, ..header().partitions[0].clone() });
    let before = journal.recorded().unwrap().unwrap();
    writer.grow(&before, &grown).unwrap();
    writer.append(&[EpochCut { epoch: 6, ..taken(1) }, EpochCut { epoch: 7, ..taken(2) }]).unwrap();
    drop(writer);
    let counted = vec![
        EpochCut { epoch: 5, ..taken(2) },
        EpochCut { epoch: 6, ..taken(1) },
        EpochCut { epoch: 7, ..taken(2) },
    ];
    let expected = Recorded { header: grown, trimmed: Some(0), epochs: counted };
    assert_eq!(journal.recorded().unwrap(), Some(expected));
}

#[test]
fn what_is_no_journal_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let journal = LogJournal::new(folder.path());
    let topic = Log::open(folder.path()).unwrap().create_topic(TOPIC, TopicConfig::default()).unwrap();
    let write = |value: &[u8]| {
        topic
            .writer(0, WriterOptions::default())
            .unwrap()
            .append(&[RecordIn { value, ..RecordIn::default() }])
            .unwrap();
    };
    write(br#"{"version":2,"header":{"job":1,"until_drained":true,"partitions":[]}}"#);
    let error = journal.recorded().unwrap_err();
    assert!(error.message.contains("entry 0") && error.message.contains("version 2"), "{}", error.message);
    assert_eq!(error.blame, Blame::Damage);
    assert!(journal.delete().unwrap());
    let mut writer = journal.writer().unwrap();
    writer.begin(&header(), None).unwrap();
    writer.append(&[cut(5), cut(5)]).unwrap();
    let error = journal.recorded().unwrap_err();
    assert!(error.message.contains("entry 2") && error.message.contains("not after"), "{}", error.message);
}

#[test]
fn what_checkpoints_hold_is_forgotten_a_segment_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let journal = LogJournal::new(folder.path());
    let config = TopicConfig { segment_bytes: 16 << 10, ..TopicConfig::default() };
    Log::open(folder.path()).unwrap().create_topic(TOPIC, config).unwrap();
    let mut writer = journal.writer().unwrap();
    writer.begin(&header(), None).unwrap();
    for epoch in 1..=2000 {
        writer.append(&[cut(epoch)]).unwrap();
        if epoch % 500 == 0 {
            writer.trim(&header(), epoch - 300).unwrap();
            let Recorded { header: first, trimmed, epochs } = journal.recorded().unwrap().unwrap();
            assert_eq!((first, trimmed), (header(), (epoch > 500).then(|| epoch - 300)));
            let oldest = epochs[0].epoch;
            assert!(oldest > epoch.saturating_sub(1000) && oldest <= epoch - 300 + 1, "{oldest}");
            let numbers = epochs.iter().map(|cut| cut.epoch);
            assert!(numbers.eq(epochs[0].epoch..=epoch), "after {epoch}");
        }
    }
    // A run that goes on knows where what it writes itself stands, and trims up to there.
    drop(writer);
    let mut writer = journal.writer().unwrap();
    writer.trim(&header(), 2000).unwrap();
    assert_eq!(journal.recorded().unwrap().unwrap().trimmed, Some(1700), "nothing to be gained");
    for epoch in 2001..=2600 {
        writer.append(&[cut(epoch)]).unwrap();
    }
    writer.trim(&header(), 2500).unwrap();
    let recorded = journal.recorded().unwrap().unwrap();
    assert_eq!(recorded.trimmed, Some(2500));
    assert!(recorded.epochs[0].epoch > 2000);
}

#[test]
fn a_journal_may_begin_behind_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let journal = LogJournal::new(folder.path());
    journal.writer().unwrap().begin(&header(), Some(77)).unwrap();
    assert_eq!(journal.recorded().unwrap().unwrap().trimmed, Some(77));
}

#[test]
fn what_was_taken_from_the_beginning_of_a_journal_is_missed() {
    let entries = |from: u64, trimmed| {
        let mut reading = entries::Reading::new("the journal".into());
        reading.take(from, &entries::header(&header(), trimmed).unwrap()).unwrap();
        reading.take(from + 1, &entries::epochs(&[cut(9)]).unwrap()[0]).unwrap();
        reading.end(from)
    };
    assert_eq!(entries(0, None).unwrap().unwrap().epochs, [cut(9)]);
    assert_eq!(entries(5, Some(8)).unwrap().unwrap().epochs, [cut(9)], "a job has deleted it");
    let error = entries(5, None).unwrap_err();
    assert!(error.message.contains("entry 5 of the journal: the ones before it were deleted"), "{error}");
    let error = entries::Reading::new("the journal".into()).end(5).unwrap_err();
    assert!(error.message.contains("there is no header behind it"), "{error}");
}
