//! Late and withdrawn events: in the end the incidents are those of the run in order without what was withdrawn, and those of the
//! definition.

use super::reference::incidents;
use super::*;

const SERVICES: [&str; 6] = ["api", "cart", "db", "ledger", "mail", "queue"];
const HOSTS: [Option<&str>; 4] = [Some("h1"), Some("h2"), Some("h3"), None];
const CATEGORIES: [&str; 3] = ["deploy", "error", "latency"];

fn links() -> Vec<Link> {
    let link = Link {
        host: false,
        hops: None,
        min_hops: 0,
        within: 30,
        weight: 1.0,
        half_life: None,
        cause: None,
        effect: None,
        joins: true,
    };
    vec![
        Link { host: true, weight: 0.8, ..link.clone() },
        Link { hops: Some(2), weight: 1.2, half_life: Some(20), ..link.clone() },
        Link { hops: Some(1), min_hops: 1, weight: 1.4, within: 12, ..link.clone() },
        Link { host: true, hops: Some(1), weight: 2.5, within: 20, cause: Some("deploy"), effect: Some("error"), ..link.clone() },
        Link { hops: Some(0), weight: 1.6, within: 10, joins: false, ..link.clone() },
        Link { hops: Some(2), weight: -0.9, within: 15, cause: Some("latency"), effect: Some("latency"), ..link },
    ]
}

/// The links as a job file has them.
fn written(links: &[Link]) -> serde_json::Value {
    let condition = |category: Option<&str>| category.map(|category| format!("category = '{category}'"));
    let link = |(number, link): (usize, &Link)| {
        json!({
            "name": format!("link {number}"),
            "on": if link.host { vec!["host"] } else { vec![] },
            "hops": link.hops,
            "min_hops": (link.min_hops > 0).then_some(link.min_hops),
            "per_hop": link.hops.map(|_| 0.5),
            "within": format!("{}s", link.within),
            "weight": link.weight,
            "half_life": link.half_life.map(|s| format!("{s}s")),
            "cause": condition(link.cause),
            "effect": condition(link.effect),
            "joins": link.joins,
        })
    };
    links.iter().enumerate().map(link).collect()
}

fn scenes(most: usize, texts: bool) -> impl Strategy<Value = Scene> {
    // Times are of all events different, so that nothing hangs on the order of simultaneous ones.
    let late = prop_oneof![3 => Just(0), 1 => 1..=LATENESS];
    let one = (0usize..6, 0usize..4, 0usize..3, late, proptest::option::weighted(0.25, (0..=LATENESS, 0..=LATENESS)), 0usize..60);
    let times = proptest::collection::btree_set(0i64..400, 2..most);
    let events = times.prop_flat_map(move |times| {
        let count = times.len();
        (Just(times), proptest::collection::vec(one.clone(), count))
    });
    let row = (0i64..400, 0usize..6, 0usize..6, prop::bool::weighted(0.7));
    (events, proptest::collection::vec(row, 0..14)).prop_map(move |((times, all), mut table)| {
        let mut scene = Scene::default();
        for (number, (time, (service, host, category, late, withdrawn, words))) in times.into_iter().zip(all).enumerate() {
            let id = format!("e{number:02}");
            let mut event = event(time, &id, SERVICES[service], HOSTS[host]);
            event.category = CATEGORIES[category];
            event.severity = words as i64 % 5;
            if texts {
                let word = |n: usize| ["pool", "disk", "slow", "full", "E77", "E78", "db", "cart", "reset"][n % 9];
                event.text = format!("{} {} on {}", word(words), word(words / 9 + service), word(words / 3));
            }
            if let Some((after, of)) = withdrawn {
                // At `time + after`, and told of by then.
                scene.withdrawn.push((id, time + after.min(of), after - after.min(of)));
            }
            scene.events.push((event, late));
        }
        table.sort();
        // One row an edge and time.
        table.dedup_by_key(|row| (row.0, row.1, row.2));
        let begin = [("api", "cart"), ("cart", "db"), ("ledger", "db"), ("mail", "queue")];
        scene.topology.extend(begin.map(|(a, b)| (0, a.to_string(), b.to_string(), true)));
        let changes = table.into_iter().filter(|(at, a, b, _)| a != b && *at > 0);
        scene.topology.extend(changes.map(|(at, a, b, is)| (at, SERVICES[a].to_string(), SERVICES[b].to_string(), is)));
        scene
    })
}

