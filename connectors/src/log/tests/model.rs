//! The log against a vector of records.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Draft>),
    Reopen,
    Sync,
    Read { from: prop::sample::Index, records: usize, bytes: usize },
    Seek { time_ms: i64 },
}

#[derive(Clone, Debug)]
struct Draft {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    value: Vec<u8>,
}

fn draft() -> impl Strategy<Value = Draft> {
    let key = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    let headers = prop::collection::vec(("[a-zé]{0,8}", prop::collection::vec(any::<u8>(), 0..9)), 0..3);
    let value = prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..100), 1 => Just(vec![7; 3000])];
    (-50_i64..50, key, headers, value).prop_map(|(timestamp_ms, key, headers, value)| Draft {
        timestamp_ms,
        key,
        headers,
        value,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(draft(), 0..40).prop_map(Step::Append),
        1 => Just(Step::Reopen),
        1 => Just(Step::Sync),
        2 => (any::<prop::sample::Index>(), 1_usize..60, 1_usize..5000)
            .prop_map(|(from, records, bytes)| Step::Read { from, records, bytes }),
        1 => (-60_i64..60).prop_map(|time_ms| Step::Seek { time_ms }),
    ]
}

fn append(writer: &Writer, drafts: &[Draft]) -> Appended {
    let headers: Vec<Vec<(&str, &[u8])>> = drafts
        .iter()
        .map(|draft| draft.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect())
        .collect();
    let records: Vec<RecordIn<'_>> = drafts
        .iter()
        .zip(&headers)
        .map(|(draft, headers)| RecordIn {
            timestamp_ms: draft.timestamp_ms,
            key: draft.key.as_deref(),
            headers,
            value: &draft.value,
        })
        .collect();
    writer.append(&records).unwrap()
}

fn expected(offset: usize, draft: &Draft) -> Record {
    Record {
        offset: offset as u64,
        timestamp_ms: draft.timestamp_ms,
        key: draft.key.clone().map(Bytes::from),
        headers: draft
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Bytes::from(value.clone())))
            .collect(),
        value: Bytes::from(draft.value.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_appends_rolls_and_reopenings_hold_what_a_vector_holds(
        segment_bytes in 4096_u64..20_000,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (_folder, topic) = new_topic(small_segments(segment_bytes));
        let mut model: Vec<Record> = Vec::new();
        let mut writer = topic.writer(0, never()).unwrap();
        let mut follower = topic.reader(0, Start::Beginning).unwrap();
        let mut followed = Vec::new();
        for step in &steps {
            match step {
                Step::Append(drafts) => {
                    let appended = append(&writer, drafts);
                    prop_assert_eq!(appended.first, model.len() as u64);
                    for draft in drafts {
                        model.push(expected(model.len(), draft));
                    }
                    prop_assert_eq!(appended.next, model.len() as u64);
                }
                Step::Reopen => {
                    drop(writer);
                    prop_assert_eq!(topic.bounds(0).unwrap(), Bounds { first: 0, next: model.len() as u64 });
                    writer = topic.writer(0, never()).unwrap();
                    prop_assert!(writer.recovery().is_none());
                }
                Step::Sync => {
                    writer.sync().unwrap();
                    prop_assert_eq!(writer.durable(), model.len() as u64);
                }
                Step::Read { from, records, bytes } => {
                    let from = from.index(model.len() + 1);
                    let mut reader = topic.reader(0, Start::Offset(from as u64)).unwrap();
                    let counted = reader.read(*records, usize::MAX).unwrap();
                    prop_assert_eq!(counted.len(), (*records).min(model.len() - from));
                    let counted: Vec<Record> = counted.iter().map(|record| record.to_record()).collect();
                    prop_assert_eq!(&counted[..], &model[from..from + counted.len()]);
                    let weighed = reader.read(usize::MAX, *bytes).unwrap();
                    prop_assert!(weighed.len() <= 1 || weighed.bytes() <= *bytes);
                    prop_assert_eq!(weighed.is_empty(), from + counted.len() == model.len());
                    prop_assert_eq!(weighed.iter().len(), weighed.iter().count());
                }
                Step::Seek { time_ms } => {
                    let first = model.iter().position(|record| record.timestamp_ms >= *time_ms);
                    let reader = topic.reader(0, Start::Time(*time_ms)).unwrap();
                    prop_assert_eq!(reader.position(), first.unwrap_or(model.len()) as u64);
                }
            }
            followed.extend(rest(&mut follower).unwrap());
        }
        prop_assert_eq!(&followed, &model);
        prop_assert_eq!(topic.last_record(0).unwrap(), model.last().cloned());
        prop_assert_eq!(topic.verify(0).unwrap().next, model.len() as u64);
    }
}

