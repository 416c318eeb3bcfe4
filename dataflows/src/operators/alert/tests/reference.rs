//! The step against a simulation that looks at everything in every second, without timers, indices or state that is
//! written down.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::harness::cases;

/// Settings in seconds.
#[derive(Clone, Debug)]
struct Settings {
    by_service: bool,
    wait: i64,
    interval: i64,
    repeat: i64,
    timeout: i64,
    send_resolved: bool,
    inhibit: bool,
    mute: bool,
    /// How many changes within 40 s make an alert flap, until 15 s are quiet.
    flapping: Option<usize>,
    escalate: Vec<i64>,
}

impl Settings {
    fn json(&self) -> Value {
        let mut spec = json!({
            "group_by": if self.by_service { vec!["service"] } else { vec![] },
            "group_wait": format!("{}s", self.wait),
            "group_interval": format!("{}s", self.interval),
            "repeat_interval": format!("{}s", self.repeat),
            "resolve_timeout": format!("{}s", self.timeout),
            "send_resolved": self.send_resolved,
        });
        if self.inhibit {
            spec["inhibit"] = json!([
                { "source": ["severity=critical"], "target": ["severity=~\"warning|critical\""], "equal": ["service", "zone"] },
            ]);
        }
        if self.mute {
            spec["mute"] = json!([{ "name": "m", "times": [{ "start_time": "00:01", "end_time": "00:02" }] }]);
        }
        if let Some(changes) = self.flapping {
            spec["flapping"] = json!({ "changes": changes, "within": "40s", "quiet": "15s" });
        }
        let level = |(index, after): (usize, &i64)| json!({ "after": format!("{after}s"), "to": format!("level{index}") });
        spec["escalate"] = self.escalate.iter().enumerate().map(level).collect();
        spec
    }
}

#[derive(Clone, Debug)]
struct Alert {
    /// Service, severity, zone; the last may be empty.
    labels: [String; 3],
    starts: i64,
    ends: i64,
    timeout: bool,
    over: bool,
    acknowledged: bool,
    grouped: bool,
    changes: Vec<i64>,
    flapping: bool,
}

impl Alert {
    fn fires(&self) -> bool {
        !self.over || self.flapping
    }

    fn name(&self) -> String {
        self.labels.iter().filter(|label| !label.is_empty()).cloned().collect::<Vec<_>>().join("/")
    }
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    next: i64,
    looked: bool,
    /// When, what fired and what was over.
    known: Option<(i64, Vec<String>, Vec<String>)>,
    since: Option<i64>,
    level: usize,
    reached: usize,
}

struct Simulation<'s> {
    settings: &'s Settings,
    alerts: Vec<Alert>,
    groups: Vec<Group>,
    /// Id, severity, from, until.
    silences: Vec<(String, String, i64, i64)>,
    lines: Vec<String>,
}

