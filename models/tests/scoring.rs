//! The reference model, run by the real runtime: same ids and scores as in Python, same bits whatever
//! shares the batch, clear errors. Needs `libonnxruntime.so` (`make setup`); fails without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use levada_models::{Model, ModelError};
use levada_types::{ScoreError, Scorer, ScorerFactory};
use serde::Deserialize;

fn manifest_path() -> PathBuf {
    // Tests run in the folder of their package.
    PathBuf::from("flights/disruption.json")
}

fn model() -> Model {
    Model::load(manifest_path()).unwrap_or_else(|error| panic!("{error}"))
}

/// One line of `flights/golden.json`, written by the training script.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    name: String,
    at: String,
    events: Vec<Departure>,
    ids: Vec<i64>,
    delay: f32,
    disrupted: f32,
}

/// A record of the topic `flights.departures`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the whole record is spelt out, so that a changed one is noticed")]
struct Departure {
    flight: String,
    carrier: String,
    origin: String,
    dest: String,
    tailnum: Option<String>,
    distance: i64,
    sched: String,
    at: String,
    delay_min: Option<f64>,
    cancelled: bool,
}

fn golden() -> Vec<Golden> {
    let path = Path::new("flights/golden.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("golden.json")
}

/// RFC 3339 to milliseconds, by arrow's own parser.
fn instants(texts: &[&str]) -> Vec<i64> {
    let texts = StringArray::from(texts.to_vec());
    let instants = cast(&texts, &DataType::Timestamp(TimeUnit::Millisecond, None)).expect("instants");
    let instants =
        instants.as_any().downcast_ref::<TimestampMillisecondArray>().expect("milliseconds").clone();
    instants.values().to_vec()
}

fn batch(events: &[Departure]) -> RecordBatch {
    let text =
        |get: fn(&Departure) -> &str| Arc::new(events.iter().map(|e| Some(get(e))).collect::<StringArray>());
    let at = instants(&events.iter().map(|e| e.at.as_str()).collect::<Vec<_>>());
    let at = TimestampMillisecondArray::from(at).with_timezone("UTC");
    let schema = Schema::new(vec![
        Field::new("carrier", DataType::Utf8, false),
        Field::new("origin", DataType::Utf8, false),
        Field::new("dest", DataType::Utf8, false),
        Field::new("distance", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        Field::new("delay_min", DataType::Float64, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            text(|e| &e.carrier),
            text(|e| &e.origin),
            text(|e| &e.dest),
            Arc::new(events.iter().map(|e| Some(e.distance)).collect::<Int64Array>()),
            Arc::new(at),
            Arc::new(events.iter().map(|e| e.delay_min).collect::<Float64Array>()),
        ],
    )
    .expect("a batch")
}

#[test]
fn events_become_the_ids_that_python_made() {
    let model = model();
    let tokenizer = model.tokenizer();
    for case in golden() {
        let events = tokenizer.events(&batch(&case.events)).expect("events");
        let ids = tokenizer.sequence(&events, instants(&[&case.at])[0], model.window());
        assert_eq!(ids, case.ids, "{}", case.name);
    }
}

#[test]
fn sequences_get_the_scores_that_python_gave() {
    let mut scorer = model().open().expect("a scorer");
    let cases = golden();
    assert!(cases.len() >= 5, "the golden file is thin");
    let sequences: Vec<_> = cases.iter().map(|case| case.ids.clone()).collect();
    let scores = scorer.score(&sequences).expect("scores");
    for (case, score) in cases.iter().zip(scores) {
        let [delay, disrupted] = score[..] else { panic!("two outputs") };
        // Minutes can be hundreds: a ten-thousandth of the size, at least of one minute.
        let off = (delay - case.delay).abs() / case.delay.abs().max(1.0);
        assert!(off < 1e-4, "{}: delay {delay}, Python {}", case.name, case.delay);
        assert!(
            (disrupted - case.disrupted).abs() < 1e-4,
            "{}: disrupted {disrupted}, Python {}",
            case.name,
            case.disrupted
        );
        assert!((0.0..=1.0).contains(&disrupted));
    }
}

/// A small generator (xorshift64*), so that the sequences are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// Random ids after a random padding.
    fn sequence(&mut self, window: usize, sizes: &[i64]) -> Vec<i64> {
        let padding = if self.below(2) == 0 { 0 } else { self.below(window as u64 + 1) as usize };
        let mut ids = vec![0; padding * sizes.len()];
        for _ in padding..window {
            ids.extend(sizes.iter().map(|size| 1 + self.below(*size as u64 - 1) as i64));
        }
        ids
    }
}

fn bits(score: &[f32]) -> Vec<u32> {
    score.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_score_depends_on_its_sequence_alone() {
    let model = model();
    let (sizes, batch) = (model.tokenizer().sizes(), model.manifest().batch);
    let mut random = Random(2013);
    let sequences: Vec<_> = (0..200).map(|_| random.sequence(model.window(), &sizes)).collect();

    let mut alone = model.session().expect("a session");
    let expected: Vec<_> = sequences
        .iter()
        .map(|sequence| bits(&alone.score(std::slice::from_ref(sequence)).expect("a score")[0]))
        .collect();
    assert!(expected.windows(2).any(|pair| pair[0] != pair[1]), "all scores are the same");

    // Every sequence in a random order and a request of random length, so in any slot with any
    // companions; each session in a thread of its own, one, then two at a time.
    let rounds = |seed: u64| {
        let mut session = model.session().expect("a session");
        let mut random = Random(seed);
        for _ in 0..2 {
            let mut order: Vec<usize> = (0..sequences.len()).collect();
            for last in (1..order.len()).rev() {
                order.swap(last, random.below(last as u64 + 1) as usize);
            }
            let mut rest = &order[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + random.below(20) as usize));
                let request: Vec<_> = now.iter().map(|index| sequences[*index].clone()).collect();
                let scores = session.score(&request).expect("scores");
                for (index, score) in now.iter().zip(scores) {
                    assert_eq!(bits(&score), expected[*index], "sequence {index} among {now:?}");
                }
                rest = later;
            }
        }
    };
    for threads in [1, 2] {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || rounds(10 * threads + thread));
            }
        });
    }

    // And one sequence in every slot of the batch.
    for slot in 0..batch {
        let mut request: Vec<_> = (0..batch).map(|_| random.sequence(model.window(), &sizes)).collect();
        request[slot].clone_from(&sequences[0]);
        assert_eq!(bits(&alone.score(&request).expect("scores")[slot]), expected[0], "slot {slot}");
    }
}

