//! Topics, partitions and retention.

use std::time::SystemTime;

use super::super::catalog::now_ms;
use super::*;

#[test]
fn topics_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path().join("new")).unwrap();
    for name in ["", ".", "..", ".a", "a/b", "a b", "ä", &"x".repeat(201)] {
        assert!(
            matches!(log.create_topic(name, TopicConfig::default()), Err(LogError::TopicName { .. })),
            "{name}"
        );
    }
    let none = TopicConfig { partitions: 0, ..TopicConfig::default() };
    assert!(matches!(log.create_topic("a", none), Err(LogError::TopicConfig { .. })));
    assert!(matches!(log.topic("a"), Err(LogError::NoSuchTopic { .. })));
    let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
    log.create_topic("b", config.clone()).unwrap();
    log.create_topic("a.1_x-Y", TopicConfig::default()).unwrap();
    assert!(matches!(log.create_topic("b", TopicConfig::default()), Err(LogError::TopicExists { .. })));
    let near = |name: &str| log.topic(name).unwrap_err().to_string();
    assert!(near("a.1_x-y").ends_with("; did you mean `a.1_x-Y`?"), "{}", near("a.1_x-y"));
    assert!(near("orders").ends_with("new"), "{}", near("orders"));
    let topic = log.ensure_topic("b", TopicConfig::default()).unwrap();
    assert_eq!((topic.partitions(), topic.config()), (3, &config));
    assert!(matches!(topic.reader(3, Start::End), Err(LogError::NoSuchPartition { partitions: 3, .. })));
    topic.writer(1, never()).unwrap().append(&[value(b"1"), value(b"2")]).unwrap();
    std::fs::create_dir(log.root().join("not-a-topic")).unwrap();
    let topics = log.topics().unwrap();
    assert_eq!(topics.iter().map(|topic| &topic.name[..]).collect::<Vec<_>>(), ["a.1_x-Y", "b"]);
    let parts: Vec<_> =
        topics[1].partitions.iter().map(|part| (part.first, part.next, part.segments)).collect();
    assert_eq!(parts, [(0, 0, 0), (0, 2, 1), (0, 0, 0)]);
    log.delete_topic("b").unwrap();
    assert!(matches!(log.topic("b"), Err(LogError::NoSuchTopic { .. })));
    assert_eq!(log.topics().unwrap().len(), 1);
    std::fs::write(log.root().join("a.1_x-Y/topic.json"), "{\"version\":1,\"surprise\":2}").unwrap();
    let refused = log.topic("a.1_x-Y").unwrap_err().to_string();
    assert!(refused.contains("surprise") && refused.contains("topic.json"), "{refused}");
}

#[test]
fn keys_stay_in_their_partition_and_the_rest_takes_turns() {
    let (_folder, topic) = new_topic(TopicConfig { partitions: 4, ..TopicConfig::default() });
    let writers = topic.writers(WriterOptions::default()).unwrap();
    let keys: Vec<String> = (0..50).map(|key| format!("key {key}")).collect();
    for _ in 0..3 {
        let records: Vec<RecordIn<'_>> =
            keys.iter().map(|key| RecordIn { key: Some(key.as_bytes()), ..value(b"") }).collect();
        let appended = writers.append(&records).unwrap();
        writers.wait_durable(&appended).unwrap();
    }
    let mut total = 0;
    for partition in 0..4 {
        let held = rest(&mut topic.reader(partition, Start::Beginning).unwrap()).unwrap();
        assert!(held.iter().all(|record| partition_of(record.key.as_ref().unwrap(), 4) == partition));
        total += held.len();
        assert_eq!(writers.partition(partition).unwrap().durable(), held.len() as u64);
    }
    assert_eq!(total, 150);
    let before: Vec<u64> = (0..4).map(|partition| topic.bounds(partition).unwrap().next).collect();
    writers.append(&[value(b""); 5]).unwrap();
    writers.append(&[value(b""); 2]).unwrap();
    writers.sync().unwrap();
    let gained: Vec<u64> =
        (0..4).map(|partition| topic.bounds(partition).unwrap().next - before[partition as usize]).collect();
    assert_eq!(gained, [2, 2, 2, 1]);
    assert_eq!(writers.recoveries().count(), 0);
}

#[test]
fn retention_by_size_moves_the_first_offset() {
    let config = TopicConfig { retain_bytes: Some(20_000), ..small_segments(MIN_SEGMENT_BYTES) };
    let (_folder, topic) = new_topic(config);
    let writer = topic.writer(0, never()).unwrap();
    let mut slow = topic.reader(0, Start::Beginning).unwrap();
    writer.append(&[value(&[0; 1000])]).unwrap();
    assert_eq!(slow.read(1, usize::MAX).unwrap().len(), 1);
    for byte in 1..100 {
        writer.append(&[value(&[byte; 1000])]).unwrap();
    }
    let Bounds { first, next } = topic.bounds(0).unwrap();
    assert!(first > 70 && next == 100, "{first} to {next}");
    let info = topic.info().unwrap().partitions[0];
    assert!(info.bytes <= 20_000 + MIN_SEGMENT_BYTES && info.first == first, "{info:?}");
    // The open file outlives its name, and then the gap is told.
    let error = rest(&mut slow).unwrap_err();
    assert!(matches!(error, LogError::OffsetOutOfRange { first: f, next: 100, .. } if f == first), "{error}");
    assert!(matches!(topic.reader(0, Start::Offset(first - 1)), Err(LogError::OffsetOutOfRange { .. })));
    assert!(matches!(topic.reader(0, Start::Offset(0)), Err(LogError::OffsetOutOfRange { .. })));
    assert_eq!(rest(&mut topic.reader(0, Start::Beginning).unwrap()).unwrap().len() as u64, next - first);
    drop(writer);
    assert_eq!(topic.bounds(0).unwrap(), Bounds { first, next });
    assert_eq!(topic.writer(0, never()).unwrap().bounds(), Bounds { first, next });
}

#[test]
fn retention_by_age_spares_the_segment_being_written() {
    let (folder, topic) =
        new_topic(TopicConfig { retain_ms: Some(60_000), ..small_segments(MIN_SEGMENT_BYTES) });
    let writer = topic.writer(0, never()).unwrap();
    for byte in 0..20 {
        // Old events are kept as long as new ones: their age is that of the append.
        writer.append(&[RecordIn { timestamp_ms: 5, ..value(&[byte; 1000]) }]).unwrap();
    }
    assert_eq!(writer.enforce_retention(now_ms()).unwrap(), 0);
    let oldest = std::fs::File::options()
        .write(true)
        .open(folder.path().join("t/0/00000000000000000000.log"))
        .unwrap();
    oldest.set_modified(SystemTime::now() - Duration::from_secs(61)).unwrap();
    assert_eq!(writer.enforce_retention(now_ms()).unwrap(), 1);
    let first = topic.bounds(0).unwrap().first;
    assert!((1..20).contains(&first));
    assert!(writer.enforce_retention(now_ms() + 3_600_000).unwrap() > 1);
    let left = topic.info().unwrap().partitions[0];
    assert_eq!((left.segments, left.next), (1, 20));
    let mut reader = topic.reader(0, Start::Time(0)).unwrap();
    assert_eq!(reader.position(), left.first);
    assert_eq!(rest(&mut reader).unwrap().len() as u64, 20 - left.first);
}
