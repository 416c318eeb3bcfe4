//! What an event costs, what is remembered, and the contract where bounds are met.

use super::*;

/// Like a story's, with batches and a watermark after each part.
fn story(events: &[Event], every: usize) -> Story {
    let mut story = Story::default();
    for part in events.chunks(every) {
        let next = events.iter().skip_while(|event| event.time <= part[part.len() - 1].time).map(|event| event.time).next();
        let watermark = next.map_or(EventTime::MAX, |time| EventTime(time * 1000));
        story.epochs.push((vec![vec![batch(part)], vec![]], watermark));
    }
    story.epochs.push((vec![vec![], vec![]], EventTime::MAX));
    story
}

fn many(count: i64, step: i64) -> Vec<Event> {
    (0..count).map(|n| event(n * step, &format!("e{n:05}"), "api", Some(["h1", "h2"][(n % 7 == 0) as usize]))).collect()
}

#[test]
fn an_incident_of_too_many_events_or_too_old_closes_and_links_no_more() {
    for (bound, note) in [(json!({ "max_events": 10 }), "max_events"), (json!({ "max_age": "100s" }), "max_age"), (json!({ "evidence": { "max_remembered": 12 } }), "max_remembered")] {
        let step = step(bound);
        let told = rows(&check_contract(&step, &schemas(), &story(&many(60, 5), 7)).rows);
        let closed: Vec<&Row> = told.iter().filter(|row| row.kind == "closed").collect();
        assert!(closed.len() > 2, "{note}: {closed:#?}");
        assert!(closed.iter().any(|row| row.note.as_deref() == Some(note)), "{note}: {closed:#?}");
        let all: i64 = closed.iter().map(|row| row.events).sum();
        assert!((50..=60).contains(&all), "{note}: of 60 events {all} were in incidents, and none in two");
    }
}

#[test]
fn the_order_of_simultaneous_events_changes_nothing() {
    let mut all: Vec<Event> = many(40, 1).into_iter().map(|event| Event { time: event.time / 8 * 9, ..event }).collect();
    let one = epoch(&mut operator(json!({})), &all, i64::MIN, i64::MAX);
    for part in all.chunk_by_mut(|a, b| a.time == b.time) {
        part.reverse();
    }
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    };
    assert_eq!(sorted(one), sorted(epoch(&mut operator(json!({})), &all, i64::MIN, i64::MAX)));
}

#[test]
fn a_burst_costs_each_event_the_same() {
    const EVENTS: i64 = 20_000;
    let options = json!({
        "text": "text",
        "link": [
            { "name": "host", "on": ["host"], "within": "30s" },
            { "name": "near", "hops": 1, "within": "30s" },
            { "name": "alike", "similarity": 0.3, "within": "30s" },
        ],
        "evidence": { "candidates": 8 },
        "max_events": 1_000_000,
    });
    let mut operator = operator(options);
    // All within a second, at one service, of one host, with one text.
    let all: Vec<Event> = many(EVENTS, 0).into_iter().map(|event| Event { text: "pool exhausted on db".into(), ..event }).collect();
    epoch(&mut operator, &all, i64::MIN, 5);
    // A host, a place, and four words: 6 buckets, in each 8 candidates.
    assert!(operator.events.compared <= 6 * 8 * EVENTS as usize, "{}", operator.events.compared);
    assert!(operator.index.steps <= 6 * 9 * EVENTS as usize, "{}", operator.index.steps);
    assert!(operator.clusters.moves <= 2 * EVENTS as usize + 100, "{}", operator.clusters.moves);
    assert!(operator.clusters.searched < EVENTS as usize / 10, "{}", operator.clusters.searched);
    assert!(operator.rows < 20);
    // Late ones into the midst of it: each makes some others look again.
    let before = operator.events.compared;
    let late: Vec<Event> = (0..100).map(|n| Event { text: "pool exhausted on db".into(), ..event(0, &format!("l{n}"), "api", Some("h1")) }).collect();
    let mut late_batch = Batch::derived(batch(&late));
    late_batch.promises = Some(Int64Array::from_value(20_000, late.len()));
    let inputs = [vec![late_batch], vec![]];
    let input = EpochInput { epoch: Epoch(1), before: EventTime(5000), watermark: EventTime(30_000), inputs: &inputs };
    operator.on_epoch(&input, &mut Outputs::default()).unwrap();
    assert!(operator.events.compared - before <= 100 * 2 * 6 * 9, "{}", operator.events.compared - before);
    assert!(operator.clusters.searched < 100 * 200, "{}", operator.clusters.searched);
}

