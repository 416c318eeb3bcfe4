//! Torn and flipped bytes, at every place.

use std::fs;

use super::super::recovery::Recovery;
use super::super::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::*;

/// Three frames of three records in one segment, and where each begins.
struct Sample {
    _folder: tempfile::TempDir,
    topic: Topic,
    path: std::path::PathBuf,
    bytes: Vec<u8>,
    starts: Vec<usize>,
    values: Vec<Vec<u8>>,
}

fn sample() -> Sample {
    let (folder, topic) = new_topic(TopicConfig::default());
    let path = segment_path(&folder.path().canonicalize().unwrap().join("t/0"), 0);
    let writer = topic.writer(0, never()).unwrap();
    let (mut starts, mut all) = (Vec::new(), Vec::new());
    for frame in 0..3_u8 {
        starts.push(fs::metadata(&path).unwrap().len() as usize);
        let values: Vec<Vec<u8>> =
            (0..3).map(|record| vec![frame * 3 + record; 5 + usize::from(record)]).collect();
        let headers: [(&str, &[u8]); 1] = [("epoch", b"12")];
        let records: Vec<_> = values
            .iter()
            .map(|bytes| RecordIn { key: Some(b"k"), headers: &headers, ..value(bytes) })
            .collect();
        writer.append(&records).unwrap();
        all.extend(values);
    }
    drop(writer);
    let bytes = fs::read(&path).unwrap();
    Sample { _folder: folder, topic, path, bytes, starts, values: all }
}

#[test]
fn a_tail_torn_at_any_byte_is_not_seen_and_is_cut_and_reported() {
    let sample = sample();
    let start = sample.starts[2];
    for cut in start..sample.bytes.len() {
        for (what, filler) in [("nothing", &[][..]), ("zeros", &[0; 100]), ("noise", &[0xa7; 100])] {
            let mut torn = sample.bytes[..cut].to_vec();
            torn.extend(filler);
            fs::write(&sample.path, &torn).unwrap();
            let mut follower = sample.topic.reader(0, Start::Beginning).unwrap();
            // Twice: the second look is the thorough one.
            for left in [6, 0] {
                assert_eq!(rest(&mut follower).unwrap().len(), left, "cut at {cut}, then {what}");
            }
            assert_eq!(sample.topic.bounds(0).unwrap(), Bounds { first: 0, next: 6 });

            let writer = sample.topic.writer(0, never()).unwrap();
            let expected = (torn.len() > start).then(|| (torn.len() - start) as u64);
            let found = writer.recovery().map(|Recovery { truncated_bytes, file, offset, .. }| {
                assert_eq!((file, *offset), (&sample.path, start as u64));
                *truncated_bytes
            });
            assert_eq!(found, expected, "cut at {cut}, then {what}");
            assert_eq!(writer.append(&[value(b"after")]).unwrap().first, 6);
            let seen = rest(&mut follower).unwrap();
            assert_eq!(seen.iter().map(|record| &record.value[..]).collect::<Vec<_>>(), [b"after"]);
            assert_eq!(sample.topic.verify(0).unwrap().next, 7);
        }
    }
}

#[test]
fn a_flipped_bit_in_the_middle_is_an_error_that_names_the_place() {
    let sample = sample();
    for at in 0..sample.starts[2] {
        for bit in [0, 5, 7] {
            let mut flipped = sample.bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(&sample.path, &flipped).unwrap();
            let start = sample.starts.iter().rev().find(|start| **start <= at).copied().unwrap_or(0) as u64;
            let here = |error: &LogError| match error {
                LogError::Damaged { file, position, .. } => *file == sample.path && *position == start,
                _ => false,
            };
            let refused = sample.topic.writer(0, never()).unwrap_err();
            assert!(here(&refused), "byte {at}: {refused}");
            let told = sample.topic.verify(0).unwrap_err();
            assert!(here(&told), "byte {at}: {told}");
            let read = sample.topic.reader(0, Start::Offset(0)).and_then(|mut reader| {
                let mut seen = rest(&mut reader)?;
                seen.extend(rest(&mut reader)?);
                Ok(seen)
            });
            assert!(read.as_ref().is_err_and(here), "byte {at}: {read:?}");
        }
    }
}

