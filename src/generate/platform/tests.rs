use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::words::THEMES;
use super::*;
use crate::generate::setting::Length;

fn lines(setting: &Setting) -> [Vec<String>; 3] {
    let mut lines = [Vec::new(), Vec::new(), Vec::new()];
    for record in Platform::new(setting).unwrap() {
        lines[record.topic].push(String::from_utf8(record.event.value).unwrap());
    }
    lines
}

/// What was told, with its label.
struct Alert {
    id: String,
    at: i64,
    service: String,
    category: String,
    severity: u64,
    codes: Vec<String>,
    incident: Option<String>,
}

fn codes(text: &str) -> Vec<String> {
    let words = text.split(' ').map(|word| word.trim_matches(['(', ')', ',']));
    words.filter(|word| THEMES.iter().any(|theme| theme.has(word))).map(String::from).collect()
}

fn alerts([events, _, labels]: &[Vec<String>; 3]) -> Vec<Alert> {
    let mut label: HashMap<String, Option<String>> = HashMap::new();
    for line in labels {
        let told: Value = serde_json::from_str(line).unwrap();
        assert_eq!(told.as_object().unwrap().len(), 2);
        let incident = told["incident"].as_str().map(String::from);
        assert!(label.insert(told["id"].as_str().unwrap().into(), incident).is_none(), "{line} again");
    }
    let alert = |line: &String| {
        let told: Value = serde_json::from_str(line).unwrap();
        assert_eq!(told.as_object().unwrap().len(), 8);
        let text = |field: &str| told[field].as_str().unwrap().to_owned();
        let id = text("id");
        let incident = label.remove(&id).unwrap();
        Alert {
            at: told["at"].as_i64().unwrap(),
            service: text("service"),
            category: text("category"),
            severity: told["severity"].as_u64().unwrap(),
            codes: codes(told["text"].as_str().unwrap()),
            incident,
            id,
        }
    };
    let alerts = events.iter().map(alert).collect();
    assert!(label.is_empty(), "a label of no event");
    alerts
}

fn by_incident(alerts: &[Alert]) -> BTreeMap<&str, Vec<&Alert>> {
    let mut incidents: BTreeMap<&str, Vec<&Alert>> = BTreeMap::new();
    for alert in alerts {
        if let Some(incident) = &alert.incident {
            incidents.entry(incident).or_default().push(alert);
        }
    }
    incidents
}

