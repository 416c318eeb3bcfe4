//! Bounds, identities, the shape of rows, and mistakes in settings.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::operators::alert::ACTION_COLUMNS;

#[test]
fn a_notification_says_all_that_there_is() {
    let said = rows_of(
        "notification",
        &[
            "0 fires service=a severity=critical value=7",
            "0 fires service=a severity=warning",
            "1 silence id=s ends=900 matchers=severity=warning",
            "60 time",
        ],
        &json!({ "receiver": "on-call" }),
    );
    let [said] = &said[..] else { panic!("{said:#?}") };
    assert_eq!((said.receiver.as_str(), said.status.as_str()), ("on-call", "firing"));
    // groups, level, firing, resolved, left out.
    assert_eq!(said.counts, [1, 0, 1, 0, 1]);
    assert_eq!(said.group_labels.as_deref(), Some(r#"{"service":"a"}"#));
    assert_eq!((&said.fingerprint, &said.by, &said.detail), (&None, &None, &None));
    let [alert] = &said.alerts[..] else { panic!("{said:#?}") };
    let expected = json!({
        "fingerprint": alert["fingerprint"],
        "status": "firing",
        "starts_at": "1970-01-01T00:00:00Z",
        "ends_at": null,
        "flapping": false,
        "acknowledged_by": null,
        "labels": { "service": "a", "severity": "critical" },
        "annotations": { "value": 7 },
    });
    assert_eq!(*alert, expected);
    assert_eq!(alert["fingerprint"].as_str().unwrap().len(), 16);
}

#[test]
fn annotations_are_of_the_newest_row_also_when_it_resolves() {
    let lines = ["0 fires service=a value=1", "5 fires service=a value=2", "20 resolves service=a value=3", "100 time"];
    let said = rows_of("notification", &lines, &json!({}));
    let values: Vec<&Value> = said.iter().map(|said| &said.alerts[0]["annotations"]["value"]).collect();
    assert_eq!(values, [&json!(2), &json!(3)]);
    let last = &said[1].alerts[0];
    assert_eq!((&last["status"], &last["ends_at"]), (&json!("resolved"), &json!("1970-01-01T00:00:20Z")));
}

#[test]
fn identities_are_the_same_in_every_run_and_differ_otherwise() {
    let lines = [
        "0 fires service=a",
        "0 fires service=b",
        "20 resolves service=a",
        "75 fires service=a",
        "500 time",
    ];
    let settings = json!({ "escalate": [{ "after": "100s", "to": "lead" }, { "after": "101s", "to": "lead" }] });
    let ids = || -> Vec<String> {
        let both = ["notification", "history"].map(|record| rows_of(record, &lines, &settings));
        both.into_iter().flatten().map(|said| said.id).collect()
    };
    let first = ids();
    assert_eq!(first, ids());
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len());
    assert!(first.len() > 12 && first.iter().all(|id| id.len() == 32));
}

#[test]
fn alerts_are_acknowledged_by_fingerprint_and_by_group() {
    let lines = ["0 fires service=a severity=critical", "0 fires service=a severity=warning", "0 fires service=b", "60 time"];
    let said = rows_of("notification", &lines, &json!({}));
    let (fingerprint, group) = (said[0].alerts[0]["fingerprint"].as_str().unwrap(), said[0].group.clone().unwrap());
    for (words, expected) in [
        (format!("fingerprint={fingerprint}"), vec!["a/critical"]),
        (format!("group={group}"), vec!["a/critical", "a/warning"]),
        (format!("group={group} matchers=severity=warning"), vec!["a/warning"]),
        (format!("group={group} matchers=service=b"), vec![]),
        (String::new(), vec![]),
    ] {
        let act = format!("30 acknowledge by=ann {words}");
        let said = rows_of("history", &[lines[0], lines[1], lines[2], &act, "60 time"], &json!({}));
        let acknowledged = said.iter().filter(|said| said.status == "acknowledged");
        assert_eq!(acknowledged.map(|said| name(&said.alerts[0])).collect::<Vec<_>>(), expected, "{words}");
        assert_eq!(said.iter().any(|said| said.status == "refused"), expected.is_empty(), "{words}");
    }
}

#[test]
fn what_is_too_much_is_dropped_and_said() {
    let long = format!("0 fires service={} severity=critical", "x".repeat(5000));
    let said = history(&[&long, "10 time"], &json!({}));
    assert_eq!(said, ["0 dropped: the label `service` has more than 4096 bytes"]);

    let said = history(&["0 fires service=a", "1 fires service=b", "2 fires service=a", "3 time"], &json!({ "max_alerts": 1 }));
    assert_eq!(said, ["0 pending a", "1 dropped: there are 1 alerts"]);

    let lines = ["0 silence id=s ends=9 matchers=service=a", "1 silence id=t ends=9 matchers=service=a", "2 silence id=s ends=8 matchers=service=a", "3 time"];
    let said = history(&lines, &json!({ "max_silences": 1 }));
    assert_eq!(said, ["0 silence_set by s", "1 refused: there are 1 silences", "2 silence_set by s"]);

    // Of very many alerts a notification lists the first 500.
    let many: Vec<String> = (0..600).map(|n| format!("0 fires service=a zone=z{n:03}")).collect();
    let mut events: Vec<Event> = many.iter().map(|line| Event::of(line)).collect();
    events.push(Event::of("20 time"));
    let told = run(&step(&json!({})), &schemas(), &whole(&events), 1, usize::MAX, &[]);
    let said = read(&told.rows);
    let first = said.iter().find(|said| said.record == "notification").unwrap();
    assert_eq!((first.counts[2], first.alerts.len()), (600, 500));
}

#[test]
fn when_the_input_ends_every_alert_meets_its_timeout() {
    let events = [Event::of("0 fires service=a"), Event::of("5 fires service=b severity=x")];
    let said = read(&tell(&step(&json!({ "resolve_timeout": "20m" })), &events));
    let told: Vec<String> = said.iter().filter(|said| said.record == "notification").map(line).collect();
    let expected = [
        "10 default new +a",
        "15 default new +b/x",
        "310 default repeated +a",
        "315 default repeated +b/x",
        "610 default repeated +a",
        "615 default repeated +b/x",
        "910 default repeated +a",
        "915 default repeated +b/x",
        "1210 default resolved -a",
        "1215 default resolved -b/x",
    ];
    assert_eq!(told, expected);
}

#[test]
fn nothing_is_left_when_all_is_over() {
    use crate::operator::{EpochInput, Operator, Outputs};
    use levada_types::{Epoch, StateChanges};

    let lines = [
        "0 fires service=a severity=critical",
        "0 fires service=b severity=warning",
        "0 fires service=c",
        "1 silence id=s ends=500 matchers=service=b",
        "20 acknowledge matchers=service=a by=ann",
        "30 resolves service=a severity=critical",
    ];
    let settings = json!({
        "flapping": { "changes": 3, "within": "300s", "quiet": "120s" },
        "storm": { "groups": 1, "within": "100s" },
        "escalate": [{ "after": "100s", "to": "lead" }],
        "inhibit": [{ "source": ["severity=critical"], "target": ["severity=warning"] }],
    });
    let spec: AlertSpec = serde_json::from_value(super::settings(&settings)).unwrap();
    let [rows, actions] = schemas();
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    let plan = Arc::new(spec.checked(&rows, Some(&actions), &mut cx).unwrap());
    let mut operator = super::super::operator::Alerts::new(plan);
    let inputs = batches(&events(&lines)).map(|batch| vec![Batch::derived(batch)]);
    let (before, watermark) = (EventTime::MIN, EventTime::MAX);
    let mut out = Outputs::default();
    operator.on_epoch(&EpochInput { epoch: Epoch(0), before, watermark, inputs: &inputs }, &mut out).unwrap();
    assert!(operator.alerts.is_empty() && operator.groups.is_empty() && operator.timers.is_empty());
    assert_eq!((operator.silences.len(), operator.storm.groups), (0, 0));
    assert!((operator.storm.since, operator.storm.due, operator.storm.escalates) == (None, None, None));
    // What was never written is at most taken back.
    let mut changes = StateChanges::default();
    operator.checkpoint(&mut changes).unwrap();
    assert!(changes.iter().filter(|change| change.value.is_some()).count() <= 1);
    let mut changes = StateChanges::default();
    operator.checkpoint(&mut changes).unwrap();
    assert_eq!(changes.iter().count(), 0);
}

#[test]
fn mistakes_are_told_at_their_place() {
    for (settings, path, expected) in [
        (json!({ "labels": [] }), "labels", "needs a label"),
        (json!({ "labels": ["servic"] }), "labels.0", "there is no column `servic`"),
        (json!({ "labels": ["service", "service"] }), "labels.1", "named twice"),
        (json!({ "labels": ["service", "starts"], "group_by": [] }), "labels.1", "a label is a string, an int or a bool"),
        (json!({ "annotations": ["valu"] }), "annotations.0", "there is no column `valu`"),
        (json!({ "where": "kind" }), "where", "a condition must be true or false"),
        (json!({ "resolved": "kinds = 'x'" }), "resolved", "there is no column `kinds`"),
        (json!({ "starts_at": "value" }), "starts_at", "`value` must be a timestamp"),
        (json!({ "ends_at": "end" }), "ends_at", "there is no column `end`"),
        (json!({ "group_by": ["value"] }), "group_by.0", "there is no label `value`"),
        (json!({ "group_wait": "soon" }), "group_wait", "soon"),
        (json!({ "group_interval": "0s" }), "group_interval", "longer than nothing"),
        (json!({ "group_interval": "1s", "resolve_timeout": "30d" }), "resolve_timeout", "more than 100000 times"),
        (json!({ "matchers": ["team=a"] }), "matchers.0", "there is no label `team`"),
        (json!({ "matchers": ["service"] }), "matchers.0", "there must be one of"),
        (json!({ "inhibit": [{ "source": [], "target": ["zone=a"] }] }), "inhibit.0.source", "there must be a matcher"),
        (json!({ "inhibit": [{ "source": ["zone=b"], "target": ["zone=~\"(\""] }] }), "inhibit.0.target.0", "no regular"),
        (json!({ "inhibit": [{ "source": ["zone=b"], "target": ["zone=a"], "equal": ["zon"] }] }), "inhibit.0.equal.0", "there is no label `zon`"),
        (json!({ "mute": [{ "name": "x", "months": ["brumaire"] }] }), "mute.0.months.0", "`brumaire` is not a month"),
        (json!({ "escalate": [{ "after": "5m", "to": "a" }, { "after": "5m", "to": "b" }] }), "escalate.1.after", "later than the level before"),
        (json!({ "flapping": { "changes": 1, "within": "5m", "quiet": "5m" } }), "flapping.changes", "from 2 to 100"),
        (
            json!({ "group_interval": "1s", "resolve_timeout": "1h", "flapping": { "changes": 2, "within": "5m", "quiet": "30d" } }),
            "flapping.quiet",
            "more than 100000 times",
        ),
        (json!({ "storm": { "groups": 0, "within": "5m" } }), "storm.groups", "from 1 to"),
        (json!({ "max_alerts": 0 }), "max_alerts", "from 1 to"),
    ] {
        let problems = problems(&settings);
        let found = problems.iter().find(|problem| problem.message.contains(expected));
        let found = found.unwrap_or_else(|| panic!("{settings}: {problems:#?}"));
        assert_eq!(found.path.join("."), path, "{settings}");
    }
}

#[test]
fn a_stream_of_actions_has_its_columns() {
    let spec: AlertSpec = serde_json::from_value(settings(&json!({}))).unwrap();
    let [rows, actions] = schemas();
    let fields: Vec<_> = actions.fields().iter().filter(|field| field.name() != "ends_at").cloned().collect();
    let mut cx = PlanContext { models: &|_| unreachable!(), problems: Vec::new() };
    assert!(spec.plan(&[rows, Arc::new(Schema::new(fields))], &mut cx).is_none());
    assert_eq!(cx.problems[0].message, "the stream has no column `ends_at` of type timestamp?");
    let help = cx.problems[0].help.clone().unwrap();
    assert!(ACTION_COLUMNS.iter().all(|(name, _)| help.contains(name)), "{help}");
}