impl Simulation<'_> {
    fn group_name(&self, alert: &Alert) -> String {
        if self.settings.by_service { alert.labels[0].clone() } else { String::new() }
    }

    fn change(&mut self, place: usize, now: i64) {
        let Some(changes) = self.settings.flapping else { return };
        let alert = &mut self.alerts[place];
        alert.changes.push(now);
        let recent = alert.changes.iter().filter(|&&at| now - at <= 40).count();
        alert.flapping |= recent >= changes;
    }

    fn row(&mut self, event: &Event) {
        let now = event.at;
        let labels = ["service", "severity", "zone"].map(|label| event.word(label).unwrap_or_default().to_owned());
        let place = self.alerts.iter().position(|alert| alert.labels == labels);
        let second = |word| event.time(word).map(|ms| ms / 1000);
        let starts = second("starts").map_or(now, |starts| starts.min(now));
        let latest = now + self.settings.timeout;
        let told = second("ends").filter(|ends| *ends <= latest);
        let ends = told.unwrap_or(latest);
        if event.what == "resolves" || ends <= now {
            let Some(place) = place else { return };
            let at = told.unwrap_or(now).min(now);
            let alert = &mut self.alerts[place];
            if !alert.over {
                alert.ends = at.max(alert.starts);
                alert.over = true;
                self.change(place, now);
            } else if alert.grouped && told.is_some() {
                alert.ends = alert.ends.max(at).max(alert.starts);
            }
            return;
        }
        let place = match place {
            Some(place) if !self.alerts[place].over => {
                let alert = &mut self.alerts[place];
                alert.starts = alert.starts.min(starts);
                if alert.timeout || ends >= alert.ends {
                    (alert.ends, alert.timeout) = (ends, told.is_none());
                }
                place
            }
            _ => {
                let place = place.unwrap_or_else(|| {
                    let (over, timeout, acknowledged, grouped, flapping) = (true, true, false, false, false);
                    let changes = Vec::new();
                    self.alerts.push(Alert {
                        labels,
                        starts: 0,
                        ends: 0,
                        timeout,
                        over,
                        acknowledged,
                        grouped,
                        changes,
                        flapping,
                    });
                    self.alerts.len() - 1
                });
                let alert = &mut self.alerts[place];
                if !(alert.grouped && alert.starts < starts && starts < alert.ends) {
                    alert.starts = starts;
                }
                (alert.ends, alert.timeout, alert.over, alert.grouped) = (ends, told.is_none(), false, true);
                alert.acknowledged &= alert.flapping;
                self.change(place, now);
                place
            }
        };
        let name = self.group_name(&self.alerts[place]);
        if !self.groups.iter().any(|group| group.name == name) {
            let next = now + self.settings.wait;
            let group = Group { name: name.clone(), next, looked: false, known: None, since: None, level: 0, reached: 0 };
            self.groups.push(group);
        }
        let group = self.groups.iter_mut().find(|group| group.name == name).unwrap();
        if !group.looked && self.alerts[place].starts + self.settings.wait < now {
            group.next = now;
        }
    }

    fn act(&mut self, event: &Event) {
        let severity = event.word("matchers").unwrap_or_default().replace("severity=", "");
        match event.what.as_str() {
            "acknowledge" => {
                let meant = |alert: &&mut Alert| alert.fires() && alert.labels[1] == severity;
                self.alerts.iter_mut().filter(meant).for_each(|alert| alert.acknowledged = true);
                // Where nothing is meant, nothing is looked at.
                let meant: Vec<String> = self.alerts.iter().filter(|alert| alert.fires() && alert.labels[1] == severity).map(|alert| self.group_name(alert)).collect();
                meant.iter().for_each(|name| self.settle(name));
            }
            "expire" => self.silences.retain(|(id, ..)| id != event.word("id").unwrap()),
            _ => {
                let id = event.word("id").unwrap().to_owned();
                let from = event.time("starts").map_or(event.at, |ms| ms / 1000);
                let until = event.time("ends").unwrap() / 1000;
                if until > from.max(event.at) {
                    self.silences.retain(|(other, ..)| *other != id);
                    self.silences.push((id, severity, from, until));
                }
            }
        }
    }

    fn members(&self, name: &str) -> Vec<Alert> {
        let mut members: Vec<Alert> = self.alerts.iter().filter(|alert| alert.grouped && self.group_name(alert) == name).cloned().collect();
        members.sort_by_key(|alert| alert.labels.clone());
        members
    }

    fn left_out(&self, alert: &Alert, now: i64) -> bool {
        let [service, severity, zone] = &alert.labels;
        // The rule's target matches all; what is critical matches both sides, and so does each source.
        let inhibits = |other: &Alert| {
            other.fires() && other.labels[1] == "critical" && (&other.labels[0], &other.labels[2]) == (service, zone)
        };
        let inhibited = self.settings.inhibit && severity == "warning" && self.alerts.iter().any(inhibits);
        let muted = self.settings.mute && (60..120).contains(&(now % 86_400));
        let silenced = self.silences.iter().any(|(_, of, from, until)| of == severity && (*from..*until).contains(&now));
        inhibited || muted || silenced
    }

    fn say(&mut self, now: i64, to: &str, why: &str, firing: &[Alert], over: &[Alert]) {
        let mut all: Vec<(&[String; 3], String)> = firing.iter().map(|alert| (&alert.labels, format!(" +{}", alert.name()))).collect();
        all.extend(over.iter().map(|alert| (&alert.labels, format!(" -{}", alert.name()))));
        let alerts: String = all.into_iter().map(|(_, alert)| alert).collect();
        self.lines.push(format!("{now} {to} {why}{alerts}"));
    }

    fn look(&mut self, name: &str, now: i64) {
        let settings = self.settings;
        let place = self.groups.iter().position(|group| group.name == name).unwrap();
        let mut group = self.groups[place].clone();
        if !self.waits(&group) {
            (group.since, group.level) = (None, 0);
        }
        let (shown, hidden): (Vec<Alert>, Vec<Alert>) = self.members(name).into_iter().partition(|alert| !self.left_out(alert, now));
        let (firing, over): (Vec<Alert>, Vec<Alert>) = shown.into_iter().partition(Alert::fires);
        let names = |alerts: &[Alert]| alerts.iter().map(Alert::name).collect::<Vec<_>>();
        let within = |some: &[String], all: &[String]| some.iter().all(|one| all.contains(one));
        let open = firing.iter().any(|alert| !alert.acknowledged);
        let why = match &group.known {
            None if firing.is_empty() => None,
            None => Some("new"),
            Some((_, known, _)) if !within(&names(&firing), known) => Some(if known.is_empty() { "new" } else { "changed" }),
            Some((_, known, _)) if firing.is_empty() => (!over.is_empty() && !known.is_empty()).then_some("resolved"),
            Some((.., known)) if settings.send_resolved && !within(&names(&over), known) => Some("changed"),
            Some((at, ..)) if open && at + settings.repeat <= now => Some("repeated"),
            Some(_) => None,
        };
        if let Some(why) = why {
            group.known = Some((now, names(&firing), names(&over)));
            let told = if settings.send_resolved { over.clone() } else { Vec::new() };
            if !firing.is_empty() || !told.is_empty() {
                self.say(now, "default", why, &firing, &told);
                for level in (0..group.reached).filter(|_| why == "resolved") {
                    self.say(now, &format!("level{level}"), why, &firing, &told);
                }
            }
            if why == "resolved" {
                group.reached = 0;
            }
        }
        if open && group.since.is_none() {
            (group.since, group.level) = (Some(now), 0);
        }
        for gone in hidden.iter().filter(|alert| !alert.fires()) {
            if let Some((_, firing, _)) = &mut group.known {
                firing.retain(|name| *name != gone.name());
            }
        }
        (group.looked, group.next) = (true, now + settings.interval);
        self.groups[place] = group;
        for place in 0..self.alerts.len() {
            if self.alerts[place].grouped && self.group_name(&self.alerts[place]) == name && !self.alerts[place].fires() {
                self.alerts[place].grouped = false;
            }
        }
        if self.members(name).is_empty() {
            self.groups.remove(place);
            return;
        }
        self.settle(name);
        self.escalate(name, now);
    }

    /// Whether something that was told fires, and nobody has acknowledged it.
    fn waits(&self, group: &Group) -> bool {
        let told = |alert: &Alert| group.known.as_ref().is_some_and(|(_, firing, _)| firing.contains(&alert.name()));
        self.members(&group.name).iter().any(|alert| alert.fires() && !alert.acknowledged && told(alert))
    }

    fn settle(&mut self, name: &str) {
        let waits = self.groups.iter().find(|group| group.name == name).is_some_and(|group| self.waits(group));
        let group = self.groups.iter_mut().find(|group| group.name == name);
        if let Some(group) = group.filter(|_| !waits) {
            (group.since, group.level) = (None, 0);
        }
    }

    fn escalate(&mut self, name: &str, now: i64) {
        loop {
            let place = self.groups.iter().position(|group| group.name == name).unwrap();
            let group = self.groups[place].clone();
            let (Some(since), Some(after)) = (group.since, self.settings.escalate.get(group.level)) else { return };
            if since + after > now {
                return;
            }
            let shown = self.members(name).into_iter().filter(|alert| !self.left_out(alert, now));
            let told = |alert: &Alert| group.known.as_ref().is_some_and(|(_, firing, _)| firing.contains(&alert.name()));
            let open: Vec<Alert> = shown.filter(|alert| alert.fires() && !alert.acknowledged && told(alert)).collect();
            if open.is_empty() {
                return self.settle(name);
            }
            self.say(now, &format!("level{}", group.level), "escalated", &open, &[]);
            self.groups[place].level += 1;
            self.groups[place].reached = group.reached.max(group.level + 1);
        }
    }

    fn second(&mut self, now: i64, events: &[Event]) {
        for what in ["fires", "resolves"] {
            events.iter().filter(|event| event.at == now && event.what == what).for_each(|event| self.row(event));
        }
        events.iter().filter(|event| event.at == now && event.is_action()).for_each(|event| self.act(event));
        for place in 0..self.alerts.len() {
            if !self.alerts[place].over && self.alerts[place].ends <= now {
                self.alerts[place].over = true;
                self.change(place, now);
            }
            let alert = &mut self.alerts[place];
            if alert.flapping && alert.changes.last().is_some_and(|last| last + 15 <= now) {
                alert.flapping = false;
                alert.changes.clear();
            }
        }
        self.alerts.retain(|alert| alert.grouped || alert.fires() || alert.changes.last().is_some_and(|last| last + 40 > now));
        let mut names: Vec<String> = self.groups.iter().map(|group| group.name.clone()).collect();
        names.sort();
        for name in &names {
            if self.groups.iter().any(|group| group.name == *name && group.next == now) {
                self.look(name, now);
            }
        }
        for name in &names {
            let group = self.groups.iter().find(|group| group.name == *name);
            let due = group.and_then(|group| Some(group.since? + self.settings.escalate.get(group.level)?));
            if due == Some(now) {
                self.escalate(name, now);
            }
        }
    }
}

