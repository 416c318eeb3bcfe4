//! A run that was given up for dead and wakes up again harms none that began after it, wherever it was held.

use super::super::checkpoint;
use super::checkpoints::{Gate, Lasting, Store, go_on, topic, undisturbed};
use super::journal::Memory;
use super::*;

type Outcome = std::thread::JoinHandle<Result<(), EngineError>>;

/// Begins a run that is held before its call `at` to write.
fn begin(topic: &Topic, sink: &Lasting, memory: &Memory, store: &Store, at: usize) -> (Outcome, Arc<Gate>) {
    let (store, gate) = store.held_at(at);
    let (topic, sink, memory, over) = (topic.clone(), sink.clone(), memory.clone(), Arc::clone(&gate));
    let run = std::thread::spawn(move || {
        let outcome = go_on(&topic, &sink, &memory, &store, 2).map(drop);
        over.end();
        outcome
    });
    (run, gate)
}

/// A run that another one has replaced ends so, or had nothing more to do.
fn is_replaced(outcome: Outcome) {
    if let Err(error) = outcome.join().unwrap() {
        let told = error.to_string();
        let by = ["of the job has begun, and this one is run", "another process writes it"];
        assert!(by.iter().any(|by| told.contains(by)), "{told}");
    }
}

/// All checkpoints of the newest run are whole.
fn newest_are_whole(store: &Store, context: &str) {
    let listed = checkpoint::list(store).unwrap();
    let manifests: Vec<_> = listed.into_iter().filter_map(|one| one.manifest.ok()).collect();
    let last = manifests.iter().map(|manifest| manifest.run).max().unwrap();
    for manifest in manifests.iter().filter(|manifest| manifest.run == last) {
        let wrong = checkpoint::verify(store, manifest).unwrap();
        assert_eq!(wrong, [""; 0], "{context}: {} of {:?}", manifest.file_name(), store.names());
    }
}

#[test]
fn a_run_that_wakes_up_while_its_successor_runs_harms_nothing() {
    let expected = undisturbed();
    let mut woken = 0;
    for at in 1.. {
        for then in [2, 3, 5, 8, 13] {
            let context = format!("held at {at}, woken when its successor was at {then}");
            let (topic, sink, memory, store) =
                (topic(), Lasting::default(), Memory::default(), Store::default());
            let (first, gate) = begin(&topic, &sink, &memory, &store, at);
            if !gate.holds() {
                first.join().unwrap().unwrap();
                // How many calls a run makes is a matter of time.
                assert!(woken >= 25, "{woken}");
                return;
            }
            let (second, second_gate) = begin(&topic, &sink, &memory, &store, then);
            second_gate.holds();
            gate.open();
            is_replaced(first);
            second_gate.open();
            second.join().unwrap().unwrap_or_else(|error| panic!("{context}: {error}"));
            newest_are_whole(&store, &context);
            woken += 1;
            // And the next one goes on behind all of it.
            let third = go_on(&topic, &sink, &memory, &store, 1).unwrap();
            let read = third.sources[0].records.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(read, 0, "{context}");
            assert_eq!(*sink.0.0.0.lock().unwrap(), expected, "{context}");
        }
    }
}

#[test]
fn a_run_that_wakes_up_when_its_successor_is_dead_leaves_enough_to_go_on() {
    let expected = undisturbed();
    for at in 1.. {
        let (topic, sink, memory, store) = (topic(), Lasting::default(), Memory::default(), Store::default());
        let (first, gate) = begin(&topic, &sink, &memory, &store, at);
        if !gate.holds() {
            first.join().unwrap().unwrap();
            return;
        }
        let dead = store.dead_after(2 + at % 7);
        let _ = go_on(&topic, &sink, &memory, &dead, 4);
        gate.open();
        is_replaced(first);
        go_on(&topic, &sink, &memory, &store, 1).unwrap_or_else(|error| panic!("held at {at}: {error}"));
        assert_eq!(*sink.0.0.0.lock().unwrap(), expected, "held at {at}");
        newest_are_whole(&store, &format!("held at {at}"));
    }
}

#[test]
fn a_checkpoint_of_a_run_that_was_refused_is_neither_gone_on_from_nor_counted() {
    // Many epochs, so that many checkpoints come behind it.
    let topic = || Topic { chunk: 256, ..topic() };
    let expected = Lasting::default();
    go_on(&topic(), &expected, &Memory::default(), &Store::default(), 2).unwrap();
    // How many checkpoints it has made by then is a matter of time.
    for at in (9..).take(100) {
        let (topic, sink, memory, store) = (topic(), Lasting::default(), Memory::default(), Store::default());
        let (first, gate) = begin(&topic, &sink, &memory, &store, at);
        let held = gate.holds();
        let added = held && store.add_of_another_beginning(2);
        let before = store.names();
        gate.open();
        first.join().unwrap().unwrap();
        let names = store.names();
        let of = |names: &[String], run| -> Vec<String> {
            let is_of = |name: &&String| name.starts_with("checkpoint-") && name.ends_with(run);
            names.iter().filter(is_of).cloned().collect()
        };
        let own = of(&names, "-r1");
        // It has made two more at least.
        if !added || own.iter().any(|name| before.contains(name)) {
            continue;
        }
        assert_eq!((own.len(), of(&names, "-r2").len()), (2, 1), "{names:?}");
        go_on(&topic, &sink, &memory, &store, 1).unwrap();
        let told = store.text("run-3");
        assert!(told.contains(&own[1]), "{told} of {names:?}");
        assert_eq!(*sink.0.0.0.lock().unwrap(), *expected.0.0.0.lock().unwrap());
        return;
    }
    panic!("no run of a hundred was held behind a checkpoint and made two more")
}