#[test]
fn time_is_found_as_by_a_linear_scan_with_and_without_an_index() {
    let (folder, topic) = new_topic(small_segments(300_000));
    let writer = topic.writer(0, never()).unwrap();
    let mut dice = Dice(11);
    let mut times = Vec::new();
    for _ in 0..300 {
        let batch: Vec<i64> = (0..=dice.below(20))
            .map(|at| (times.len() as i64 + at as i64) * 10 - dice.below(4000) as i64)
            .collect();
        let payload = vec![0; 300];
        let records: Vec<RecordIn<'_>> = batch
            .iter()
            .map(|time| RecordIn { timestamp_ms: *time, value: &payload, ..RecordIn::default() })
            .collect();
        writer.append(&records).unwrap();
        times.extend(batch);
    }
    let check = |what: &str| {
        for time_ms in (-4100..times.len() as i64 * 10 + 200).step_by(173).chain([i64::MIN, i64::MAX]) {
            let scanned = times.iter().position(|time| *time >= time_ms).unwrap_or(times.len());
            let reader = topic.reader(0, Start::Time(time_ms)).unwrap();
            assert_eq!(reader.position(), scanned as u64, "{what}, at {time_ms}");
        }
        for offset in (0..=times.len()).step_by(97).chain([times.len()]) {
            let mut reader = topic.reader(0, Start::Offset(offset as u64)).unwrap();
            let read = reader.read(1, usize::MAX).unwrap();
            assert_eq!(
                read.iter().next().map(|record| record.timestamp_ms),
                times.get(offset).copied(),
                "{what}"
            );
        }
    };
    check("with the index");
    let indexes: Vec<_> = std::fs::read_dir(folder.path().join("t/0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "index"))
        .collect();
    assert!(indexes.len() > 2, "the test should cover several segments");
    for (turn, index) in indexes.iter().enumerate() {
        let mut bytes = std::fs::read(index).unwrap();
        let at = 16 + turn * 7 % (bytes.len() - 16).max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x10;
        }
        std::fs::write(index, bytes).unwrap();
    }
    check("with damaged indexes");
    for index in indexes {
        std::fs::remove_file(index).unwrap();
    }
    check("without an index");
}

#[test]
fn bounds_are_errors_and_leave_nothing_behind() {
    let (_folder, topic) = new_topic(TopicConfig::default());
    let writer = topic.writer(0, never()).unwrap();
    let long = vec![0; MAX_RECORD_BYTES + 1];
    let wide = "n".repeat(MAX_HEADER_NAME_BYTES + 1);
    let many = vec![("h", &b""[..]); MAX_HEADERS + 1];
    assert!(matches!(writer.append(&[value(b"x"), value(&long)]), Err(LogError::Record { index: 1, .. })));
    let named: [(&str, &[u8]); 1] = [(&wide, b"")];
    let headers = [RecordIn { headers: &named, ..value(b"") }, RecordIn { headers: &many, ..value(b"") }];
    for record in headers {
        assert!(matches!(writer.append(&[record]), Err(LogError::Record { index: 0, .. })));
    }
    let big = vec![0; MAX_RECORD_BYTES - 100];
    assert!(matches!(writer.append(&[value(&big); 5]), Err(LogError::FrameTooLarge { records: 5, .. })));
    assert_eq!(writer.append(&[]).unwrap(), Appended { first: 0, next: 0 });
    writer.append(&[value(&big); 3]).unwrap();
    let mut reader = topic.reader(0, Start::Offset(1)).unwrap();
    assert_eq!(reader.read(8, 1).unwrap().len(), 1);
    assert_eq!(reader.read(8, 1).unwrap().iter().next().unwrap().value.len(), big.len());
    assert!(reader.read(8, 1).unwrap().is_empty());
    assert!(matches!(
        reader.seek(Start::Offset(9)),
        Err(LogError::OffsetOutOfRange { wanted: 9, next: 3, .. })
    ));
    assert_eq!(reader.position(), 3);
}

#[test]
fn a_call_of_more_than_a_frame_holds_takes_several() {
    let (_folder, topic) = new_topic(TopicConfig { partitions: 2, ..TopicConfig::default() });
    let writers = topic.writers(never()).unwrap();
    let big = vec![7; MAX_RECORD_BYTES - 100];
    // The first five are of one partition: three fit a frame.
    let key = |n: u64| n.to_le_bytes();
    let keys: Vec<[u8; 8]> = (0..).map(key).filter(|key| partition_of(key, 2) == 1).take(5).collect();
    let mut records: Vec<RecordIn<'_>> =
        keys.iter().map(|key| RecordIn { key: Some(key), ..value(&big) }).collect();
    records.insert(2, RecordIn { key: Some(b""), ..value(b"small") });
    let other = partition_of(b"", 2);
    let mut appended = writers.append(&records).unwrap();
    appended.sort_by_key(|(_, appended)| appended.next);
    let count = |partition: u32| if other == partition { 6 } else { 5 };
    let expected = if other == 1 { vec![(1, 6)] } else { vec![(0, 1), (1, count(1))] };
    assert_eq!(
        appended.iter().map(|(partition, part)| (*partition, part.next - part.first)).collect::<Vec<_>>(),
        expected
    );
    writers.sync().unwrap();
    drop(writers);
    let mut reader = topic.reader(1, Start::Beginning).unwrap();
    let mut lengths = Vec::new();
    while let Some(record) = reader.read(1, usize::MAX).unwrap().iter().next() {
        lengths.push(record.value.len());
    }
    let mut expected = vec![big.len(); 5];
    if other == 1 {
        expected.insert(2, 5);
    }
    assert_eq!(lengths, expected);
}

#[test]
fn of_two_who_want_a_topic_at_once_one_gets_it() {
    let (_folder, topic) = new_topic(TopicConfig { partitions: 6, ..TopicConfig::default() });
    for _ in 0..20 {
        let start = std::sync::Barrier::new(2);
        let open = || {
            start.wait();
            let opened = topic.writers(never());
            // Nobody lets go before the other has tried.
            start.wait();
            opened.is_ok()
        };
        let got = std::thread::scope(|scope| {
            let other = scope.spawn(open);
            u8::from(open()) + u8::from(other.join().unwrap())
        });
        assert_eq!(got, 1);
    }
}