fn told(step: &PlannedStep, scene: &Scene) -> Vec<Row> {
    let told = check_cuts(step, &schemas(), &scene.topics());
    assert_eq!(told.late.num_rows(), 0);
    rows(&told.rows)
}

proptest! {
    #![proptest_config(crate::harness::cases(200))]

    #[test]
    fn in_the_end_incidents_are_those_of_the_definition(
        scene in scenes(40, false),
        support in prop_oneof![Just(1000u64), Just(2000), Just(3500)],
        belongs in prop_oneof![Just(1000u64), Just(1800)],
        candidates in prop_oneof![Just(1usize), Just(2), Just(100)],
    ) {
        let links = links();
        let step = step(json!({
            "link": written(&links),
            "evidence": {
                "support": support as f64 / 1000.0,
                "belongs": belongs as f64 / 1000.0,
                "candidates": candidates,
            },
        }));
        let corrected = told(&step, &scene);
        check_lives(&corrected);
        let in_order = told(&step, &scene.in_order());
        check_lives(&in_order);
        let expected = incidents(&scene, &links, support, belongs, candidates);
        prop_assert_eq!(assigned(&in_order), expected.clone(), "in order");
        prop_assert_eq!(assigned(&corrected), expected, "corrected");
    }

    #[test]
    fn a_restart_after_any_event_changes_nothing(scene in scenes(40, true)) {
        let links = links();
        let mut written = written(&links);
        let alike = json!({ "name": "alike", "within": "30s", "similarity": 0.4, "weight": 1.1 });
        written.as_array_mut().unwrap().push(alike);
        let step = step(json!({ "text": "text", "link": written, "evidence": { "support": 1.5 } }));
        let mut story = Story::default();
        let mut at = i64::MIN;
        let mut table = scene.topology.iter().peekable();
        for event in scene.rows() {
            at = at.max(event.time);
            let mut changes = Vec::new();
            while let Some(row) = table.next_if(|row| row.0 <= at) {
                changes.push(row.clone());
            }
            story.epochs.push((vec![vec![batch(&[event])], vec![topology(&changes)]], EventTime(at * 1000)));
        }
        story.epochs.push((vec![vec![], vec![topology(&table.cloned().collect::<Vec<_>>())]], EventTime::MAX));
        let whole = rows(&run(&step, &schemas(), &story, 1, 9, &[]).rows);
        check_lives(&whole);
        let every: Vec<(usize, usize)> = (0..story.epochs.len()).map(|epoch| (epoch, epoch % 3 + 1)).collect();
        let restarted = rows(&run(&step, &schemas(), &story, 1, 9, &every).rows);
        for (one, other) in whole.iter().zip(&restarted) {
            prop_assert_eq!(one, other);
        }
        prop_assert_eq!(whole.len(), restarted.len());
    }

    #[test]
    fn what_texts_weigh_does_not_depend_on_when_they_came(scene in scenes(40, true)) {
        let link = |name: &str, extra: serde_json::Value| {
            let mut link = json!({ "name": name, "within": "30s" });
            link.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            link
        };
        let step = step(json!({
            "text": "text",
            "rare_words": 0.2,
            "link": [
                link("alike", json!({ "similarity": 0.3, "weight": 1.5 })),
                link("rare", json!({ "rare": "same", "weight": 1.0 })),
                link("other", json!({ "rare": "different", "on": ["host"], "weight": -0.5 })),
                link("names", json!({ "mentions": "same", "hops": 1, "weight": 0.7 })),
                link("names others", json!({ "mentions": "different", "hops": 1, "weight": -0.4 })),
            ],
            "evidence": { "threshold": 0.5, "support": 1.2 },
        }));
        let corrected = told(&step, &scene);
        check_lives(&corrected);
        prop_assert_eq!(assigned(&corrected), assigned(&told(&step, &scene.in_order())));
    }
}

