//! Readers that follow a writer, in this process and from another.

use std::io::Write;
use std::sync::mpsc;

use super::*;

/// Reads until `next`, waiting whenever there is nothing.
fn follow_until(reader: &mut Reader, next: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while reader.position() < next {
        let fetched = reader.read(33, usize::MAX).unwrap();
        if fetched.is_empty() {
            assert!(reader.wait(PATIENCE).unwrap(), "nothing came after {}", reader.position());
        }
        for record in &fetched {
            assert_eq!(record.value, record.offset.to_le_bytes());
            seen.push(record.offset);
        }
    }
    seen
}

fn append_numbers(writer: &Writer, range: std::ops::Range<u64>) {
    let values: Vec<[u8; 8]> = range.map(u64::to_le_bytes).collect();
    writer.append(&values.iter().map(|bytes| value(bytes)).collect::<Vec<_>>()).unwrap();
}

#[test]
fn readers_follow_a_writer_of_this_process() {
    let (_folder, topic) = new_topic(small_segments(10_000));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            // Two begin before there is any segment.
            let mut reader = topic.reader(0, Start::End).unwrap();
            std::thread::spawn(move || follow_until(&mut reader, 20_000))
        })
        .collect();
    let mut dice = Dice(3);
    let mut next = 0;
    let mut writer = topic.writer(0, WriterOptions::default()).unwrap();
    while next < 20_000 {
        let end = (next + 1 + dice.below(40)).min(20_000);
        append_numbers(&writer, next..end);
        next = end;
        if dice.below(100) == 0 {
            drop(writer);
            writer = topic.writer(0, WriterOptions::default()).unwrap();
        }
    }
    for reader in readers {
        assert_eq!(reader.join().unwrap(), (0..20_000).collect::<Vec<_>>());
    }
}

#[test]
fn child_follows() {
    if let Some(topic) = in_child() {
        let mut reader = topic.reader(0, Start::Beginning).unwrap();
        println!("ready at {}", reader.position());
        let seen = follow_until(&mut reader, 3_000);
        println!("seen {}", seen.len());
    }
}

#[test]
fn a_reader_in_another_process_sees_appends() {
    let (folder, topic) = new_topic(small_segments(10_000));
    let mut child = child("follow::child_follows", folder.path());
    assert_eq!(said(&mut child, "ready at").next().as_deref(), Some("0"));
    let writer = topic.writer(0, never()).unwrap();
    for next in (0..3_000).step_by(10) {
        append_numbers(&writer, next..next + 10);
    }
    assert_eq!(said(&mut child, "seen").next().as_deref(), Some("3000"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn child_writes_what_it_is_told() {
    if let Some(topic) = in_child() {
        let writer = topic.writer(0, never()).unwrap();
        println!("held");
        for line in std::io::stdin().lines() {
            let next = line.unwrap().parse().unwrap();
            append_numbers(&writer, writer.bounds().next..next);
            println!("wrote {next}");
        }
    }
}

#[test]
fn a_writer_in_another_process_is_heard_and_excludes_others() {
    let (folder, topic) = new_topic(TopicConfig::default());
    let (woken, wake) = mpsc::channel();
    let subscription = topic.subscribe(0, move || woken.send(()).unwrap_or_default()).unwrap();
    let mut reader = topic.reader(0, Start::Beginning).unwrap();
    let mut child = child("follow::child_writes_what_it_is_told", folder.path());
    assert_eq!(said(&mut child, "held").next().as_deref(), Some(""));
    let refused = topic.writer(0, never()).unwrap_err();
    assert!(matches!(refused, LogError::WriterHeld { pid, .. } if pid == child.id()), "{refused}");
    assert!(matches!(Log::open(folder.path()).unwrap().delete_topic("t"), Err(LogError::WriterHeld { .. })));
    let mut tell = child.stdin.take().unwrap();
    for next in [1, 5, 6] {
        writeln!(tell, "{next}").unwrap();
        follow_until(&mut reader, next);
        assert_eq!(topic.bounds(0).unwrap().next, next);
    }
    wake.recv_timeout(PATIENCE).unwrap();
    drop(tell);
    assert!(child.wait().unwrap().success());
    // The same subscription and reader go on with a writer of this process.
    let writer = topic.writer(0, never()).unwrap();
    while wake.try_recv().is_ok() {}
    append_numbers(&writer, 6..9);
    wake.recv_timeout(PATIENCE).unwrap();
    assert_eq!(follow_until(&mut reader, 9), [6, 7, 8]);
    drop(subscription);
    assert!(wake.recv_timeout(PATIENCE).is_err_and(|error| error == mpsc::RecvTimeoutError::Disconnected));
    assert!(!reader.wait(Duration::ZERO).unwrap());
}

#[test]
fn a_second_writer_in_this_process_is_refused() {
    let (_folder, topic) = new_topic(TopicConfig::default());
    let writer = topic.writer(0, never()).unwrap();
    let refused = topic.writer(0, never()).unwrap_err();
    assert!(matches!(refused, LogError::WriterHeld { pid, .. } if pid == std::process::id()));
    assert!(refused.to_string().contains("topic t partition 0"), "{refused}");
    drop(writer);
    topic.writer(0, never()).unwrap();
}

#[test]
fn many_threads_share_a_writer_and_each_keeps_its_order() {
    for policy in
        [SyncPolicy::EveryAppend, SyncPolicy::Interval(Duration::from_micros(100)), SyncPolicy::Never]
    {
        let (_folder, topic) = new_topic(small_segments(20_000));
        let writer = topic.writer(0, WriterOptions::synced(policy)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let writer = &writer;
                scope.spawn(move || {
                    for turn in 0..100_u8 {
                        let pair = [[thread, turn, 0], [thread, turn, 1]];
                        let appended =
                            writer.append_durable(&pair.each_ref().map(|bytes| value(bytes))).unwrap();
                        assert!(writer.durable() >= appended.next);
                    }
                });
            }
        });
        let held = values(&topic).unwrap();
        for thread in 0..4 {
            let mine: Vec<_> =
                held.iter().filter(|value| value[0] == thread).map(|value| (value[1], value[2])).collect();
            assert_eq!(
                mine,
                (0..100).flat_map(|turn| [(turn, 0), (turn, 1)]).collect::<Vec<_>>(),
                "{policy:?}"
            );
        }
        assert!(held.chunks(2).all(|pair| pair[0][..2] == pair[1][..2]), "{policy:?}: an append was split");
    }
}