fn simulate(settings: &Settings, events: &[Event]) -> Vec<String> {
    let (alerts, groups, silences, lines) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut simulation = Simulation { settings, alerts, groups, silences, lines };
    let last = events.iter().map(|event| event.at).max().unwrap_or_default();
    // Until the last timeout is over, and was looked at.
    for now in 0..=last + settings.timeout + settings.interval + 60 {
        simulation.second(now, events);
    }
    assert!(simulation.groups.is_empty());
    simulation.lines.sort();
    simulation.lines
}

fn settings_of() -> impl Strategy<Value = Settings> {
    let times = (select(vec![0, 5, 10]), select(vec![7, 20]), select(vec![15, 40]), select(vec![30, 60]));
    let escalate = select(vec![vec![], vec![10], vec![6, 25]]);
    let flapping = select(vec![None, None, Some(2), Some(4)]);
    (any::<[bool; 4]>(), times, flapping, escalate).prop_map(|(flags, times, flapping, escalate)| Settings {
        by_service: flags[0],
        wait: times.0,
        interval: times.1,
        repeat: times.2,
        timeout: times.3,
        send_resolved: flags[1],
        inhibit: flags[2],
        mute: flags[3],
        flapping,
        escalate,
    })
}

fn history_of() -> impl Strategy<Value = Vec<Event>> {
    let what = prop_oneof![5 => Just("fires"), 3 => Just("resolves")];
    let labels = (select(vec!["a", "b"]), select(vec!["critical", "warning"]), select(vec!["", "z"]));
    let starts = prop_oneof![4 => Just(None), 1 => (0i64..30).prop_map(Some)];
    let ends = prop_oneof![3 => Just(None), 1 => (-8i64..50).prop_map(Some)];
    let row = (0i64..160, what, labels, starts, ends).prop_map(|(at, what, (service, severity, zone), starts, ends)| {
        let mut line = format!("{at} {what} service={service} severity={severity}");
        if !zone.is_empty() {
            line += &format!(" zone={zone}");
        }
        if let Some(before) = starts {
            line += &format!(" starts={}", at - before);
        }
        if let Some(behind) = ends {
            line += &format!(" ends={}", at + behind);
        }
        Event::of(&line)
    });
    let act = select(vec!["acknowledge", "silence", "silence", "expire"]);
    let act = (0i64..160, act, select(vec!["critical", "warning"]), select(vec!["s", "t"]), 0i64..30, -5i64..60).prop_map(
        |(at, what, severity, id, starts, ends)| {
            let line = match what {
                "acknowledge" => format!("{at} acknowledge matchers=severity={severity} by=ann"),
                "expire" => format!("{at} expire id={id}"),
                _ => format!("{at} silence id={id} matchers=severity={severity} starts={} ends={}", at - 10 + starts, at + ends),
            };
            Event::of(&line)
        },
    );
    (proptest::collection::vec(row, 1..40), proptest::collection::vec(act, 0..6)).prop_map(|(rows, acts)| {
        let mut events: Vec<Event> = Vec::new();
        // Rows that say different things of an alert in an instant, and actions of an instant, are taken in the order of
        // their content, which is not what is looked at here.
        for event in rows.into_iter().chain(acts) {
            let same = |other: &Event| {
                other.at == event.at
                    && other.is_action() == event.is_action()
                    && (event.is_action()
                        || other.what == event.what && ["service", "severity", "zone"].iter().all(|label| other.word(label) == event.word(label)))
            };
            if !events.iter().any(same) {
                events.push(event);
            }
        }
        events.sort_by_key(|event| event.at);
        events
    })
}