#[test]
fn the_same_seed_gives_the_same_bytes_however_many_are_asked_for() {
    let of = |seed, events| lines(&Setting::events(seed, Difficulty::Hard, events));
    let whole = of(7, 5_000);
    assert_eq!(whole, of(7, 5_000));
    assert_ne!(whole[0], of(8, 5_000)[0]);
    let begin = of(7, 1_234);
    for topic in [0, 2] {
        assert_eq!(begin[topic].len(), 1_234);
        assert_eq!(begin[topic], whole[topic][..1_234], "a shorter stream is the beginning of a longer one");
    }
    let digest = Sha256::digest(of(1, 2_000).map(|lines| lines.join("\n")).join("\n"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        digest, "9b124f91ff8345f475bc74dad0bd868145a7dceb9f6abf33b52d0ba221461989",
        "on every machine"
    );
}

#[test]
fn every_event_has_a_label_and_none_is_further_behind_than_stated() {
    for difficulty in [Difficulty::Easy, Difficulty::Normal, Difficulty::Hard] {
        let alerts = alerts(&lines(&Setting::events(3, difficulty, 20_000)));
        assert_eq!(alerts.len(), 20_000);
        let (mut newest, mut most_behind, mut last_id) = (0, 0, "");
        for alert in &alerts {
            newest = newest.max(alert.at);
            most_behind = most_behind.max(newest - alert.at);
            assert!(alert.id.as_str() > last_id && (1..=5).contains(&alert.severity));
            last_id = &alert.id;
        }
        assert!(most_behind <= OUT_OF_ORDER_MS as i64 && most_behind > 10_000, "{most_behind}");
    }
}

#[test]
fn a_time_bounds_the_stream_as_a_number_does() {
    let hour = Setting { length: Length::Time(3_600_000), ..Setting::events(3, Difficulty::Hard, 1) };
    let [events, ..] = lines(&hour);
    assert!((3_000..4_200).contains(&events.len()), "{}", events.len());
    let longer = lines(&Setting::events(3, Difficulty::Hard, 5_000));
    let shared = events.iter().zip(&longer[0]).take_while(|(one, other)| one == other).count();
    // Up to the bound before the end, when less is on its way.
    assert!(shared + 40 > events.len(), "{shared} of {}", events.len());
    let last = alerts(&lines(&hour)).iter().map(|alert| alert.at).max().unwrap();
    assert!(last < crate::generate::BEGIN_MS + 3_600_000);
}

/// The services of an incident are one on which the others depend, over others of the incident, by the topology as
/// it was told until the incident began.
#[test]
fn an_incident_follows_the_topology() {
    let lines = lines(&Setting::events(11, Difficulty::Hard, 60_000));
    let alerts = alerts(&lines);
    let topology: Vec<Value> = lines[1].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(topology.last().unwrap()["linked"].is_boolean());
    let ended = alerts.last().unwrap().at - 600_000;
    let mut seen = [0, 0];
    for (incident, told) in by_incident(&alerts) {
        let first = told.iter().map(|alert| alert.at).min().unwrap();
        if first > ended {
            continue;
        }
        let services: BTreeSet<&str> = told.iter().map(|alert| alert.service.as_str()).collect();
        assert!((2..=cascade::MOST_SERVICES).contains(&services.len()), "{incident}: {services:?}");
        let mut links: BTreeSet<(&str, &str)> = BTreeSet::new();
        for change in topology.iter().take_while(|change| change["at"].as_i64().unwrap() <= first) {
            let link = (change["service"].as_str().unwrap(), change["depends_on"].as_str().unwrap());
            if change["linked"] == true {
                links.insert(link)
            } else {
                links.remove(&link)
            };
        }
        let reaches_all = |root: &&&str| {
            let mut reached = BTreeSet::from([**root]);
            loop {
                let more: Vec<&str> = services
                    .iter()
                    .filter(|user| {
                        !reached.contains(*user) && reached.iter().any(|on| links.contains(&(**user, *on)))
                    })
                    .copied()
                    .collect();
                if more.is_empty() {
                    return reached.len() == services.len();
                }
                reached.extend(more);
            }
        };
        // The root may have spoken late, after the graph changed: a few incidents are told by the links of then.
        seen[usize::from(services.iter().find(reaches_all).is_some())] += 1;
    }
    assert!(seen[1] > 900 && seen[0] * 100 < seen[1], "{seen:?}");
}

#[test]
fn hard_is_as_it_is_documented() {
    for seed in [21, 22] {
        let alerts = alerts(&lines(&Setting::events(seed, Difficulty::Hard, 60_000)));
        let noise =
            alerts.iter().filter(|alert| alert.incident.is_none()).count() as f64 / alerts.len() as f64;
        assert!((0.65..0.75).contains(&noise), "{noise}");
        let span = alerts.iter().map(|alert| alert.at).max().unwrap() - alerts[0].at;
        let rate = alerts.len() as f64 * 1000.0 / span as f64;
        assert!((0.93..1.07).contains(&rate), "{rate}");
        let incidents = by_incident(&alerts);
        let lasts = |told: &Vec<&Alert>| {
            let times = told.iter().map(|alert| alert.at);
            times.clone().max().unwrap() - times.min().unwrap()
        };
        let at_once = incidents.values().map(lasts).sum::<i64>() as f64 / span as f64;
        // Until the last event; that a service may go on to speak is some 50 s longer.
        assert!((2.8..4.2).contains(&at_once), "{at_once}");
        let each = alerts.len() as f64 * (1.0 - noise) / incidents.len() as f64;
        assert!((13.0..22.0).contains(&each), "{each}");
    }
}

/// How often an event is of an incident, by what it says in a field.
fn share_by<K: Ord>(alerts: &[Alert], key: impl Fn(&Alert) -> K) -> BTreeMap<K, f64> {
    let mut counts: BTreeMap<K, [f64; 2]> = BTreeMap::new();
    for alert in alerts {
        counts.entry(key(alert)).or_default()[usize::from(alert.incident.is_some())] += 1.0;
    }
    counts.into_iter().map(|(key, [noise, of])| (key, of / (noise + of))).collect()
}

#[test]
fn no_field_tells_an_incident_and_the_texts_of_one_have_something_in_common() {
    let alerts = alerts(&lines(&Setting::events(31, Difficulty::Hard, 100_000)));
    let bounds = |shares: BTreeMap<String, f64>, least: f64, most: f64| {
        assert!(shares.values().all(|share| (least..most).contains(share)), "{shares:?}");
    };
    bounds(share_by(&alerts, |alert| alert.severity.to_string()), 0.15, 0.5);
    bounds(share_by(&alerts, |alert| alert.category.clone()), 0.2, 0.4);
    bounds(share_by(&alerts, |alert| alert.service.clone()), 0.02, 0.75);
    bounds(share_by(&alerts, |alert| alert.codes.len().to_string()), 0.25, 0.35);
    let (mut names, mut elsewhere) = (0, 0);
    for told in by_incident(&alerts).values().filter(|told| told.len() >= 12) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        told.iter().flat_map(|alert| &alert.codes).for_each(|code| *counts.entry(code).or_default() += 1);
        assert!(counts.len() <= 1, "one code an incident: {counts:?}");
        names += usize::from(counts.values().any(|count| *count >= 2));
        elsewhere += usize::from(counts.is_empty());
    }
    assert!(names > 300 && elsewhere * 20 < names, "{names}, {elsewhere}");
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |setting: Setting| Platform::new(&setting).err().map(|error| error.to_string());
    let hard = Setting::events(1, Difficulty::Hard, 10);
    for (setting, says) in [
        (Setting { rate: Some(0.0), ..hard }, "a rate of 0: it is from 0.001 to 10000"),
        (Setting { noise: Some(1.0), ..hard }, "a share of noise of 1"),
        (Setting { overlap: Some(f64::NAN), ..hard }, "an overlap of NaN"),
        (Setting { overlap: Some(40.0), ..hard }, "an incident needs a rate of"),
    ] {
        let error = refused(setting).unwrap_or_default();
        assert!(error.contains(says), "{error}");
    }
    let quiet = Setting { noise: Some(0.0), ..hard };
    assert!(alerts(&lines(&quiet)).iter().all(|alert| alert.incident.is_some()));
}