#[test]
fn damage_is_cut_only_when_somebody_says_so() {
    let sample = sample();
    let mut flipped = sample.bytes.clone();
    flipped[sample.starts[1] + 40] ^= 1;
    fs::write(&sample.path, &flipped).unwrap();
    assert!(sample.topic.writer(0, never()).is_err());
    let cut = sample.topic.repair(0).unwrap().unwrap();
    assert_eq!(cut.offset, sample.starts[1] as u64);
    assert_eq!(fs::read(sample.path.with_extension("damaged")).unwrap(), flipped);
    assert_eq!(values(&sample.topic).unwrap(), sample.values[..3]);
    assert_eq!(sample.topic.repair(0).unwrap(), None);
    assert_eq!(sample.topic.writer(0, never()).unwrap().bounds().next, 3);
}

#[test]
fn a_flipped_bit_in_the_last_frame_is_a_torn_tail() {
    let sample = sample();
    for at in sample.starts[2]..sample.bytes.len() {
        let mut flipped = sample.bytes.clone();
        flipped[at] ^= 0x20;
        fs::write(&sample.path, &flipped).unwrap();
        assert_eq!(values(&sample.topic).unwrap(), sample.values[..6], "byte {at}");
        assert!(sample.topic.writer(0, never()).unwrap().recovery().is_some(), "byte {at}");
        assert_eq!(fs::read(&sample.path).unwrap(), sample.bytes[..sample.starts[2]]);
    }
}

#[test]
fn a_torn_segment_that_is_not_the_last_is_damage() {
    let (folder, topic) = new_topic(small_segments(MIN_SEGMENT_BYTES));
    let writer = topic.writer(0, never()).unwrap();
    for _ in 0..12 {
        writer.append(&[value(&[1; 1000])]).unwrap();
    }
    drop(writer);
    let place = folder.path().canonicalize().unwrap().join("t/0");
    let first = segment_path(&place, 0);
    let whole = fs::read(&first).unwrap();
    for cut in [whole.len() - 1, whole.len() - 900, SEGMENT_HEADER_BYTES as usize + 3] {
        fs::write(&first, &whole[..cut]).unwrap();
        assert!(matches!(topic.writer(0, never()), Err(LogError::Damaged { file, .. }) if file == first));
        assert!(matches!(values(&topic), Err(LogError::Damaged { file, .. }) if file == first));
        assert!(matches!(topic.verify(0), Err(LogError::Damaged { file, .. }) if file == first));
    }
    let frame = 32 + 18 + 1000;
    fs::write(&first, &whole[..whole.len() - frame]).unwrap();
    assert!(matches!(topic.writer(0, never()), Err(LogError::Gap { .. })));
    assert!(matches!(topic.verify(0), Err(LogError::Gap { .. })));
    let mut reader = topic.reader(0, Start::Beginning).unwrap();
    assert!(
        rest(&mut reader).and_then(|_| rest(&mut reader)).is_err_and(|e| matches!(e, LogError::Gap { .. }))
    );
    fs::write(&first, &whole).unwrap();
    assert_eq!(values(&topic).unwrap().len(), 12);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 300, failure_persistence: None, ..proptest::prelude::ProptestConfig::default()
    })]

    /// Whatever stands in the files, it is records or an error, and never a panic.
    #[test]
    fn no_bytes_can_do_harm(
        patches in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 1..9)), 1..6),
        resealed in proptest::prelude::any::<bool>(),
    ) {
        let sample = sample();
        let mut bytes = sample.bytes.clone();
        for (at, patch) in &patches {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + patch.len());
            bytes[at..end].copy_from_slice(&patch[..end - at]);
        }
        if resealed {
            // As if somebody had written nonsense with the right checksums.
            let seed = crate::log::frame::u32_at(&bytes, 12);
            for (index, start) in sample.starts.iter().enumerate() {
                let end = sample.starts.get(index + 1).copied().unwrap_or(bytes.len());
                let checksum = crc32c::crc32c_append(seed, &bytes[start + 8..end]);
                bytes[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        fs::write(&sample.path, &bytes).unwrap();
        if let Ok(mut reader) = sample.topic.reader(0, Start::Beginning) {
            let _ = rest(&mut reader);
            let _ = rest(&mut reader);
        }
        let _ = sample.topic.reader(0, Start::Time(1));
        let _ = sample.topic.verify(0);
        let _ = sample.topic.last_record(0);
        if let Ok(writer) = sample.topic.writer(0, never()) {
            writer.append(&[value(b"x")]).unwrap();
        }
    }
}