#[test]
fn nothing_is_left_behind() {
    let options = json!({
        "text": "text",
        "link": [{ "name": "host", "on": ["host"], "within": "30s" }, { "name": "alike", "similarity": 0.3, "within": "30s" }],
    });
    let mut running = operator(options.clone());
    let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut most = 0;
    for part in 0..60 {
        let all: Vec<Event> = (0..20).map(|n| {
            let time = part * 20 + n;
            Event { text: format!("E{} pool w{n}", time / 50), ..event(time, &format!("e{time}"), "api", [Some("h1"), Some("h2"), None][(time / 70 % 3) as usize]) }
        }).collect();
        epoch(&mut running, &all, part * 20 - 1, part * 20 + 20);
        most = most.max(running.events.len());
        let mut changes = StateChanges::default();
        running.checkpoint(&mut changes).unwrap();
        for change in changes.iter() {
            match change.value {
                Some(value) => stored.insert(change.key.to_vec(), value.to_vec()),
                None => stored.remove(change.key),
            };
        }
        if part % 7 == 3 {
            running = operator(options.clone());
            let mut entries = StateChanges::default();
            stored.iter().for_each(|(key, value)| entries.put(KeyGroup(0), key, value));
            running.restore(entries).unwrap();
        }
    }
    // Lateness and three times 30 s, and an incident until it is forgotten.
    assert!(most < 600, "{most}");
    epoch(&mut running, &[], 1200, i64::MAX);
    assert_eq!((running.events.len(), running.index.len(), running.clusters.live().count()), (0, 0, 0));
    assert!(running.timers.0.is_empty() && running.changed.values().all(|&c| !running.clusters.at(c).live));
    let mut changes = StateChanges::default();
    running.checkpoint(&mut changes).unwrap();
    for change in changes.iter() {
        match change.value {
            Some(value) => stored.insert(change.key.to_vec(), value.to_vec()),
            None => stored.remove(change.key),
        };
    }
    let kinds: BTreeSet<u8> = stored.keys().map(|key| key[0]).collect();
    // The header and the vocabulary.
    assert_eq!(kinds, BTreeSet::from([16, 20]));
}

#[test]
fn a_state_that_is_another_step_s_is_refused_with_the_reason() {
    let mut running = operator(json!({}));
    epoch(&mut running, &many(20, 5), i64::MIN, 100);
    let mut changes = StateChanges::default();
    running.checkpoint(&mut changes).unwrap();
    let refused = |options: serde_json::Value, extra: Option<u8>| {
        let mut entries = StateChanges::default();
        for change in changes.iter() {
            entries.put(KeyGroup(0), change.key, change.value.unwrap());
        }
        if let Some(kind) = extra {
            entries.put(KeyGroup(0), &[kind, 1], &[1]);
        }
        operator(options).restore(entries).unwrap_err().to_string()
    };
    let link = |name: &str| json!({ "name": name, "on": ["host"], "within": "30s" });
    let other = refused(json!({ "link": [link("one"), link("two")] }), None);
    assert!(other.contains("the step has other links or counts than it had"), "{other}");
    let plain = refused(json!({}), Some(0));
    assert!(plain.contains("the step did not weigh evidence when they were written, and does now"), "{plain}");
    assert!(refused(json!({}), Some(99)).contains("an entry is of an unknown kind"));
}
