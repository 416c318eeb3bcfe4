//! A model of texts: what it finds alike is linked, whatever the words, workers and restarts; and what is wrong with one is said.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use levada_types::{ScoreError, Scorer, ScorerFactory, TextTokenizer, TokenField};

use super::*;
use crate::harness::plan_with;

/// A model that knows some words and what they are about: a number of its vector each. It counts the texts that it has scored.
struct Words {
    texts: bool,
    version: &'static str,
    scored: Arc<AtomicUsize>,
}

const ABOUT: [&[&str]; 4] = [&["disk", "volume"], &["full", "exhausted"], &["login", "signin"], &["denied", "refused"]];

impl ScorerFactory for Words {
    fn open(&self) -> Result<Box<dyn Scorer>, ScoreError> {
        Ok(Box::new(Scored(self.scored.clone())))
    }
    fn version(&self) -> &str {
        self.version
    }
    fn window(&self) -> usize {
        ABOUT.len()
    }
    fn fields(&self) -> &[TokenField] {
        &[]
    }
    fn outputs(&self) -> &[String] {
        &[]
    }
    fn texts(&self) -> Option<&dyn TextTokenizer> {
        self.texts.then_some(self)
    }
}

impl TextTokenizer for Words {
    fn ids(&self, text: &str) -> Vec<i64> {
        ABOUT.iter().map(|words| i64::from(text.split(' ').any(|word| words.contains(&word)))).collect()
    }
}

struct Scored(Arc<AtomicUsize>);

impl Scorer for Scored {
    fn score(&mut self, texts: &[Vec<i64>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        self.0.fetch_add(texts.len(), Relaxed);
        Ok(texts.iter().map(|ids| ids.iter().map(|&id| id as f32).collect()).collect())
    }
}

fn model(scored: &Arc<AtomicUsize>) -> Arc<dyn ScorerFactory> {
    Arc::new(Words { texts: true, version: "words-1", scored: scored.clone() })
}

fn alike(sentences: Option<&str>) -> serde_json::Value {
    json!({
        "text": "text", "sentences": sentences, "min_events": 2,
        "link": [{ "name": "alike", "similarity": 0.8, "within": "30s" }],
    })
}

fn said(time: i64, id: usize, text: &str) -> Event {
    let service = format!("s{}", id % 3);
    Event { time, id: format!("e{id}"), service, host: None, category: "x", text: text.into(), severity: 1 }
}

/// Alerts about three things, by different words, every second.
fn alerts() -> Vec<Event> {
    let texts = ["disk full", "login refused here", "volume exhausted now", "something else", "signin denied", "volume full"];
    (0..60).map(|number| said(number as i64 * 2, number, texts[number % 6])).collect()
}

fn story(events: &[Event]) -> Story {
    let parts = events.chunks(7).map(|part| {
        let last = part.last().unwrap().time * 1000;
        (vec![vec![batch(part)], Vec::new()], EventTime(last))
    });
    let mut epochs: Vec<_> = parts.collect();
    epochs.push((vec![Vec::new(), Vec::new()], EventTime::MAX));
    Story { epochs }
}

#[test]
fn texts_without_a_common_word_are_linked_by_a_model_and_not_without() {
    let opened = |texts: &[&str], sentences: Option<&str>| {
        let scored = Arc::default();
        let step = plan_with(&spec(alike(sentences)), &schemas(), &|_| Ok(model(&scored)));
        let events: Vec<Event> = (0..).zip(texts).map(|(number, text)| said(number as i64, number, text)).collect();
        let told = run(&step, &schemas(), &story(&events), 1, 100, &[]);
        rows(&told.rows).into_iter().filter(|row| row.kind == "opened").map(|row| row.members).collect::<Vec<_>>()
    };
    let texts = ["disk full", "volume exhausted", "signin denied", "disk login"];
    assert_eq!(opened(&texts, Some("words.json")), [["e0", "e1"]]);
    assert!(opened(&texts, None).is_empty());
    // What means nothing is like nothing.
    assert!(opened(&["what", "what"], Some("words.json")).is_empty());
}

#[test]
fn workers_batches_and_restarts_change_nothing_and_equal_texts_are_scored_once() {
    let scored = Arc::default();
    let step = plan_with(&spec(alike(Some("words.json"))), &schemas(), &|_| Ok(model(&scored)));
    let told = run(&step, &schemas(), &story(&alerts()), 1, 100, &[]);
    assert_eq!(scored.load(Relaxed), 6);
    let opened = rows(&told.rows).iter().filter(|row| row.kind == "opened").count();
    assert_eq!(opened, 2, "disks and logins");
    for (workers, piece, restarts) in
        [(2, 1, &[][..]), (4, 3, &[]), (1, 100, &[(1, 2), (4, 1)]), (2, 5, &[(0, 4), (2, 1), (5, 2)])]
    {
        assert_eq!(run(&step, &schemas(), &story(&alerts()), workers, piece, restarts).rows, told.rows);
    }
}

#[test]
fn what_another_model_remembers_is_refused() {
    let scored = Arc::default();
    let of = |version| -> Weigh {
        let open = |_: &str| -> Result<Arc<dyn ScorerFactory>, ScoreError> {
            Ok(Arc::new(Words { texts: true, version, scored: Arc::clone(&scored) }))
        };
        let mut cx = PlanContext { models: &open, problems: Vec::new() };
        Weigh::new(settings::checked(&spec(alike(Some("words.json"))), &schemas(), &mut cx).unwrap())
    };
    let mut before = of("words-1");
    epoch(&mut before, &alerts(), i64::MIN / 1000, 30);
    let mut state = StateChanges::default();
    before.checkpoint(&mut state).unwrap();
    of("words-1").restore(state.clone()).unwrap();
    let refused = of("words-2").restore(state).unwrap_err().to_string();
    assert!(refused.contains("the model words-1 made vectors of their texts"), "{refused}");
}

#[test]
fn what_is_wrong_with_a_model_is_said() {
    let problems = |extra: serde_json::Value, open: &dyn Fn(&str) -> Result<Arc<dyn ScorerFactory>, ScoreError>| {
        let mut cx = PlanContext { models: open, problems: Vec::new() };
        let planned = spec(extra).plan(&schemas(), &mut cx);
        assert!(planned.is_none());
        cx.problems.into_iter().map(|problem| (problem.path.join("."), problem.message)).collect::<Vec<_>>()
    };
    let missing = |path: &str| Err(ScoreError::Load { what: path.into(), reason: "no such file".into() });
    let said = problems(alike(Some("no.json")), &missing);
    assert_eq!(said, [("sentences".to_string(), "failed to load no.json: no such file".to_string())]);
    let events = |_: &str| -> Result<Arc<dyn ScorerFactory>, ScoreError> {
        Ok(Arc::new(Words { texts: false, version: "events", scored: Arc::default() }))
    };
    let said = problems(alike(Some("flights.json")), &events);
    assert!(said[0].1.starts_with("`flights.json` is a model of events"), "{said:?}");
    let scored = Arc::default();
    let right = |_: &str| Ok(model(&scored));
    let said = problems(json!({ "sentences": "words.json" }), &right);
    let paths: Vec<&str> = said.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["sentences", "sentences"]);
}