/// Rows a little out of order, in epochs of any length, each with the greatest watermark that makes nothing late.
fn cut(events: &[Event], jitter: &[i64], cuts: &[bool]) -> Story {
    let mut arrived: Vec<(i64, &Event)> = events.iter().zip(jitter.iter().cycle()).map(|(event, late)| (event.at + late, event)).collect();
    arrived.sort_by_key(|(at, _)| *at);
    let mut story = Story::default();
    let mut part: Vec<Event> = Vec::new();
    for (index, (_, event)) in arrived.iter().enumerate() {
        part.push((*event).clone());
        if cuts[index % cuts.len()] {
            let rest = arrived[index + 1..].iter().map(|(_, event)| 1000 * event.at).min();
            story.epochs.push(epoch(&part, rest.map_or(EventTime::MIN, EventTime)));
            part.clear();
        }
    }
    story.epochs.push(epoch(&part, EventTime::MAX));
    story
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn the_step_tells_what_a_simulation_does(
        settings in settings_of(),
        events in history_of(),
        jitter in proptest::collection::vec(0i64..25, 1..40),
        cuts in proptest::collection::vec(prop::bool::weighted(0.5), 1..20),
    ) {
        let step = step(&settings.json());
        let inputs = schemas();
        let told = run(&step, &inputs, &whole(&events), 1, usize::MAX, &[]);
        let said = read(&told.rows);
        let mut lines: Vec<String> = said.iter().filter(|said| said.record == "notification").map(line).collect();
        lines.sort();
        prop_assert_eq!(&lines, &simulate(&settings, &events));
        // Whatever is told, history too, is the same in any order of arrival, in any epochs, after restarts.
        let cut = check_contract(&step, &inputs, &cut(&events, &jitter, &cuts));
        prop_assert_eq!(cut.late.num_rows(), 0);
        prop_assert_eq!(cut.rows, told.rows);
    }

    #[test]
    fn storms_do_not_depend_on_epochs(
        events in history_of(),
        jitter in proptest::collection::vec(0i64..25, 1..40),
        cuts in proptest::collection::vec(prop::bool::weighted(0.5), 1..20),
        groups in 1usize..3,
    ) {
        let step = step(&json!({
            "group_by": ["..."], "group_wait": "3s", "group_interval": "7s", "repeat_interval": "30s", "resolve_timeout": "60s",
            "storm": { "groups": groups, "within": "20s" }, "escalate": [{ "after": "10s", "to": "lead" }],
        }));
        let inputs = schemas();
        let told = run(&step, &inputs, &whole(&events), 1, usize::MAX, &[]);
        prop_assert_eq!(check_contract(&step, &inputs, &cut(&events, &jitter, &cuts)), told);
    }
}
