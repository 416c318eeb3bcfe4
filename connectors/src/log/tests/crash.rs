//! Writers killed at random moments, and a reader that follows through it all.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

const KILLS: u64 = 100;

/// The records of one append say which of how many they are.
fn append_some(writer: &Writer, dice: &mut Dice) -> Appended {
    let first = writer.bounds().next;
    let count = 1 + dice.below(30);
    let values: Vec<Vec<u8>> = (0..count)
        .map(|index| {
            let mut bytes = format!("{} {index} {count} ", first + index).into_bytes();
            bytes.resize(bytes.len() + dice.below(400) as usize, b'.');
            bytes
        })
        .collect();
    let records: Vec<_> = values.iter().map(|bytes| value(bytes)).collect();
    writer.append(&records).unwrap()
}

/// Checks that a record is the next one and that appends are whole: `within` is the place in one.
fn check(record: &RecordRef<'_>, next: u64, within: &mut u64) {
    let text = std::str::from_utf8(record.value).unwrap();
    let numbers: Vec<u64> = text.split(' ').take(3).map(|number| number.parse().unwrap()).collect();
    assert_eq!((record.offset, numbers[0], numbers[1]), (next, next, *within));
    *within = if numbers[1] + 1 == numbers[2] { 0 } else { *within + 1 };
}

#[test]
fn child_appends_until_killed() {
    if let Some(topic) = in_child() {
        let mut dice = Dice(u64::from(std::process::id()));
        let mut options = WriterOptions::synced(SyncPolicy::Interval(Duration::from_micros(200)));
        if dice.below(2) == 0 {
            options.storage = Arc::new(faults::in_pieces(50));
        }
        let writer = topic.writer(0, options).unwrap();
        loop {
            let mut appended = append_some(&writer, &mut dice);
            for _ in 0..dice.below(4) {
                appended = append_some(&writer, &mut dice);
            }
            writer.wait_durable(appended.next).unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {}", appended.next).unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let (folder, topic) = new_topic(small_segments(50_000));
    let end = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        let end = &end;
        let mut reader = topic.reader(0, Start::Beginning).unwrap();
        let follower = scope.spawn(move || {
            let (mut next, mut within) = (0, 0);
            while next < end.load(Ordering::SeqCst) {
                let fetched = reader.read(100, usize::MAX).unwrap();
                if fetched.is_empty() {
                    assert!(reader.wait(PATIENCE).unwrap(), "nothing came after {next}");
                }
                for record in &fetched {
                    check(&record, next, &mut within);
                    next += 1;
                }
            }
            (next, within)
        });
        let mut cut = 0;
        for kill in 0..KILLS {
            let mut child = child("crash::child_appends_until_killed", folder.path());
            let acknowledgements = 1 + dice.below(20) as usize;
            let mut acknowledged = 0;
            for said in said(&mut child, "acknowledged").take(acknowledgements) {
                acknowledged = said.parse().unwrap();
            }
            // Not a wait for a result: the moment of the kill is the experiment.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(Duration::from_micros(dice.below(1500)));
            child.kill().unwrap();
            // What it still said before it died counts as well.
            for said in said(&mut child, "acknowledged") {
                acknowledged = said.parse().unwrap();
            }
            child.wait().unwrap();
            assert!(acknowledged > 0, "kill {kill} of seed {seed}: the child said nothing");
            let writer = topic.writer(0, never()).unwrap();
            cut += u64::from(writer.recovery().is_some());
            let next = writer.bounds().next;
            assert!(
                next >= acknowledged,
                "kill {kill} of seed {seed}: {acknowledged} acknowledged, {next} kept"
            );
        }
        println!("{cut} of {KILLS} kills tore a tail");
        assert!(cut > 0, "seed {seed}: no kill tore a tail, so nothing was tried");
        let mut reader = topic.reader(0, Start::Beginning).unwrap();
        let (mut next, mut within) = (0, 0);
        loop {
            let fetched = reader.read(1000, usize::MAX).unwrap();
            if fetched.is_empty() {
                break;
            }
            for record in &fetched {
                check(&record, next, &mut within);
                next += 1;
            }
        }
        assert_eq!(within, 0, "seed {seed}: half an append is visible");
        let writer = topic.writer(0, never()).unwrap();
        assert_eq!(next, writer.bounds().next, "seed {seed}");
        // Known before it is appended, so that the follower wakes up for it.
        end.store(next + 1, Ordering::SeqCst);
        let last = format!("{next} 0 1 ");
        writer.append(&[value(last.as_bytes())]).unwrap();
        assert_eq!(follower.join().unwrap(), (next + 1, 0), "seed {seed}");
    });
}
