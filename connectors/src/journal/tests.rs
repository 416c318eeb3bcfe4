//! What was begun and appended is there again, in another process's eyes too; what cannot be understood is said.

use levada_types::Offset;
use levada_types::journal::{PartitionBounds, Taken};

use super::*;

fn header() -> JournalHeader {
    let bounds = |source: &str, start, end| PartitionBounds { source: source.into(), start, end };
    JournalHeader {
        job: 7,
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
    writer.begin(&header()).unwrap();
    writer.append(&[cut(100), cut(101)]).unwrap();
    let other = journal.writer().err().unwrap().to_string();
    assert!(other.contains("holds it"), "{other}");
    assert!(journal.delete().is_err());
    drop(writer);
    let mut writer = journal.writer().unwrap();
    writer.append(&[cut(250)]).unwrap();
    let expected = Recorded { header: header(), epochs: vec![cut(100), cut(101), cut(250)] };
    assert_eq!(journal.recorded().unwrap(), Some(expected));
    drop(writer);
    assert!(journal.delete().unwrap());
    assert_eq!(journal.recorded().unwrap(), None);
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
    writer.begin(&header()).unwrap();
    writer.append(&[cut(5), cut(5)]).unwrap();
    let error = journal.recorded().unwrap_err();
    assert!(error.message.contains("entry 2") && error.message.contains("not after"), "{}", error.message);
}