/// Rows that tell of incidents: when, what, of how many events, and why.
fn lines(rows: &[Row]) -> Vec<String> {
    let mut rows: Vec<&Row> = rows.iter().filter(|row| row.event.is_none()).collect();
    rows.sort_by_key(|row| (row.at, row.kind.clone()));
    let why = |row: &Row| row.because.as_ref().map_or(String::new(), |because| format!(" because {because}"));
    rows.iter().map(|row| format!("{} {} {}{}", row.at, row.kind, row.events, why(row))).collect()
}

fn scene(events: &[(i64, &str, &'static str, i64)]) -> Scene {
    let of = |&(time, id, host, late): &(i64, &str, &'static str, i64)| (event(time, id, "api", Some(host)), late);
    Scene { events: events.iter().map(of).collect(), ..Scene::default() }
}

#[test]
fn a_late_event_merges_two_incidents_and_says_so() {
    let link = json!([{ "name": "same host", "on": ["host"], "within": "10s" }]);
    let step = step(json!({ "link": link }));
    let all = [(0, "a1", "h1", 0), (5, "a2", "h1", 0), (12, "x", "h1", 20), (20, "b1", "h1", 0), (25, "b2", "h1", 0), (32, "clock", "h9", 0)];
    let told = told(&step, &scene(&all));
    assert_eq!(
        lines(&told),
        ["5 opened 2", "25 opened 2", "32 merged 2 because late", "39 changed 5 because late", "125 closed 5"]
    );
    let merged = told.iter().find(|row| row.kind == "merged").unwrap();
    let closed = told.iter().find(|row| row.kind == "closed").unwrap();
    assert_eq!((merged.into.as_ref(), &merged.members), (closed.incident.as_ref(), &vec!["b1".into(), "b2".into()]));
    assert_eq!(closed.members, ["a1", "a2", "x", "b1", "b2"]);
    assert_eq!(closed.reasons, r#"{"same host":4}"#);
    assert_eq!(closed.strength, 4.0);
    let moved: Vec<_> = told.iter().filter(|row| row.kind == "assigned" && row.at == 32).collect();
    assert_eq!(moved.len(), 3, "{moved:#?}");
    assert!(moved.iter().all(|row| row.incident == closed.incident && row.because.as_deref() == Some("late") || row.event.as_deref() != Some("x")));
}

#[test]
fn events_of_what_was_not_told_are_told_where_they_are_when_it_is_merged() {
    let link = json!([{ "name": "same host", "on": ["host"], "within": "10s" }]);
    let step = step(json!({ "link": link, "evidence": { "support": 2.0 }, "min_events": 4 }));
    let few = [(0, "a1", "h1", 0), (6, "a2", "h1", 0), (12, "a3", "h1", 0)];
    let many = [(30, "b1", "h1", 0), (35, "b2", "h1", 0), (40, "b3", "h1", 0), (45, "b4", "h1", 0)];
    let late = [(21, "x", "h1", 30), (51, "clock", "h9", 0)];
    let told = told(&step, &scene(&[&few[..], &many, &late].concat()));
    check_lives(&told);
    let all = ["a1", "a2", "a3", "b1", "b2", "b3", "b4", "x"].map(str::to_string);
    assert_eq!(assigned(&told), BTreeSet::from([BTreeSet::from(all)]));
}

#[test]
fn a_withdrawn_event_splits_an_incident_and_says_so() {
    let link = json!([{ "name": "same host", "on": ["host"], "within": "10s" }]);
    let step = step(json!({ "link": link }));
    let mut scene = scene(&[(0, "a1", "h1", 0), (5, "a2", "h1", 0), (12, "x", "h1", 0), (20, "b1", "h1", 0), (25, "b2", "h1", 0), (26, "b3", "h1", 0)]);
    scene.withdrawn.push(("x".into(), 40, 0));
    let told = told(&step, &scene);
    assert_eq!(
        lines(&told),
        [
            "5 opened 2",
            "19 changed 3",
            "39 changed 6",
            "40 opened 2 because withdrawn",
            "40 split 3 because withdrawn",
            "105 closed 2",
            "126 closed 3",
        ]
    );
    let split = told.iter().find(|row| row.kind == "split").unwrap();
    let opened = told.iter().filter(|row| row.kind == "opened").max_by_key(|row| row.at).unwrap();
    // The larger part keeps the name.
    assert_eq!(split.members, ["b1", "b2", "b3"]);
    assert_eq!(split.parts, [opened.incident.clone().unwrap()]);
    assert_eq!(opened.origin, split.incident);
    let gone: Vec<_> = told.iter().filter(|row| row.kind == "unassigned").collect();
    assert_eq!(gone.iter().map(|row| (row.event.as_deref(), row.because.as_deref())).collect::<Vec<_>>(), [(Some("x"), Some("withdrawn"))]);
}

#[test]
fn what_is_closed_is_corrected_as_long_as_it_is_remembered() {
    let step = step(json!({ "close_after": "30s" }));
    let other = |time: i64| (time, "clock", "h9", 0);
    // Closed at 35; the third event comes at 60, when its time is over all the same.
    let all = [(0, "a1", "h1", 0), (5, "a2", "h1", 0), (20, "a3", "h1", 40), other(60)];
    assert_eq!(lines(&told(&step, &scene(&all))), ["5 opened 2", "35 closed 2", "60 closed 3 because late"]);
    // And at 40, when it would still be open.
    let all = [(0, "a1", "h1", 0), (5, "a2", "h1", 0), (20, "a3", "h1", 20), other(40)];
    assert_eq!(
        lines(&told(&step, &scene(&all))),
        ["5 opened 2", "35 closed 2", "40 changed 3 because late", "50 closed 3"]
    );
    // Withdrawn down to one event, it is none.
    let mut scene = scene(&[(0, "a1", "h1", 0), (5, "a2", "h1", 0), other(60)]);
    scene.withdrawn.push(("a2".into(), 50, 0));
    let told = told(&step, &scene);
    assert_eq!(lines(&told), ["5 opened 2", "35 closed 2", "50 closed 0 because withdrawn"]);
    assert_eq!(told.iter().find(|row| row.at == 50 && row.event.is_none()).unwrap().note.as_deref(), Some("too_few"));
    assert!(assigned(&told).is_empty());
}

#[test]
fn what_is_too_late_corrects_nothing_and_is_told() {
    let step = step(json!({}));
    let all = [(0, "a1", "h1", 0), (5, "a2", "h1", 0), (6, "a3", "h1", 61), (67, "clock", "h9", 0)];
    let mut scene = scene(&all);
    // Told of in time, but of an event that is too old by then; and of one that there never was.
    scene.withdrawn.push(("a1".into(), 64, 0));
    scene.withdrawn.push(("never".into(), 64, 0));
    let told = check_cuts(&step, &schemas(), &scene.topics());
    let late = told.late.column_by_name("id").unwrap().as_string::<i32>();
    assert_eq!(late.iter().collect::<Vec<_>>(), [Some("a3")]);
    assert_eq!(lines(&rows(&told.rows)), ["5 opened 2", "105 closed 2"]);

    let mut operator = operator(json!({}));
    let inputs = [vec![Batch::derived(batch(&scene.rows().into_iter().filter(|event| event.id != "a3").collect::<Vec<_>>()))], vec![]];
    let mut out = Outputs::default();
    let input = EpochInput { epoch: Epoch(0), before: EventTime::MIN, watermark: EventTime::MAX, inputs: &inputs };
    operator.on_epoch(&input, &mut out).unwrap();
    assert_eq!(out.unmatched, 2);
}

#[test]
fn an_event_that_comes_again_counts_once_and_one_that_was_withdrawn_before_it_came_not_at_all() {
    let step = step(json!({}));
    let mut scene = scene(&[(0, "a1", "h1", 0), (5, "a2", "h1", 0), (8, "a3", "h1", 30), (40, "clock", "h9", 0)]);
    scene.withdrawn.push(("a3".into(), 20, 0));
    let again = scene.events[1].0.clone();
    scene.events.push((again, 12));
    assert_eq!(lines(&told(&step, &scene)), ["5 opened 2", "105 closed 2"]);
    // The same name later is another event.
    scene.events.push((event(21, "a3", "api", Some("h1")), 0));
    assert_eq!(lines(&told(&step, &scene)), ["5 opened 2", "39 changed 3", "121 closed 3"]);
}

#[test]
fn edges_that_only_tell_whose_an_event_is_join_nothing() {
    let links = json!([
        { "name": "host", "on": ["host"], "within": "30s", "weight": 2.0 },
        { "name": "place", "hops": 0, "within": "30s", "joins": false },
    ]);
    let step = step(json!({ "link": links, "evidence": { "support": 2.0 } }));
    let mut all = scene(&[(0, "a1", "h1", 0), (1, "a2", "h1", 0), (2, "b1", "h2", 0), (3, "b2", "h2", 0), (4, "x", "h3", 0), (5, "b3", "h2", 0)]);
    let found = assigned(&told(&step, &all));
    let set = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    // `x` has an edge to both, and to more of the second.
    assert_eq!(found, BTreeSet::from([set(&["a1", "a2"]), set(&["b1", "b2", "b3", "x"])]));
    all.withdrawn.extend(["b1", "b2"].map(|id| (id.to_string(), 20, 0)));
    assert_eq!(assigned(&told(&step, &all)), BTreeSet::from([set(&["a1", "a2", "b3", "x"])].map(|mut all| {
        // Alone, `b3` is of no core, and belongs where its edges lead.
        all.insert("b3".into());
        all
    })));
}

#[test]
fn the_root_is_where_the_most_depends_on() {
    let links = json!([{ "name": "near", "hops": 1, "within": "30s" }]);
    let step = step(json!({ "link": links, "min_affected": 3 }));
    let mut scene = Scene::default();
    let depends = [("api", "cart"), ("cart", "db"), ("mail", "queue")];
    scene.topology = depends.iter().map(|(a, b)| (0, a.to_string(), b.to_string(), true)).collect();
    let at = |time, id: &str, service: &str, severity| (Event { severity, ..event(time, id, service, None) }, 0);
    scene.events = vec![at(1, "e1", "api", 1), at(5, "e2", "cart", 4), at(9, "e3", "db", 2), at(12, "e4", "db", 1), at(20, "m1", "mail", 5), at(21, "m2", "queue", 5)];
    let told = told(&step, &scene);
    let closed: Vec<&Row> = told.iter().filter(|row| row.kind == "closed").collect();
    // The other one has but two services.
    assert_eq!(closed.len(), 1, "{told:#?}");
    assert_eq!((closed[0].root.as_deref(), &closed[0].affected), (Some("e3"), &vec!["api".into(), "cart".into(), "db".into()]));
    // 4 · (1 + log2 3)
    assert_eq!(closed[0].score, 10.34);
    // A dependency that is gone carries nothing.
    scene.topology.push((4, "api".into(), "cart".into(), false));
    assert!(self::told(&step, &scene).iter().all(|row| row.kind != "closed"));
}