#[test]
fn a_wrong_sequence_is_refused() {
    let model = model();
    let mut scorer = model.open().expect("a scorer");
    let length = model.window() * model.fields().len();
    let refusal = |result: Result<_, ScoreError>| match result {
        Err(ScoreError::Run(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refusal(scorer.score(&[vec![0; length - 1]])).contains("ids, it must have"));
    let mut beyond = vec![0; length];
    beyond[1] = 1_000_000;
    assert!(refusal(scorer.score(&[beyond])).contains("the id 1000000 of the field `carrier` is not below"));
    assert!(refusal(scorer.score(&[vec![-1; length]])).contains("the id -1 of the field `delay`"));
    assert_eq!(scorer.score(&[]).expect("nothing asked"), Vec::<Vec<f32>>::new());
}

#[test]
fn a_changed_graph_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = folder.path().join("disruption.json");
    std::fs::copy(manifest_path(), &manifest).expect("copied");
    let missing = Model::load(&manifest).expect_err("no graph");
    assert!(
        matches!(&missing, ModelError::Read { path, .. } if path.ends_with("disruption.onnx")),
        "{missing}"
    );
    std::fs::write(folder.path().join("disruption.onnx"), b"another").expect("written");
    let changed = Model::load(&manifest).expect_err("another graph");
    assert!(changed.to_string().contains("must come from the same training run"), "{changed}");
}

/// In a process of its own, because a process that has the library keeps it.
#[test]
fn a_missing_library_is_a_clear_error() {
    let nothing = tempfile::tempdir().expect("a folder");
    let text = nothing.path().join("text.so");
    std::fs::write(&text, "not a library").expect("written");
    for (path, reason) in [(nothing.path().join("absent.so"), "No such file"), (text, "text.so")] {
        let run = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_without_a_library", "--ignored", "--nocapture"])
            .env("ORT_DYLIB_PATH", &path)
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{said}");
        let line = said
            .lines()
            .find(|line| line.contains("ONNX Runtime library"))
            .unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(&*path.to_string_lossy()) && line.contains(reason), "{line}");
        assert!(line.contains("run `make setup`"), "{line}");
    }
}

#[test]
#[ignore = "run by a_missing_library_is_a_clear_error"]
fn child_without_a_library() {
    let error = ScoreError::from(Model::load(manifest_path()).expect_err("there is no library"));
    println!("\n{error}");
}
